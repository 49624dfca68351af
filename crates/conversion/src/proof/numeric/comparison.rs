//! From two chains to a report.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;
use std::thread;

use diffusion::unet;
use mil::TensorType;
use mil_eval::{Rounding, Tensor};

use super::super::chain::Chain;
use super::super::report::{Finding, Kind, shown};
use super::NumericOptions;
use super::difference::Difference;
use super::inputs::{self, Inputs};
use super::lockstep::{self, Compared, NonFinite, Outcome, Settings, Side};
use super::names::{self, Crossing};
use super::places::Places;
use super::report::{ComparedTensor, NumericReport, Subject};
use super::watched::{self, Watched};
use crate::error::Error;
use crate::evaluation::{Evaluator, Feature, Stages, Tensors};
use crate::progress::{Cancel, Reporter};

/// Height and width of the image that time ids tell where the packages tell no size: SDXL's own.
const IMAGE: [u64; 2] = [1024, 1024];
/// Pixels of the image for each position of the latent, each way.
const PIXELS: u64 = 8;

/// What runs side by side.
pub(super) struct Sides<'p> {
    /// The packages, or what stands for them.
    pub found: Stages<'p>,
    /// Where its values belong.
    pub places: Places,
    pub reference: Stages<'p>,
    pub reference_rounding: Rounding,
}

/// A comparison of packages with something.
pub(super) struct Comparison<'a> {
    pub chain: &'a Chain,
    pub packages: &'a Stages<'a>,
    pub options: &'a NumericOptions<'a>,
    /// The packages' own shapes, where they are those of a UNet.
    pub native: Option<unet::Options>,
    pub reporter: &'a dyn Reporter,
    pub cancel: &'a Cancel,
}

impl Comparison<'_> {
    /// Runs both sides, unless their inputs or outputs are not the same.
    pub fn run(&self, sides: &Sides<'_>) -> Result<NumericReport, Error> {
        let total = [&sides.found, &sides.reference].map(watched::total_bytes);
        let total = total[0].saturating_add(total[1]);
        let left = AtomicU64::new(total);
        let watched =
            [&sides.found, &sides.reference].map(|s| Watched::all(s, self.reporter, &left));
        let [found, reference] = [(&sides.found, &watched[0]), (&sides.reference, &watched[1])]
            .map(|(stages, watched)| {
                let stores = watched.iter().map(|w| w as _);
                stages.clone().with_weights(stores)
            });
        let options = mil_eval::Options::default();
        let found_side = Side {
            chain: found.prepare(options)?,
            rounding: self.options.rounding,
        };
        let reference_side = Side {
            chain: reference.prepare(options)?,
            rounding: sides.reference_rounding,
        };
        let mut report = self.blank();
        report.findings = self.interface(sides, &found_side.chain, &reference_side.chain);
        if !report.findings.is_empty() {
            return Ok(report);
        }
        let (crossings, compared) = self.compared(&found, &reference, found_side.chain.outputs());
        let inputs = self.inputs(&found_side.chain, &reference_side.chain)?;
        // Both hold most at about the same place, but nothing says that it is the same.
        let chains = [&found_side.chain, &reference_side.chain];
        let least_bytes = chains.map(Evaluator::least_bytes).into_iter().max();
        let guard = self.options.memory.guard(least_bytes.unwrap_or(0))?;
        self.reporter.on_start(total);
        self.reporter.on_stage("computing");
        let outcome = lockstep::run(
            &found_side,
            &reference_side,
            &Settings {
                inputs: &inputs,
                compared: &compared,
                threads: self.threads(),
                cancel: self.cancel,
                guard: &guard,
            },
        )?;
        self.reporter.on_done();
        self.fill(&mut report, sides, &found_side.chain, &crossings, &outcome);
        Ok(report)
    }

    /// What crosses between packages, and the values that are compared, in the order in which both sides make them.
    fn compared<'p>(
        &self,
        found: &Stages<'p>,
        reference: &Stages<'_>,
        outputs: &[Feature<'_>],
    ) -> (Vec<Crossing>, Vec<&'p str>) {
        let computed = names::computed(reference);
        let crossings = names::crossings(self.packages, &computed.iter().copied().collect());
        let mut compared = names::in_common_order(&names::computed(found), &computed);
        if !self.options.per_operation {
            let crossing = crossings.iter().map(|c| c.name.as_str());
            let wanted: BTreeSet<&str> = crossing.chain(outputs.iter().map(|f| f.name)).collect();
            compared.retain(|name| wanted.contains(name));
        }
        (crossings, compared)
    }

    fn threads(&self) -> NonZeroUsize {
        let given = self.options.threads.and_then(NonZeroUsize::new);
        given.unwrap_or_else(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
    }

    /// The report of a comparison that has not begun.
    fn blank(&self) -> NumericReport {
        let (seed, inputs) = match self.options.inputs {
            Inputs::Seed(seed) => (Some(seed), None),
            Inputs::File { name, .. } => (None, Some(shown(name))),
        };
        NumericReport {
            against: String::new(),
            ran: Subject::Packages,
            latent_width: self.native.map(|n| n.width),
            latent_height: self.native.map(|n| n.height),
            rounding: match self.options.rounding {
                Rounding::None => "none",
                Rounding::Fp16 => "fp16",
            },
            seed,
            inputs,
            min_psnr: self.options.min_psnr,
            outputs: Vec::new(),
            crossing: Vec::new(),
            operations: self.options.per_operation.then(Vec::new),
            worst: None,
            first_below: None,
            findings: Vec::new(),
            seconds: 0.0,
        }
    }

    /// What the inputs and outputs of both sides differ in.
    fn interface(
        &self,
        sides: &Sides<'_>,
        found: &Evaluator<'_>,
        reference: &Evaluator<'_>,
    ) -> Vec<Finding> {
        let mut findings = Vec::new();
        let pairs = [
            ("input", found.inputs(), reference.inputs()),
            ("output", found.outputs(), reference.outputs()),
        ];
        for (what, found, reference) in pairs {
            for there in reference
                .iter()
                .filter(|r| feature(found, r.name).is_none())
            {
                let finding = Finding::new(Kind::Interface, format!("{what} of the chain"));
                let finding = finding.tensor(shown(there.name));
                findings.push(finding.sides(format!("`{}`", there.ty), "none"));
            }
            for here in found {
                let expected = match feature(reference, here.name) {
                    Some(there) if same_shape(here.ty, there.ty) => continue,
                    Some(there) => format!("`{}`", there.ty),
                    None => "none".to_owned(),
                };
                let place = sides.places.stage(here.stage, here.name);
                let finding = self.at(
                    place,
                    Finding::new(Kind::Interface, format!("{what} of the chain")),
                );
                let finding = finding.tensor(shown(here.name));
                findings.push(finding.sides(expected, format!("`{}`", here.ty)));
            }
        }
        findings
    }

    /// A finding about a package.
    fn at(&self, package: usize, finding: Finding) -> Finding {
        match self.chain.stages.get(package) {
            Some(stage) => finding.at(stage.at).file(stage.model_file()),
            None => finding,
        }
    }

    /// The same tensors for both sides, rounded where the packages are.
    fn inputs(&self, found: &Evaluator<'_>, reference: &Evaluator<'_>) -> Result<Tensors, Error> {
        // Of inputs that both take, the packages' type.
        let all = reference.inputs().iter().chain(found.inputs());
        let types: BTreeMap<&str, &TensorType> = all.map(|f| (f.name, f.ty)).collect();
        let tensors = match self.options.inputs {
            Inputs::Seed(seed) => {
                let image =
                    |n: unet::Options| [n.height, n.width].map(|n| n.saturating_mul(PIXELS));
                inputs::random(&types, seed, self.native.map_or(IMAGE, image))?
            }
            // States begin with zeros, as new ones do, unless the file has them.
            Inputs::File { file, .. } => {
                let states = reference.states().iter().chain(found.states());
                let states = states.map(|f| f.name);
                file.read(types.keys().copied().chain(states))?
            }
        };
        Ok(match self.options.rounding {
            Rounding::Fp16 => inputs::rounded(tensors, &types),
            Rounding::None => tensors,
        })
    }

    /// Fills the report of what was computed.
    fn fill(
        &self,
        report: &mut NumericReport,
        sides: &Sides<'_>,
        found: &Evaluator<'_>,
        crossings: &[Crossing],
        outcome: &Outcome,
    ) {
        let stage = |package: usize| self.chain.stages.get(package).map_or(0, |s| s.at + 1);
        let of_value = |c: &Compared| {
            let stage = stage(sides.places.stage(c.stage, &c.name));
            ComparedTensor::new(shown(&c.name), Some(c.kind.clone()), stage, c.difference)
        };
        let mut judged: Vec<(usize, ComparedTensor, Difference)> = Vec::new();
        for crossing in crossings {
            let like = outcome.compared.iter().find(|c| c.name == crossing.name);
            if let Some(like) = like {
                let place = sides.places.stage(like.stage, &like.name);
                report.crossing.push(of_value(like));
                judged.push((place, of_value(like), like.difference));
            }
        }
        for output in found.outputs() {
            let difference = output_difference(output.name, outcome);
            let made = outcome.compared.iter().find(|c| c.name == output.name);
            let place = sides.places.stage(output.stage, output.name);
            let compared = ComparedTensor::new(
                shown(output.name),
                made.map(|c| c.kind.clone()),
                stage(place),
                difference,
            );
            report.outputs.push(compared.clone());
            judged.push((place, compared, difference));
        }
        if let Some(operations) = &mut report.operations {
            operations.extend(outcome.compared.iter().map(of_value));
        }
        let min = self.options.min_psnr;
        let differing = outcome
            .compared
            .iter()
            .filter(|c| c.difference != Difference::Identical);
        let worst = differing.min_by(|a, b| a.difference.rank().total_cmp(&b.difference.rank()));
        report.worst = worst.map(of_value);
        let below = outcome.compared.iter().find(|c| !c.difference.holds(min));
        report.first_below = below.map(of_value);
        report.findings = self.judge(sides, outcome, below, &judged);
    }

    /// What is wrong, the most telling first: where numbers cease to be finite, the first operation below the ratio, then what
    /// crosses and comes out.
    fn judge(
        &self,
        sides: &Sides<'_>,
        outcome: &Outcome,
        first_below: Option<&Compared>,
        judged: &[(usize, ComparedTensor, Difference)],
    ) -> Vec<Finding> {
        let min = self.options.min_psnr;
        let below: Vec<_> = judged.iter().filter(|(_, _, d)| !d.holds(min)).collect();
        let is_lost = below.iter().any(|(_, _, d)| *d == Difference::NotFinite);
        let mut findings: Vec<Finding> = self
            .non_finite(sides, outcome, is_lost)
            .into_iter()
            .collect();
        let expected = format!("at least {min} dB");
        let finding = |package: usize, what: &str, name: &str, difference: Difference| {
            let finding = self.at(package, Finding::new(Kind::Psnr, what));
            finding
                .tensor(name)
                .sides(&expected, shown_difference(difference))
        };
        if let Some(first) = first_below.filter(|_| self.options.per_operation) {
            let place = sides.places.stage(first.stage, &first.name);
            let what = format!(
                "the first operation (`{}`) too far from the reference",
                first.kind
            );
            let finding = finding(place, &what, &shown(&first.name), first.difference);
            findings.push(finding.operation(shown(&first.name)));
        }
        findings.extend(below.into_iter().map(|(package, tensor, difference)| {
            finding(
                *package,
                "too far from the reference",
                &tensor.name,
                *difference,
            )
        }));
        findings
    }

    /// The first operation of the packages that makes numbers which are not finite where the reference has none such. Masks are
    /// infinite on both sides; where a result `is_lost`, they are no excuse.
    fn non_finite(&self, sides: &Sides<'_>, outcome: &Outcome, is_lost: bool) -> Option<Finding> {
        let theirs: BTreeSet<&str> = outcome
            .reference
            .non_finite
            .iter()
            .map(|n| n.name.as_str())
            .collect();
        let ours = &outcome.found.non_finite;
        let own = ours.iter().find(|n| !theirs.contains(n.name.as_str()));
        let told = |n: &NonFinite, whose: &str| {
            let what = format!(
                "the first operation (`{}`){whose} that makes numbers which are not finite",
                n.kind
            );
            let finding = Finding::new(Kind::NotFinite, what);
            let finding = finding.operation(shown(&n.name)).tensor(shown(&n.name));
            finding.sides(
                "finite numbers",
                format!("{} of {} that are not", n.count, n.of),
            )
        };
        if let Some(first) = own.or(ours.first().filter(|_| is_lost)) {
            let place = sides.places.stage(first.stage, &first.name);
            return Some(self.at(place, told(first, "")));
        }
        let first = outcome.reference.non_finite.first().filter(|_| is_lost)?;
        Some(told(first, " of the reference"))
    }
}

fn feature<'f, 'p>(list: &'f [Feature<'p>], name: &str) -> Option<&'f Feature<'p>> {
    list.iter().find(|f| f.name == name)
}

fn same_shape(a: &TensorType, b: &TensorType) -> bool {
    match (a.shape(), b.shape()) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    }
}

/// Both sides' output; one that is not there on both has been found before.
fn output_difference(name: &str, outcome: &Outcome) -> Difference {
    let of = |outputs: &Tensors| outputs.get(name).cloned();
    let between = |found: Tensor, reference: Tensor| {
        let elements = lockstep::elements;
        Difference::between(elements(&found.data), elements(&reference.data))
    };
    let both = of(&outcome.found.outputs).zip(of(&outcome.reference.outputs));
    both.and_then(|(f, r)| between(f, r))
        .unwrap_or(Difference::NotFinite)
}

fn shown_difference(difference: Difference) -> String {
    match difference {
        Difference::Identical => "identical".to_owned(),
        Difference::Psnr(psnr) if psnr.is_finite() => format!("{psnr:.2} dB"),
        Difference::Psnr(_) => "numbers where the reference has zeros".to_owned(),
        Difference::NotFinite => "numbers that are not finite".to_owned(),
    }
}
