//! What goes into the model, what crosses each cut, what comes out.

use std::collections::BTreeSet;

use super::{UNKNOWN, chunk_name, given, packages};
use crate::number;
use crate::record::{Chunk, Component, Feature, Text};
use crate::scale::{Percent, Scale};

/// Most cuts whose tensors are listed without being asked for.
const MAX_OPEN: usize = 4;
/// What stands in a table where the record tells nothing.
const DASH: &str = "–";

/// The interfaces of the packages.
pub struct Cuts {
    pub cuts: Vec<Cut>,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    /// Whether the lists are open from the start.
    pub is_open: bool,
    pub note: String,
}

/// A cut.
pub struct Cut {
    pub from: String,
    pub to: String,
    pub after: Option<String>,
    pub count: String,
    pub size: String,
    pub bar: Percent,
    pub tensors: Vec<Tensor>,
}

/// An input, an output, or what crosses.
pub struct Tensor {
    pub name: String,
    pub shape: String,
    pub dtype: String,
    pub size: String,
}

impl Cuts {
    pub fn of(component: &Component) -> Cuts {
        let list = packages(component);
        let sizes = list.iter().rev().skip(1).filter_map(|c| c.crossing_bytes);
        let most = sizes.max().unwrap_or(0);
        let scale = Scale::to(most as f64);
        let cut = |(at, pair): (usize, &[Chunk])| match pair {
            [from, to] => Some(Cut {
                from: chunk_name(from, at),
                to: chunk_name(to, at + 1),
                after: given(from.cut_after.as_ref()),
                count: match crossing(list, at).len() {
                    0 => String::new(),
                    n => number::count(n, "tensor"),
                },
                size: from
                    .crossing_bytes
                    .map_or_else(|| UNKNOWN.to_owned(), number::bytes),
                bar: from
                    .crossing_bytes
                    .map_or(Percent::default(), |b| scale.at_bytes(b)),
                tensors: tensors(crossing(list, at)),
            }),
            _ => None,
        };
        let cuts: Vec<_> = list.windows(2).enumerate().filter_map(cut).collect();
        Cuts {
            is_open: cuts.len() <= MAX_OPEN,
            note: note(component, cuts.len()),
            cuts,
            inputs: tensors(inputs(list)),
            outputs: tensors(outputs(list)),
        }
    }
}

fn note(component: &Component, cuts: usize) -> String {
    match (packages(component).len(), total_bytes(component)) {
        (0, _) => "The record lists no packages.".to_owned(),
        (1, _) => "One package: nothing is cut, and nothing crosses.".to_owned(),
        (_, Some(total)) => format!(
            "{} in {} at every step of an image, from the packages before to those after.",
            number::bytes(total),
            number::count(cuts, "cut")
        ),
        (_, None) => "The record does not tell how much crosses.".to_owned(),
    }
}

/// What crosses at every step, over all cuts; `None` where the record does not tell of each.
pub fn total_bytes(component: &Component) -> Option<u64> {
    let list = packages(component);
    let cuts = list.len().checked_sub(1)?;
    let sizes = list.iter().take(cuts).map(|c| c.crossing_bytes);
    sizes.sum::<Option<u64>>()
}

fn features(list: &Option<Vec<Feature>>) -> &[Feature] {
    list.as_deref().unwrap_or_default()
}

/// The names that these packages take.
fn taken(list: &[Chunk]) -> BTreeSet<&Option<Text>> {
    let inputs = list.iter().flat_map(|c| features(&c.inputs));
    inputs.map(|f| &f.name).collect()
}

/// What is made before the end of a package and taken after it. In a chain the package itself makes it all, a stage of a pipeline
/// takes from any before it.
fn crossing(list: &[Chunk], at: usize) -> Vec<&Feature> {
    let (before, after) = list.split_at((at + 1).min(list.len()));
    let taken = taken(after);
    let made = before.iter().flat_map(|c| features(&c.outputs));
    made.filter(|f| taken.contains(&f.name)).collect()
}

/// The inputs that no package gives, each once.
fn inputs(list: &[Chunk]) -> Vec<&Feature> {
    let made = list.iter().flat_map(|c| features(&c.outputs));
    let mut seen: BTreeSet<_> = made.map(|f| &f.name).collect();
    let inputs = list.iter().flat_map(|c| features(&c.inputs));
    inputs.filter(|f| seen.insert(&f.name)).collect()
}

/// The outputs that no package takes.
fn outputs(list: &[Chunk]) -> Vec<&Feature> {
    let taken = taken(list);
    let made = list.iter().flat_map(|c| features(&c.outputs));
    made.filter(|f| !taken.contains(&f.name)).collect()
}

fn tensors<'a>(features: impl IntoIterator<Item = &'a Feature>) -> Vec<Tensor> {
    let tensor = |f: &Feature| Tensor {
        name: given(f.name.as_ref()).unwrap_or_else(|| "unnamed".to_owned()),
        shape: match &f.shape {
            Some(shape) => {
                let sides: Vec<_> = shape.iter().map(ToString::to_string).collect();
                sides.join(" × ")
            }
            None => DASH.to_owned(),
        },
        dtype: given(f.dtype.as_ref()).unwrap_or_default(),
        size: f.bytes.map_or_else(|| DASH.to_owned(), number::bytes),
    };
    features.into_iter().map(tensor).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::component;
    use super::*;

    #[test]
    fn what_no_package_gives_is_an_input_of_the_model() {
        let c = component(
            r#""chunks": [
                {"path": "A", "cut_after": "x", "crossing_bytes": 8, "inputs": [{"name": "sample"}],
                    "outputs": [{"name": "h", "shape": [2, 4], "dtype": "fp16", "bytes": 16}]},
                {"path": "B", "inputs": [{"name": "h"}, {"name": "text"}, {"name": "sample"}],
                    "outputs": [{"name": "noise"}]}]"#,
        );
        let found = Cuts::of(&c);
        let names = |list: &[Tensor]| list.iter().map(|t| t.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&found.inputs), ["sample", "text"]);
        assert_eq!(names(&found.outputs), ["noise"]);
        let cut = &found.cuts[0];
        assert_eq!(
            (cut.from.as_str(), cut.to.as_str(), cut.count.as_str()),
            ("A", "B", "1 tensor")
        );
        assert_eq!(
            (cut.tensors[0].shape.as_str(), cut.bar),
            ("2 × 4", Percent::new(100.0))
        );
        assert!(found.note.starts_with("8 B in 1 cut "), "{}", found.note);
    }

    #[test]
    fn a_stage_of_a_pipeline_takes_from_any_before_it() {
        let c = component(
            r#""chunks": [{"inputs": [{"name": "x"}], "outputs": [{"name": "a"}, {"name": "b"}]},
                {"inputs": [{"name": "a"}], "outputs": [{"name": "c"}]},
                {"inputs": [{"name": "b"}, {"name": "c"}], "outputs": [{"name": "y"}]}]"#,
        );
        let found = Cuts::of(&c);
        let names = |list: &[Tensor]| {
            let names: Vec<_> = list.iter().map(|t| t.name.as_str()).collect();
            names.join(" ")
        };
        let crossing: Vec<_> = found.cuts.iter().map(|cut| names(&cut.tensors)).collect();
        assert_eq!(crossing, ["a b", "b c"]);
        assert_eq!(
            (names(&found.inputs), names(&found.outputs)),
            ("x".into(), "y".into())
        );
    }

    #[test]
    fn what_is_not_told_is_said() {
        for (fields, note) in [
            ("", "The record lists no packages."),
            (r#""chunks": [{}]"#, "One package"),
            (r#""chunks": [{}, {}]"#, "does not tell how much"),
        ] {
            let found = Cuts::of(&component(fields));
            assert!(found.note.contains(note), "{}", found.note);
        }
    }
}
