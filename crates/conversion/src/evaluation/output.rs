//! Tensors to a safetensors file, all or nothing.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use checkpoint::{Dtype, writer};
use mil_eval::TensorData;

use super::Tensors;
use super::error::Error;
use crate::draft::Draft;
use crate::proof::shown;

/// The key under which safetensors keeps what is no tensor.
const METADATA: &str = "__metadata__";

/// A safetensors file that is there once it is complete.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
}

impl OutputFile {
    /// Makes sure that the file can be written, before what goes into it is computed. Nothing of it stays on disk until then,
    /// so that no way of ending the program leaves anything.
    ///
    /// # Errors
    /// The path is a folder or a device, or nothing can be written beside it.
    pub fn create(path: &Path) -> Result<Self, Error> {
        check_replaceable(path)
            .and_then(|()| Draft::begin(path))
            .map_err(Error::io("write", path))?;
        Ok(OutputFile {
            path: path.to_owned(),
        })
    }

    /// Writes the tensors, floating-point numbers as F32, integers as I32, truth values as BOOL, and puts the file in place of
    /// what was there.
    ///
    /// # Errors
    /// A name is not allowed, or the system refuses.
    pub fn write(self, tensors: &Tensors) -> Result<(), Error> {
        if tensors.contains_key(METADATA) {
            return Err(Error::Name {
                name: shown(METADATA),
            });
        }
        let failed = Error::io("write", &self.path);
        self.fill(tensors).map_err(failed)
    }

    fn fill(&self, tensors: &Tensors) -> io::Result<()> {
        let described = tensors.iter().map(|(name, tensor)| {
            let shape = tensor.shape.iter().map(|&n| n as u64).collect();
            (name.clone(), dtype(&tensor.data), shape)
        });
        let (header, _) = writer::header(&described.collect::<Vec<_>>(), &BTreeMap::new());
        check_replaceable(&self.path)?;
        let draft = Draft::begin(&self.path)?;
        let mut out = BufWriter::new(draft.file());
        out.write_all(&header)?;
        for tensor in tensors.values() {
            write_elements(&mut out, &tensor.data)?;
        }
        out.flush()?;
        drop(out);
        draft.place()
    }
}

/// Renaming would put a file in the place of a device or a pipe as well.
fn check_replaceable(path: &Path) -> io::Result<()> {
    let kind = match path.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.file_name().is_some() => {
            return Ok(());
        }
        metadata => metadata?.file_type(),
    };
    match kind.is_file() || kind.is_symlink() && !path.is_dir() {
        true => Ok(()),
        false if path.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

fn dtype(data: &TensorData) -> Dtype {
    match data {
        TensorData::I32(_) => Dtype::I32,
        TensorData::Bool(_) => Dtype::Bool,
        _ => Dtype::F32,
    }
}

fn write_elements(out: &mut impl Write, data: &TensorData) -> io::Result<()> {
    match data {
        TensorData::F32(v) => v.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),
        TensorData::I32(v) => v.iter().try_for_each(|x| out.write_all(&x.to_le_bytes())),
        TensorData::Bool(v) => v.iter().try_for_each(|&x| out.write_all(&[u8::from(x)])),
        other => Err(io::Error::other(format!("{other:?} has no place in it"))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::super::TensorFile;
    use super::*;
    use mil_eval::Tensor;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        names.collect()
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.safetensors");
        fs::write(&path, "something older").unwrap();
        let tensors = Tensors::from([
            (
                "a".to_owned(),
                Tensor::f32(&[2, 1], vec![1.5, f32::NEG_INFINITY]),
            ),
            ("b".to_owned(), Tensor::bool(&[3], vec![true, false, true])),
            ("c".to_owned(), Tensor::i32(&[], vec![i32::MIN])),
            ("d".to_owned(), Tensor::f32(&[0, 4], vec![])),
        ]);
        OutputFile::create(&path).unwrap().write(&tensors).unwrap();
        assert_eq!(names(dir.path()), ["out.safetensors"]);
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
        assert_eq!(file.read(["a", "b", "c", "d", "e"]).unwrap(), tensors);
        assert_eq!(file.read(["b"]).unwrap().len(), 1);
    }

    #[test]
    fn what_is_not_written_leaves_everything_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.safetensors");
        fs::write(&path, "something older").unwrap();
        drop(OutputFile::create(&path).unwrap());
        let reserved = Tensors::from([(METADATA.to_owned(), Tensor::f32(&[1], vec![1.0]))]);
        let error = OutputFile::create(&path).unwrap().write(&reserved);
        assert!(matches!(error, Err(Error::Name { .. })));
        assert_eq!(names(dir.path()), ["out.safetensors"]);
        assert_eq!(fs::read(&path).unwrap(), b"something older");
        assert!(OutputFile::create(dir.path()).is_err());
        assert!(OutputFile::create(&dir.path().join("no/out.safetensors")).is_err());
    }
    #[test]
    fn links_are_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, mine) = (dir.path().join("out.safetensors"), dir.path().join("mine"));
        fs::write(&mine, "mine").unwrap();
        let guessed = format!(".out.safetensors.{}", std::process::id());
        for link in [guessed.as_str(), "out.safetensors"] {
            symlink(&mine, dir.path().join(link)).unwrap();
        }
        let tensors = Tensors::from([("a".to_owned(), Tensor::f32(&[1], vec![1.0]))]);
        OutputFile::create(&path).unwrap().write(&tensors).unwrap();
        assert_eq!(fs::read(&mine).unwrap(), b"mine");
        assert!(path.symlink_metadata().unwrap().is_file());
        assert!(dir.path().join(guessed).is_symlink());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&mine));
    }

    #[test]
    fn nothing_is_there_until_it_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let _file = OutputFile::create(&dir.path().join("out.safetensors")).unwrap();
        assert_eq!(names(dir.path()), [""; 0]);
    }

    #[test]
    fn only_files_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _listener = UnixListener::bind(&path).unwrap();
        assert!(OutputFile::create(&path).is_err());
        assert_eq!(names(dir.path()), ["socket"]);
    }
}
