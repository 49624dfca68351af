//! SIGINT and SIGTERM ask the job to stop; it cleans up after itself.

use conversion::progress::Cancel;

/// A flag that SIGINT and SIGTERM set.
pub fn cancel_on_interrupt() -> Cancel {
    let cancel = Cancel::new();
    let flag = cancel.clone();
    if ctrlc::set_handler(move || flag.cancel()).is_err() {
        // Without a handler a signal ends the process at once; the next command that opens the folder cleans up.
        crate::output::line_err(
            "note: signals cannot be caught; an interruption is cleaned up by the next command",
        );
    }
    cancel
}
