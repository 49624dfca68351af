//! Opening files that others made: regular ones only, and never more of them than a limit.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use crate::error::{Error, Problem};

/// Opens a regular file (or a link to one) for reading; also gives its length.
pub(crate) fn open(path: &Path) -> Result<(File, u64), Error> {
    // Asked before opening, since opening a named pipe waits for its other end.
    let metadata = fs::metadata(path).map_err(|e| Error::io("open", path, e))?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() {
            "a folder"
        } else {
            "a device or a pipe"
        };
        let problem = Problem::new("not a regular file", "a file", found);
        return Err(Error::invalid(path, problem));
    }
    let file = File::open(path).map_err(|e| Error::io("open", path, e))?;
    Ok((file, metadata.len()))
}

/// The whole file, if it is no longer than `limit_bytes`.
pub(crate) fn read(path: &Path, limit_bytes: u64) -> Result<Vec<u8>, Error> {
    let (file, len_bytes) = open(path)?;
    let too_long = |found: String| {
        let problem = Problem::new(
            "the file is too long",
            format!("at most {limit_bytes} bytes"),
            found,
        );
        Err(Error::invalid(path, problem))
    };
    if len_bytes > limit_bytes {
        return too_long(format!("{len_bytes} bytes"));
    }
    let mut bytes = Vec::new();
    // One byte more than the limit tells a file that grew meanwhile.
    file.take(limit_bytes + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| Error::io("read", path, e))?;
    if bytes.len() as u64 > limit_bytes {
        return too_long("more".to_owned());
    }
    Ok(bytes)
}
