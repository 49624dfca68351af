//! Time and memory over the run.

use super::given;
use crate::number;
use crate::plot::{self, Point};
use crate::record::{Component, Sample, Text};
use crate::scale::{Percent, Scale};

/// Most lines beside the plot, each way.
const TICKS_UP: u32 = 4;
const TICKS_ACROSS: u32 = 4;
/// Room above the highest number, as a factor.
const ABOVE: f64 = 1.08;
/// A limit is drawn if it is at most so many times the highest number; farther away it would press the rest flat.
const MAX_LIMIT_FACTOR: f64 = 3.0;
/// Most stages that are listed without being asked for.
const MAX_OPEN: usize = 12;

/// Time and memory.
pub struct Run {
    pub times: Vec<Time>,
    pub time_note: String,
    pub plot: Option<Plot>,
    pub memory_note: String,
    pub stages: Vec<Stage>,
    pub is_open: bool,
}

/// A part of the time.
pub struct Time {
    pub label: &'static str,
    pub class: &'static str,
    pub start: Percent,
    pub len: Percent,
    pub text: String,
}

/// Memory over time.
pub struct Plot {
    pub line: String,
    pub area: String,
    pub peak: String,
    pub limit: Option<Tick>,
    /// Where a stage begins.
    pub stages: Vec<Percent>,
    pub up: Vec<Tick>,
    pub across: Vec<Tick>,
    pub label: String,
}

/// A labelled place.
pub struct Tick {
    pub at: Percent,
    pub text: String,
}

/// A stage with what was seen in it.
pub struct Stage {
    pub name: String,
    pub from: String,
    pub resident: String,
    pub peak: String,
    pub available: String,
}

impl Run {
    pub fn of(component: &Component) -> Run {
        let samples = component.memory.as_deref().unwrap_or_default();
        let stages = stages(samples);
        let plot = Plot::of(samples);
        Run {
            times: times(component),
            time_note: time_note(component),
            memory_note: memory_note(samples, plot.is_some()),
            plot,
            is_open: stages.len() <= MAX_OPEN,
            stages,
        }
    }
}

/// Seconds of planning and of writing, if the record has both and they are times.
fn both_seconds(component: &Component) -> Option<(f64, f64)> {
    let timings = component.timings.as_ref()?;
    let is_time = |s: &f64| s.is_finite() && *s >= 0.0;
    let plan = timings.plan_seconds.filter(is_time)?;
    Some((plan, timings.write_seconds.filter(is_time)?))
}

/// How long all of it took.
pub fn total_seconds(component: &Component) -> Option<f64> {
    both_seconds(component).map(|(plan, write)| plan + write)
}

fn times(component: &Component) -> Vec<Time> {
    let Some((plan, write)) = both_seconds(component) else {
        return Vec::new();
    };
    let scale = Scale::to(plan + write);
    let cut = scale.at(plan);
    let time = |label, class, start, len, seconds| Time {
        label,
        class,
        start,
        len,
        text: number::seconds(seconds),
    };
    vec![
        time("planning", "quiet", Percent::default(), cut, plan),
        time("writing", "s0", cut, cut.rest(), write),
    ]
}

fn time_note(component: &Component) -> String {
    let Some((_, write)) = both_seconds(component) else {
        return "The record does not tell how long it took.".to_owned();
    };
    let rate = component.packages_bytes.filter(|_| write > 0.0);
    match rate.map(|bytes| bytes as f64 / write) {
        Some(rate) if rate.is_finite() => format!(
            "Planning is reading names and shapes, building the program and cutting it; writing is converting, hashing and syncing: {} a second.",
            number::bytes(rate as u64)
        ),
        _ => {
            "Planning is reading names and shapes, building the program and cutting it.".to_owned()
        }
    }
}

/// The most memory that the process had.
pub fn peak_bytes(component: &Component) -> Option<u64> {
    let samples = component.memory.iter().flatten();
    samples
        .filter_map(|s| s.peak_bytes.max(s.resident_bytes))
        .max()
}

fn memory_note(samples: &[Sample], is_drawn: bool) -> String {
    let mut parts = vec![match samples.len() {
        0 => "The record has no samples of memory.".to_owned(),
        _ if is_drawn => "Memory of this process while it worked.".to_owned(),
        1 => "One sample of memory is too few for a plot.".to_owned(),
        _ => "The samples of memory have no times, or no sizes, so they are listed and not drawn."
            .to_owned(),
    }];
    let least = samples.iter().filter_map(|s| s.available_bytes).min();
    let total = samples.iter().filter_map(|s| s.total_bytes).max();
    match (least, total) {
        (Some(least), Some(total)) => parts.push(format!(
            "The machine never had less than {} of its {} available.",
            number::bytes(least),
            number::bytes(total)
        )),
        (Some(least), None) => parts.push(format!(
            "The machine never had less than {} available.",
            number::bytes(least)
        )),
        _ => {}
    }
    if let Some(limit) = limit_bytes(samples) {
        parts.push(format!("A limit of {} was in force.", number::bytes(limit)));
    }
    parts.join(" ")
}

fn limit_bytes(samples: &[Sample]) -> Option<u64> {
    samples.iter().filter_map(|s| s.limit_bytes).min()
}

impl Plot {
    /// `None` where fewer than two samples have a time and a size, or all have the same time.
    fn of(samples: &[Sample]) -> Option<Plot> {
        let timed = timed(samples);
        let last = timed.last()?.0;
        if timed.first()?.0 >= last {
            return None;
        }
        let bytes = |s: &Sample| s.peak_bytes.max(s.resident_bytes).unwrap_or(0);
        let highest = timed.iter().map(|(_, s)| bytes(s)).max()? as f64;
        let limit = limit_bytes(samples)
            .map(|limit| limit as f64)
            .filter(|limit| *limit <= highest * MAX_LIMIT_FACTOR);
        let up = Scale::to(highest.max(limit.unwrap_or(0.0)) * ABOVE);
        let across = Scale::to(last);
        let points = |of: fn(&Sample) -> Option<u64>| -> Vec<Point> {
            let point = |(at, s): &(f64, &Sample)| Some((across.at(*at), up.at_bytes(of(s)?)));
            timed.iter().filter_map(point).collect()
        };
        let resident = points(|s| s.resident_bytes);
        Some(Plot {
            line: plot::line(&resident),
            area: plot::area(&resident),
            peak: plot::line(&points(|s| s.peak_bytes)),
            limit: limit.map(|limit| Tick {
                at: up.at(limit),
                text: number::bytes(limit as u64),
            }),
            stages: starts(&timed, across),
            up: ticks(up, TICKS_UP, |n| number::bytes(n as u64)),
            across: ticks(across, TICKS_ACROSS, short_seconds),
            label: format!(
                "Memory from 0 to {}, at most {}",
                number::seconds(last),
                number::bytes(highest as u64)
            ),
        })
    }
}

/// The samples that have a time and a size, in the order of time.
fn timed(samples: &[Sample]) -> Vec<(f64, &Sample)> {
    let is_time = |s: &f64| s.is_finite() && *s >= 0.0;
    let timed = samples
        .iter()
        .filter(|s| s.resident_bytes.is_some())
        .filter_map(|s| Some((s.seconds.filter(is_time)?, s)));
    let mut timed: Vec<_> = timed.collect();
    timed.sort_by(|a, b| a.0.total_cmp(&b.0));
    timed
}

/// Where stages begin, the first apart.
fn starts(timed: &[(f64, &Sample)], across: Scale) -> Vec<Percent> {
    let pairs = timed.windows(2).filter_map(|pair| match pair {
        [(_, a), (at, b)] if a.at != b.at => Some(across.at(*at)),
        _ => None,
    });
    pairs.collect()
}

fn ticks(scale: Scale, most: u32, text: impl Fn(f64) -> String) -> Vec<Tick> {
    let ticks = scale.ticks(most).into_iter();
    ticks
        .map(|n| Tick {
            at: scale.at(n),
            text: text(n),
        })
        .collect()
}

/// A round number of seconds, without digits that it does not have.
fn short_seconds(s: f64) -> String {
    let text = format!("{s:.3}");
    format!("{} s", text.trim_end_matches('0').trim_end_matches('.'))
}

/// The samples, those of one stage together.
fn stages(samples: &[Sample]) -> Vec<Stage> {
    let mut groups: Vec<(Option<&Text>, Vec<&Sample>)> = Vec::new();
    for sample in samples {
        match groups.last_mut() {
            Some((at, group)) if *at == sample.at.as_ref() => group.push(sample),
            _ => groups.push((sample.at.as_ref(), vec![sample])),
        }
    }
    groups
        .into_iter()
        .map(|(at, group)| stage(at, &group))
        .collect()
}

fn stage(at: Option<&Text>, samples: &[&Sample]) -> Stage {
    let most = |of: fn(&Sample) -> Option<u64>| samples.iter().filter_map(|s| of(s)).max();
    let text = |bytes: Option<u64>| bytes.map_or_else(|| "–".to_owned(), number::bytes);
    let from = samples.iter().find_map(|s| s.seconds);
    Stage {
        name: given(at).unwrap_or_else(|| "unnamed".to_owned()),
        from: from.map_or_else(|| "–".to_owned(), number::seconds),
        resident: text(most(|s| s.resident_bytes)),
        peak: text(most(|s| s.peak_bytes)),
        available: text(samples.iter().filter_map(|s| s.available_bytes).min()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::component;
    use super::*;

    fn run(samples: &str) -> Run {
        Run::of(&component(&format!(r#""memory": [{samples}]"#)))
    }

    #[test]
    fn samples_over_time_are_drawn() {
        let found = run(
            r#"{"at": "planned", "seconds": 0, "resident_bytes": 50, "peak_bytes": 50},
                {"at": "writing", "seconds": 5, "resident_bytes": 100, "peak_bytes": 100, "available_bytes": 7},
                {"at": "writing", "seconds": 10, "resident_bytes": 60, "peak_bytes": 100, "limit_bytes": 200}"#,
        );
        let plot = found.plot.unwrap();
        assert!(
            plot.line.starts_with("M0 76.852L50 53.704L100 "),
            "{}",
            plot.line
        );
        assert_eq!(plot.stages, [Percent::new(50.0)]);
        assert!(plot.limit.is_some_and(|l| l.text == "200 B"));
        let across: Vec<_> = plot.across.iter().map(|t| t.text.as_str()).collect();
        assert_eq!(across, ["0 s", "5 s", "10 s"]);
        assert_eq!(found.stages.len(), 2);
        assert_eq!(found.stages[1].peak, "100 B");
        assert!(found.memory_note.contains("7 B available"));
    }

    #[test]
    fn too_little_for_a_plot_is_said() {
        for (samples, note) in [
            ("", "no samples"),
            (
                r#"{"at": "planned", "seconds": 1, "resident_bytes": 5}"#,
                "One sample",
            ),
            (
                r#"{"at": "planned", "resident_bytes": 5}, {"at": "written", "resident_bytes": 6}"#,
                "have no times",
            ),
            (r#"{"seconds": 1}, {"seconds": 2}"#, "or no sizes"),
            (
                r#"{"seconds": 1, "resident_bytes": 5}, {"seconds": 1, "resident_bytes": 6}"#,
                "have no times",
            ),
            (
                r#"{"seconds": -1, "resident_bytes": 5}, {"seconds": 1, "resident_bytes": 6}"#,
                "have no times",
            ),
        ] {
            let found = run(samples);
            assert!(found.plot.is_none(), "{samples}");
            assert!(
                found.memory_note.contains(note),
                "{samples}: {}",
                found.memory_note
            );
        }
    }

    #[test]
    fn a_limit_far_away_does_not_press_the_plot_flat() {
        let found = run(
            r#"{"seconds": 0, "resident_bytes": 50}, {"seconds": 1, "resident_bytes": 60, "limit_bytes": 60000}"#,
        );
        assert!(found.plot.unwrap().limit.is_none());
        assert!(found.memory_note.contains("A limit of 60.0 kB"));
    }

    #[test]
    fn times_fill_the_bar() {
        let c = component(
            r#""timings": {"plan_seconds": 1, "write_seconds": 3}, "packages_bytes": 3000"#,
        );
        let [plan, write] = &times(&c)[..] else {
            panic!("two times")
        };
        assert_eq!(
            (plan.len.get(), write.start.get(), write.len.get()),
            (25.0, 25.0, 75.0)
        );
        assert!(time_note(&c).contains("1.00 kB a second"));
        for fields in [
            "",
            r#""timings": {"plan_seconds": 1}"#,
            r#""timings": {"plan_seconds": -1, "write_seconds": 2}"#,
        ] {
            assert!(times(&component(fields)).is_empty());
        }
        let none =
            component(r#""timings": {"plan_seconds": 0, "write_seconds": 0}, "packages_bytes": 3"#);
        assert_eq!(times(&none).len(), 2);
        assert!(!time_note(&none).contains("a second"));
    }
}
