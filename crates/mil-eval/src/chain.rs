//! Several programs one after the other.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::prepared::{Prepared, RunOptions};
use crate::tensor::Tensor;

/// Runs stages in order as Apple's Swift pipeline does: each gets the outputs of the stage before it, over the inputs of the
/// whole chain.
///
/// # Errors
/// As [`Prepared::run`], for the first stage that fails.
pub fn chain(
    stages: &[Prepared<'_>],
    inputs: &BTreeMap<String, Tensor>,
    options: &RunOptions<'_>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let mut outputs = BTreeMap::new();
    for stage in stages {
        let mut given = inputs.clone();
        given.append(&mut outputs);
        outputs = stage.run(&given, options)?;
    }
    Ok(outputs)
}
