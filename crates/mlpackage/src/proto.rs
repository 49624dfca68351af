//! Core ML's protobuf messages, generated from the files in `proto/`, which declare every field of the format.
//!
//! Fields are as on the wire and unchecked: [`Package`](crate::Package) and [`program`](crate::program) give them meaning.

include!(concat!(env!("OUT_DIR"), "/core_ml.specification.rs"));

/// Messages of ML Programs.
pub mod mil_spec {
    include!(concat!(
        env!("OUT_DIR"),
        "/core_ml.specification.mil_spec.rs"
    ));
}
