//! `metadata.json`: what Xcode shows of a compiled model, and what some apps look into.

use mil::{Function, Program};
use mlpackage::proto::{FeatureDescription, Model, ModelDescription};
use serde_json::{Map, Value, json};

use crate::text::inputs_of;
use crate::{histogram, precision, schema};

/// The version of this file's own format.
const OUTPUT_VERSION: &str = "3.0";

/// What the file is about.
pub struct Subject<'s> {
    /// The model.
    pub model: &'s Model,
    /// Its description.
    pub description: &'s ModelDescription,
    /// Its name, which Xcode makes a class of.
    pub name: &'s str,
    /// Its programs: its own, or those of its stages.
    pub programs: &'s [Program],
    /// Whether it is a pipeline.
    pub is_pipeline: bool,
}

/// The file's text.
pub fn of(subject: &Subject<'_>) -> String {
    let d = subject.description;
    let functions = functions(subject);
    let mut root = Map::new();
    let mut put = |key: &str, value: Value| root.insert(key.to_owned(), value);
    put("metadataOutputVersion", OUTPUT_VERSION.into());
    let all = || subject.programs.iter().flat_map(|p| p.functions.values());
    if let Some(stored) = precision::stored(all()) {
        put("storagePrecision", stored.into());
    }
    for (key, text) in texts(d) {
        put(key, text.into());
    }
    put("outputSchema", schema::of(default_features(d).1));
    put("modelParameters", schema::none());
    put(
        "specificationVersion",
        subject.model.specification_version.into(),
    );
    if !d.functions.is_empty() {
        put("functions", listed(subject));
    }
    let counts = histogram::of(functions.iter().copied());
    put("mlProgramOperationTypeHistogram", json!(counts));
    put(
        "computePrecision",
        precision::computed(functions.iter().copied()).into(),
    );
    put(
        "isUpdatable",
        if subject.model.is_updatable { "1" } else { "0" }.into(),
    );
    put("stateSchema", schema::of(&d.state));
    put(
        "availability",
        availability(subject.model.specification_version),
    );
    put("modelType", model_type(subject));
    let user_defined = d.metadata.as_ref().map(|m| &m.user_defined);
    put(
        "userDefinedMetadata",
        user_defined.map_or_else(|| json!({}), |m| json!(m)),
    );
    put("inputSchema", schema::of(default_features(d).0));
    if !d.functions.is_empty() {
        put(
            "defaultFunctionName",
            d.default_function_name.clone().into(),
        );
    }
    put("generatedClassName", class_name(subject.name).into());
    put("method", "predict".into());
    format!("{:#}", json!([root]))
}

/// What people wrote about the model, where they did.
fn texts(d: &ModelDescription) -> impl Iterator<Item = (&'static str, String)> {
    let metadata = d.metadata.clone().unwrap_or_default();
    let texts = [
        ("shortDescription", metadata.short_description),
        ("version", metadata.version_string),
        ("author", metadata.author),
        ("license", metadata.license),
    ];
    texts.into_iter().filter(|(_, text)| !text.is_empty())
}

/// Inputs and outputs of the model or, where it has several functions, of the default one.
fn default_features(d: &ModelDescription) -> (&[FeatureDescription], &[FeatureDescription]) {
    let mut functions = d.functions.iter();
    match functions.find(|f| f.name == d.default_function_name) {
        Some(f) => (&f.input, &f.output),
        None => (&d.input, &d.output),
    }
}

/// What operations are counted in: the default function of a program, all of a pipeline's.
fn functions<'s>(subject: &Subject<'s>) -> Vec<&'s Function> {
    let all = subject.programs.iter().flat_map(|p| &p.functions);
    let default = &subject.description.default_function_name;
    let counts = |name: &str| subject.is_pipeline || default.is_empty() || name == default;
    all.filter(|(name, _)| counts(name))
        .map(|(_, f)| f)
        .collect()
}

/// The functions of a model that has several.
fn listed(subject: &Subject<'_>) -> Value {
    let d = subject.description;
    let described = d.functions.iter().map(|f| {
        let mut programs = subject.programs.iter();
        let function = programs.find_map(|p| p.functions.get(&f.name));
        json!({
            "name": f.name,
            "computePrecision": precision::computed(function),
            "inputSchema": schema::of(inputs_of(d, &f.name)),
            "outputSchema": schema::of(&f.output),
            "stateSchema": schema::of(&f.state),
            "mlProgramOperationTypeHistogram": histogram::of(function),
        })
    });
    described.collect()
}

fn model_type(subject: &Subject<'_>) -> Value {
    const PROGRAM: &str = "MLModelType_mlProgram";
    if !subject.is_pipeline {
        return json!({"name": PROGRAM});
    }
    let structure: Vec<_> = subject
        .programs
        .iter()
        .map(|_| json!({"name": PROGRAM}))
        .collect();
    json!({"name": "MLModelType_pipeline", "structure": structure})
}

/// The systems that take a specification version.
fn availability(specification_version: i32) -> Value {
    let [macos, tvos, visionos, watchos, ios] = match specification_version {
        ..7 => ["12.0", "15.0", "1.0", "8.0", "15.0"],
        7 => ["13.0", "16.0", "1.0", "9.0", "16.0"],
        8 => ["14.0", "17.0", "1.0", "10.0", "17.0"],
        9 => ["15.0", "18.0", "2.0", "11.0", "18.0"],
        _ => ["26.0"; 5],
    };
    json!({"macOS": macos, "tvOS": tvos, "visionOS": visionos, "watchOS": watchos, "iOS": ios, "macCatalyst": ios})
}

/// The name with everything that no class may be called by as `_`.
fn class_name(name: &str) -> String {
    let mut class: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if class.chars().next().is_none_or(|c| c.is_ascii_digit()) {
        class.insert(0, '_');
    }
    class
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_legal_names() {
        for (name, expected) in [
            ("UnetChunk1of3", "UnetChunk1of3"),
            ("my model.v2", "my_model_v2"),
            ("1", "_1"),
            ("", "_"),
        ] {
            assert_eq!(class_name(name), expected);
        }
    }
}
