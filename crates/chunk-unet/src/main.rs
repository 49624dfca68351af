//! The command line: arguments, drawing, exit codes. The only crate that prints.
fn main() {}
