//! Why a record cannot be read.

/// Why a file is no record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is no JSON of a record's build; the message has the place.
    #[error("expected the JSON of a record: {0}")]
    Json(#[from] serde_json::Error),
    /// A record of another version.
    #[error("expected `schema_version` {expected}, found {found}", expected = crate::record::SCHEMA_VERSION)]
    Version {
        /// What the file says.
        found: u64,
    },
    /// The file has no `schema_version` or no `components`.
    #[error("`{field}` is missing")]
    Missing {
        /// Which field.
        field: &'static str,
    },
}
