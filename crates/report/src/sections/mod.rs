//! What the page says of one set, section by section: texts and places, ready for the templates.

pub mod chunks;
pub mod cuts;
pub mod disk;
pub mod facts;
pub mod proof;
pub mod run;
pub mod weights;

use crate::record::{Chunk, Component, Text};

/// What stands where a record tells nothing.
pub const UNKNOWN: &str = "not recorded";

/// Colours that packages are told apart by; those of neighbours always differ.
const SERIES: usize = 6;

/// The colour of a package.
pub fn series(at: usize) -> usize {
    at % SERIES
}

/// The packages, or the stages of one, in order.
pub fn packages(component: &Component) -> &[Chunk] {
    component.chunks.as_deref().unwrap_or_default()
}

/// A package's name with its stage, or its number where the record has none.
pub fn chunk_name(chunk: &Chunk, at: usize) -> String {
    match (&chunk.path, chunk.stage) {
        (Some(path), Some(stage)) => format!("{path}, stage {stage}"),
        (Some(path), None) => path.to_string(),
        (None, _) => format!("package {}", at + 1),
    }
}

/// How many stages the packages have, where they are one pipeline.
pub fn num_stages(component: &Component) -> Option<usize> {
    let list = packages(component);
    let is_pipeline = !list.is_empty() && list.iter().all(|c| c.stage.is_some());
    is_pipeline.then_some(list.len())
}

/// A text, if there is one and it is not empty.
pub fn given(text: Option<&Text>) -> Option<String> {
    text.filter(|t| !t.whole().is_empty())
        .map(ToString::to_string)
}

/// A label with what it stands for.
pub struct Fact {
    pub label: &'static str,
    pub value: String,
}

impl Fact {
    pub fn new(label: &'static str, value: impl Into<String>) -> Fact {
        Fact {
            label,
            value: value.into(),
        }
    }
}

/// How a badge is meant; the templates have a sign and a colour for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    Bad,
    Plain,
}

impl Tone {
    /// The class of the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Bad => "bad",
            Tone::Plain => "plain",
        }
    }

    /// A sign, so that the colour is not all that tells.
    pub fn sign(self) -> &'static str {
        match self {
            Tone::Good => "✓",
            Tone::Bad => "✕",
            Tone::Plain => "–",
        }
    }
}

/// A short verdict.
pub struct Badge {
    pub tone: Tone,
    pub text: String,
}

#[cfg(test)]
pub mod testing {
    //! Records for the tests of the sections.

    use crate::record::{Component, Record};

    /// The one component of a record, from its fields.
    pub fn component(fields: &str) -> Component {
        let text = format!(r#"{{"schema_version": 1, "components": {{"unet": {{{fields}}}}}}}"#);
        let record = Record::parse(text.as_bytes()).unwrap();
        record.components.into_values().next().unwrap()
    }
}
