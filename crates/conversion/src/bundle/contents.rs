//! What a folder holds that can go into a bundle: which packages and compiled models make up which resource.
//!
//! Names are those of the loader, with the numbers that more than two chunks have (`UnetChunk1of3`), or those that Apple's
//! converter gives (`Stable_Diffusion_version_<model>_unet_chunk1`). Where the folder has a record of conversions, that says
//! which packages are chunks of what, whatever they are called.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::loader::{SINGLE_MODELS, UNETS};
use crate::error::Error;
use crate::set::place::COMPILED_ENDING;
use crate::set::record::Record;

/// The ending of packages.
const PACKAGE_ENDING: &str = ".mlpackage";

/// What a model's files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// A package.
    Package,
    /// A compiled model.
    Compiled,
}

/// Something that the loader looks for, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its name without an ending, such as `Unet`.
    pub name: &'static str,
    /// What its parts are.
    pub form: Form,
    /// Names of the parts in the folder, in order.
    pub parts: Vec<String>,
}

/// A name of a model taken apart: which resource it is of, and which part of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    resource: &'static str,
    /// From 1.
    number: usize,
    count: usize,
}

/// Everything that the folder holds for a bundle.
pub fn of(dir: &Path) -> Result<Vec<Resource>, Error> {
    let refused = |what: String, help: &str| Error::NotBundled {
        path: dir.to_owned(),
        what,
        help: help.to_owned(),
    };
    let mut names = names(dir)?;
    let mut sets = Vec::new();
    for (resource, packages) in recorded(dir)? {
        if let Some(gone) = packages.iter().find(|p| !names.contains(p)) {
            let what = format!(
                "`{}`, which its record lists, is not there",
                gone.escape_debug()
            );
            return Err(refused(what, "put it back, or convert again"));
        }
        names.retain(|name| !packages.contains(name));
        sets.push(Resource {
            name: resource,
            form: Form::Package,
            parts: packages,
        });
    }
    sets.extend(by_name(&names).map_err(|what| {
        refused(
            what,
            "put the missing chunks beside the others, or convert again",
        )
    })?);
    let mut resources: BTreeMap<&str, Resource> = BTreeMap::new();
    for set in sets {
        match resources.get_mut(set.name) {
            None => {
                resources.insert(set.name, set);
            }
            // Of the same chunks both ways the packages count: what is compiled of them cannot be out of date.
            Some(other) if other.parts.len() == set.parts.len() && other.form != set.form => {
                if set.form < other.form {
                    *other = set;
                }
            }
            Some(other) => {
                let listed = |r: &Resource| r.parts.join("`, `").escape_debug().to_string();
                let what = format!(
                    "it holds `{}` twice: `{}` and `{}`",
                    set.name,
                    listed(other),
                    listed(&set)
                );
                return Err(refused(
                    what,
                    "move away those that do not belong into the bundle",
                ));
            }
        }
    }
    if resources.is_empty() {
        let known: Vec<_> = UNETS
            .iter()
            .chain(&SINGLE_MODELS)
            .map(|n| format!("`{n}`"))
            .collect();
        let what = "it holds no package and no compiled model that the loader knows".to_owned();
        return Err(refused(
            what,
            &format!(
                "give a folder with models called as the loader calls them: {}",
                known.join(", ")
            ),
        ));
    }
    Ok(resources.into_values().collect())
}

/// Names of the packages and compiled models in a folder, sorted.
fn names(dir: &Path) -> Result<Vec<String>, Error> {
    let failed = |e| Error::io("read folder", dir, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let is_model = name.ends_with(PACKAGE_ENDING) || name.ends_with(COMPILED_ENDING);
        if is_model && !name.starts_with('.') && entry.path().is_dir() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The components of the folder's record that are UNets, with their packages.
fn recorded(dir: &Path) -> Result<Vec<(&'static str, Vec<String>)>, Error> {
    let record = Record::read(dir)?;
    let mut found = Vec::new();
    for (component, _) in record.components() {
        let packages: Vec<_> = record.packages(component).map(str::to_owned).collect();
        let resource = match component.as_str() {
            "unet" => Some("Unet"),
            "unet_refiner" => Some("UnetRefiner"),
            name => UNETS.into_iter().find(|unet| *unet == name),
        };
        if let Some(resource) = resource.filter(|_| !packages.is_empty()) {
            found.push((resource, packages));
        }
    }
    Ok(found)
}

/// Complete sets of parts by their names; names that mean nothing to the loader are left alone.
fn by_name(names: &[String]) -> Result<Vec<Resource>, String> {
    let mut sets: BTreeMap<(&str, Form, usize), Vec<Option<&String>>> = BTreeMap::new();
    for name in names {
        let (stem, form) = match (
            name.strip_suffix(PACKAGE_ENDING),
            name.strip_suffix(COMPILED_ENDING),
        ) {
            (Some(stem), _) => (stem, Form::Package),
            (None, Some(stem)) => (stem, Form::Compiled),
            (None, None) => continue,
        };
        let Some(part) = part(stem) else {
            continue;
        };
        let key = (part.resource, form, part.count);
        let parts = sets.entry(key).or_insert_with(|| vec![None; part.count]);
        if let Some(slot) = parts.get_mut(part.number - 1) {
            if let Some(other) = slot {
                let shown = |name: &str| name.escape_debug().to_string();
                return Err(format!(
                    "`{}` and `{}` are the same part",
                    shown(other),
                    shown(name)
                ));
            }
            *slot = Some(name);
        }
    }
    let complete =
        |((name, form, count), parts): ((&'static str, Form, usize), Vec<Option<&String>>)| {
            let missing = parts.iter().position(Option::is_none);
            if let Some(at) = missing {
                return Err(format!(
                    "chunk {} of {count} of `{name}` is not there",
                    at + 1
                ));
            }
            let parts = parts.into_iter().flatten().cloned().collect();
            Ok(Resource { name, form, parts })
        };
    sets.into_iter().map(complete).collect()
}

/// Most chunks that a name may say there are; no conversion makes more than 64.
const MAX_CHUNKS: usize = 1000;

fn part(stem: &str) -> Option<Part> {
    if let Some(&resource) = SINGLE_MODELS.iter().find(|name| **name == stem) {
        return Some(Part {
            resource,
            number: 1,
            count: 1,
        });
    }
    // The longest first: one is the beginning of another.
    let unets = ["ControlledUnet", "UnetRefiner", "Unet"];
    let found = unets
        .into_iter()
        .find_map(|unet| Some((unet, stem.strip_prefix(unet)?)));
    let Some((resource, rest)) = found else {
        return of_apples_converter(stem);
    };
    let (number, count) = match rest.strip_prefix("Chunk") {
        None if rest.is_empty() => (1, 1),
        None => return None,
        Some(numbers) => match numbers.split_once("of") {
            None => (number(numbers)?, 2),
            Some((at, count)) => (number(at)?, number(count)?),
        },
    };
    let is_one = (1..=count).contains(&number) && count <= MAX_CHUNKS;
    is_one.then_some(Part {
        resource,
        number,
        count,
    })
}

/// A number as it is written: digits only, no leading zero.
fn number(digits: &str) -> Option<usize> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

/// What Apple's converter calls its packages, by the end of their names.
const CONVERTERS_NAMES: [(&str, &str, usize, usize); 12] = [
    ("_text_encoder", "TextEncoder", 1, 1),
    ("_text_encoder_2", "TextEncoder2", 1, 1),
    ("_vae_decoder", "VAEDecoder", 1, 1),
    ("_vae_encoder", "VAEEncoder", 1, 1),
    ("_safety_checker", "SafetyChecker", 1, 1),
    ("_unet", "Unet", 1, 1),
    ("_unet_chunk1", "Unet", 1, 2),
    ("_unet_chunk2", "Unet", 2, 2),
    ("_refiner", "UnetRefiner", 1, 1),
    ("_refiner_chunk1", "UnetRefiner", 1, 2),
    ("_refiner_chunk2", "UnetRefiner", 2, 2),
    ("_control-unet", "ControlledUnet", 1, 1),
];

fn of_apples_converter(stem: &str) -> Option<Part> {
    let stem = stem.strip_prefix("Stable_Diffusion_version_")?;
    let ends = |(ending, ..): &&(&str, _, _, _)| stem.ends_with(ending);
    let &(_, resource, number, count) = CONVERTERS_NAMES.iter().find(ends)?;
    Some(Part {
        resource,
        number,
        count,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let cases = [
            ("Unet", Some(("Unet", 1, 1))),
            ("UnetChunk1", Some(("Unet", 1, 2))),
            ("UnetChunk2", Some(("Unet", 2, 2))),
            ("UnetChunk3", None),
            ("UnetChunk3of3", Some(("Unet", 3, 3))),
            ("UnetChunk4of3", None),
            ("UnetChunk0of3", None),
            ("UnetChunk01of3", None),
            ("UnetChunk1of99999999999999999999", None),
            ("UnetChunk1of2000", None),
            ("UnetRefinerChunk1", Some(("UnetRefiner", 1, 2))),
            ("ControlledUnetChunk2", Some(("ControlledUnet", 2, 2))),
            ("TextEncoder2", Some(("TextEncoder2", 1, 1))),
            ("VAEDecoder", Some(("VAEDecoder", 1, 1))),
            ("Unet2", None),
            (
                "Stable_Diffusion_version_a_b_unet_chunk2",
                Some(("Unet", 2, 2)),
            ),
            (
                "Stable_Diffusion_version_a_text_encoder_2",
                Some(("TextEncoder2", 1, 1)),
            ),
            (
                "Stable_Diffusion_version_a_refiner",
                Some(("UnetRefiner", 1, 1)),
            ),
            ("my_unet_chunk2", None),
        ];
        for (stem, expected) in cases {
            let found = part(stem).map(|p| (p.resource, p.number, p.count));
            assert_eq!(found, expected, "{stem}");
        }
    }

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        folder
    }

    fn held(names: &[&str]) -> Result<Vec<(String, Form, Vec<String>)>, String> {
        let found = of(folder(names).path()).map_err(|e| e.to_string())?;
        Ok(found
            .into_iter()
            .map(|r| (r.name.to_owned(), r.form, r.parts))
            .collect())
    }

    #[test]
    fn sets_are_complete_and_of_one_kind() {
        let found = held(&[
            "UnetChunk2.mlpackage",
            "UnetChunk1.mlpackage",
            "VAEDecoder.mlmodelc",
            "other.mlpackage",
            ".x.mlpackage",
        ])
        .unwrap();
        let parts = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let expected = [
            (
                "Unet".to_owned(),
                Form::Package,
                parts(&["UnetChunk1.mlpackage", "UnetChunk2.mlpackage"]),
            ),
            (
                "VAEDecoder".to_owned(),
                Form::Compiled,
                parts(&["VAEDecoder.mlmodelc"]),
            ),
        ];
        assert_eq!(found, expected);
        let found = held(&["Unet.mlpackage", "Unet.mlmodelc"]).unwrap();
        assert_eq!(found[0].1, Form::Package);
        for (names, part) in [
            (
                &["UnetChunk1.mlmodelc"][..],
                "chunk 2 of 2 of `Unet` is not there",
            ),
            (
                &["UnetChunk1of3.mlpackage", "UnetChunk3of3.mlpackage"],
                "chunk 2 of 3",
            ),
            (
                &[
                    "Unet.mlpackage",
                    "UnetChunk1.mlpackage",
                    "UnetChunk2.mlpackage",
                ],
                "holds `Unet` twice",
            ),
            (
                &[
                    "Unet.mlpackage",
                    "Stable_Diffusion_version_a_unet.mlpackage",
                ],
                "are the same part",
            ),
            (&["other.mlpackage"], "no package and no compiled model"),
            (&[], "no package and no compiled model"),
        ] {
            let error = held(names).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_record_says_what_packages_are_whatever_they_are_called() {
        let dir = folder(&["a.mlpackage", "b.mlpackage", "c.mlpackage"]);
        let write = |packages: &str| {
            let record = format!(
                r#"{{"schema_version": 1, "components": {{"unet": {{"packages": [{packages}]}}, "else": {{"packages": ["c.mlpackage"]}}}}}}"#
            );
            fs::write(dir.path().join("conversion.json"), record).unwrap();
        };
        write(r#""b.mlpackage", "a.mlpackage""#);
        let found = of(dir.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].name, &found[0].parts[..]),
            (
                "Unet",
                &["b.mlpackage".to_owned(), "a.mlpackage".to_owned()][..]
            )
        );
        write(r#""b.mlpackage", "gone.mlpackage""#);
        assert!(
            of(dir.path())
                .unwrap_err()
                .to_string()
                .contains("is not there")
        );
    }
}
