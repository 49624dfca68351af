//! The programs of packages in the order in which they run.

use std::ops::Range;
use std::path::PathBuf;

use mil::{Function, Program, WeightStore};
use mil_eval::Prepared;
use mlpackage::{MANIFEST_PATH, Package};

use super::error::Error;
use super::evaluator::Evaluator;
use crate::error::Error as JobError;
use crate::proof::{self, shown};

/// Opens packages in the given order, or those that `conversion.json` of the one folder that is given lists for a component:
/// for `None` the only one that it has.
///
/// # Errors
/// One of them is missing or cannot be read as a package, or the folder lists none of that component.
pub fn open_packages(paths: &[PathBuf], component: Option<&str>) -> Result<Vec<Package>, JobError> {
    let listed;
    let paths = match paths {
        [dir] if dir.is_dir() && !dir.join(MANIFEST_PATH).is_file() => {
            listed = proof::packages_in(dir, component)?;
            &listed[..]
        }
        paths => paths,
    };
    if paths.is_empty() {
        return Err(JobError::Usage {
            message: "there are no packages to run".to_owned(),
            help: "give the packages in chain order, or the folder that `convert` wrote".to_owned(),
        });
    }
    paths.iter().map(|p| Ok(Package::open(p)?)).collect()
}

/// A program that runs as one step of a chain.
#[derive(Clone, Copy)]
pub struct Stage<'p> {
    /// The package that it comes from, by its place in the given order, from 0.
    pub package: usize,
    /// Its place in the package's pipeline, from 1; `None` for the package's own program.
    pub number: Option<usize>,
    /// The program.
    pub program: &'p Program,
    /// Which of the program's functions runs.
    pub function: &'p str,
    /// The program's weights.
    pub weights: &'p dyn WeightStore,
}

impl<'p> Stage<'p> {
    /// The function that runs.
    pub fn body(&self) -> &'p Function {
        let function = self.program.functions.get(self.function);
        function.expect("a stage's function was looked up in its program")
    }
}

/// The programs of packages in the order in which they run.
#[derive(Clone)]
pub struct Stages<'p> {
    packages: Vec<Source>,
    list: Vec<Stage<'p>>,
}

/// The stages of one package.
#[derive(Clone)]
pub(super) struct Source {
    /// What messages call it.
    name: String,
    pub stages: Range<usize>,
    /// What a pipeline gives of its stages' outputs; `None` for a package's own program.
    pub outputs: Option<Vec<String>>,
}

impl<'p> Stages<'p> {
    /// Takes packages in chain order. Of those with several functions the one called `function` runs; without a name the one
    /// that the package calls its default, else `main`.
    ///
    /// # Errors
    /// A package holds something else than ML Programs, its weights are not what it says, or it has no such function.
    pub fn new(
        packages: impl IntoIterator<Item = &'p Package>,
        function: Option<&str>,
    ) -> Result<Self, JobError> {
        let mut stages = Stages {
            packages: Vec::new(),
            list: Vec::new(),
        };
        let mut is_known = function.is_none();
        for package in packages {
            let first = stages.list.len();
            for stage in package.stages()? {
                let program = stage.program()?;
                is_known |= function.is_some_and(|f| program.functions.contains_key(f));
                stages.list.push(Stage {
                    package: stages.packages.len(),
                    number: stage.number(),
                    program,
                    function: choose(program, function, stage.default_function())
                        .map_err(|found| no_function(name(package), function, found))?,
                    weights: stage.weight_store()?,
                });
            }
            let is_pipeline = stages.list[first..].iter().any(|s| s.number.is_some());
            let outputs = package.outputs().into_iter().map(|f| f.name);
            stages.packages.push(Source {
                name: name(package),
                stages: first..stages.list.len(),
                outputs: is_pipeline.then(|| outputs.collect()),
            });
        }
        match (is_known, stages.packages.first()) {
            // A name that no package has is a mistake even where each has one function only.
            (false, Some(source)) => {
                let found = stages.list.iter().map(|s| s.function.to_owned());
                let mut found: Vec<String> = found.collect();
                found.dedup();
                Err(no_function(source.name.clone(), function, found).into())
            }
            _ => Ok(stages),
        }
    }

    /// The function `main` of one program that is in no package; `name` is what messages call it.
    pub(crate) fn of_program(
        name: &str,
        program: &'p Program,
        weights: &'p dyn WeightStore,
    ) -> Self {
        Stages {
            packages: vec![Source {
                name: name.to_owned(),
                stages: 0..1,
                outputs: None,
            }],
            list: vec![Stage {
                package: 0,
                number: None,
                program,
                function: "main",
                weights,
            }],
        }
    }

    /// The same stages with other stores of their weights, in order.
    pub(crate) fn with_weights(
        mut self,
        weights: impl IntoIterator<Item = &'p dyn WeightStore>,
    ) -> Self {
        for (stage, weights) in self.list.iter_mut().zip(weights) {
            stage.weights = weights;
        }
        self
    }

    /// The stages in order.
    pub fn list(&self) -> &[Stage<'p>] {
        &self.list
    }

    /// What messages call a stage: the name of its package's folder, of a pipeline with the stage's place.
    pub fn name(&self, stage: usize) -> String {
        let Some(stage) = self.list.get(stage) else {
            return format!("stage {}", stage.saturating_add(1));
        };
        let name = self.packages.get(stage.package).map(|s| s.name.clone());
        let name = name.unwrap_or_default();
        match stage.number {
            Some(number) => format!("stage {number} of {name}"),
            None => name,
        }
    }

    /// Verifies and plans every program.
    ///
    /// # Errors
    /// A program breaks a rule, or has operations or types that cannot be computed: all that are found are named.
    pub fn prepare(&self, options: mil_eval::Options) -> Result<Evaluator<'p>, Error> {
        let mut prepared = Vec::with_capacity(self.list.len());
        let mut unknown = Vec::new();
        for (at, stage) in self.list.iter().enumerate() {
            match Prepared::new(stage.program, stage.function, stage.weights, options) {
                Ok(stage) => prepared.push(stage),
                Err(mil_eval::Error::UnknownOperations { operations, .. }) => {
                    let operations = operations.iter().map(|o| shown(o)).collect();
                    unknown.push((self.name(at), operations));
                }
                Err(source) => {
                    let stage = self.name(at);
                    return Err(Error::Stage { stage, source });
                }
            }
        }
        if unknown.is_empty() {
            Ok(Evaluator::new(self, prepared))
        } else {
            Err(Error::UnknownOperations(unknown))
        }
    }

    pub(super) fn packages(&self) -> &[Source] {
        &self.packages
    }
}

/// The function that runs, or else those that there are.
fn choose<'p>(
    program: &'p Program,
    wanted: Option<&str>,
    default: Option<&str>,
) -> Result<&'p str, Vec<String>> {
    let find = |name: &str| Some(program.functions.get_key_value(name)?.0.as_str());
    let only = || match program.functions.len() {
        1 => program.functions.keys().next().map(String::as_str),
        _ => None,
    };
    let chosen = match wanted {
        Some(name) => find(name),
        None => default.and_then(find).or_else(|| find("main")),
    };
    chosen.or_else(only).ok_or_else(|| {
        let names = program.functions.keys();
        names.map(|n| shown(n)).collect()
    })
}

fn no_function(package: String, wanted: Option<&str>, found: Vec<String>) -> Error {
    match wanted {
        Some(function) => Error::NoFunction {
            package,
            function: shown(function),
            found,
        },
        None => Error::SeveralFunctions { package, found },
    }
}

fn name(package: &Package) -> String {
    let path = package.path();
    let name = path.file_name().unwrap_or(path.as_os_str());
    format!("`{}`", shown(&name.to_string_lossy()))
}
