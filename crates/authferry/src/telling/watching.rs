//! How a watch began and ended, in words.

use std::path::Path;

use authferry_runner::{Job, Report};

use super::{hints, with_facts};
use crate::ending::Ending;
use crate::exit;

/// Tells that a watch goes on in the background.
pub(crate) fn watching(process: u32, home: &Path) -> Ending {
    let message = format!("watching {} in the background", home.display());
    Ending {
        midway: true,
        ..Ending::good("watching", message)
    }
    .fact("process", process)
}

/// Tells how a watch ended.
pub(crate) fn watched(job: &Job<'_>, report: &Report) -> Ending {
    let count = report.writes.len();
    let writes = format!("{count} write{}", if count == 1 { "" } else { "s" });
    let ending = match report.left_due {
        None => Ending::good("watched", format!("{writes} to {}", job.store)),
        Some(due) => {
            let message = format!(
                "not persisted yet, kept in {}: login {due}",
                job.home.auth_file().display()
            );
            let error = report.store_error.as_ref();
            let mut ending = Ending::bad(exit::RESCUED, "left", message);
            if let Some(error) = error {
                ending = ending.caused_by(error);
            }
            if let Some(hint) = error.and_then(hints::for_store) {
                ending = ending.hint(hint);
            }
            ending.hint("put it into the store with `authferry persist`")
        }
    };
    let mut ending = with_facts(ending, job, report, false);
    ending.midway = true;
    ending
}
