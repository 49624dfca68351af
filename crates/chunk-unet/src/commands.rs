//! One file for each command.

pub mod bundle;
pub mod compile;
pub mod convert;
pub mod demo;
pub mod inspect;
pub mod preflight;
pub mod reclaim;
pub mod report;
pub mod run;
pub mod split;
pub mod verify;
pub mod watch;
