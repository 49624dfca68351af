//! The one place that all goes through that is said on the way: what stderr shows, what the log keeps, and how far the work is.
//!
//! There is one for the process, as there is one stderr: whoever has something to say need not be handed it.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::event::{Event, Point, Unit};
use super::log::{Log, Timed};
use crate::failure::{Failure, shown};
use crate::output;

/// What stderr shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drawing {
    Bar,
    /// A line at every tenth.
    Tenths,
    /// Stages, memory, and a line now and then.
    Plain,
    /// JSON, and nothing else.
    Events,
    Nothing,
}

impl Drawing {
    /// What fits the place that stderr goes to.
    pub fn auto(quiet: bool) -> Drawing {
        if quiet {
            Drawing::Nothing
        } else if std::io::stderr().is_terminal() {
            Drawing::Bar
        } else {
            Drawing::Tenths
        }
    }
}

struct Teller {
    drawing: Drawing,
    log: Option<Log>,
}

static TELLER: OnceLock<Teller> = OnceLock::new();

/// How far the work is; a total of 0 is no work.
#[derive(Default)]
struct Position {
    stage: Mutex<String>,
    done: AtomicU64,
    total: AtomicU64,
    counts_operations: AtomicU64,
}

static POSITION: OnceLock<Position> = OnceLock::new();

fn position() -> &'static Position {
    POSITION.get_or_init(Position::default)
}

/// Says how everything is told from here on; the first call holds.
pub fn begin(drawing: Drawing, log: Option<Log>) {
    let _ = TELLER.set(Teller { drawing, log });
}

/// What stderr shows where the options say so.
pub fn drawing() -> Option<Drawing> {
    TELLER.get().map(|teller| teller.drawing)
}

/// To the log, and as an event where stderr shows those.
pub fn tell(event: &Event<'_>) {
    let Some(teller) = TELLER.get() else {
        return;
    };
    // Where the work stands every moment is for those who look, not for those who read afterwards.
    if let Some(log) = teller
        .log
        .as_ref()
        .filter(|_| !matches!(event, Event::Progress(_)))
    {
        log.write(event);
    }
    if teller.drawing == Drawing::Events {
        output::line_err(&Timed::now(event).json());
    }
}

fn is_events() -> bool {
    drawing() == Some(Drawing::Events)
}

/// What is worth a line, on stderr and in the log.
pub fn note_line(note: &str) {
    tell(&Event::Note { message: note });
    show("note", note);
}

/// A line that needs no label, on stderr and in the log.
pub fn line(text: &str) {
    tell(&Event::Note { message: text });
    if !is_events() {
        output::line_err(text);
    }
}

/// A line on stderr alone.
pub fn show(label: &str, text: &str) {
    if !is_events() {
        output::line_err(&format!("{label}: {}", shown(text)));
    }
}

/// How a command ended: the lines on stderr, the object on stdout, the log.
pub fn ended(result: &Result<(), Failure>, json: bool) {
    match result {
        Ok(()) => tell(&Event::End { exit_code: 0 }),
        Err(failure) => {
            let stopped = point();
            tell(&Event::Error {
                error: failure.object(),
                stopped: stopped.as_ref(),
                exit_code: failure.exit as u8,
            });
            failure.show(json, stopped.as_ref(), !is_events());
        }
    }
}

/// Work begins, or ends with a total of 0.
pub fn start(total: u64, unit: Unit) {
    let position = position();
    position.done.store(0, Ordering::Relaxed);
    position.total.store(total, Ordering::Relaxed);
    let counts_operations = u64::from(unit == Unit::Operations);
    position
        .counts_operations
        .store(counts_operations, Ordering::Relaxed);
}

pub fn stage(stage: &str) {
    let mut current = position()
        .stage
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    stage.clone_into(&mut current);
}

/// So much more is done; how much there was before, and of how much.
pub fn advance(more: u64) -> (u64, u64) {
    let position = position();
    let before = position.done.fetch_add(more, Ordering::Relaxed);
    (before, position.total.load(Ordering::Relaxed))
}

/// Where the work is, if there is any.
pub fn point() -> Option<Point> {
    let position = position();
    let total = position.total.load(Ordering::Relaxed);
    let counts_operations = position.counts_operations.load(Ordering::Relaxed) == 1;
    let stage = position
        .stage
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    (total > 0).then(|| Point {
        stage: stage.clone(),
        done: position.done.load(Ordering::Relaxed).min(total),
        total,
        unit: if counts_operations {
            Unit::Operations
        } else {
            Unit::Bytes
        },
    })
}
