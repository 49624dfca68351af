//! Running prepared stages as a chain.

use std::collections::BTreeSet;

use mil::{TensorType, ValueId, ValueType};
use mil_eval::{Link, Prepared, RunOptions, Tensor};

use super::Tensors;
use super::error::Error;
use super::stages::{Source, Stage, Stages};
use crate::proof::shown;

/// Stages that are ready to run, any number of times.
pub struct Evaluator<'p> {
    links: Vec<Link<'p>>,
    /// What messages call the stages.
    names: Vec<String>,
    inputs: Vec<Feature<'p>>,
    states: Vec<Feature<'p>>,
    outputs: Vec<Feature<'p>>,
}

/// An input, state or output of the whole chain.
#[derive(Clone, Copy, Debug)]
pub struct Feature<'p> {
    /// Its name.
    pub name: &'p str,
    /// Its declared type; of an input that of the first stage to take it, of a state that of what it holds.
    pub ty: &'p TensorType,
    /// The stage, from 0.
    pub stage: usize,
}

impl<'p> Evaluator<'p> {
    pub(super) fn new(stages: &Stages<'p>, prepared: Vec<Prepared<'p>>) -> Self {
        let mut prepared = prepared.into_iter();
        let link = |source: &Source| Link {
            stages: prepared.by_ref().take(source.stages.len()).collect(),
            outputs: source.outputs.clone(),
        };
        let links = stages.packages().iter().map(link).collect();
        let (inputs, outputs) = features(stages);
        Evaluator {
            links,
            names: (0..stages.list().len()).map(|s| stages.name(s)).collect(),
            inputs,
            states: states(stages),
            outputs,
        }
    }

    /// What has to be given: what stages take and no stage before gives them.
    pub fn inputs(&self) -> &[Feature<'p>] {
        &self.inputs
    }

    /// What may be given: states, which begin with zeros unless they are.
    pub fn states(&self) -> &[Feature<'p>] {
        &self.states
    }

    /// What comes out, as the last package declares it.
    pub fn outputs(&self) -> &[Feature<'p>] {
        &self.outputs
    }

    /// How many programs run one after the other.
    pub fn num_stages(&self) -> usize {
        self.names.len()
    }

    /// What a run surely holds at once of values and weights.
    pub fn least_bytes(&self) -> u64 {
        let stages = self.links.iter().flat_map(|l| &l.stages);
        stages.map(Prepared::least_bytes).max().unwrap_or(0)
    }

    /// How many operations a run computes, constants, weights and what stands in nested blocks left out.
    pub fn num_operations(&self) -> usize {
        let stages = self.links.iter().flat_map(|l| &l.stages);
        stages.map(Prepared::num_operations).sum()
    }

    /// Runs all stages. Calls `after` with the outputs of each, stages counted from 0.
    ///
    /// Tensors that no stage takes are ignored. A scalar may be given as a tensor of shape `[1]`, which is how packages
    /// describe it.
    ///
    /// # Errors
    /// Inputs are missing or of another type, which is found before anything runs; or a stage cannot be computed, or the run
    /// was stopped.
    pub fn run(
        &self,
        inputs: &Tensors,
        options: &RunOptions<'_>,
        after: &mut dyn FnMut(usize, &Tensors),
    ) -> Result<Tensors, Error> {
        let inputs = self.checked(inputs)?;
        let mut done = 0;
        let outputs = mil_eval::chain(&self.links, &inputs, options, &mut |stage, outputs| {
            done = stage + 1;
            after(stage, outputs);
        });
        outputs.map_err(|source| self.failed(done, source))
    }

    /// Checks that what has to be given is among tensors of these names.
    ///
    /// # Errors
    /// [`Error::MissingInputs`], with all that are missing.
    pub fn check_names<'n>(&self, given: impl IntoIterator<Item = &'n str>) -> Result<(), Error> {
        let given: BTreeSet<&str> = given.into_iter().collect();
        let missing = self.inputs.iter().filter(|i| !given.contains(i.name));
        let missing: Vec<_> = missing
            .map(|i| [shown(i.name), i.ty.to_string(), self.name(i.stage)])
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::MissingInputs {
            missing,
            given: given.into_iter().map(shown).collect(),
        })
    }

    /// The inputs and states that the chain takes.
    fn checked(&self, inputs: &Tensors) -> Result<Tensors, Error> {
        self.check_names(inputs.keys().map(String::as_str))?;
        let mut taken = Tensors::new();
        for input in self.inputs.iter().chain(&self.states) {
            if let (Some(stage), Some(tensor)) = (self.stage(input.stage), inputs.get(input.name)) {
                let tensor = as_declared(tensor, input.ty);
                let checked = stage.check_input(input.name, &tensor);
                checked.map_err(|source| self.failed(input.stage, source))?;
                taken.insert(input.name.to_owned(), tensor);
            }
        }
        Ok(taken)
    }

    fn stage(&self, stage: usize) -> Option<&Prepared<'p>> {
        self.links.iter().flat_map(|l| &l.stages).nth(stage)
    }

    fn name(&self, stage: usize) -> String {
        self.names.get(stage).cloned().unwrap_or_default()
    }

    fn failed(&self, stage: usize, source: mil_eval::Error) -> Error {
        Error::Stage {
            stage: self.name(stage),
            source,
        }
    }
}

/// A scalar that was given as packages describe it, which know no rank of 0.
fn as_declared(tensor: &Tensor, declared: &TensorType) -> Tensor {
    let mut tensor = tensor.clone();
    if declared.dims.is_empty() && tensor.shape == [1] {
        tensor.shape.clear();
    }
    tensor
}

impl<'p> Stages<'p> {
    /// What has to be given: what stages take and no stage before gives them.
    pub fn inputs(&self) -> Vec<Feature<'p>> {
        features(self).0
    }
}

/// What a chain takes from outside, and what it gives.
fn features<'p>(stages: &Stages<'p>) -> (Vec<Feature<'p>>, Vec<Feature<'p>>) {
    let mut inputs: Vec<Feature<'p>> = Vec::new();
    let mut outputs: Vec<Feature<'p>> = Vec::new();
    for source in stages.packages() {
        let mut made = std::mem::take(&mut outputs);
        for at in source.stages.clone() {
            let stage = &stages.list()[at];
            let known: BTreeSet<&str> = made.iter().chain(&inputs).map(|f| f.name).collect();
            let taken = of_values(stage, &stage.body().inputs, at);
            inputs.extend(taken.filter(|f| !known.contains(f.name)));
            let body = stage.body();
            let given = body.body().map_or(&[][..], |b| &body.block(b).outputs);
            outputs = of_values(stage, given, at).collect();
            made.retain(|f| outputs.iter().all(|o| o.name != f.name));
            made.extend(&outputs);
        }
        if let Some(names) = &source.outputs {
            let find = |name: &String| made.iter().chain(&inputs).find(|f| f.name == name);
            outputs = names.iter().filter_map(find).copied().collect();
        }
    }
    (inputs, outputs)
}

/// The states of all stages, each once: one that several have is nothing that they share.
fn states<'p>(stages: &Stages<'p>) -> Vec<Feature<'p>> {
    let mut states: Vec<Feature<'p>> = Vec::new();
    for (at, stage) in stages.list().iter().enumerate() {
        let body = stage.body();
        let held = body.inputs.iter().filter_map(|&v| {
            let value = body.value(v);
            match &value.ty {
                ValueType::State(held) => Some((&value.name, held.as_tensor()?)),
                _ => None,
            }
        });
        for (name, ty) in held {
            if states.iter().all(|s| s.name != name) {
                let stage = at;
                states.push(Feature { name, ty, stage });
            }
        }
    }
    states
}

fn of_values<'p>(
    stage: &Stage<'p>,
    values: &'p [ValueId],
    at: usize,
) -> impl Iterator<Item = Feature<'p>> {
    let body = stage.body();
    values.iter().filter_map(move |&v| {
        let value = body.value(v);
        Some(Feature {
            name: &value.name,
            ty: value.ty.as_tensor()?,
            stage: at,
        })
    })
}
