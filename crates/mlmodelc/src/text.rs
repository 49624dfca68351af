//! `model.mil`: the program as text, with what Core ML's compiler adds to it.

use std::collections::BTreeMap;

use mil::text::{Location, OwnForm, print_compiled};
use mil::{Constant, Data, DataType, Program, ValueType};
use mlpackage::program::WeightTable;
use mlpackage::proto::{FeatureDescription, ModelDescription};

use crate::flexible;

/// The program's attribute that says what made it.
const BUILD_INFO: &str = "buildInfo";

/// What a parser of Core ML's wants to find there; what the values are, it does not mind.
const COMPILER_ENTRIES: [(&str, &str); 2] = [
    ("coremlc-component-MIL", "chunk-unet"),
    ("coremlc-version", env!("CARGO_PKG_VERSION")),
];

/// The text of a program whose weights are where its table says. The program has the additions afterwards.
pub fn of(
    program: &mut Program,
    table: &WeightTable,
    description: &ModelDescription,
    specification_version: i32,
) -> Result<String, OwnForm> {
    let build_info = build_info(program.attributes.get(BUILD_INFO));
    program.attributes.insert(BUILD_INFO.to_owned(), build_info);
    for (name, function) in &mut program.functions {
        if let Some((key, shapes)) = flexible::attribute(inputs_of(description, name)) {
            function.attributes.insert(key, shapes);
        }
    }
    let locate = |weight| {
        table.get(weight).map_or_else(
            || Location::unplaced(weight),
            |w| Location {
                path: w.place.file_name.clone(),
                offset: w.place.offset_bytes,
            },
        )
    };
    let mut text = print_compiled(program, specification_version, &locate)?;
    // Core ML's compiler ends the file with the brace.
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// The inputs of a function; a description without functions is that of the only one.
pub fn inputs_of<'d>(
    description: &'d ModelDescription,
    function: &str,
) -> &'d [FeatureDescription] {
    let mut functions = description.functions.iter();
    match functions.find(|f| f.name == function) {
        Some(function) => &function.input,
        None => &description.input,
    }
}

/// What the package's own says, with what compiled it, in alphabetical order.
fn build_info(packages: Option<&Constant>) -> Constant {
    let mut entries: BTreeMap<String, String> = BTreeMap::new();
    if let Some(Data::Dictionary(pairs)) = packages.map(|c| &c.data) {
        let texts = pairs
            .iter()
            .filter_map(|(k, v)| Some((k.as_str()?, v.as_str()?)));
        entries.extend(texts.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
    entries.extend(COMPILER_ENTRIES.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let text = || Box::new(ValueType::scalar(DataType::String));
    let ty = ValueType::Dictionary {
        key: text(),
        value: text(),
    };
    let entries = entries.into_iter();
    let pairs = entries.map(|(k, v)| (Constant::string(k), Constant::string(v)));
    Constant::new(ty, Data::Dictionary(pairs.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_made_the_package_stays() {
        let text = r#"program(1.3) [buildInfo = dict<string, string>({{"coremltools-version", "9.0"}, {"coremlc-version", "1"}})] { }"#;
        let program = mil::text::parse(text).unwrap().program;
        let description = ModelDescription::default();
        let table = WeightTable::default();
        let printed = of(&mut program.clone(), &table, &description, 9).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        let entries = format!(
            r#"{{{{"coremlc-component-MIL", "chunk-unet"}}, {{"coremlc-version", "{version}"}}, {{"coremltools-version", "9.0"}}}}"#
        );
        assert_eq!(
            printed,
            format!("program(1.3)\n[buildInfo = dict<string, string>({entries})]\n{{\n}}")
        );
        let older = of(&mut program.clone(), &table, &description, 8).unwrap();
        let info = format!("[buildInfo = dict<tensor<string, []>, tensor<string, []>>({entries})]");
        assert_eq!(older, format!("program(1.0)\n{info}\n{{\n}}"));
    }
}
