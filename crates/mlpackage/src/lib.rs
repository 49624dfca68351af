//! The .mlpackage on disk: Manifest.json, protobuf, weight.bin; reads and writes.
