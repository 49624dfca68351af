//! `FlexibleShapeInformation`: the attribute that a compiled function with inputs of several shapes has.
//!
//! Bounds, as Core ML's compiler writes them:
//!
//! ```text
//! [FlexibleShapeInformation = tuple<tuple<string, dict<string, tensor<int32, [?]>>>, tuple<string, dict<string, list<tensor<int32, [2]>, ?>>>>((("DefaultShapes", {{"x", [1, 4]}}), ("RangeDims", {{"x", [[1, 4], [4, 4]]}})))]
//! ```
//!
//! Listed shapes have the second part `("EnumeratedShapes", {{"543d0f94", {{"x", [1, 4]}}}, …})`, a dictionary of sets of shapes
//! that go together, each under a hash of Core ML's that is not known; here they are numbered in as many digits.

use mil::{Constant, Data, DataType, Dim, Elements, TensorType, ValueType};
use mlpackage::proto::array_feature_type::{Shape, ShapeFlexibility};
use mlpackage::proto::{ArrayFeatureType, FeatureDescription, feature_type};

const KEY: &str = "FlexibleShapeInformation";

/// The array that a feature is.
pub fn array(feature: &FeatureDescription) -> Option<&ArrayFeatureType> {
    match feature.r#type.as_ref()?.r#type.as_ref()? {
        feature_type::Type::MultiArrayType(array) => Some(array),
        _ => None,
    }
}

/// The shape that an array has unless another is asked for.
pub fn default_shape(array: &ArrayFeatureType) -> Vec<i64> {
    if !array.shape.is_empty() {
        return array.shape.clone();
    }
    match &array.shape_flexibility {
        Some(ShapeFlexibility::ShapeRange(range)) => {
            let bounds = range.size_ranges.iter();
            bounds
                .map(|r| i64::try_from(r.lower_bound).unwrap_or(i64::MAX))
                .collect()
        }
        Some(ShapeFlexibility::EnumeratedShapes(listed)) => listed
            .shapes
            .first()
            .map(|s| s.shape.clone())
            .unwrap_or_default(),
        None => Vec::new(),
    }
}

/// The attribute's name and value for these inputs, if any has several shapes.
pub fn attribute(inputs: &[FeatureDescription]) -> Option<(String, Constant)> {
    let mut flexible: Vec<_> = inputs
        .iter()
        .filter_map(|input| {
            let array = array(input)?;
            Some((
                input.name.as_str(),
                array,
                array.shape_flexibility.as_ref()?,
            ))
        })
        .collect();
    if flexible.is_empty() {
        return None;
    }
    flexible.sort_by_key(|(name, ..)| *name);
    let shapes = flexible.iter();
    let shapes = shapes.map(|(name, array, _)| (*name, sizes(&default_shape(array))));
    let defaults = dictionary(sizes_type(), shapes);
    let mut parts = vec![pair("DefaultShapes", defaults)];
    let bounded: Vec<_> = flexible
        .iter()
        .filter_map(|(name, _, flexibility)| match flexibility {
            ShapeFlexibility::ShapeRange(range) => {
                let bounds = range.size_ranges.iter();
                let bounds = bounds.map(|r| {
                    bounds_of(
                        i64::try_from(r.lower_bound).unwrap_or(i64::MAX),
                        r.upper_bound,
                    )
                });
                Some((*name, list(bounds_type(), bounds.collect())))
            }
            ShapeFlexibility::EnumeratedShapes(_) => None,
        })
        .collect();
    if !bounded.is_empty() {
        parts.push(pair(
            "RangeDims",
            dictionary(list_type(bounds_type()), bounded),
        ));
    }
    let listed: Vec<_> = flexible
        .iter()
        .filter_map(|(name, _, flexibility)| match flexibility {
            ShapeFlexibility::EnumeratedShapes(listed) => Some((*name, listed.shapes.as_slice())),
            ShapeFlexibility::ShapeRange(_) => None,
        })
        .collect();
    if !listed.is_empty() {
        parts.push(pair("EnumeratedShapes", sets(&listed)));
    }
    Some((KEY.to_owned(), tuple(parts)))
}

/// The shapes at equal places of all inputs' lists, which go together.
fn sets(listed: &[(&str, &[Shape])]) -> Constant {
    let num_sets = listed
        .iter()
        .map(|(_, shapes)| shapes.len())
        .max()
        .unwrap_or(0);
    let set = |at: usize| {
        let shapes = listed
            .iter()
            .filter_map(|&(name, shapes)| Some((name, sizes(&shapes.get(at)?.shape))));
        dictionary(sizes_type(), shapes)
    };
    let named: Vec<_> = (0..num_sets)
        .map(|at| (format!("{at:08x}"), set(at)))
        .collect();
    let entries = named.iter().map(|(name, set)| (name.as_str(), set.clone()));
    dictionary(dictionary_type(sizes_type()), entries)
}

fn text_type() -> ValueType {
    ValueType::scalar(DataType::String)
}

fn sizes_type() -> ValueType {
    let mut ty = TensorType::new(DataType::Int32, &[]);
    ty.dims.push(Dim::Unknown { variadic: false });
    ty.into()
}

fn bounds_type() -> ValueType {
    ValueType::tensor(DataType::Int32, &[2])
}

fn list_type(element: ValueType) -> ValueType {
    ValueType::List {
        element: Box::new(element),
        length: Dim::Unknown { variadic: false },
    }
}

fn dictionary_type(value: ValueType) -> ValueType {
    ValueType::Dictionary {
        key: Box::new(text_type()),
        value: Box::new(value),
    }
}

fn sizes(shape: &[i64]) -> Constant {
    integers(sizes_type(), shape)
}

fn bounds_of(lower: i64, upper: i64) -> Constant {
    integers(bounds_type(), &[lower, upper])
}

/// Sizes in the 32 bits that there are for them; a bound beyond is as good as none.
fn integers(ty: ValueType, values: &[i64]) -> Constant {
    let values = values.iter().map(|&n| i32::try_from(n).unwrap_or(i32::MAX));
    Constant::new(ty, Data::Tensor(Elements::Ints(values.collect())))
}

fn list(element: ValueType, items: Vec<Constant>) -> Constant {
    Constant::new(list_type(element), Data::List(items))
}

fn dictionary<'n>(
    value: ValueType,
    entries: impl IntoIterator<Item = (&'n str, Constant)>,
) -> Constant {
    let pairs = entries.into_iter().map(|(k, v)| (Constant::string(k), v));
    Constant::new(dictionary_type(value), Data::Dictionary(pairs.collect()))
}

fn pair(name: &str, value: Constant) -> Constant {
    tuple(vec![Constant::string(name), value])
}

fn tuple(parts: Vec<Constant>) -> Constant {
    let types = parts.iter().map(|p| p.ty.clone()).collect();
    Constant::new(ValueType::Tuple(types), Data::Tuple(parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mil::text::{Location, print_compiled};
    use mil::{Function, Program};
    use mlpackage::proto::array_feature_type::{EnumeratedShapes, ShapeRange};
    use mlpackage::proto::{FeatureType, SizeRange};

    fn input(
        name: &str,
        shape: &[i64],
        flexibility: Option<ShapeFlexibility>,
    ) -> FeatureDescription {
        let array = ArrayFeatureType {
            shape: shape.to_vec(),
            shape_flexibility: flexibility,
            ..Default::default()
        };
        FeatureDescription {
            name: name.to_owned(),
            r#type: Some(FeatureType {
                r#type: Some(feature_type::Type::MultiArrayType(array)),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn bounds(bounds: &[(u64, i64)]) -> Option<ShapeFlexibility> {
        let range = |&(lower_bound, upper_bound): &(u64, i64)| SizeRange {
            lower_bound,
            upper_bound,
        };
        Some(ShapeFlexibility::ShapeRange(ShapeRange {
            size_ranges: bounds.iter().map(range).collect(),
        }))
    }

    fn listed(shapes: &[&[i64]]) -> Option<ShapeFlexibility> {
        let shape = |s: &&[i64]| Shape { shape: s.to_vec() };
        Some(ShapeFlexibility::EnumeratedShapes(EnumeratedShapes {
            shapes: shapes.iter().map(shape).collect(),
        }))
    }

    fn printed(inputs: &[FeatureDescription]) -> Option<String> {
        let (key, value) = attribute(inputs)?;
        let mut function = Function::default();
        function.opset = "CoreML7".to_owned();
        function.attributes.insert(key, value);
        let mut program = Program::default();
        program.functions.insert("main".to_owned(), function);
        let text = print_compiled(&program, 9, &Location::unplaced).unwrap();
        let from = text.find('[')?;
        Some(text[from..text.rfind(';')?].to_owned())
    }

    /// Both texts as Core ML's compiler wrote them for such inputs, but for the hashes.
    #[test]
    fn the_attribute_is_that_of_core_mls_compiler() {
        let fixed = input("data", &[3, 2], None);
        assert_eq!(printed(std::slice::from_ref(&fixed)), None);
        let inputs = [input("indices", &[2, 4], bounds(&[(0, 2), (0, 4)])), fixed];
        let expected = r#"[FlexibleShapeInformation = tuple<tuple<string, dict<string, tensor<int32, [?]>>>, tuple<string, dict<string, list<tensor<int32, [2]>, ?>>>>((("DefaultShapes", {{"indices", [2, 4]}}), ("RangeDims", {{"indices", [[0, 2], [0, 4]]}})))]"#;
        assert_eq!(printed(&inputs).as_deref(), Some(expected));
        let inputs = [input("input", &[4], listed(&[&[1], &[2], &[4]]))];
        let expected = r#"[FlexibleShapeInformation = tuple<tuple<string, dict<string, tensor<int32, [?]>>>, tuple<string, dict<string, dict<string, tensor<int32, [?]>>>>>((("DefaultShapes", {{"input", [4]}}), ("EnumeratedShapes", {{"00000000", {{"input", [1]}}}, {"00000001", {{"input", [2]}}}, {"00000002", {{"input", [4]}}}})))]"#;
        assert_eq!(printed(&inputs).as_deref(), Some(expected));
    }

    #[test]
    fn sizes_without_end_and_missing_defaults() {
        let inputs = [input("x", &[], bounds(&[(1, -1), (3, i64::MAX)]))];
        let text = printed(&inputs).unwrap();
        assert!(
            text.contains(r#"("DefaultShapes", {{"x", [1, 3]}})"#),
            "{text}"
        );
        assert!(
            text.contains(r#"{{"x", [[1, -1], [3, 2147483647]]}}"#),
            "{text}"
        );
    }
}
