//! Several programs one after the other.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::prepared::{Prepared, RunOptions};
use crate::tensor::Tensor;

/// What runs as one model in a chain: a program, or the stages of a pipeline.
#[derive(Debug)]
pub struct Link<'a> {
    /// Its programs in order. Each sees what the link is given and the outputs of all before it, as Core ML's pipelines do.
    pub stages: Vec<Prepared<'a>>,
    /// Which outputs of its stages it gives; `None` for those of its last stage.
    pub outputs: Option<Vec<String>>,
}

impl<'a> From<Prepared<'a>> for Link<'a> {
    fn from(stage: Prepared<'a>) -> Self {
        Link {
            stages: vec![stage],
            outputs: None,
        }
    }
}

type Tensors = BTreeMap<String, Tensor>;

/// Runs links in order as Apple's Swift pipeline does: each gets the outputs of the link before it, over the inputs of the whole
/// chain. Calls `after` with every stage's outputs, stages counted over all links.
///
/// # Errors
/// As [`Prepared::run`], for the first stage that fails: the one after as many as `after` was called for.
pub fn chain(
    links: &[Link<'_>],
    inputs: &Tensors,
    options: &RunOptions<'_>,
    after: &mut dyn FnMut(usize, &Tensors),
) -> Result<Tensors, Error> {
    let mut outputs = Tensors::new();
    let mut count = 0;
    for link in links {
        let mut given = inputs.clone();
        for stage in &link.stages {
            given.append(&mut outputs);
            outputs = stage.run(&given, options)?;
            after(count, &outputs);
            count += 1;
        }
        if let Some(names) = &link.outputs {
            given.append(&mut outputs);
            given.retain(|name, _| names.contains(name));
            outputs = given;
        }
    }
    Ok(outputs)
}
