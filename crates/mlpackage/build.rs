//! Generates Core ML's protobuf messages from `proto/` at the workspace's root, without a system `protoc`.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", proto.display());
    let files = protox::compile([proto.join("Model.proto")], [&proto])?;
    prost_build::Config::new()
        // Hash maps would give other bytes on every run.
        .btree_map(["."])
        // Slices of the model file, not copies.
        .bytes([".CoreML.Specification.MILSpec.Block.operations"])
        .compile_fds(files)?;
    Ok(())
}
