//! One file for each command.

pub mod convert;
pub mod demo;
pub mod inspect;
pub mod verify;
