//! Two chains run side by side, a value of the one compared with its like of the other as soon as both are made.
//!
//! Only one side computes at a time, with all threads, and neither runs ahead: so what is held is what the two hold at the same
//! place, not a whole model's values.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use mil_eval::{Elements, Observer, Output, Rounding, RunOptions, Step, Tensor, TensorData};

use super::difference::Difference;
use crate::error::Error;
use crate::evaluation::{self, Evaluator, Tensors};
use crate::memory_budget::Guard;
use crate::progress::Cancel;

/// One of the two sides.
pub(super) struct Side<'p> {
    pub chain: Evaluator<'p>,
    pub rounding: Rounding,
}

/// What both sides share.
pub(super) struct Settings<'s> {
    pub inputs: &'s Tensors,
    /// Names of the values to compare, in the order in which both sides make them.
    pub compared: &'s [&'s str],
    pub threads: NonZeroUsize,
    pub cancel: &'s Cancel,
    pub guard: &'s Guard,
}

/// A value that was compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Compared {
    pub name: String,
    /// Type of the operation that made it.
    pub kind: String,
    /// The stage of the side that is to be proved, from 0.
    pub stage: usize,
    pub difference: Difference,
}

/// A value with elements that are no finite numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NonFinite {
    pub name: String,
    pub kind: String,
    pub stage: usize,
    pub count: u64,
    pub of: usize,
}

/// What the two runs came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub compared: Vec<Compared>,
    pub found: Ran,
    pub reference: Ran,
}

/// What one side came to.
#[derive(Debug)]
pub(super) struct Ran {
    pub outputs: Tensors,
    /// In the order in which they were made.
    pub non_finite: Vec<NonFinite>,
}

/// Runs both sides.
///
/// # Errors
/// One of them cannot be run, or the job was cancelled.
pub(super) fn run(
    found: &Side<'_>,
    reference: &Side<'_>,
    settings: &Settings<'_>,
) -> Result<Outcome, Error> {
    let stop = AtomicBool::new(false);
    let (ask, asked) = sync_channel(1);
    let (answer, answered) = sync_channel(1);
    let (stop, places) = (&stop, &places(settings.compared));
    let outcome = thread::scope(|scope| {
        let other = scope.spawn(move || {
            let telling = Telling {
                places,
                asked,
                answer,
                pending: Cell::new(None),
                next: Cell::new(0),
            };
            reference.run(&|_, step| telling.tell(step), settings, stop)
        });
        let asking = Asking {
            places,
            ask,
            answered,
            next: Cell::new(0),
            compared: RefCell::default(),
        };
        let ran = found.run(&|stage, step| asking.compare(stage, step), settings, stop);
        let compared = asking.into_compared();
        let other = other.join().unwrap_or_else(|panic| resume_unwind(panic));
        // Where one side fails the other is stopped, and its own error says only that.
        let (found, reference) = match (ran, other) {
            (Ok(found), Ok(reference)) => (found, reference),
            (Err(e), Ok(_)) | (Ok(_), Err(e)) => return Err(e),
            (Err(e), Err(other)) => return Err(if is_stopped(&e) { other } else { e }),
        };
        Ok(Outcome {
            compared,
            found,
            reference,
        })
    });
    settings.cancel.check()?;
    settings.guard.check()?;
    Ok(outcome?)
}

fn is_stopped(e: &evaluation::Error) -> bool {
    use evaluation::Error::Stage;
    matches!(e, Stage { source, .. } if matches!(source, mil_eval::Error::Cancelled))
}

fn places<'n>(names: &[&'n str]) -> BTreeMap<&'n str, usize> {
    names.iter().enumerate().map(|(i, &n)| (n, i)).collect()
}

impl Side<'_> {
    fn run(
        &self,
        see: &dyn Fn(usize, &Step<'_>),
        settings: &Settings<'_>,
        stop: &AtomicBool,
    ) -> Result<Ran, evaluation::Error> {
        let watch = Watch {
            see,
            stage: Cell::new(0),
            non_finite: RefCell::default(),
        };
        let is_stopped = || {
            settings.cancel.is_cancelled()
                || stop.load(Ordering::Relaxed)
                || settings.guard.is_over()
        };
        let options = RunOptions {
            rounding: self.rounding,
            threads: settings.threads,
            observer: Some(&watch),
            cancelled: Some(&is_stopped),
            // Of the two sides.
            max_waiting_bytes: settings.guard.max_waiting_bytes(2),
        };
        let outputs = self.chain.run(settings.inputs, &options, &mut |stage, _| {
            watch.stage.set(stage + 1);
        });
        let outputs = outputs.inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
        Ok(Ran {
            outputs,
            non_finite: watch.non_finite.into_inner(),
        })
    }
}

/// Sees every operation of one side.
struct Watch<'w> {
    see: &'w dyn Fn(usize, &Step<'_>),
    /// The stage that runs.
    stage: Cell<usize>,
    non_finite: RefCell<Vec<NonFinite>>,
}

impl Observer for Watch<'_> {
    fn computed(&self, step: &Step<'_>) {
        // How often a nested block runs is known of neither side, and its names may come again: control flow is compared by
        // what it makes.
        if step.depth > 0 {
            return;
        }
        let stage = self.stage.get();
        for output in &step.outputs {
            if output.non_finite > 0 {
                self.non_finite.borrow_mut().push(NonFinite {
                    name: output.name.to_owned(),
                    kind: step.kind.to_owned(),
                    stage,
                    count: output.non_finite,
                    of: output.shape.iter().product(),
                });
            }
        }
        (self.see)(stage, step);
    }
}

/// The place of a value, if it is to be compared and has not been passed: a chain may make a name again.
fn place(places: &BTreeMap<&str, usize>, output: &Output<'_>, next: &Cell<usize>) -> Option<usize> {
    let place = *places.get(output.name)?;
    if place < next.get() {
        return None;
    }
    next.set(place + 1);
    Some(place)
}

/// The side that is to be proved: asks for the other's value as soon as it has its own.
struct Asking<'a> {
    places: &'a BTreeMap<&'a str, usize>,
    ask: SyncSender<usize>,
    answered: Receiver<Option<Tensor>>,
    next: Cell<usize>,
    compared: RefCell<Vec<Compared>>,
}

impl Asking<'_> {
    fn compare(&self, stage: usize, step: &Step<'_>) {
        for output in &step.outputs {
            let Some(place) = place(self.places, output, &self.next) else {
                continue;
            };
            // Neither arrives if the other side failed, which its own result says.
            let reference = self
                .ask
                .send(place)
                .ok()
                .and_then(|()| self.answered.recv().ok());
            let Some(reference) = reference.flatten() else {
                continue;
            };
            if output.shape != reference.shape {
                continue;
            }
            let difference = Difference::between(output.elements, elements(&reference.data));
            self.compared
                .borrow_mut()
                .extend(difference.map(|difference| Compared {
                    name: output.name.to_owned(),
                    kind: step.kind.to_owned(),
                    stage,
                    difference,
                }));
        }
    }

    /// What was compared; nothing is asked any more.
    fn into_compared(self) -> Vec<Compared> {
        self.compared.into_inner()
    }
}

/// The side that the other is compared with: waits until its value is asked for before it goes on.
struct Telling<'a> {
    places: &'a BTreeMap<&'a str, usize>,
    asked: Receiver<usize>,
    answer: SyncSender<Option<Tensor>>,
    /// What was asked for and is not made yet.
    pending: Cell<Option<usize>>,
    next: Cell<usize>,
}

impl Telling<'_> {
    fn tell(&self, step: &Step<'_>) {
        for output in &step.outputs {
            let Some(place) = place(self.places, output, &self.next) else {
                continue;
            };
            // Nobody asks any more once the other side is through.
            while let Some(asked) = self.pending.take().or_else(|| self.asked.recv().ok()) {
                if asked > place {
                    self.pending.set(Some(asked));
                    break;
                }
                // What was asked for before this was not made here.
                let value = (asked == place).then(|| copy(output));
                let _ = self.answer.send(value);
                if asked == place {
                    self.pending.set(self.asked.recv().ok());
                    break;
                }
            }
        }
    }
}

fn copy(output: &Output<'_>) -> Tensor {
    let data = match output.elements {
        Elements::I32(v) => TensorData::I32(v.to_vec()),
        Elements::Bool(v) => TensorData::Bool(v.to_vec()),
        Elements::F32(v) => TensorData::F32(v.to_vec()),
        _ => TensorData::F32(Vec::new()),
    };
    Tensor {
        shape: output.shape.to_vec(),
        data,
    }
}

/// The elements of a tensor.
pub(super) fn elements(data: &TensorData) -> Elements<'_> {
    match data {
        TensorData::F32(v) => Elements::F32(v),
        TensorData::I32(v) => Elements::I32(v),
        TensorData::Bool(v) => Elements::Bool(v),
        _ => Elements::F32(&[]),
    }
}
