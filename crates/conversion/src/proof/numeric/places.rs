//! Which package a computed value belongs to.

use std::collections::BTreeMap;

use mil::Program;

use super::super::matched::Matched;
use super::names;
use crate::evaluation::Stages;

/// Which package a computed value belongs to.
pub(super) enum Places {
    /// By the stage that makes it.
    ByStage(Vec<usize>),
    /// By its name, in one program that stands for all packages.
    ByName(BTreeMap<String, usize>),
}

impl Places {
    pub fn of_packages(packages: &Stages<'_>) -> Self {
        Places::ByStage(packages.list().iter().map(|s| s.package).collect())
    }

    /// Operations that the packages do not have, as there are where queries come in pieces, are where those before them are.
    pub fn of_program(matched: &Matched, program: &Program) -> Self {
        let mut places = BTreeMap::new();
        let mut here = 0;
        for f in program.functions.values() {
            for op in names::operations(f) {
                for &v in &op.outputs {
                    let name = &f.value(v).name;
                    here = matched.places.get(name).copied().unwrap_or(here);
                    places.insert(name.clone(), here);
                }
            }
        }
        Places::ByName(places)
    }

    /// The package's place in the chain, from 0.
    pub fn package(&self, stage: usize, name: &str) -> usize {
        let place = match self {
            Places::ByStage(packages) => packages.get(stage),
            Places::ByName(places) => places.get(name),
        };
        place.copied().unwrap_or(0)
    }
}
