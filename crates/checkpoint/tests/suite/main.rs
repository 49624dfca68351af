//! The crate from outside: files, folders, and the format's own library as judge.

mod agreement;
mod bounds;
mod file;
mod folder;
mod samples;
