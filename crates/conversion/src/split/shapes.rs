//! Shapes that a package leaves open, and which of them the values inside have.
//!
//! An input of flexible shape is declared with the shapes that it may have, listed or as a range for each dimension. What is
//! computed from it has other shapes, which a chunk that takes it must declare. They are found by inferring the program for
//! the listed shapes, or for shapes all over the ranges.

use std::collections::{BTreeMap, BTreeSet};

use mil::{Dim, Function, Opset, ValueId};
use mlpackage::proto::array_feature_type::ShapeFlexibility;
use mlpackage::proto::feature_type::Type;
use mlpackage::proto::image_feature_type::SizeFlexibility;
use mlpackage::proto::{ArrayFeatureType, FeatureDescription, ImageFeatureType, SizeRange};

use super::inference::{self, Shapes};

/// Sizes that are tried for a dimension without an upper bound, from its lower one on.
const UNBOUNDED_SPAN: u64 = 256;
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
        let declared: BTreeMap<ValueId, Declared> = f
            .inputs
            .iter()
            .filter(|&&v| is_open(f, v))
            .filter_map(|&v| {
                let feature = inputs.iter().find(|i| i.name == f.value(v).name)?;
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
        let is_listed = |d: &Declared| matches!(d.allowed, Allowed::Listed(_));
        let is_range = |d: &Declared| matches!(d.allowed, Allowed::Ranges(_));
        match (
            declared.values().any(is_listed),
            declared.values().any(is_range),
        ) {
            (true, true) => {
                flexible.refuse_all(f, "some inputs have listed shapes and others have ranges")
            }
            (true, false) => flexible.listed(f, opset, &declared, &open),
            (false, true) => flexible.ranges(f, opset, &declared, &open),
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
    fn listed(
        &mut self,
        f: &Function,
        opset: Opset,
        declared: &BTreeMap<ValueId, Declared>,
        open: &[ValueId],
    ) {
        let list = |d: &Declared| match &d.allowed {
            Allowed::Listed(list) => Some(list.len()),
            _ => None,
        };
        let count = declared.values().filter_map(list).min().unwrap_or(0);
        if declared.values().filter_map(list).any(|n| n != count) {
            return self.refuse_all(f, "the inputs have lists of shapes of different lengths");
        }
        let mut choices: Vec<Shapes> = Vec::with_capacity(count);
        for at in 0..count {
            let shape = |(&v, d): (&ValueId, &Declared)| match &d.allowed {
                Allowed::Listed(list) => (v, list[at].clone()),
                _ => (v, d.default.clone()),
            };
            let inputs = declared.iter().map(shape).collect();
            match inference::infer(f, opset, &inputs) {
                Some(shapes) => choices.push(shapes),
                None => {
                    let why = format!(
                        "the program does not take number {} of the listed shapes",
                        at + 1
                    );
                    return self.refuse_all(f, &why);
                }
            }
        }
        // Before iOS 18 a model has one input with listed shapes, and none of them twice.
        let is_single = opset < Opset::CoreMl8;
        for &v in open {
            let shapes: Option<Vec<_>> = choices.iter().map(|c| c[v.index()].clone()).collect();
            let Some(shapes) = shapes else {
                self.refuse(v, "its shape depends on what is computed");
                continue;
            };
            let mut distinct = Vec::new();
            for shape in &shapes {
                if !distinct.contains(shape) {
                    distinct.push(shape.clone());
                }
            }
            let allowed = match (&distinct[..], is_single) {
                ([one], _) => Allowed::One(one.clone()),
                (_, true) => Allowed::Listed(distinct),
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
    fn ranges(
        &mut self,
        f: &Function,
        opset: Opset,
        declared: &BTreeMap<ValueId, Declared>,
        open: &[ValueId],
    ) {
        let Some(groups) = Group::all(f, opset, declared, &self.defaults) else {
            return self.refuse_all(f, "the program takes no other shapes than the default ones");
        };
        for &v in open {
            match allowed_ranges(&groups, v, &self.defaults[&v]) {
                Ok(allowed) => {
                    self.allowed.insert(v, allowed);
                }
                Err(why) => self.refuse(v, &why),
            }
        }
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
    /// Every dimension by itself; those that the program takes only together, together. `None` where it takes some not at all.
    fn all(
        f: &Function,
        opset: Opset,
        declared: &BTreeMap<ValueId, Declared>,
        defaults: &BTreeMap<ValueId, Vec<u64>>,
    ) -> Option<Vec<Group>> {
        let mut groups = Vec::new();
        let mut tied: BTreeMap<(u64, Option<u64>, u64), Vec<Axis>> = BTreeMap::new();
        for (&v, d) in declared {
            let Allowed::Ranges(bounds) = &d.allowed else {
                continue;
            };
            for (axis, &bounds) in bounds.iter().enumerate().filter(|(_, b)| !b.is_fixed()) {
                let default = d.default[axis];
                let group = Group::sampled(f, opset, defaults, &[(v, axis)], bounds, default);
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
            groups.push(Group::sampled(f, opset, defaults, &axes, bounds, default)?);
        }
        Some(groups)
    }

    fn sampled(
        f: &Function,
        opset: Opset,
        defaults: &BTreeMap<ValueId, Vec<u64>>,
        axes: &[Axis],
        bounds: Bounds,
        default: u64,
    ) -> Option<Group> {
        let mut samples = Vec::new();
        for size in bounds.samples(default) {
            let mut inputs = defaults.clone();
            for (v, axis) in axes {
                if let Some(dim) = inputs.get_mut(v).and_then(|s| s.get_mut(*axis)) {
                    *dim = size;
                }
            }
            inputs.retain(|v, _| f.inputs.contains(v));
            if let Some(shapes) = inference::infer(f, opset, &inputs) {
                samples.push((size, shapes));
            }
        }
        let is_taken = samples.iter().any(|(size, _)| *size != default);
        is_taken.then_some(Group {
            bounds,
            default,
            samples,
        })
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

/// The ranges of a value that has the shape `base` at the default.
fn allowed_ranges(groups: &[Group], v: ValueId, base: &[u64]) -> Result<Allowed, String> {
    let mut ranges = Vec::with_capacity(base.len());
    for (axis, &size) in base.iter().enumerate() {
        let size_at = |shapes: &Shapes| {
            let shape = shapes[v.index()].as_ref()?;
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
