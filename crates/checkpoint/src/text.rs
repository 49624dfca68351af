//! Small text files beside the weights.

use std::path::Path;

use crate::{Error, LocalFile, Source};

/// The whole of a UTF-8 file of at most `max_bytes`.
pub(crate) fn read(path: &Path, max_bytes: u64) -> Result<String, Error> {
    let file = LocalFile::open(path)?;
    let len_bytes = file.len_bytes();
    if len_bytes > max_bytes {
        let problem = format!(
            "it has {len_bytes} bytes, more than the {max_bytes} that such a file may have"
        );
        return Err(Error::json(path, problem));
    }
    let mut bytes = vec![0; usize::try_from(len_bytes).map_err(|e| Error::json(path, e))?];
    file.read_at(0, &mut bytes)
        .map_err(|e| Error::reading(path, e))?;
    String::from_utf8(bytes).map_err(|e| Error::json(path, e.utf8_error()))
}
