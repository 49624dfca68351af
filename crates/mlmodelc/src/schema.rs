//! Inputs, outputs and states as `metadata.json` lists them; every value is a text.

use mlpackage::proto::array_feature_type::{ArrayDataType, ShapeFlexibility};
use mlpackage::proto::image_feature_type::{ColorSpace, SizeFlexibility};
use mlpackage::proto::{ArrayFeatureType, FeatureDescription, ImageFeatureType, feature_type};
use serde_json::{Map, Value, json};

use crate::flexible::default_shape;

/// One entry for each feature.
pub fn of(features: &[FeatureDescription]) -> Value {
    features.iter().map(entry).collect()
}

fn entry(feature: &FeatureDescription) -> Value {
    use feature_type::Type;
    let ty = feature.r#type.as_ref();
    let mut entry = match ty.and_then(|t| t.r#type.as_ref()) {
        Some(Type::MultiArrayType(array)) => of_array("MultiArray", array),
        Some(Type::StateType(state)) => {
            use mlpackage::proto::state_feature_type::Type::ArrayType;
            match &state.r#type {
                Some(ArrayType(array)) => of_array("State", array),
                None => named("State"),
            }
        }
        Some(Type::ImageType(image)) => of_image(image),
        Some(Type::Int64Type(_)) => named("Int64"),
        Some(Type::DoubleType(_)) => named("Double"),
        Some(Type::StringType(_)) => named("String"),
        Some(Type::DictionaryType(_)) => named("Dictionary"),
        Some(Type::SequenceType(_)) => named("Sequence"),
        None => named("Invalid"),
    };
    let optional = ty.is_some_and(|t| t.is_optional);
    entry.insert("isOptional".into(), flag(optional));
    entry.insert(
        "shortDescription".into(),
        feature.short_description.clone().into(),
    );
    entry.insert("name".into(), feature.name.clone().into());
    entry.into()
}

fn flag(set: bool) -> Value {
    if set { "1" } else { "0" }.into()
}

fn named(kind: &str) -> Map<String, Value> {
    Map::from_iter([
        ("formattedType".into(), kind.into()),
        ("type".into(), kind.into()),
    ])
}

fn of_array(kind: &str, array: &ArrayFeatureType) -> Map<String, Value> {
    let dtype = dtype(array.data_type());
    let shape = default_shape(array);
    let sizes = times(&shape);
    let formatted = format!("{dtype} {sizes}");
    let mut entry = Map::from_iter([
        ("dataType".into(), dtype.into()),
        (
            "formattedType".into(),
            format!("{kind} ({})", formatted.trim_end()).into(),
        ),
        ("shape".into(), list(&shape).into()),
        ("type".into(), kind.into()),
    ]);
    if kind == "State" {
        return entry;
    }
    let flexibility = array.shape_flexibility.as_ref();
    entry.insert("hasShapeFlexibility".into(), flag(flexibility.is_some()));
    match flexibility {
        Some(ShapeFlexibility::ShapeRange(range)) => {
            let bounds: Vec<_> = range
                .size_ranges
                .iter()
                .map(|r| (i128::from(r.lower_bound), i128::from(r.upper_bound)))
                .collect();
            let spans: Vec<_> = bounds.iter().map(|&b| span(b)).collect();
            let pairs: Vec<_> = bounds.iter().map(|(l, u)| format!("[{l}, {u}]")).collect();
            entry.insert("shapeFlexibility".into(), spans.join(TIMES).into());
            entry.insert("shapeRange".into(), list(&pairs).into());
        }
        Some(ShapeFlexibility::EnumeratedShapes(listed)) => {
            let shapes = || listed.shapes.iter().map(|s| s.shape.as_slice());
            let choices: Vec<_> = shapes().map(times).collect();
            let lists: Vec<_> = shapes().map(list).collect();
            entry.insert("shapeFlexibility".into(), choices.join(" | ").into());
            entry.insert("enumeratedShapes".into(), list(&lists).into());
        }
        None => {}
    }
    entry
}

fn of_image(image: &ImageFeatureType) -> Map<String, Value> {
    let (space, is_color) = match image.color_space() {
        ColorSpace::Grayscale => ("Grayscale", false),
        ColorSpace::GrayscaleFloat16 => ("GrayscaleFloat16", false),
        ColorSpace::Rgb => ("RGB", true),
        ColorSpace::Bgr => ("BGR", true),
        ColorSpace::InvalidColorSpace => ("Invalid", false),
    };
    let kind = if is_color { "Color" } else { space };
    let (width, height) = (image.width, image.height);
    let flexibility = image.size_flexibility.as_ref();
    let mut entry = Map::from_iter([
        ("colorspace".into(), space.into()),
        ("isColor".into(), flag(is_color)),
        ("width".into(), width.to_string().into()),
        ("height".into(), height.to_string().into()),
        (
            "formattedType".into(),
            format!("Image ({kind} {width}{TIMES}{height})").into(),
        ),
        ("hasSizeFlexibility".into(), flag(flexibility.is_some())),
        ("type".into(), "Image".into()),
    ]);
    let sizes = match flexibility {
        Some(SizeFlexibility::EnumeratedSizes(listed)) => {
            let sizes = listed
                .sizes
                .iter()
                .map(|s| format!("{}{TIMES}{}", s.width, s.height));
            sizes.collect::<Vec<_>>().join(" | ")
        }
        Some(SizeFlexibility::ImageSizeRange(range)) => {
            let bounds = [&range.width_range, &range.height_range].map(|r| {
                let r = r.unwrap_or_default();
                span((i128::from(r.lower_bound), i128::from(r.upper_bound)))
            });
            bounds.join(TIMES)
        }
        None => return entry,
    };
    entry.insert("sizeFlexibility".into(), sizes.into());
    entry
}

const TIMES: &str = " × ";

fn times(shape: &[i64]) -> String {
    shape
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(TIMES)
}

fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(", "))
}

fn span((lower, upper): (i128, i128)) -> String {
    match upper {
        _ if lower == upper => lower.to_string(),
        ..0 => format!("{lower}..."),
        _ => format!("{lower}...{upper}"),
    }
}

fn dtype(ty: ArrayDataType) -> &'static str {
    match ty {
        ArrayDataType::Float32 => "Float32",
        ArrayDataType::Double => "Double",
        ArrayDataType::Int32 => "Int32",
        ArrayDataType::Float16 => "Float16",
        ArrayDataType::Int8 => "Int8",
        ArrayDataType::InvalidArrayDataType => "Invalid",
    }
}

/// An empty list, as for a model without states.
pub fn none() -> Value {
    json!([])
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlpackage::proto::array_feature_type::ShapeRange;
    use mlpackage::proto::{FeatureType, SizeRange, StateFeatureType, state_feature_type};

    fn feature(ty: feature_type::Type) -> FeatureDescription {
        FeatureDescription {
            name: "x".to_owned(),
            short_description: "what \"it\" is".to_owned(),
            r#type: Some(FeatureType {
                is_optional: true,
                r#type: Some(ty),
            }),
        }
    }

    fn array() -> ArrayFeatureType {
        ArrayFeatureType {
            shape: vec![2, 4],
            data_type: ArrayDataType::Float16.into(),
            ..Default::default()
        }
    }

    #[test]
    fn arrays() {
        let fixed = feature(feature_type::Type::MultiArrayType(array()));
        let expected = json!({"name": "x", "shortDescription": "what \"it\" is", "isOptional": "1", "type": "MultiArray",
            "dataType": "Float16", "formattedType": "MultiArray (Float16 2 × 4)", "shape": "[2, 4]", "hasShapeFlexibility": "0"});
        assert_eq!(of(&[fixed]), json!([expected]));
        let size_ranges = [(1, 8), (4, 4), (1, -1)].map(|(lower_bound, upper_bound)| SizeRange {
            lower_bound,
            upper_bound,
        });
        let bounded = ArrayFeatureType {
            shape_flexibility: Some(ShapeFlexibility::ShapeRange(ShapeRange {
                size_ranges: size_ranges.to_vec(),
            })),
            ..array()
        };
        let entry = &of(&[feature(feature_type::Type::MultiArrayType(bounded))])[0];
        assert_eq!(entry["shapeRange"], "[[1, 8], [4, 4], [1, -1]]");
        assert_eq!(entry["shapeFlexibility"], "1...8 × 4 × 1...");
        assert_eq!(entry["hasShapeFlexibility"], "1");
        let open = ArrayFeatureType {
            shape: vec![],
            ..array()
        };
        let entry = &of(&[feature(feature_type::Type::MultiArrayType(open))])[0];
        assert_eq!(
            (&entry["shape"], &entry["formattedType"]),
            (&json!("[]"), &json!("MultiArray (Float16)"))
        );
    }

    #[test]
    fn other_kinds() {
        let image = ImageFeatureType {
            width: 8,
            height: 4,
            color_space: ColorSpace::Rgb.into(),
            ..Default::default()
        };
        let entry = &of(&[feature(feature_type::Type::ImageType(image))])[0];
        assert_eq!(entry["formattedType"], "Image (Color 8 × 4)");
        assert_eq!(
            (&entry["width"], &entry["height"]),
            (&json!("8"), &json!("4"))
        );
        let state = StateFeatureType {
            r#type: Some(state_feature_type::Type::ArrayType(array())),
        };
        let entry = &of(&[feature(feature_type::Type::StateType(state))])[0];
        assert_eq!(entry["formattedType"], "State (Float16 2 × 4)");
        assert!(entry.get("hasShapeFlexibility").is_none());
    }
}
