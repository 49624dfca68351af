//! Which stage of the chain a computed value belongs to.

use std::collections::BTreeMap;

use mil::Program;

use super::super::matched::Matched;
use super::names;

/// Which stage of the chain a computed value belongs to.
pub(super) enum Places {
    /// To the one that makes it.
    Own,
    /// By its name, in one program that stands for all stages.
    ByName(BTreeMap<String, usize>),
}

impl Places {
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

    /// The place in the chain, from 0, of what runs as `stage` and makes `name`.
    pub fn stage(&self, stage: usize, name: &str) -> usize {
        match self {
            Places::Own => stage,
            Places::ByName(places) => places.get(name).copied().unwrap_or(0),
        }
    }
}
