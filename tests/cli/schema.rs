//! `docs/json.schema.json`: a validator for the part of JSON Schema that it is written in, and what it and `docs/json.md` owe
//! each other.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value};

fn docs(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

fn definitions() -> &'static Map<String, Value> {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    let schema = SCHEMA.get_or_init(|| serde_json::from_str(&docs("json.schema.json")).unwrap());
    schema["$defs"].as_object().unwrap()
}

/// Checks a value against the definition of that name.
#[track_caller]
pub fn check(definition: &str, value: &Value) {
    if let Err(problem) = fits(&definitions()[definition], value, definition) {
        panic!("{problem}\n{value:#}");
    }
}

/// Keywords that say nothing about what is valid.
const ANNOTATIONS: &[&str] = &["title", "description"];

fn fits(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let kept = match keyword.as_str() {
            "$ref" => {
                let name = rule.as_str().and_then(|r| r.strip_prefix("#/$defs/"));
                fits(&definitions()[name.expect("a local reference")], value, at)?;
                true
            }
            "anyOf" => {
                let outcomes: Vec<_> = list(rule).iter().map(|s| fits(s, value, at)).collect();
                if outcomes.iter().all(Result::is_err) {
                    return Err(format!("{at}: {outcomes:#?}"));
                }
                true
            }
            "type" => types(rule).iter().any(|t| is_of_type(t, value)),
            "const" => rule == value,
            "enum" => list(rule).contains(value),
            "minimum" => value.as_f64().is_none_or(|n| n >= rule.as_f64().unwrap()),
            "minLength" => value
                .as_str()
                .is_none_or(|s| s.len() as u64 >= rule.as_u64().unwrap()),
            "minItems" => value
                .as_array()
                .is_none_or(|a| a.len() as u64 >= rule.as_u64().unwrap()),
            "required" => list(rule).iter().all(|k| has(value, k.as_str().unwrap())),
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(rule, item, &format!("{at}[{i}]"))?;
                }
                true
            }
            "properties" => {
                for (key, schema) in rule.as_object().unwrap() {
                    if let Some(property) = value.get(key) {
                        fits(schema, property, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                for (key, property) in value.as_object().into_iter().flatten() {
                    let is_known = known.is_some_and(|k| k.contains_key(key));
                    if !is_known && rule == &Value::Bool(false) {
                        return Err(format!("{at}: `{key}` is not in the schema"));
                    }
                    if !is_known {
                        fits(rule, property, &format!("{at}.{key}"))?;
                    }
                }
                true
            }
            other => {
                assert!(ANNOTATIONS.contains(&other), "the schema uses `{other}`");
                true
            }
        };
        if !kept {
            return Err(format!("{at}: breaks {keyword} {rule}"));
        }
    }
    Ok(())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn types(rule: &Value) -> Vec<&str> {
    match rule {
        Value::String(one) => vec![one],
        _ => list(rule).iter().map(|t| t.as_str().unwrap()).collect(),
    }
}

fn has(value: &Value, key: &str) -> bool {
    value.as_object().is_none_or(|o| o.contains_key(key))
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("the schema uses type `{other}`"),
    }
}

/// The definitions with fields of their own, and those fields.
fn objects() -> impl Iterator<Item = (&'static String, &'static Value, Vec<&'static String>)> {
    definitions().iter().filter_map(|(name, schema)| {
        let fields = schema.get("properties")?.as_object()?.keys().collect();
        Some((name, schema, fields))
    })
}

#[test]
fn every_object_is_closed_and_its_required_fields_exist() {
    for (name, schema, fields) in objects() {
        assert_eq!(schema["type"], "object", "{name}");
        assert!(schema.get("additionalProperties").is_some(), "{name}");
        for field in list(&schema["required"]) {
            assert!(
                fields.iter().any(|f| field == f.as_str()),
                "{name}: {field}"
            );
        }
    }
}

/// The page has a section for each definition, headed `` ### `name` ``, with a row for each field in the schema's order; a row's
/// second column says when the field may be missing.
#[test]
fn the_page_has_every_field() {
    let page = docs("json.md");
    let mut documented = BTreeSet::new();
    for section in page.split("\n### `").skip(1) {
        let (name, text) = section.split_once('`').unwrap();
        documented.insert(name.to_owned());
        let text = text.split("\n## ").next().unwrap();
        let rows: Vec<(&str, bool)> = text.lines().filter_map(row).collect();
        let schema = &definitions()[name];
        let required = list(&schema["required"]);
        let fields = schema["properties"].as_object().unwrap().keys();
        let expected: Vec<_> = fields
            .map(|f| (f.as_str(), required.iter().any(|r| r == f.as_str())))
            .collect();
        assert_eq!(rows, expected, "section `{name}`");
    }
    let defined: BTreeSet<_> = objects().map(|(name, ..)| name.clone()).collect();
    assert_eq!(documented, defined);
}

/// A row's field, and whether it is always there.
fn row(line: &str) -> Option<(&str, bool)> {
    let (field, rest) = line.strip_prefix("| `")?.split_once('`')?;
    Some((field, !rest.contains("(only ")))
}

#[test]
fn the_validator_refuses_what_it_should() {
    let feature = serde_json::json!({"name": "x", "shape": [1, 2], "dtype": "fp16", "bytes": 4});
    check("feature", &feature);
    for (key, value) in [
        ("name", Value::Null),
        ("shape", "1".into()),
        ("shape", serde_json::json!([-1])),
        ("bytes", (-1).into()),
        ("bytes", 1.5.into()),
        ("dtype", "fp64".into()),
        ("other", 1.into()),
    ] {
        let mut wrong = feature.clone();
        wrong[key] = value;
        assert!(
            fits(&definitions()["feature"], &wrong, "").is_err(),
            "{key}"
        );
    }
    let mut short = feature.clone();
    short.as_object_mut().unwrap().remove("bytes");
    assert!(fits(&definitions()["feature"], &short, "").is_err());
}

#[test]
fn the_page_has_every_code() {
    let page = docs("json.md");
    let table = page.split("## Codes of failures").nth(1).unwrap();
    let documented: Vec<_> = table
        .lines()
        .filter_map(row)
        .map(|(code, _)| code)
        .collect();
    let defined = list(&definitions()["error"]["properties"]["code"]["enum"]);
    assert_eq!(
        documented,
        defined
            .iter()
            .map(|c| c.as_str().unwrap())
            .collect::<Vec<_>>()
    );
}
