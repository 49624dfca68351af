//! What is found and what is done on real files.

mod deleting;
mod duplicates;
mod leftovers;
mod linking;
mod place;
mod walking;
