//! Which values names stand for at a place in a program.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;

use mil::ValueId;

/// Names in scope: later ones hide earlier ones, and leaving a block brings back what was before it.
#[derive(Default)]
pub(super) struct Scope<N> {
    by_name: HashMap<N, ValueId>,
    hidden: Vec<(N, Option<ValueId>)>,
}

/// A place to go back to.
pub(super) struct Mark(usize);

impl<N: Borrow<str> + Hash + Eq + Clone> Scope<N> {
    pub(super) fn define(&mut self, name: N, value: ValueId) {
        let before = self.by_name.insert(name.clone(), value);
        self.hidden.push((name, before));
    }

    pub(super) fn get(&self, name: &str) -> Option<ValueId> {
        self.by_name.get(name).copied()
    }

    pub(super) fn enter(&self) -> Mark {
        Mark(self.hidden.len())
    }

    pub(super) fn leave(&mut self, mark: Mark) {
        for (name, before) in self.hidden.drain(mark.0..).rev() {
            match before {
                Some(value) => self.by_name.insert(name, value),
                None => self.by_name.remove(name.borrow()),
            };
        }
    }
}
