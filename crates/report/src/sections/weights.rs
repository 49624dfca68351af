//! Where the weights are, by block.

use std::collections::BTreeMap;

use super::{chunk_name, packages, series};
use crate::number;
use crate::record::{Component, Text};
use crate::scale::{Percent, Scale};

/// The blocks of the model, each with the packages that hold it.
pub struct Weights {
    /// Empty where the record does not tell.
    pub rows: Vec<Row>,
    /// All of it in one strip, in the order of the packages.
    pub strip: Vec<Segment>,
    pub legend: Vec<Key>,
}

/// A package's colour.
pub struct Key {
    pub series: usize,
    pub name: String,
}

/// A block.
pub struct Row {
    pub name: String,
    pub segments: Vec<Segment>,
    pub size: String,
    pub share: String,
    /// Which packages hold it.
    pub place: String,
}

/// A part of a bar.
pub struct Segment {
    pub series: usize,
    pub start: Percent,
    pub len: Percent,
}

/// What a block weighs in the packages that hold any of it.
type Sizes = Vec<(usize, u64)>;

impl Weights {
    pub fn of(component: &Component) -> Weights {
        let blocks = blocks(component);
        let total_of = |sizes: &Sizes| sizes.iter().fold(0u64, |n, (_, b)| n.saturating_add(*b));
        let totals: Vec<u64> = blocks.iter().map(|(_, sizes)| total_of(sizes)).collect();
        let all = totals.iter().fold(0u64, |n, t| n.saturating_add(*t));
        let longest = totals.iter().copied().max().unwrap_or(0);
        let rows = blocks.iter().zip(&totals);
        let row = |((name, sizes), total): (&(&Text, Sizes), &u64)| Row {
            name: name.to_string(),
            segments: segments(sizes, Scale::to(longest as f64)),
            size: number::bytes(*total),
            share: number::share(*total, all),
            place: place(sizes),
        };
        let list = packages(component);
        let key = |(at, chunk)| Key {
            series: series(at),
            name: chunk_name(chunk, at),
        };
        Weights {
            rows: rows.map(row).collect(),
            strip: strip(component, all),
            legend: list.iter().enumerate().map(key).collect(),
        }
    }
}

/// The blocks in the order in which they come first.
fn blocks(component: &Component) -> Vec<(&Text, Sizes)> {
    let mut blocks: Vec<(&Text, Sizes)> = Vec::new();
    let mut places: BTreeMap<&Text, usize> = BTreeMap::new();
    for (chunk, name, bytes) in weighed(component) {
        let place = *places.entry(name).or_insert(blocks.len());
        match blocks.get_mut(place) {
            Some((_, sizes)) => sizes.push((chunk, bytes)),
            None => blocks.push((name, vec![(chunk, bytes)])),
        }
    }
    blocks
}

fn weighed(component: &Component) -> impl Iterator<Item = (usize, &Text, u64)> {
    let list = packages(component).iter().enumerate();
    list.flat_map(|(at, chunk)| {
        let blocks = chunk.blocks.as_deref().unwrap_or_default().iter();
        blocks.map(move |b| (at, &b.name, b.bytes.unwrap_or(0)))
    })
}

fn strip(component: &Component, all: u64) -> Vec<Segment> {
    let sizes: Sizes = weighed(component).map(|(at, _, b)| (at, b)).collect();
    segments(&sizes, Scale::to(all as f64))
}

fn segments(sizes: &[(usize, u64)], scale: Scale) -> Vec<Segment> {
    let mut end = 0u64;
    let segment = |(chunk, bytes): &(usize, u64)| {
        let start = scale.at_bytes(end);
        end = end.saturating_add(*bytes);
        Segment {
            series: series(*chunk),
            start,
            len: start.to(scale.at_bytes(end)),
        }
    };
    sizes.iter().map(segment).collect()
}

/// `1`, `1 and 2`, `2 to 11`; packages between that hold nothing of it are named apart.
fn place(sizes: &[(usize, u64)]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in sizes.iter().map(|(chunk, _)| chunk + 1) {
        match runs.last_mut() {
            Some((_, last)) if number <= *last + 1 => *last = number,
            _ => runs.push((number, number)),
        }
    }
    let run = |(first, last): &(usize, usize)| match last - first {
        0 => first.to_string(),
        1 => format!("{first}, {last}"),
        _ => format!("{first}–{last}"),
    };
    runs.iter().map(run).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::testing::component;
    use super::*;

    #[test]
    fn a_block_of_two_packages_is_one_bar_of_two_parts() {
        let c = component(
            r#""chunks": [
                {"blocks": [{"name": "embeddings", "bytes": 100}, {"name": "down_blocks.0", "bytes": 300}]},
                {"blocks": [{"name": "down_blocks.0", "bytes": 500}, {"name": "mid_block"}]}, {}]"#,
        );
        let found = Weights::of(&c);
        let shown = found.rows.iter().map(|r| {
            let bars: Vec<_> = r
                .segments
                .iter()
                .map(|s| format!("{}:{}+{}", s.series, s.start, s.len))
                .collect();
            format!(
                "{} {} {} in {}: {}",
                r.name,
                r.size,
                r.share,
                r.place,
                bars.join(" ")
            )
        });
        assert_eq!(
            shown.collect::<Vec<_>>(),
            [
                "embeddings 100 B 11 % in 1: 0:0+12.5",
                "down_blocks.0 800 B 89 % in 1, 2: 0:0+37.5 1:37.5+62.5",
                "mid_block 0 B 0 % in 2: 1:0+0",
            ]
        );
        let strip: Vec<_> = found.strip.iter().map(|s| s.series).collect();
        assert_eq!(strip, [0, 0, 1, 1]);
        assert_eq!(found.legend.len(), 3);
        let last = found.strip[2].start.get() + found.strip[2].len.get();
        assert!((last - 100.0).abs() < 1e-9);
    }

    #[test]
    fn old_records_have_no_rows() {
        assert!(
            Weights::of(&component(r#""chunks": [{}, {}]"#))
                .rows
                .is_empty()
        );
        assert!(Weights::of(&component("")).rows.is_empty());
    }

    #[test]
    fn runs_of_packages_are_named_by_their_ends() {
        let sizes: Sizes = [0, 1, 2, 5, 7, 8].map(|at| (at, 1)).to_vec();
        assert_eq!(place(&sizes), "1–3, 6, 8, 9");
    }

    #[test]
    fn numbers_beyond_all_measure_are_drawn_within_the_bar() {
        let block = format!(r#"{{"name": "a", "bytes": {}}}"#, u64::MAX);
        let c = component(&format!(
            r#""chunks": [{{"blocks": [{block}]}}, {{"blocks": [{block}]}}]"#
        ));
        for segment in &Weights::of(&c).rows[0].segments {
            assert!(segment.start.get() + segment.len.get() <= 100.0);
        }
    }
}
