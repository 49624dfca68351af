//! Packages on disk in chain order, or the stages of one that is a pipeline, with what the folder's record says of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mil::Verified;
use mlpackage::Package;
use partition::{JoinError, Joined, Joining};
use serde_json::Value;

use super::report::shown;
use super::stored::blob_path;
use crate::error::Error;
use crate::set::RECORD_NAME;
use crate::set::record::Record;

/// Prefix of the keys that only packages of this tool have.
const OWN_KEY: &str = "chunk-unet.";

/// Packages on disk in chain order, or one that is a pipeline.
#[derive(Debug)]
pub struct Chain {
    packages: Vec<Arc<Package>>,
    pub(super) stages: Vec<Stage>,
    /// Outputs of the pipeline that the stages are.
    pub(super) pipeline_outputs: Option<Vec<String>>,
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

/// One package of a chain, or one stage of a pipeline.
#[derive(Debug)]
pub struct Stage {
    /// Its place in the chain, from 0, absent packages counted.
    pub(super) at: usize,
    /// Name of its folder.
    pub(super) name: String,
    pub(super) package: Arc<Package>,
    /// Which of the package's stages it is, from 0.
    number: usize,
    pub(super) recorded: Option<Arc<Recorded>>,
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
            Opened::open(at, path, name, recorded)
        };
        let opened = packages.iter().enumerate().map(open);
        let opened = opened.collect::<Result<Vec<_>, _>>()?;
        let set = set_of(&opened);
        Chain::of(opened, Vec::new(), set)
    }

    /// Opens the packages that `conversion.json` of a folder lists for a component; `None` for the only one that it has.
    ///
    /// # Errors
    /// The folder has no record or none of that component, or a package that is there cannot be read as one.
    pub fn in_dir(dir: &Path, component: Option<&str>) -> Result<Chain, Error> {
        let record = Record::read(dir)?;
        let component = component_of(&record, dir, component)?;
        let (mut opened, mut absent) = (Vec::new(), Vec::new());
        for (at, name) in record.packages(component).enumerate() {
            let path = dir.join(name);
            if path.exists() {
                let recorded = recorded(&record, Some(component), name);
                opened.push(Opened::open(at, &path, name.to_owned(), recorded)?);
            } else {
                absent.push((at, shown(name)));
            }
        }
        Chain::of(opened, absent, recorded_set(&record, dir, component))
    }

    fn of(
        opened: Vec<Opened>,
        absent: Vec<(usize, String)>,
        set: Option<RecordedSet>,
    ) -> Result<Chain, Error> {
        let num_packages = opened.len() + absent.len();
        let mut chain = Chain {
            packages: Vec::with_capacity(opened.len()),
            stages: Vec::new(),
            pipeline_outputs: None,
            absent,
            set,
        };
        for package in opened {
            if package.is_pipeline()? {
                if num_packages > 1 {
                    let name = shown(&package.name);
                    return Err(usage(
                        &format!("`{name}` is a pipeline, which is a chain by itself"),
                        "give the pipeline alone, or packages that are none in chain order",
                    ));
                }
                let outputs = package.package.outputs().into_iter();
                chain.pipeline_outputs = Some(outputs.map(|f| f.name).collect());
            }
            chain.packages.push(package.package.clone());
            chain.stages.extend(package.stages()?);
        }
        Ok(chain)
    }

    /// The packages that are there.
    pub fn packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().map(Arc::as_ref)
    }

    /// The stages as one program.
    pub(super) fn join(
        &self,
        stages: &[Verified<'_>],
        originals: Option<&[&str]>,
        narrowed: bool,
    ) -> Result<Joined, JoinError> {
        let outputs = self.pipeline_outputs.as_ref();
        let outputs = outputs.map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
        let how = Joining {
            originals,
            pipeline_outputs: outputs.as_deref(),
            narrowed,
        };
        partition::join(stages, &how)
    }

    /// Whether all packages say that this tool made them.
    pub(super) fn is_own(&self) -> bool {
        self.stages.iter().all(Stage::is_own)
    }
}

/// A package of a chain.
struct Opened {
    at: usize,
    name: String,
    package: Arc<Package>,
    recorded: Option<Arc<Recorded>>,
}

impl Opened {
    fn open(
        at: usize,
        path: &Path,
        name: String,
        recorded: Option<Recorded>,
    ) -> Result<Opened, Error> {
        Ok(Opened {
            at,
            name,
            package: Arc::new(Package::open(path)?),
            recorded: recorded.map(Arc::new),
        })
    }

    fn is_pipeline(&self) -> Result<bool, Error> {
        let stages = self.package.stages()?;
        Ok(stages.iter().any(|stage| stage.number().is_some()))
    }

    fn stages(self) -> Result<Vec<Stage>, Error> {
        let stages = self.package.stages()?;
        // What holds no program cannot be joined, so that is said before anything else.
        for stage in &stages {
            stage.program()?;
        }
        let stage = |number| Stage {
            at: self.at + number,
            name: self.name.clone(),
            package: self.package.clone(),
            number,
            recorded: self.recorded.clone(),
        };
        Ok((0..stages.len()).map(stage).collect())
    }
}

impl Stage {
    /// The model.
    pub(super) fn model(&self) -> mlpackage::Stage<'_> {
        let stages = self.package.stages();
        stages.expect("its stages were counted when it was opened")[self.number]
    }

    /// Whether a file of its package belongs to it: each to the stages whose programs refer to it, all others to the first.
    pub(super) fn owns(&self, inside: &str) -> bool {
        let folder = self.package.model_path().parent().unwrap_or(Path::new(""));
        let is_referred_to = |stage: &mlpackage::Stage<'_>| {
            let table = stage.weight_table().into_iter();
            let names = table.flat_map(|t| t.iter().map(|(_, w)| &w.place.file_name));
            let names: BTreeSet<&String> = names.collect();
            let mut paths = names.into_iter().filter_map(|n| blob_path(folder, n));
            paths.any(|path| self.inside(&path) == inside)
        };
        if is_referred_to(&self.model()) {
            return true;
        }
        let stages = self.package.stages().unwrap_or_default();
        self.number == 0 && !stages.iter().any(is_referred_to)
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
        let keys = self.model().info().user_defined;
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
fn set_of(packages: &[Opened]) -> Option<RecordedSet> {
    let dir = |opened: &Opened| {
        let path = opened.package.path().canonicalize().ok()?;
        Some(path.parent()?.to_owned())
    };
    let first = dir(packages.first()?)?;
    if packages.iter().any(|s| dir(s).as_ref() != Some(&first)) {
        return None;
    }
    let record = Record::read(&first).ok()?;
    let component = record.owner(&packages.first()?.name, "")?;
    let listed = record.packages(component);
    let is_all = listed.eq(packages.iter().map(|s| s.name.as_str()));
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
