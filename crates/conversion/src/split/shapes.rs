//! Shapes that a package leaves open, and which of them the values inside have.
//!
//! An input of flexible shape is declared with the shapes that it may have, listed or as a range for each dimension. What is
//! computed from it has other shapes, which a chunk that takes it must declare. They are found by inferring the program for
//! the listed shapes, or for shapes all over the ranges.

use std::collections::{BTreeMap, BTreeSet};

use mil::{Dim, Function, Opset, ValueId, ValueInfo};
use mlpackage::proto::array_feature_type::ShapeFlexibility;
use mlpackage::proto::feature_type::Type;
use mlpackage::proto::image_feature_type::SizeFlexibility;
use mlpackage::proto::{ArrayFeatureType, FeatureDescription, ImageFeatureType, SizeRange};

use super::inference;

/// Sizes that are tried for a dimension without an upper bound, from its lower one on.
const UNBOUNDED_SPAN: u64 = 256;
/// Most shapes that one input lists: what Core ML takes, says coremltools' guide (Flexible Input Shapes).
const MAX_LISTED: usize = 128;
/// Most steps for all choices of shapes together: operations, operands and sizes that are looked at for each. A whole UNet takes
/// the most shapes that an input lists, or six ranges, within it.
const MAX_STEPS: u64 = 1 << 25;
const TOO_LARGE: &str = "the program is too large to follow all shapes of its inputs through it";
/// Largest size that is tried: shapes are `int32` in programs.
const MAX_SIZE: u64 = 1 << 30;

/// The shapes that a value of open shape may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// One after all.
    One(Vec<u64>),
    /// These; from iOS 18 on the n-th goes with the n-th of every other value.
    Listed(Vec<Vec<u64>>),
    /// Each dimension within bounds.
    Ranges(Vec<Bounds>),
}

/// Smallest and largest size of a dimension; no largest where it is unbounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub low: u64,
    pub high: Option<u64>,
}

/// What is known of the values of a program whose types leave their shape open.
#[derive(Debug, Default)]
pub(super) struct Flexible {
    /// Default shapes, inputs included.
    pub defaults: BTreeMap<ValueId, Vec<u64>>,
    /// What may cross, and in which shapes.
    pub allowed: BTreeMap<ValueId, Allowed>,
    /// What may not, and why.
    pub refused: BTreeMap<ValueId, String>,
    /// Values with listed shapes where a model may have only one such input.
    pub exclusive: BTreeSet<ValueId>,
}

/// An input of open shape as its description declares it.
struct Declared {
    default: Vec<u64>,
    allowed: Allowed,
}

impl Flexible {
    /// From a function and the description of its inputs.
    pub fn new(f: &Function, opset: Opset, inputs: &[FeatureDescription]) -> Self {
        let mut flexible = Flexible::default();
        let mut described = BTreeMap::new();
        for feature in inputs {
            described.entry(&feature.name).or_insert(feature);
        }
        let declared: BTreeMap<ValueId, Declared> = f
            .inputs
            .iter()
            .filter(|&&v| is_open(f, v))
            .filter_map(|&v| {
                let feature = described.get(&f.value(v).name)?;
                Some((v, Declared::read(feature, rank(f, v)?)?))
            })
            .collect();
        if declared.is_empty() {
            return flexible;
        }
        let defaults = declared.iter().map(|(&v, d)| (v, d.default.clone()));
        flexible.defaults = defaults.collect();
        let Some(base) = inference::infer(f, opset, &flexible.defaults) else {
            flexible.refuse_all(f, "the program does not take its default shapes");
            return flexible;
        };
        let open: Vec<ValueId> = made(f).filter(|&v| is_open(f, v)).collect();
        for &v in &open {
            match &base[v.index()] {
                Some(shape) => {
                    flexible.defaults.insert(v, shape.clone());
                }
                None => flexible.refuse(v, "its shape depends on what is computed"),
            }
        }
        let open: Vec<ValueId> = open
            .into_iter()
            .filter(|v| flexible.defaults.contains_key(v))
            .collect();
        let mut choices = Choices::new(f, opset, &open);
        let is_listed = |d: &Declared| matches!(d.allowed, Allowed::Listed(_));
        let is_range = |d: &Declared| matches!(d.allowed, Allowed::Ranges(_));
        match (
            declared.values().any(is_listed),
            declared.values().any(is_range),
        ) {
            (true, true) => {
                flexible.refuse_all(f, "some inputs have listed shapes and others have ranges")
            }
            (true, false) => flexible.listed(&mut choices, &declared),
            (false, true) => flexible.ranges(&mut choices, &declared),
            (false, false) => {
                let fixed = |&v: &ValueId| (v, Allowed::One(flexible.defaults[&v].clone()));
                flexible.allowed = open.iter().map(fixed).collect();
            }
        }
        flexible
    }

    fn refuse(&mut self, v: ValueId, why: &str) {
        self.refused.insert(v, why.to_owned());
    }

    fn refuse_all(&mut self, f: &Function, why: &str) {
        for v in made(f).filter(|&v| is_open(f, v)) {
            self.refuse(v, why);
        }
    }

    /// Infers the program for each of the listed shapes.
    fn listed(&mut self, choices: &mut Choices<'_>, declared: &BTreeMap<ValueId, Declared>) {
        let f = choices.f;
        let list = |d: &Declared| match &d.allowed {
            Allowed::Listed(list) => Some(list.len()),
            _ => None,
        };
        let count = declared.values().filter_map(list).min().unwrap_or(0);
        if declared.values().filter_map(list).any(|n| n != count) {
            return self.refuse_all(f, "the inputs have lists of shapes of different lengths");
        }
        if count > MAX_LISTED {
            let why =
                format!("an input lists {count} shapes, and Core ML takes at most {MAX_LISTED}");
            return self.refuse_all(f, &why);
        }
        if let Err(why) = choices.check(count) {
            return self.refuse_all(f, why);
        }
        let mut found: Vec<Option<Vec<_>>> =
            choices.open.iter().map(|_| Some(Vec::new())).collect();
        for at in 0..count {
            let shape = |(&v, d): (&ValueId, &Declared)| match &d.allowed {
                Allowed::Listed(list) => (v, list[at].clone()),
                _ => (v, d.default.clone()),
            };
            let inputs = declared.iter().map(shape).collect();
            let shapes = match choices.follow(&inputs) {
                Ok(Some(shapes)) => shapes,
                Ok(None) => {
                    let why = format!(
                        "the program does not take number {} of the listed shapes",
                        at + 1
                    );
                    return self.refuse_all(f, &why);
                }
                Err(why) => return self.refuse_all(f, why),
            };
            for (list, shape) in found.iter_mut().zip(shapes) {
                *list = list.take().zip(shape).map(|(mut list, shape)| {
                    list.push(shape);
                    list
                });
            }
        }
        // Before iOS 18 a model has one input with listed shapes, and none of them twice.
        let is_single = choices.opset < Opset::CoreMl8;
        for (&v, shapes) in choices.open.iter().zip(found) {
            let Some(shapes) = shapes else {
                self.refuse(v, "its shape depends on what is computed");
                continue;
            };
            let mut seen = BTreeSet::new();
            let distinct: Vec<_> = shapes.iter().filter(|&s| seen.insert(s)).collect();
            let allowed = match (&distinct[..], is_single) {
                (&[one], _) => Allowed::One(one.clone()),
                (_, true) => Allowed::Listed(distinct.into_iter().cloned().collect()),
                (_, false) => Allowed::Listed(shapes),
            };
            if is_single && matches!(allowed, Allowed::Listed(_)) {
                self.exclusive.insert(v);
            }
            self.allowed.insert(v, allowed);
        }
        if is_single {
            let listed = declared.iter().filter(|(_, d)| list(d).is_some());
            self.exclusive.extend(listed.map(|(&v, _)| v));
        }
    }

    /// Infers the program for shapes all over the ranges, one dimension at a time.
    fn ranges(&mut self, choices: &mut Choices<'_>, declared: &BTreeMap<ValueId, Declared>) {
        let groups = match Group::all(choices, declared) {
            Ok(groups) => groups,
            Err(why) => return self.refuse_all(choices.f, why),
        };
        for (at, &v) in choices.open.iter().enumerate() {
            match allowed_ranges(&groups, at, &self.defaults[&v]) {
                Ok(allowed) => {
                    self.allowed.insert(v, allowed);
                }
                Err(why) => self.refuse(v, &why),
            }
        }
    }
}

/// Follows choices of the inputs' shapes through a program, as many as there are steps for.
struct Choices<'a> {
    f: &'a Function,
    opset: Opset,
    /// The values whose shapes are looked for.
    open: &'a [ValueId],
    num_left: u64,
}

/// Shapes of the open values, in their order; `None` where one cannot be told.
type Shapes = Vec<Option<Vec<u64>>>;

impl<'a> Choices<'a> {
    fn new(f: &'a Function, opset: Opset, open: &'a [ValueId]) -> Self {
        let sizes = |value: &ValueInfo| value.ty.as_tensor().map_or(0, |t| t.dims.len()) as u64;
        let values = f.inputs.iter().chain(open).map(|&v| 1 + sizes(f.value(v)));
        let operations = f
            .ops()
            .map(|op| 1 + op.inputs.values().map(Vec::len).sum::<usize>() as u64);
        let steps = values.chain(operations).sum::<u64>();
        Choices {
            f,
            opset,
            open,
            num_left: MAX_STEPS / steps.max(1),
        }
    }

    /// That as many can be followed, so that no time is spent on the first ones in vain.
    fn check(&self, count: usize) -> Result<(), &'static str> {
        match count as u64 <= self.num_left {
            true => Ok(()),
            false => Err(TOO_LARGE),
        }
    }

    /// What comes of shapes of the inputs; `None` where the program does not take them.
    fn follow(
        &mut self,
        inputs: &BTreeMap<ValueId, Vec<u64>>,
    ) -> Result<Option<Shapes>, &'static str> {
        self.num_left = self.num_left.checked_sub(1).ok_or(TOO_LARGE)?;
        let Some(mut shapes) = inference::infer(self.f, self.opset, inputs) else {
            return Ok(None);
        };
        let open = self.open.iter().map(|v| shapes[v.index()].take());
        Ok(Some(open.collect()))
    }
}

fn is_open(f: &Function, v: ValueId) -> bool {
    let tensor = f.value(v).ty.as_tensor();
    tensor.is_some_and(|t| t.shape().is_none())
}

/// The rank of a tensor, if it has one.
fn rank(f: &Function, v: ValueId) -> Option<usize> {
    let tensor = f.value(v).ty.as_tensor()?;
    let is_variadic = |d: &Dim| matches!(d, Dim::Unknown { variadic: true });
    (!tensor.dims.iter().any(is_variadic)).then_some(tensor.dims.len())
}

/// Values that the body makes, nested blocks left out.
fn made(f: &Function) -> impl Iterator<Item = ValueId> {
    let ops = f.body().map_or(&[][..], |b| &f.block(b).ops);
    ops.iter().flat_map(|&op| f.op(op).outputs.iter().copied())
}

impl Declared {
    /// What a description says of an input of this rank; `None` where it says nothing that can be used.
    fn read(feature: &FeatureDescription, rank: usize) -> Option<Declared> {
        let declared = match feature.r#type.as_ref()?.r#type.as_ref()? {
            Type::MultiArrayType(array) => Self::array(array)?,
            Type::ImageType(image) => Self::image(image)?,
            _ => return None,
        };
        let fits = match &declared.allowed {
            Allowed::One(shape) => shape.len() == rank,
            Allowed::Listed(shapes) => !shapes.is_empty() && shapes.iter().all(|s| s.len() == rank),
            Allowed::Ranges(bounds) => bounds.len() == rank,
        };
        (fits && declared.default.len() == rank).then_some(declared)
    }

    /// How many sizes are tried for its dimensions, one dimension at a time.
    fn num_samples(&self) -> usize {
        let Allowed::Ranges(bounds) = &self.allowed else {
            return 0;
        };
        let open = bounds
            .iter()
            .zip(&self.default)
            .filter(|(b, _)| !b.is_fixed());
        open.map(|(b, &default)| b.samples(default).len()).sum()
    }

    fn array(array: &ArrayFeatureType) -> Option<Declared> {
        let sizes = |shape: &[i64]| -> Option<Vec<u64>> {
            shape.iter().map(|&n| u64::try_from(n).ok()).collect()
        };
        let default = sizes(&array.shape)?;
        let allowed = match &array.shape_flexibility {
            None => Allowed::One(default.clone()),
            Some(ShapeFlexibility::EnumeratedShapes(list)) => {
                let shapes = list.shapes.iter().map(|s| sizes(&s.shape));
                Allowed::Listed(shapes.collect::<Option<_>>()?)
            }
            Some(ShapeFlexibility::ShapeRange(ranges)) => {
                let bounds = ranges.size_ranges.iter().map(Bounds::of);
                Allowed::Ranges(bounds.collect::<Option<_>>()?)
            }
        };
        Some(Declared { default, allowed })
    }

    /// An image is a tensor of one image, channels before height and width.
    fn image(image: &ImageFeatureType) -> Option<Declared> {
        use mlpackage::proto::image_feature_type::ColorSpace;
        let channels = match image.color_space() {
            ColorSpace::InvalidColorSpace => return None,
            ColorSpace::Grayscale | ColorSpace::GrayscaleFloat16 => 1,
            ColorSpace::Rgb | ColorSpace::Bgr => 3,
        };
        let size = |n: i64| u64::try_from(n).ok();
        let default = vec![1, channels, size(image.height)?, size(image.width)?];
        let allowed = match &image.size_flexibility {
            None => Allowed::One(default.clone()),
            Some(SizeFlexibility::EnumeratedSizes(list)) => {
                let shape = |s: &mlpackage::proto::image_feature_type::ImageSize| {
                    vec![1, channels, s.height, s.width]
                };
                Allowed::Listed(list.sizes.iter().map(shape).collect())
            }
            Some(SizeFlexibility::ImageSizeRange(range)) => {
                let fixed = |n| Bounds {
                    low: n,
                    high: Some(n),
                };
                let height = Bounds::of(range.height_range.as_ref()?)?;
                let width = Bounds::of(range.width_range.as_ref()?)?;
                Allowed::Ranges(vec![fixed(1), fixed(channels), height, width])
            }
        };
        Some(Declared { default, allowed })
    }
}

impl Bounds {
    fn of(range: &SizeRange) -> Option<Bounds> {
        let high = u64::try_from(range.upper_bound).ok();
        let low = range.lower_bound;
        (low <= MAX_SIZE && high.is_none_or(|h| low <= h)).then_some(Bounds { low, high })
    }

    fn is_fixed(self) -> bool {
        self.high == Some(self.low)
    }

    /// Sizes to try, in order: the ends, around the default one, and some between.
    fn samples(self, default: u64) -> BTreeSet<u64> {
        let high = self
            .high
            .map_or(self.low + UNBOUNDED_SPAN, |h| h.min(MAX_SIZE));
        let high = high.max(default.min(MAX_SIZE));
        let mut sizes = BTreeSet::from([self.low, self.low + 1, self.low + 2, high]);
        sizes.extend([high.saturating_sub(1), self.low + (high - self.low) / 2]);
        for step in (0..10).map(|n| 1 << n) {
            sizes.extend([default.saturating_add(step), default.saturating_sub(step)]);
        }
        sizes.retain(|n| (self.low..=high).contains(n));
        sizes
    }
}

/// Dimensions of inputs that have one size in common, with what comes of each size.
struct Group {
    bounds: Bounds,
    default: u64,
    samples: Vec<(u64, Shapes)>,
}

type Axis = (ValueId, usize);

impl Group {
    /// Every dimension by itself; those that the program takes only together, together.
    fn all(
        choices: &mut Choices<'_>,
        declared: &BTreeMap<ValueId, Declared>,
    ) -> Result<Vec<Group>, &'static str> {
        choices.check(declared.values().map(Declared::num_samples).sum())?;
        let default = |(&v, d): (&ValueId, &Declared)| (v, d.default.clone());
        let defaults: BTreeMap<_, _> = declared.iter().map(default).collect();
        let mut groups = Vec::new();
        let mut tied: BTreeMap<(u64, Option<u64>, u64), Vec<Axis>> = BTreeMap::new();
        for (&v, d) in declared {
            let Allowed::Ranges(bounds) = &d.allowed else {
                continue;
            };
            for (axis, &bounds) in bounds.iter().enumerate().filter(|(_, b)| !b.is_fixed()) {
                let default = d.default[axis];
                let group = Group::sampled(choices, &defaults, &[(v, axis)], bounds, default)?;
                match group {
                    Some(group) => groups.push(group),
                    None => {
                        let key = (bounds.low, bounds.high, default);
                        tied.entry(key).or_default().push((v, axis));
                    }
                }
            }
        }
        for ((low, high, default), axes) in tied {
            let bounds = Bounds { low, high };
            let group = Group::sampled(choices, &defaults, &axes, bounds, default)?;
            groups.push(group.ok_or("the program takes no other shapes than the default ones")?);
        }
        Ok(groups)
    }

    /// `None` where the program takes no other size than the default one.
    fn sampled(
        choices: &mut Choices<'_>,
        defaults: &BTreeMap<ValueId, Vec<u64>>,
        axes: &[Axis],
        bounds: Bounds,
        default: u64,
    ) -> Result<Option<Group>, &'static str> {
        let mut samples = Vec::new();
        for size in bounds.samples(default) {
            let mut inputs = defaults.clone();
            for (v, axis) in axes {
                if let Some(dim) = inputs.get_mut(v).and_then(|s| s.get_mut(*axis)) {
                    *dim = size;
                }
            }
            if let Some(shapes) = choices.follow(&inputs)? {
                samples.push((size, shapes));
            }
        }
        let is_taken = samples.iter().any(|(size, _)| *size != default);
        Ok(is_taken.then_some(Group {
            bounds,
            default,
            samples,
        }))
    }

    /// The bounds of a size inside that is `base` at the default; `None` where it does not depend on this.
    fn image(
        &self,
        base: u64,
        size_at: impl Fn(&Shapes) -> Option<u64>,
    ) -> Result<Option<Bounds>, String> {
        let samples: Option<Vec<_>> = self
            .samples
            .iter()
            .map(|(size, shapes)| Some((i128::from(*size), i128::from(size_at(shapes)?))))
            .collect();
        let samples = samples.ok_or("its shape depends on what is computed")?;
        let (x0, y0) = (i128::from(self.default), i128::from(base));
        let Some(&(x1, y1)) = samples.iter().find(|(_, y)| *y != y0) else {
            return Ok(None);
        };
        let (run, rise) = (x1 - x0, y1 - y0);
        if samples
            .iter()
            .any(|(x, y)| (y - y0) * run != (x - x0) * rise)
        {
            return Err("a size of it is not linear in one dimension of the inputs".to_owned());
        }
        let at = |x: u64| {
            let rise = (i128::from(x) - x0) * rise;
            u64::try_from(y0 + rise.div_euclid(run)).unwrap_or(0).max(1)
        };
        let (low, high) = (at(self.bounds.low), self.bounds.high.map(at));
        Ok(Some(match high {
            Some(high) => Bounds {
                low: low.min(high),
                high: Some(low.max(high)),
            },
            None if (run > 0) == (rise > 0) => Bounds { low, high: None },
            None => Bounds {
                low: 1,
                high: Some(low),
            },
        }))
    }
}

/// The ranges of the open value at `at` that has the shape `base` at the default.
fn allowed_ranges(groups: &[Group], at: usize, base: &[u64]) -> Result<Allowed, String> {
    let mut ranges = Vec::with_capacity(base.len());
    for (axis, &size) in base.iter().enumerate() {
        let size_at = |shapes: &Shapes| {
            let shape = shapes.get(at)?.as_ref()?;
            (shape.len() == base.len()).then(|| shape[axis])
        };
        let mut found = None;
        for group in groups {
            if let Some(bounds) = group.image(size, size_at)?
                && found.replace(bounds).is_some()
            {
                let why = "a size of it depends on several dimensions of the inputs";
                return Err(why.to_owned());
            }
        }
        ranges.push(found.unwrap_or(Bounds {
            low: size,
            high: Some(size),
        }));
    }
    if ranges.iter().all(|b| b.is_fixed()) {
        return Ok(Allowed::One(base.to_vec()));
    }
    Ok(Allowed::Ranges(ranges))
}

#[cfg(test)]
mod tests {
    use mil::ops::Op;
    use mil::{DataType, Operation, TensorType, ValueType};
    use mlpackage::proto::array_feature_type::{EnumeratedShapes, Shape, ShapeRange};
    use mlpackage::proto::{FeatureType, SizeRange};

    use super::*;

    /// A chain of operations over each input of shape `[1, ?]`, and the values that they make.
    fn chains(opset: Opset, num_inputs: usize, num_ops: usize) -> (Function, Vec<ValueId>) {
        let mut f = Function::new(opset.name());
        let body = f.body().unwrap();
        let open = TensorType {
            dims: vec![Dim::Fixed(1), Dim::Unknown { variadic: false }],
            ..TensorType::new(DataType::Fp32, &[])
        };
        let mut made = Vec::new();
        for at in 0..num_inputs {
            let mut last = f.add_input(format!("x{at}"), ValueType::Tensor(open.clone()));
            for n in 0..num_ops {
                let mut op = Operation::new(Op::Relu);
                op.inputs.insert("x".into(), vec![last.into()]);
                last = f.add_value(format!("y{at}_{n}"), ValueType::Tensor(open.clone()));
                op.outputs.push(last);
                f.push_op(body, op);
                made.push(last);
            }
        }
        f.block_mut(body).outputs = made.last().copied().into_iter().collect();
        (f, made)
    }

    fn feature(at: usize, flexibility: ShapeFlexibility) -> FeatureDescription {
        let array = ArrayFeatureType {
            shape: vec![1, 4],
            shape_flexibility: Some(flexibility),
            ..ArrayFeatureType::default()
        };
        FeatureDescription {
            name: format!("x{at}"),
            r#type: Some(FeatureType {
                r#type: Some(Type::MultiArrayType(array)),
                ..FeatureType::default()
            }),
            ..FeatureDescription::default()
        }
    }

    /// `num` shapes, two of each.
    fn listed(num: usize) -> ShapeFlexibility {
        let shape = |n: usize| Shape {
            shape: vec![1, 4 + n as i64 / 2],
        };
        ShapeFlexibility::EnumeratedShapes(EnumeratedShapes {
            shapes: (0..num).map(shape).collect(),
        })
    }

    fn range() -> ShapeFlexibility {
        let size = |lower_bound, upper_bound| SizeRange {
            lower_bound,
            upper_bound,
        };
        ShapeFlexibility::ShapeRange(ShapeRange {
            size_ranges: vec![size(1, 1), size(1, 64)],
        })
    }

    #[test]
    fn as_many_shapes_are_listed_as_core_ml_takes() {
        for (opset, expected) in [(Opset::CoreMl6, 64), (Opset::CoreMl8, 128)] {
            let (f, made) = chains(opset, 1, 20);
            let flexible = Flexible::new(&f, opset, &[feature(0, listed(MAX_LISTED))]);
            assert!(flexible.refused.is_empty());
            for v in made {
                let Some(Allowed::Listed(shapes)) = flexible.allowed.get(&v) else {
                    panic!("{:?}", flexible.allowed.get(&v));
                };
                assert_eq!(shapes.len(), expected);
                assert_eq!(
                    (&shapes[0], &shapes[expected - 1]),
                    (&vec![1, 4], &vec![1, 67])
                );
            }
        }
    }

    #[test]
    fn more_shapes_than_core_ml_takes_are_refused() {
        for num in [MAX_LISTED + 1, 4000] {
            let (f, made) = chains(Opset::CoreMl6, 1, 4000);
            let flexible = Flexible::new(&f, Opset::CoreMl6, &[feature(0, listed(num))]);
            assert!(flexible.allowed.is_empty());
            let why = format!("an input lists {num} shapes, and Core ML takes at most 128");
            assert_eq!(flexible.refused.get(&made[3999]), Some(&why));
        }
    }

    #[test]
    fn programs_that_are_too_large_for_their_shapes_are_refused() {
        let (f, made) = chains(Opset::CoreMl8, 1, 60_000);
        let inputs = [feature(0, listed(MAX_LISTED))];
        let flexible = Flexible::new(&f, Opset::CoreMl8, &inputs);
        assert_eq!(flexible.refused[&made[0]], TOO_LARGE);
        // Of many inputs with a range each, every one is followed through the whole program.
        let (f, made) = chains(Opset::CoreMl8, 600, 10);
        let inputs: Vec<_> = (0..600).map(|at| feature(at, range())).collect();
        let flexible = Flexible::new(&f, Opset::CoreMl8, &inputs);
        assert_eq!(flexible.refused[&made[0]], TOO_LARGE);
        assert!(flexible.allowed.is_empty());
    }

    #[test]
    fn a_few_ranges_are_followed() {
        let (f, made) = chains(Opset::CoreMl8, 6, 20);
        let inputs: Vec<_> = (0..6).map(|at| feature(at, range())).collect();
        let flexible = Flexible::new(&f, Opset::CoreMl8, &inputs);
        assert!(flexible.refused.is_empty());
        let bounds = |low, high| Bounds {
            low,
            high: Some(high),
        };
        let expected = Allowed::Ranges(vec![bounds(1, 1), bounds(1, 64)]);
        assert!(made.iter().all(|v| flexible.allowed[v] == expected));
    }
}
