//! Values by the names of parameters.

use std::collections::BTreeMap;
use std::iter::Map;
use std::ops::Index;
use std::slice::Iter;
use std::{fmt, mem, vec};

use crate::program::ParamName;

/// More than nearly all operations have of anything.
const FEW: usize = 8;

/// Values by the names of parameters, in the order of the names. An operation has few, and programs have many operations: a
/// list takes a fraction of what a tree does.
#[derive(Clone, PartialEq)]
pub struct Named<V>(Vec<(ParamName, V)>);

impl<V> Default for Named<V> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<V> Named<V> {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name))
    }

    /// Puts a value in; gives the one that the name had.
    pub fn insert(&mut self, name: ParamName, value: V) -> Option<V> {
        match self.find(&name) {
            Ok(at) => Some(mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                // No room for more than there will be.
                if self.0.len() < FEW {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (name, value));
                None
            }
        }
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&V> {
        Some(&self.0[self.find(name).ok()?].1)
    }

    /// The value of a name.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut V> {
        let at = self.find(name).ok()?;
        Some(&mut self.0[at].1)
    }

    /// Takes a value out.
    pub fn remove(&mut self, name: &str) -> Option<V> {
        let at = self.find(name).ok()?;
        Some(self.0.remove(at).1)
    }

    /// Whether the name has a value.
    pub fn contains_key(&self, name: &str) -> bool {
        self.find(name).is_ok()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&ParamName, &V)> + Clone {
        self.0.iter().map(|(n, v)| (n, v))
    }

    /// All names.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &ParamName> + Clone {
        self.0.iter().map(|(n, _)| n)
    }

    /// All values by name.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &V> + Clone {
        self.0.iter().map(|(_, v)| v)
    }

    /// All values by name.
    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut V> {
        self.0.iter_mut().map(|(_, v)| v)
    }

    /// All by name.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&ParamName, &mut V)> {
        self.0.iter_mut().map(|(n, v)| (&*n, v))
    }
}

impl<V: fmt::Debug> fmt::Debug for Named<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<V> FromIterator<(ParamName, V)> for Named<V> {
    fn from_iter<I: IntoIterator<Item = (ParamName, V)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        if !entries.is_sorted_by(|(a, _), (b, _)| a < b) {
            // Of a name that comes twice the last value counts.
            let by_name: BTreeMap<_, _> = entries.into_iter().collect();
            entries = by_name.into_iter().collect();
        }
        entries.shrink_to_fit();
        Named(entries)
    }
}

impl<V> IntoIterator for Named<V> {
    type Item = (ParamName, V);
    type IntoIter = vec::IntoIter<(ParamName, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, V> IntoIterator for &'a Named<V> {
    type Item = (&'a ParamName, &'a V);
    type IntoIter = Map<Iter<'a, (ParamName, V)>, fn(&'a (ParamName, V)) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(n, v)| (n, v))
    }
}

impl<V> Index<&str> for Named<V> {
    type Output = V;

    fn index(&self, name: &str) -> &V {
        self.get(name).expect("a name that is there")
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    fn named(names: &[&'static str]) -> Named<usize> {
        let mut named = Named::new();
        for (at, name) in names.iter().enumerate() {
            named.insert(Cow::Borrowed(*name), at);
        }
        named
    }

    #[test]
    fn names_are_in_order_and_once() {
        let mut all = named(&["y", "x", "axis", "x"]);
        let entries: Vec<_> = all.iter().map(|(n, v)| (n.as_ref(), *v)).collect();
        assert_eq!(entries, [("axis", 2), ("x", 3), ("y", 0)]);
        assert_eq!(all.insert(Cow::Borrowed("y"), 7), Some(0));
        assert_eq!((all.get("y"), all.get("z")), (Some(&7), None));
        assert_eq!((all.remove("x"), all.remove("x")), (Some(3), None));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn what_is_collected_is_what_is_put_in_one_by_one() {
        let names = ["y", "x", "axis", "x"];
        let entries = names.iter().enumerate();
        let collected: Named<_> = entries.map(|(at, n)| (Cow::Borrowed(*n), at)).collect();
        assert_eq!(collected, named(&names));
        let again: Named<_> = collected.clone().into_iter().collect();
        assert_eq!(again, collected);
    }
}
