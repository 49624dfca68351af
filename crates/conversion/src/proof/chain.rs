//! Packages on disk in chain order, with what the folder's record says of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mlpackage::Package;
use serde_json::Value;

use super::report::shown;
use crate::error::Error;
use crate::set::RECORD_NAME;
use crate::set::record::Record;

/// Prefix of the keys that only packages of this tool have.
const OWN_KEY: &str = "chunk-unet.";

/// Packages on disk in chain order.
#[derive(Debug)]
pub struct Chain {
    pub(super) stages: Vec<Stage>,
    /// Packages that the record lists and that are not there, by their place.
    pub(super) absent: Vec<(usize, String)>,
    /// The set that they are, where a record lists exactly these packages.
    pub(super) set: Option<RecordedSet>,
}

/// A component's entry in a folder's record.
#[derive(Debug)]
pub(super) struct RecordedSet {
    pub dir: PathBuf,
    pub component: String,
    pub entry: Value,
}

/// One package of a chain.
#[derive(Debug)]
pub struct Stage {
    /// Its place in the chain, from 0, absent packages counted.
    pub(super) at: usize,
    /// Name of its folder.
    pub(super) name: String,
    pub(super) package: Package,
    pub(super) recorded: Option<Recorded>,
}

/// What a record says of one package.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    /// Its files, by their path in the package.
    pub files: BTreeMap<String, RecordedFile>,
    pub allow_overflow: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordedFile {
    pub len_bytes: u64,
    pub blake3: Option<String>,
}

impl Chain {
    /// Opens packages in chain order. What `conversion.json` beside a package says of it is taken along.
    ///
    /// # Errors
    /// There is none, or one cannot be read as a package.
    pub fn open(packages: &[PathBuf]) -> Result<Chain, Error> {
        if packages.is_empty() {
            return Err(usage(
                "no packages were given",
                "give the packages in chain order",
            ));
        }
        let open = |(at, path): (usize, &PathBuf)| {
            let name = file_name(path)?;
            // A file of that name that is no record of ours has nothing to say.
            let record = path.parent().and_then(|dir| Record::read(dir).ok());
            let recorded = record.and_then(|r| recorded(&r, None, &name));
            Stage::open(at, path, name, recorded)
        };
        let stages = packages.iter().enumerate().map(open);
        let stages = stages.collect::<Result<Vec<_>, _>>()?;
        Ok(Chain {
            set: set_of(&stages),
            stages,
            absent: Vec::new(),
        })
    }

    /// Opens the packages that `conversion.json` of a folder lists for a component; `None` for the only one that it has.
    ///
    /// # Errors
    /// The folder has no record or none of that component, or a package that is there cannot be read as one.
    pub fn in_dir(dir: &Path, component: Option<&str>) -> Result<Chain, Error> {
        let record = Record::read(dir)?;
        let component = component_of(&record, dir, component)?;
        let mut chain = Chain {
            stages: Vec::new(),
            absent: Vec::new(),
            set: recorded_set(&record, dir, component),
        };
        for (at, name) in record.packages(component).enumerate() {
            let path = dir.join(name);
            if path.exists() {
                let recorded = recorded(&record, Some(component), name);
                chain
                    .stages
                    .push(Stage::open(at, &path, name.to_owned(), recorded)?);
            } else {
                chain.absent.push((at, shown(name)));
            }
        }
        Ok(chain)
    }

    /// The packages that are there.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.stages.iter().map(|s| &s.package)
    }

    /// Whether all packages say that this tool made them.
    pub(super) fn is_own(&self) -> bool {
        self.stages.iter().all(Stage::is_own)
    }
}

impl Stage {
    fn open(
        at: usize,
        path: &Path,
        name: String,
        recorded: Option<Recorded>,
    ) -> Result<Stage, Error> {
        let package = Package::open(path)?;
        // A package that holds no program is none that can be joined, so that is said before anything else.
        package.program()?;
        Ok(Stage {
            at,
            name,
            package,
            recorded,
        })
    }

    /// A file of the package as messages name it.
    pub(super) fn file(&self, inside: &str) -> String {
        format!("{}/{}", shown(&self.name), shown(inside))
    }

    /// The model file, as messages name it.
    pub(super) fn model_file(&self) -> String {
        self.file(&self.inside(self.package.model_path()))
    }

    /// A path's part inside the package, with `/` between names.
    pub(super) fn inside(&self, path: &Path) -> String {
        let inside = path.strip_prefix(self.package.path()).unwrap_or(path);
        let names = inside.components().map(|c| c.as_os_str().to_string_lossy());
        names.collect::<Vec<_>>().join("/")
    }

    /// Whether the package says that this tool made it.
    pub(super) fn is_own(&self) -> bool {
        self.key("version").is_some()
    }

    /// What the package itself says under a key of this tool.
    pub(super) fn key(&self, key: &str) -> Option<String> {
        let keys = self.package.info().user_defined;
        keys.get(&format!("{OWN_KEY}{key}")).cloned()
    }
}

fn file_name(path: &Path) -> Result<String, Error> {
    let resolved = || path.canonicalize().ok();
    let name = path.file_name().map(ToOwned::to_owned);
    let name = name.or_else(|| Some(resolved()?.file_name()?.to_owned()));
    let name = name.map(|n| n.to_string_lossy().into_owned());
    name.ok_or_else(|| {
        let path = shown(&path.to_string_lossy());
        usage(
            &format!("`{path}` is no package"),
            "give the packages in chain order",
        )
    })
}

fn recorded_set(record: &Record, dir: &Path, component: &str) -> Option<RecordedSet> {
    Some(RecordedSet {
        dir: dir.to_owned(),
        component: component.to_owned(),
        entry: record.entry(component)?.clone(),
    })
}

/// The set that packages are: all that a record beside them lists of a component, in its order.
fn set_of(stages: &[Stage]) -> Option<RecordedSet> {
    let dir = |stage: &Stage| {
        Some(
            stage
                .package
                .path()
                .canonicalize()
                .ok()?
                .parent()?
                .to_owned(),
        )
    };
    let first = dir(stages.first()?)?;
    if stages.iter().any(|s| dir(s).as_ref() != Some(&first)) {
        return None;
    }
    let record = Record::read(&first).ok()?;
    let component = record.owner(&stages.first()?.name, "")?;
    let listed = record.packages(component);
    let is_all = listed.eq(stages.iter().map(|s| s.name.as_str()));
    is_all.then(|| recorded_set(&record, &first, component))?
}

fn usage(message: &str, help: &str) -> Error {
    Error::Usage {
        message: message.to_owned(),
        help: help.to_owned(),
    }
}

/// The packages that `conversion.json` of a folder lists for a component, there or not; `None` for the only one that it has.
pub(crate) fn packages_in(dir: &Path, component: Option<&str>) -> Result<Vec<PathBuf>, Error> {
    let record = Record::read(dir)?;
    let component = component_of(&record, dir, component)?;
    Ok(record.packages(component).map(|p| dir.join(p)).collect())
}

fn component_of<'r>(
    record: &'r Record,
    dir: &Path,
    wanted: Option<&str>,
) -> Result<&'r str, Error> {
    let names: Vec<&str> = record.components().map(|(name, _)| name.as_str()).collect();
    let found = match wanted {
        Some(wanted) => names.iter().find(|n| **n == wanted),
        None => names.first().filter(|_| names.len() == 1),
    };
    found
        .copied()
        .ok_or_else(|| no_component(dir, wanted, &names))
}

fn no_component(dir: &Path, wanted: Option<&str>, names: &[&str]) -> Error {
    let dir = shown(&dir.to_string_lossy());
    let names = names
        .iter()
        .map(|n| format!("`{}`", shown(n)))
        .collect::<Vec<_>>();
    let found = match names.len() {
        0 => format!("`{dir}` holds no {RECORD_NAME} that lists packages"),
        _ => format!("{RECORD_NAME} in `{dir}` lists {}", names.join(", ")),
    };
    let message = match wanted {
        Some(wanted) => format!("{found}, expected component `{}`", shown(wanted)),
        None => format!("{found}, expected one component"),
    };
    usage(&message, "give the packages themselves, in chain order")
}

/// What the record says of a package; `component` where it is known which lists it.
fn recorded(record: &Record, component: Option<&str>, package: &str) -> Option<Recorded> {
    let owner = component.or_else(|| record.owner(package, ""))?;
    let entry = record.entry(owner)?;
    let files = entry.get("files").and_then(Value::as_array);
    let file = |value: &Value| {
        let path = value.get("path")?.as_str()?;
        let inside = path.strip_prefix(package)?.strip_prefix('/')?;
        let blake3 = value.get("blake3").and_then(Value::as_str);
        let file = RecordedFile {
            len_bytes: value.get("bytes")?.as_u64()?,
            blake3: blake3.map(str::to_owned),
        };
        Some((inside.to_owned(), file))
    };
    let options = entry.get("options");
    Some(Recorded {
        files: files.into_iter().flatten().filter_map(file).collect(),
        allow_overflow: options.and_then(|o| o.get("allow_overflow")?.as_bool()),
    })
}
