//! What is compiled: a package, or several that become one pipeline.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use mlpackage::assembly::{Assembly, WEIGHTS_FOLDER, assemble};
use mlpackage::proto::model::Type;
use mlpackage::proto::{Model, ModelDescription};
use mlpackage::{MANIFEST_PATH, MODEL_PATH, ModelInfo, Package, carries_programs, check_links};

use super::new_files;
use crate::bundle::read_compiled;
use crate::error::Error;
use crate::metadata::is_place;
use crate::set::place::{COMPILED_ENDING, NewFile, Source as FileSource};

/// How programs refer to the folder of their model file.
const MODEL_FOLDER: &str = "@model_path/";

/// Where a compiled model comes from.
#[derive(Clone, Debug)]
pub(crate) enum Original {
    /// A package.
    Package(PathBuf),
    /// Packages that run one after the other, to become one pipeline.
    Packages(Vec<PathBuf>),
    /// What is compiled already.
    Compiled(PathBuf),
}

impl Original {
    /// Names of the packages.
    pub fn names(&self) -> Vec<String> {
        let name = |path: &PathBuf| file_name(path);
        match self {
            Original::Package(path) | Original::Compiled(path) => vec![name(path)],
            Original::Packages(paths) => paths.iter().map(name).collect(),
        }
    }
}

/// A model with all that is needed to compile it.
pub(crate) struct Opened {
    path: PathBuf,
    model: Model,
    bytes: Vec<u8>,
    /// Its blob files, by their path from the model's folder.
    blobs: BTreeMap<String, (PathBuf, u64)>,
    /// Of a package that was put together.
    manifest: Vec<u8>,
}

impl Opened {
    pub fn num_stages(&self) -> usize {
        match &self.model.r#type {
            Some(Type::Pipeline(pipeline)) => pipeline.models.len(),
            _ => 1,
        }
    }

    pub fn weight_bytes(&self) -> u64 {
        self.blobs.values().map(|(_, len)| len).sum()
    }

    /// The model's description.
    pub fn description(&self) -> ModelDescription {
        self.model.description.clone().unwrap_or_default()
    }

    /// The files of the compiled model, in the folder `name`.
    pub fn compiled_files(&self, name: &str) -> Result<Vec<NewFile>, Error> {
        let source = mlmodelc::Source {
            model: &self.model,
            bytes: &self.bytes,
            name: name.strip_suffix(COMPILED_ENDING).unwrap_or(name),
        };
        let refused = |e: mlmodelc::Error| Error::NotCompiled {
            path: self.path.clone(),
            source: Box::new(e),
        };
        let files = mlmodelc::compile(&source).map_err(refused)?;
        new_files(name, files, |reference| self.blob(reference))
    }

    /// The files of the package that was put together, in the folder `name`.
    pub fn package_files(&self, name: &str) -> Vec<NewFile> {
        let bytes = |path: &str, bytes: &[u8]| NewFile {
            path: format!("{name}/{path}"),
            source: FileSource::Bytes(bytes.to_vec()),
        };
        let mut files = vec![
            bytes(MANIFEST_PATH, &self.manifest),
            bytes(MODEL_PATH, &self.bytes),
        ];
        for (reference, (path, len_bytes)) in &self.blobs {
            let file = reference.rsplit('/').next().unwrap_or_default();
            files.push(NewFile {
                path: format!("{name}/{WEIGHTS_FOLDER}/{file}"),
                source: FileSource::File {
                    path: path.clone(),
                    len_bytes: *len_bytes,
                    // The compiler only reads it, and then it goes.
                    may_link: true,
                },
            });
        }
        files
    }

    fn blob(&self, reference: &str) -> Result<(PathBuf, u64), Error> {
        let found = self.blobs.get(reference).cloned();
        found.ok_or_else(|| {
            Error::Package(mlpackage::Error::Missing {
                path: self.path.join(reference),
            })
        })
    }
}

/// A package whose programs and blob records have been checked.
fn open(path: &Path) -> Result<Package, Error> {
    if path.is_dir() {
        check_links(path)?;
    }
    let package = Package::open(path)?;
    if !package.is_lossless() || !carries_programs(&package)? {
        return Err(Error::Newer {
            path: path.to_owned(),
        });
    }
    for stage in package.stages()? {
        stage.weights()?;
    }
    Ok(package)
}

fn blobs(package: &Package) -> Result<BTreeMap<String, (PathBuf, u64)>, Error> {
    let folder = package.model_path().parent().unwrap_or(Path::new(""));
    let mut blobs = BTreeMap::new();
    for stage in package.stages()? {
        for file in stage.weights()?.files() {
            let inside = file.path().strip_prefix(folder).unwrap_or(file.path());
            let reference = inside.to_string_lossy().into_owned();
            blobs.insert(reference, (file.path().to_owned(), file.len_bytes()));
        }
    }
    Ok(blobs)
}

/// A package to be compiled.
pub(crate) fn open_one(path: &Path) -> Result<Opened, Error> {
    let package = open(path)?;
    let read = |e| Error::io("read", package.model_path(), e);
    let bytes = fs::read(package.model_path()).map_err(read)?;
    let blobs = blobs(&package)?;
    Ok(Opened {
        path: path.to_owned(),
        model: package.into_model(),
        bytes,
        blobs,
        manifest: Vec::new(),
    })
}

/// Packages to be compiled as one pipeline.
pub(crate) fn open_all(paths: &[PathBuf]) -> Result<Opened, Error> {
    let mut models = Vec::with_capacity(paths.len());
    let mut files = Vec::with_capacity(paths.len());
    let mut info = ModelInfo::default();
    for (at, path) in paths.iter().enumerate() {
        let package = open(path)?;
        if at == 0 {
            info = of_whole(package.info(), paths.len());
        }
        files.push(blobs(&package)?);
        models.push(package.into_model());
    }
    let assembly = assemble(models, &info)?;
    let mut blobs = BTreeMap::new();
    for blob in &assembly.blobs {
        let reference = blob
            .reference
            .strip_prefix(MODEL_FOLDER)
            .unwrap_or(&blob.reference);
        let found = files.get(blob.model).and_then(|f| f.get(reference));
        let found = found.ok_or_else(|| mlpackage::Error::Missing {
            path: PathBuf::from(reference),
        })?;
        blobs.insert(format!("weights/{}", blob.name), found.clone());
    }
    let (manifest, bytes) = (assembly.manifest_bytes(), assembly.model_bytes()?);
    let Assembly { model, .. } = assembly;
    Ok(Opened {
        path: paths.first().cloned().unwrap_or_default(),
        bytes,
        model,
        blobs,
        manifest,
    })
}

/// What the first of several chunks says, as far as it is true of all of them together.
fn of_whole(mut info: ModelInfo, count: usize) -> ModelInfo {
    info.user_defined.retain(|key, _| !is_place(key));
    let (first, whole) = (
        format!("chunk 1 of {count}"),
        format!("a pipeline of {count} stages"),
    );
    info.short_description = info.short_description.replace(&first, &whole);
    info
}

/// The name of a package's folder without its ending, also where the path does not end in it.
pub(crate) fn stem(path: &Path) -> String {
    let name = file_name(path);
    let stem = name.strip_suffix(".mlpackage").map(str::to_owned);
    stem.unwrap_or(name)
}

fn file_name(path: &Path) -> String {
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().or(resolved.file_name());
    name.unwrap_or_default().to_string_lossy().into_owned()
}

/// Far more than a pipeline of 64 stages has.
const MAX_COMPILED_ENTRIES: usize = 10_000;
/// Folders within folders; the weights of a pipeline's stage are in the second.
const MAX_COMPILED_DEPTH: usize = 16;

/// A compiled model that is there, whoever compiled it.
pub(crate) struct Compiled {
    path: PathBuf,
    pub description: ModelDescription,
    pub stages: usize,
    pub weight_bytes: u64,
    /// Paths in the model's folder, with their lengths.
    files: Vec<(String, u64)>,
}

impl Compiled {
    pub fn open(path: &Path) -> Result<Self, Error> {
        check_links(path)?;
        let data = read_compiled(path)?;
        let files = list(path)?;
        let is_stage = |(file, _): &&(String, u64)| {
            file.matches('/').count() == 1 && file.ends_with("/model.mil")
        };
        let stages = if data.is_pipeline {
            files.iter().filter(is_stage).count()
        } else {
            1
        };
        Ok(Compiled {
            path: path.to_owned(),
            description: data.description,
            stages,
            weight_bytes: files
                .iter()
                .filter(|(f, _)| is_weight(f))
                .map(|(_, len)| len)
                .sum(),
            files,
        })
    }

    /// Its files, in the folder `name`. Weights may stay the same files: nobody changes those of a compiled model in place.
    pub fn files(&self, name: &str) -> Vec<NewFile> {
        let file = |(file, len_bytes): &(String, u64)| NewFile {
            path: format!("{name}/{file}"),
            source: FileSource::File {
                path: self.path.join(file),
                len_bytes: *len_bytes,
                may_link: is_weight(file),
            },
        };
        self.files.iter().map(file).collect()
    }
}

fn is_weight(file: &str) -> bool {
    file.starts_with("weights/") || file.contains("/weights/")
}

/// The files in a compiled model's folder, by their path from it, sorted. A link may stand for a file and for no folder: with
/// those, a few entries can make more paths than any walk comes to the end of.
fn list(model: &Path) -> Result<Vec<(String, u64)>, Error> {
    let mut files = Vec::new();
    let mut folders = vec![(model.to_owned(), String::new(), 0)];
    let mut entries = 0;
    while let Some((folder, prefix, depth)) = folders.pop() {
        let failed = |e| Error::io("read folder", &folder, e);
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let odd = |what: &str| Error::NotBundled {
                path: path.clone(),
                what: what.to_owned(),
                help: "compile its package again".to_owned(),
            };
            entries += 1;
            if entries > MAX_COMPILED_ENTRIES || depth > MAX_COMPILED_DEPTH {
                return Err(odd(
                    "there are too many files and folders for a compiled model",
                ));
            }
            let name = entry.file_name().into_string();
            let name = name.map_err(|_| odd("its name is no text"))?;
            let is_link = entry.file_type().map_err(failed)?.is_symlink();
            let metadata = fs::metadata(&path).map_err(|e| Error::io("open", &path, e))?;
            let inside = format!("{prefix}{name}");
            if metadata.is_file() {
                files.push((inside, metadata.len()));
            } else if metadata.is_dir() && is_link {
                return Err(odd("it is a symbolic link to a folder"));
            } else if metadata.is_dir() {
                folders.push((path, format!("{inside}/"), depth + 1));
            } else {
                return Err(odd("it is neither a file nor a folder"));
            }
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_and_links_to_files_are_listed() {
        let model = tempfile::tempdir().unwrap();
        fs::create_dir_all(model.path().join("model0/weights")).unwrap();
        fs::write(model.path().join("model0/weights/0-weight.bin"), "1234").unwrap();
        fs::write(model.path().join("coremldata.bin"), "").unwrap();
        symlink("coremldata.bin", model.path().join("link")).unwrap();
        let expected = [
            ("coremldata.bin", 0),
            ("link", 0),
            ("model0/weights/0-weight.bin", 4),
        ];
        let expected = expected.map(|(path, len)| (path.to_owned(), len));
        assert_eq!(list(model.path()).unwrap(), expected);
    }

    /// Two links a folder, each to the next one: 2^31 ways to the last.
    #[test]
    fn links_to_folders_are_refused() {
        let model = tempfile::tempdir().unwrap();
        for at in 0..32 {
            let folder = model.path().join(format!("d{at}"));
            fs::create_dir(&folder).unwrap();
            for link in ["a", "b"] {
                if at < 31 {
                    symlink(format!("../d{}", at + 1), folder.join(link)).unwrap();
                }
            }
        }
        check_links(model.path()).unwrap();
        let error = list(model.path()).unwrap_err();
        assert_eq!(error.class(), crate::Class::BadInput);
        assert!(error.to_string().contains("link to a folder"), "{error}");
    }

    #[test]
    fn what_no_compiled_model_has_is_refused() {
        let deep = tempfile::tempdir().unwrap();
        fs::create_dir_all(deep.path().join("a/".repeat(2 * MAX_COMPILED_DEPTH))).unwrap();
        let many = tempfile::tempdir().unwrap();
        for at in 0..=MAX_COMPILED_ENTRIES {
            fs::create_dir(many.path().join(at.to_string())).unwrap();
        }
        for model in [deep, many] {
            let error = list(model.path()).unwrap_err();
            assert!(error.to_string().contains("too many"), "{error}");
        }
    }
}
