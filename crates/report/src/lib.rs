//! The record of conversions, `conversion.json`, as one page of HTML.
//!
//! [`Record::parse`] reads the file, [`html`] makes the page. It holds all that it needs: no script, no font, no picture, nothing
//! that a browser would fetch, and a policy that forbids it. Drawings are SVG without text, stretched to the width that there
//! is; numbers and names stand beside them as text, so that they stay readable on a phone and on paper.
//!
//! Names in a record come from files of strangers: every text of it is a [`Text`](record::Text), in which what cannot be read
//! is escaped, and the templates escape markup. What a record lacks, the page says.
//!
//! The crate knows the record by `docs/json.md` and nothing of models, packages or files.

mod commands;
mod error;
mod number;
mod page;
mod plot;
pub mod record;
mod scale;
mod sections;

pub use error::Error;
pub use page::{HEAD_LEN_BYTES, html, is_page};
pub use record::Record;
