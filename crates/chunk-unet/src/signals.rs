//! SIGINT and SIGTERM ask the job to stop; it cleans up after itself. The second one does not wait for that.

use conversion::progress::Cancel;
use nix::sys::signal::{SigSet, Signal};

use crate::failure::Exit;
use crate::progress::note_line;

/// A flag that SIGINT and SIGTERM set. To be called once, just before long work: until then a signal ends the process.
pub fn cancel_on_interrupt() -> Cancel {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    let handler = move || {
        if flag.is_cancelled() {
            // What is left is cleaned up by the next command that opens the folder.
            std::process::exit(Exit::Interrupted as i32);
        }
        flag.cancel();
    };
    if ctrlc::set_handler(handler).is_err() {
        // Without a handler a signal ends the process at once, as the second one does.
        note_line("signals cannot be caught; an interruption is cleaned up by the next command");
    }
    cancel
}

/// Has writes beyond `ulimit -f` fail like others, where the system would end the process in the middle of its work. To be
/// called while there is one thread: those that come take it over.
pub fn block_file_limit() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    // Where it cannot be blocked, what is left is cleaned up by the next command.
    let _ = signals.thread_block();
}
