//! The program as people and scripts meet it: what it prints, what it writes, how it ends.
//!
//! Every run is checked for what no run may do: panic, or pass a control character or an invisible one from a file on to the terminal. Every object
//! that `--json` prints is checked against `docs/json.schema.json`.

mod bad_input;
mod bundle;
mod checkpoints;
mod compile;
mod convert;
mod demo;
mod determinism;
mod during;
mod filesystems;
mod folder;
mod help;
mod inspect;
mod interrupt;
mod killed;
mod metadata;
mod mounted;
mod packages;
mod pipeline;
mod preflight;
mod program;
mod reclaim;
mod replace;
mod report;
mod run;
mod schema;
mod space;
mod split;
mod stdout;
mod usage;
mod verify;
mod watch;
