//! The `coremldata.bin` of compiled models.

use mlmodelc::Coremldata;

/// What is accepted keeps the description's bytes as they stand in the file.
pub fn coremldata(data: &[u8]) {
    let Ok(parsed) = Coremldata::parse(data) else {
        return;
    };
    let stored = &parsed.description_bytes;
    assert!(stored.is_empty() || data.windows(stored.len()).any(|window| window == stored));
    assert_eq!(Coremldata::parse(data).expect("as before"), parsed);
}
