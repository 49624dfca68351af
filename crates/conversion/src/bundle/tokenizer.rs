//! The tokenizer's files, and where a checkpoint has them.

use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use crate::error::Error;
use crate::set::place::{NewFile, Source, TOKENIZER_FILES};
use crate::set::record::Record;

/// The folder of a checkpoint in diffusers' layout that holds them.
const FOLDER: &str = "tokenizer";
/// Far above the megabyte that the vocabulary of CLIP is.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The files, from the folder given or one where a checkpoint would have them; none if there are none.
pub fn find(dir: &Path, given: Option<&Path>) -> Result<Vec<NewFile>, Error> {
    if let Some(given) = given {
        let folders = [given.to_owned(), given.join(FOLDER)];
        let folder = folders.into_iter().find(|f| has_files(f));
        let folder =
            folder.ok_or_else(|| refused(given, "it holds no `vocab.json` with `merges.txt`"))?;
        return read(&folder);
    }
    match candidates(dir).into_iter().find(|f| has_files(f)) {
        Some(folder) => read(&folder),
        None => Ok(Vec::new()),
    }
}

fn has_files(folder: &Path) -> bool {
    TOKENIZER_FILES
        .iter()
        .all(|name| folder.join(name).is_file())
}

/// The folder itself, and the checkpoints that its record names, where they lie beside it or in the current folder.
fn candidates(dir: &Path) -> Vec<PathBuf> {
    let mut folders = vec![dir.to_owned(), dir.join(FOLDER)];
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    for name in sources(dir) {
        let beside = absolute.parent().map(|parent| parent.join(&name));
        for checkpoint in beside.into_iter().chain([PathBuf::from(&name)]) {
            folders.push(checkpoint.join(FOLDER));
        }
    }
    folders
}

/// Names of the checkpoints that the folder's packages were made of; only such as can be nothing but a folder's name.
fn sources(dir: &Path) -> Vec<String> {
    let Ok(record) = Record::read(dir) else {
        return Vec::new();
    };
    let name = |(_, entry): (&String, &Value)| {
        entry
            .get("source")?
            .get("name")?
            .as_str()
            .map(str::to_owned)
    };
    let is_plain = |name: &String| {
        let mut parts = Path::new(name).components();
        matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        )
    };
    record
        .components()
        .filter_map(name)
        .filter(is_plain)
        .collect()
}

fn read(folder: &Path) -> Result<Vec<NewFile>, Error> {
    let file = |name: &str| {
        let path = folder.join(name);
        let failed = |e| Error::io("read", &path, e);
        let len = fs::metadata(&path).map_err(failed)?.len();
        if len > MAX_FILE_BYTES {
            return Err(refused(&path, "it is too long for a tokenizer's file"));
        }
        let bytes = fs::read(&path).map_err(failed)?;
        check(name, &bytes).map_err(|what| refused(&path, what))?;
        Ok(NewFile {
            path: name.to_owned(),
            source: Source::Bytes(bytes),
        })
    };
    TOKENIZER_FILES.iter().map(|name| file(name)).collect()
}

/// What Apple's package demands of the files when it reads them.
fn check(name: &str, bytes: &[u8]) -> Result<(), &'static str> {
    if name.ends_with(".json") {
        let vocabulary: Result<Value, _> = serde_json::from_slice(bytes);
        let is_vocabulary = |v: &Value| {
            v.as_object()
                .is_some_and(|o| !o.is_empty() && o.values().all(Value::is_i64))
        };
        return match vocabulary.is_ok_and(|v| is_vocabulary(&v)) {
            true => Ok(()),
            false => Err("it is no vocabulary: expected a JSON object of numbers"),
        };
    }
    let mut lines = bytes
        .split(|&b| b == b'\n')
        .filter(|l| !l.is_empty() && !l.starts_with(b"#"));
    let is_pair = |line: &[u8]| {
        line.split(|&b| b == b' ')
            .filter(|part| !part.is_empty())
            .count()
            == 2
    };
    match lines.all(is_pair) {
        true => Ok(()),
        false => Err("it is no list of merges: expected two parts on each line"),
    }
}

fn refused(path: &Path, what: &str) -> Error {
    Error::NotBundled {
        path: path.to_owned(),
        what: what.to_owned(),
        help: "give the `tokenizer` folder of a checkpoint in diffusers' layout, with `vocab.json` and `merges.txt`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCABULARY: &str = r#"{"a": 0, "b</w>": 1}"#;
    const MERGES: &str = "#version: 0.2\na b</w>\nc d\n";

    fn tokenizer(folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        fs::write(folder.join("vocab.json"), VOCABULARY).unwrap();
        fs::write(folder.join("merges.txt"), MERGES).unwrap();
    }

    fn names(files: &[NewFile]) -> Vec<&str> {
        files.iter().map(|f| f.path.as_str()).collect()
    }

    #[test]
    fn it_is_found_where_a_checkpoint_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("chunks");
        fs::create_dir(&dir).unwrap();
        assert!(find(&dir, None).unwrap().is_empty());
        let record = |name: &str| {
            let record = serde_json::json!({"schema_version": 1, "components": {"unet": {"packages": [], "source": {"name": name}}}});
            fs::write(dir.join("conversion.json"), record.to_string()).unwrap();
        };
        tokenizer(&folder.path().join("My Model/tokenizer"));
        record("My Model");
        assert_eq!(names(&find(&dir, None).unwrap()), TOKENIZER_FILES);
        for astray in ["../My Model", "/", "..", "", "chunks/../My Model"] {
            record(astray);
            assert!(find(&dir, None).unwrap().is_empty(), "{astray}");
        }
        tokenizer(&dir.join("tokenizer"));
        assert_eq!(names(&find(&dir, None).unwrap()), TOKENIZER_FILES);
    }

    #[test]
    fn the_folder_given_must_have_it() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("model");
        assert!(find(folder.path(), Some(&given)).is_err());
        tokenizer(&given.join("tokenizer"));
        for given in [given.clone(), given.join("tokenizer")] {
            assert_eq!(
                names(&find(folder.path(), Some(&given)).unwrap()),
                TOKENIZER_FILES
            );
        }
        for (name, text) in [
            ("vocab.json", "[]"),
            ("vocab.json", "{\"a\": \"b\"}"),
            ("merges.txt", "one\n"),
            ("merges.txt", "a b c\n"),
        ] {
            tokenizer(&given.join("tokenizer"));
            fs::write(given.join("tokenizer").join(name), text).unwrap();
            assert!(find(folder.path(), Some(&given)).is_err(), "{name}: {text}");
        }
    }
}
