//! What the model file of a chunk says beside its program: what the source says, as far as it concerns the chunk.

use std::collections::BTreeMap;

use mil::{DataType, ValueId, ValueType};
use mlpackage::proto::array_feature_type::{EnumeratedShapes, Shape, ShapeFlexibility, ShapeRange};
use mlpackage::proto::feature_type::Type;
use mlpackage::proto::{FeatureDescription, Model, ModelDescription, SizeRange};
use mlpackage::{Feature, FeatureType};
use partition::{ChunkPlan, Plan};

use super::shapes::{Allowed, Bounds, Flexible};
use super::source::Source;
use crate::metadata::{self, Wires};

/// Writes the model files of a chain, their programs apart.
pub(super) struct Describer<'a> {
    source: &'a Source,
    wiring: Wires<'a>,
    plan: &'a Plan,
    flexible: &'a Flexible,
    /// Descriptions of the source's inputs, states included, and outputs.
    inputs: BTreeMap<String, FeatureDescription>,
    outputs: BTreeMap<String, FeatureDescription>,
}

impl<'a> Describer<'a> {
    pub fn new(
        source: &'a Source,
        wiring: Wires<'a>,
        plan: &'a Plan,
        flexible: &'a Flexible,
    ) -> Self {
        let [inputs, outputs, states] = source.features();
        let by_name = |list: Vec<FeatureDescription>| list.into_iter().map(|f| (f.name.clone(), f));
        Describer {
            source,
            wiring,
            plan,
            flexible,
            inputs: by_name(inputs).chain(by_name(states)).collect(),
            outputs: by_name(outputs).collect(),
        }
    }

    /// The model file of the chunk at `at`.
    pub fn model(&self, at: usize) -> Model {
        let chunk = &self.plan.chunks[at];
        let (states, inputs): (Vec<_>, Vec<_>) =
            self.inputs(at, chunk).into_iter().partition(|f| {
                matches!(
                    f.r#type.as_ref().and_then(|t| t.r#type.as_ref()),
                    Some(Type::StateType(_))
                )
            });
        let model = self.source.package().model();
        Model {
            specification_version: model.specification_version,
            description: Some(self.description(at, inputs, self.outputs(at, chunk), states)),
            is_updatable: model.is_updatable,
            r#type: None,
        }
    }

    fn description(
        &self,
        at: usize,
        input: Vec<FeatureDescription>,
        output: Vec<FeatureDescription>,
        state: Vec<FeatureDescription>,
    ) -> ModelDescription {
        let mut description = self.source.description();
        let metadata = description.metadata.get_or_insert_default();
        metadata
            .user_defined
            .retain(|key, _| !metadata::is_place(key));
        let place = metadata::place(self.wiring, self.plan, at);
        metadata.user_defined.extend(place);
        // A prediction is named by the output that holds it.
        let kept = |name: &mut String| {
            if output.iter().all(|f| f.name != *name) {
                name.clear();
            }
        };
        match description.functions.last_mut() {
            Some(f) => {
                kept(&mut f.predicted_feature_name);
                kept(&mut f.predicted_probabilities_name);
                (f.input, f.output, f.state) = (input, output, state);
            }
            None => {
                kept(&mut description.predicted_feature_name);
                kept(&mut description.predicted_probabilities_name);
                description.input = input;
                description.output = output;
                description.state = state;
            }
        }
        description
    }

    fn inputs(&self, at: usize, chunk: &ChunkPlan) -> Vec<FeatureDescription> {
        let describe = |f: &partition::Feature| match self.inputs.get(&f.name) {
            Some(described) if !f.crosses => described.clone(),
            _ => {
                let mut described = tensor(f, self.wiring.entering(at));
                self.declare(&mut described, f.value);
                described
            }
        };
        chunk.inputs.iter().map(describe).collect()
    }

    fn outputs(&self, at: usize, chunk: &ChunkPlan) -> Vec<FeatureDescription> {
        let describe = |f: &partition::Feature| match self.outputs.get(&f.name) {
            Some(described) if !f.crosses => described.clone(),
            _ => tensor(f, self.wiring.leaving(at)),
        };
        chunk.outputs.iter().map(describe).collect()
    }

    /// Declares the shapes that a value of open shape may have. What gives such a value declares none, as Core ML's tools do.
    fn declare(&self, described: &mut FeatureDescription, value: ValueId) {
        let (Some(allowed), Some(Type::MultiArrayType(array))) = (
            self.flexible.allowed.get(&value),
            described.r#type.as_mut().and_then(|t| t.r#type.as_mut()),
        ) else {
            return;
        };
        let default = self.flexible.defaults.get(&value);
        array.shape = default.map_or_else(Vec::new, |shape| signed(shape));
        array.shape_flexibility = match allowed {
            Allowed::One(_) => None,
            Allowed::Listed(shapes) => {
                let shape = |s: &Vec<u64>| Shape { shape: signed(s) };
                Some(ShapeFlexibility::EnumeratedShapes(EnumeratedShapes {
                    shapes: shapes.iter().map(shape).collect(),
                }))
            }
            Allowed::Ranges(ranges) => Some(ShapeFlexibility::ShapeRange(ShapeRange {
                size_ranges: ranges.iter().map(size_range).collect(),
            })),
        };
    }
}

fn size_range(bounds: &Bounds) -> SizeRange {
    let high = bounds.high.map(|h| i64::try_from(h).unwrap_or(i64::MAX));
    SizeRange {
        lower_bound: bounds.low,
        // Unbounded, as Core ML's tools write it.
        upper_bound: high.unwrap_or(-1),
    }
}

fn signed(shape: &[u64]) -> Vec<i64> {
    let signed = |&n: &u64| i64::try_from(n).unwrap_or(i64::MAX);
    shape.iter().map(signed).collect()
}

/// A tensor that crosses. Core ML has no arrays of rank 0: scalars are described as `[1]`.
fn tensor(f: &partition::Feature, description: String) -> FeatureDescription {
    let dtype: Option<DataType> = f.dtype();
    let shape = match (&f.ty, f.shape()) {
        (ValueType::Tensor(_), Some(shape)) if shape.is_empty() => vec![1],
        (_, Some(shape)) => signed(&shape),
        (_, None) => Vec::new(),
    };
    let feature = Feature {
        name: f.name.clone(),
        description,
        ty: FeatureType::Array { dtype, shape },
        optional: false,
    };
    feature.to_proto()
}
