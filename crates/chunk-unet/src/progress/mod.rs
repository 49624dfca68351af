//! Progress on stderr and in a log: a bar on a terminal, lines elsewhere, events where they are asked for.

mod args;
mod bar;
mod event;
mod lines;
mod log;
mod teller;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use conversion::progress::{Reporter, Silent};
use conversion::report::MemorySample;

pub use args::DuringArgs;
pub use bar::Bar;
pub use event::{Point, Unit};
pub use teller::{ended, line, note_line};

use event::Event;
use lines::Lines;
use teller::Drawing;

/// Memory between stages is logged no more often.
const MEMORY_PAUSE: Duration = Duration::from_secs(10);
/// Events of progress come no more often.
const EVENT_PAUSE: Duration = Duration::from_millis(500);

/// Tells of a job that counts bytes.
pub fn reporter(quiet: bool) -> Box<dyn Reporter> {
    reporter_of(Unit::Bytes, quiet)
}

/// Tells of a job that counts operations.
pub fn operations(quiet: bool) -> Box<dyn Reporter> {
    reporter_of(Unit::Operations, quiet)
}

fn reporter_of(unit: Unit, quiet: bool) -> Box<dyn Reporter> {
    let drawing = teller::drawing().unwrap_or_else(|| Drawing::auto(quiet));
    let drawn: Box<dyn Reporter> = match drawing {
        Drawing::Bar => Box::new(Bar::new(unit)),
        Drawing::Plain => Box::new(Lines::new(unit, true)),
        Drawing::Tenths if unit == Unit::Bytes => Box::new(Lines::new(unit, false)),
        Drawing::Tenths | Drawing::Nothing if !quiet => Box::new(NotesOnly),
        Drawing::Tenths | Drawing::Nothing | Drawing::Events => Box::new(Silent),
    };
    Box::new(Told {
        unit,
        drawn,
        events: Mutex::new(None),
        memory: Mutex::new(Memory::default()),
    })
}

/// Tells everything to the log and to those who want events, and draws.
struct Told {
    unit: Unit,
    drawn: Box<dyn Reporter>,
    /// When progress was told last.
    events: Mutex<Option<Instant>>,
    memory: Mutex<Memory>,
}

/// The sample that was told last.
#[derive(Default)]
struct Memory {
    at: String,
    told: Option<Instant>,
}

impl Told {
    fn is_due(&self, is_last: bool) -> bool {
        // Whoever finds it taken need not wait: another is telling.
        let Ok(mut last) = self.events.try_lock() else {
            return is_last;
        };
        let is_due = is_last || last.is_none_or(|last| last.elapsed() >= EVENT_PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

impl Reporter for Told {
    fn on_start(&self, total: u64) {
        teller::start(total, self.unit);
        self.drawn.on_start(total);
    }

    fn on_progress(&self, more: u64) {
        let (before, total) = teller::advance(more);
        if teller::drawing() == Some(Drawing::Events)
            && self.is_due(before + more == total)
            && let Some(point) = teller::point()
        {
            teller::tell(&Event::Progress(point));
        }
        self.drawn.on_progress(more);
    }

    fn on_done(&self) {
        teller::start(0, self.unit);
        self.drawn.on_done();
    }

    fn on_stage(&self, stage: &str) {
        teller::stage(stage);
        teller::tell(&Event::Stage { stage });
        self.drawn.on_stage(stage);
    }

    fn on_memory(&self, sample: &MemorySample) {
        let is_due = self.memory.lock().is_ok_and(|mut last| {
            let is_new = last.at != sample.at;
            let is_due = is_new || last.told.is_none_or(|told| told.elapsed() >= MEMORY_PAUSE);
            if is_due {
                last.at.clone_from(&sample.at);
                last.told = Some(Instant::now());
            }
            is_due
        });
        if is_due {
            teller::tell(&Event::Memory(sample));
            self.drawn.on_memory(sample);
        }
    }

    fn on_note(&self, message: &str) {
        teller::tell(&Event::Note { message });
        self.drawn.on_note(message);
    }

    fn on_warning(&self, message: &str) {
        teller::tell(&Event::Warning { message });
        self.drawn.on_warning(message);
    }
}

/// Draws nothing.
struct NotesOnly;

impl Reporter for NotesOnly {
    fn on_note(&self, note: &str) {
        teller::show("note", note);
    }

    fn on_warning(&self, warning: &str) {
        teller::show("warning", warning);
    }
}
