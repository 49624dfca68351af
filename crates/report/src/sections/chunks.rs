//! The packages against the limit.

use super::{Badge, Tone, UNKNOWN, chunk_name, num_stages, packages, series};
use crate::number;
use crate::record::Component;
use crate::scale::{Percent, Scale};

/// Room behind the limit's line, and behind the longest bar, as factors.
const BEHIND_LIMIT: f64 = 1.1;
const BEHIND_LONGEST: f64 = 1.02;
/// A limit's label stands before its line, and behind it where there is too little room before.
const LABEL_ROOM_PERCENT: f64 = 45.0;

/// The packages as bars.
pub struct Chunks {
    pub rows: Vec<Row>,
    pub limit: Option<Limit>,
    pub note: String,
}

/// The limit's line.
pub struct Limit {
    pub at: Percent,
    pub text: String,
    /// Whether the label stands before the line.
    pub is_before: bool,
}

/// A package.
pub struct Row {
    pub name: String,
    pub series: usize,
    /// The bar as far as the limit allows.
    pub bar: Percent,
    /// What is over it.
    pub over: Option<Percent>,
    pub weight: String,
    pub share: String,
    pub detail: String,
}

impl Chunks {
    pub fn of(component: &Component) -> Chunks {
        let limit = limit_bytes(component);
        let longest = longest_bytes(component).unwrap_or(0);
        let scale = scale(limit, longest);
        let rows = packages(component).iter().enumerate();
        let rows = rows.map(|(at, chunk)| {
            let weight = chunk.weight_bytes;
            let over = weight
                .zip(limit)
                .filter(|(weight, limit)| weight > limit)
                .map(|(weight, limit)| (weight - limit, scale.at_bytes(limit)));
            let full = weight.map_or(Percent::default(), |w| scale.at_bytes(w));
            Row {
                name: chunk_name(chunk, at),
                series: series(at),
                bar: over.map_or(full, |(_, start)| start),
                over: over.map(|(_, start)| start.to(full)),
                weight: weight.map_or_else(|| UNKNOWN.to_owned(), number::bytes),
                share: match (over, weight, limit) {
                    (Some((by, _)), ..) => format!("{} over", number::bytes(by)),
                    (None, Some(weight), Some(limit)) => number::share(weight, limit),
                    _ => String::new(),
                },
                detail: detail(chunk),
            }
        });
        let limit = limit.map(|limit| {
            let at = scale.at_bytes(limit);
            Limit {
                text: number::bytes(limit),
                is_before: at.get() >= LABEL_ROOM_PERCENT,
                at,
            }
        });
        Chunks {
            rows: rows.collect(),
            note: note(component, limit.as_ref()),
            limit,
        }
    }
}

fn scale(limit: Option<u64>, longest: u64) -> Scale {
    let limit = limit.map_or(0.0, |limit| limit as f64 * BEHIND_LIMIT);
    Scale::to(limit.max(longest as f64 * BEHIND_LONGEST))
}

fn detail(chunk: &crate::record::Chunk) -> String {
    let operations = chunk
        .operations
        .map(|n| format!("{} operations", number::thousands(n)));
    let package = chunk
        .package_bytes
        .map(|n| format!("{} in all", number::bytes(n)));
    let parts: Vec<_> = [package, operations].into_iter().flatten().collect();
    parts.join(", ")
}

fn note(component: &Component, limit: Option<&Limit>) -> String {
    let profile = component.limit.as_ref().and_then(|l| l.profile.as_ref());
    let named = match profile.map(|p| p.whole()) {
        Some("explicit") => " that was asked for".to_owned(),
        Some(_) => profile.map_or_else(String::new, |p| format!(" of the profile {p}")),
        None => String::new(),
    };
    let what = match num_stages(component) {
        Some(_) => "stage",
        None => "package",
    };
    match (limit, &component.limit) {
        (Some(limit), _) => format!(
            "Each bar is the weight file of a {what}, the line the limit{named}: {}.",
            limit.text
        ),
        (None, Some(_)) => {
            format!("Each bar is the weight file of a {what}. No limit was set for them.")
        }
        (None, None) => {
            format!("Each bar is the weight file of a {what}. The record does not tell the limit.")
        }
    }
}

/// The limit, if there is one.
pub fn limit_bytes(component: &Component) -> Option<u64> {
    component.limit.as_ref()?.bytes
}

/// Length of the longest weight file.
pub fn longest_bytes(component: &Component) -> Option<u64> {
    packages(component)
        .iter()
        .filter_map(|c| c.weight_bytes)
        .max()
}

/// Whether the packages keep to the limit.
pub fn badge(component: &Component) -> Badge {
    let list = packages(component);
    let limit = limit_bytes(component);
    let is_over = |weight: u64| limit.is_some_and(|limit| weight > limit);
    let over = list.iter().filter(|c| c.weight_bytes.is_some_and(is_over));
    let known = list.iter().all(|c| c.weight_bytes.is_some()) && !list.is_empty();
    let (tone, text) = match (limit, over.count()) {
        (None, _) if component.limit.is_some() => (Tone::Plain, "no limit set".to_owned()),
        (None, _) => (Tone::Plain, "limit not recorded".to_owned()),
        (Some(limit), 0) if known => (
            Tone::Good,
            format!("within the limit of {}", number::bytes(limit)),
        ),
        (Some(_), 0) => (Tone::Plain, "sizes not recorded".to_owned()),
        (Some(limit), n) => (
            Tone::Bad,
            format!("{n} of {} over {}", list.len(), number::bytes(limit)),
        ),
    };
    Badge { tone, text }
}

#[cfg(test)]
mod tests {
    use super::super::testing::component;
    use super::*;

    const LIMIT: &str = r#""limit": {"profile": "ane-2g", "bytes": 1000}"#;

    fn weights(weights: &str) -> String {
        let chunks = weights.split(' ');
        let chunks: Vec<_> = chunks
            .map(|w| format!(r#"{{"weight_bytes": {w}}}"#))
            .collect();
        format!(r#""chunks": [{}]"#, chunks.join(","))
    }

    #[test]
    fn what_is_over_the_limit_is_drawn_behind_its_line() {
        let c = component(&format!("{LIMIT}, {}", weights("500 2000")));
        let found = Chunks::of(&c);
        let limit = found.limit.unwrap();
        let [within, over] = &found.rows[..] else {
            panic!("two rows")
        };
        assert_eq!(within.over, None);
        assert_eq!(within.share, "50 %");
        assert_eq!(over.bar, limit.at);
        let end = over.bar.get() + over.over.unwrap().get();
        assert!((98.0..99.0).contains(&end), "{end}");
        assert_eq!(over.share, "1.00 kB over");
        assert_eq!(badge(&c).text, "1 of 2 over 1.00 kB");
        assert_eq!(badge(&c).tone, Tone::Bad);
    }

    #[test]
    fn without_a_limit_or_sizes_nothing_is_claimed() {
        for (fields, tone, text) in [
            (String::new(), Tone::Plain, "limit not recorded"),
            (
                format!(r#""limit": {{"bytes": null}}, {}"#, weights("5")),
                Tone::Plain,
                "no limit set",
            ),
            (
                format!("{LIMIT}, {}", weights("5 null")),
                Tone::Plain,
                "sizes not recorded",
            ),
            (LIMIT.to_owned(), Tone::Plain, "sizes not recorded"),
            (
                format!("{LIMIT}, {}", weights("0 1000")),
                Tone::Good,
                "within the limit of 1.00 kB",
            ),
        ] {
            let c = component(&fields);
            assert_eq!((badge(&c).tone, badge(&c).text.as_str()), (tone, text));
            let known: Vec<_> = Chunks::of(&c).rows.iter().map(|r| r.bar.get()).collect();
            assert!(known.iter().all(|bar| (0.0..=100.0).contains(bar)));
        }
    }

    #[test]
    fn a_limit_far_below_the_longest_has_its_label_behind() {
        let c = component(&format!("{LIMIT}, {}", weights("9000")));
        let limit = Chunks::of(&c).limit.unwrap();
        assert!(!limit.is_before && limit.at.get() < 12.0);
    }
}
