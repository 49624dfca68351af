//! What a proof of the packages came to.

use super::{Badge, Fact, Tone, UNKNOWN, given};
use crate::number;
use crate::record::{Compared, Component, Numeric, Verification};

/// The last proof.
pub struct Proof {
    pub badge: Badge,
    pub note: String,
    pub facts: Vec<Fact>,
    pub outputs: Vec<Output>,
    pub worst: Option<Output>,
}

/// A value beside the one that it should be.
pub struct Output {
    pub name: String,
    pub ratio: String,
    /// Whether it reaches what had to be reached; plain where that cannot be told.
    pub tone: Tone,
}

impl Proof {
    pub fn of(component: &Component) -> Proof {
        let Some(v) = &component.verification else {
            return Proof {
                badge: badge(component),
                note: "Nobody has compared these packages with what they were made from, or the record was not told. The command verify does, see below."
                    .to_owned(),
                facts: Vec::new(),
                outputs: Vec::new(),
                worst: None,
            };
        };
        let numeric = v.numeric.as_ref();
        let least = numeric.and_then(|n| n.min_psnr);
        let output = |c: &Compared| Output {
            name: given(c.name.as_ref()).unwrap_or_else(|| "unnamed".to_owned()),
            ratio: ratio(c),
            tone: tone(c, least),
        };
        let outputs = numeric.and_then(|n| n.outputs.as_deref());
        Proof {
            badge: badge(component),
            note: note(v),
            facts: facts(v),
            outputs: outputs.unwrap_or_default().iter().map(output).collect(),
            worst: numeric.and_then(|n| n.worst.as_ref()).map(output),
        }
    }
}

fn ratio(compared: &Compared) -> String {
    match (compared.identical, compared.psnr) {
        (Some(true), _) => "identical".to_owned(),
        (_, Some(psnr)) => format!("{psnr:.1} dB"),
        (_, None) => "no ratio".to_owned(),
    }
}

fn tone(compared: &Compared, least: Option<f64>) -> Tone {
    match (compared.identical, compared.psnr.zip(least)) {
        (Some(true), _) => Tone::Good,
        (_, Some((psnr, least))) if psnr >= least => Tone::Good,
        (_, Some(_)) => Tone::Bad,
        (_, None) => Tone::Plain,
    }
}

/// Whether the packages were proved.
pub fn badge(component: &Component) -> Badge {
    let holds = component
        .verification
        .as_ref()
        .map(|v| (v.holds, v.findings));
    let (tone, text) = match holds {
        None => (Tone::Plain, "not verified".to_owned()),
        Some((Some(true), _)) => (Tone::Good, "verified".to_owned()),
        Some((Some(false), Some(n))) => {
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            (
                Tone::Bad,
                format!("does not hold: {}", number::count(n, "finding")),
            )
        }
        Some((Some(false), None)) => (Tone::Bad, "does not hold".to_owned()),
        Some((None, _)) => (Tone::Plain, "proof without a result".to_owned()),
    };
    Badge { tone, text }
}

fn note(v: &Verification) -> String {
    let against = match given(v.against.as_ref()) {
        Some(name) => format!("with {name}"),
        None => "with what the record does not name".to_owned(),
    };
    match v.holds {
        Some(true) => format!("Read back from the disk and compared {against}: nothing was wrong."),
        Some(false) => format!(
            "Read back from the disk and compared {against}: do not use these packages. Check the disk, convert again with --force."
        ),
        None => format!("Compared {against}; the record does not tell with what result."),
    }
}

fn facts(v: &Verification) -> Vec<Fact> {
    let count = |n: Option<u64>| n.map_or_else(|| UNKNOWN.to_owned(), number::thousands);
    let mut facts = vec![
        Fact::new("Operations compared", count(v.operations)),
        Fact::new("Weights compared byte for byte", count(v.weights)),
    ];
    match &v.numeric {
        Some(numeric) => facts.extend(of_numbers(numeric)),
        None => facts.push(Fact::new("Numbers", "not compared")),
    }
    facts
}

fn of_numbers(n: &Numeric) -> Vec<Fact> {
    let mut facts = Vec::new();
    let ran = match n.ran.as_ref().map(|r| r.whole()) {
        Some("packages") => "the packages themselves".to_owned(),
        Some("rebuilt") => "their program, built anew for this size".to_owned(),
        _ => given(n.ran.as_ref()).unwrap_or_else(|| UNKNOWN.to_owned()),
    };
    facts.push(Fact::new("Ran", ran));
    if let Some((width, height)) = n.latent_width.zip(n.latent_height) {
        facts.push(Fact::new("Latent", format!("{width} × {height}")));
    }
    if let Some(rounding) = given(n.rounding.as_ref()) {
        facts.push(Fact::new("Rounding", rounding));
    }
    let inputs = n.seed.map(|seed| format!("random, seed {seed}"));
    if let Some(inputs) = given(n.inputs.as_ref()).or(inputs) {
        facts.push(Fact::new("Inputs", inputs));
    }
    if let Some(least) = n.min_psnr {
        facts.push(Fact::new("To be reached", format!("{least:.1} dB")));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::super::testing::component;
    use super::*;

    #[test]
    fn results_are_told_apart() {
        for (fields, tone, text) in [
            ("", Tone::Plain, "not verified"),
            (r#""verification": {"holds": true}"#, Tone::Good, "verified"),
            (
                r#""verification": {"holds": false, "findings": 1}"#,
                Tone::Bad,
                "does not hold: 1 finding",
            ),
            (
                r#""verification": {"holds": false}"#,
                Tone::Bad,
                "does not hold",
            ),
            (
                r#""verification": {}"#,
                Tone::Plain,
                "proof without a result",
            ),
        ] {
            let found = badge(&component(fields));
            assert_eq!((found.tone, found.text.as_str()), (tone, text));
        }
    }

    #[test]
    fn outputs_are_held_against_what_they_must_reach() {
        let c = component(
            r#""verification": {"holds": true, "numeric": {"min_psnr": 40, "outputs": [
                {"name": "a", "psnr": 86.44}, {"name": "b", "psnr": 3}, {"name": "c", "identical": true}, {}]}}"#,
        );
        let outputs = Proof::of(&c).outputs;
        let shown: Vec<_> = outputs.iter().map(|o| (o.ratio.as_str(), o.tone)).collect();
        assert_eq!(
            shown,
            [
                ("86.4 dB", Tone::Good),
                ("3.0 dB", Tone::Bad),
                ("identical", Tone::Good),
                ("no ratio", Tone::Plain)
            ]
        );
    }
}
