//! Messages about the start and the end of a watch.

use std::path::Path;

use authferry_runner::{Job, Report};

use super::{hints, with_facts};
use crate::exit;
use crate::outcome::Ending;

/// Reports that a watch continues in the background.
pub(crate) fn watching(process: u32, home: &Path) -> Ending {
    let message = format!("watching {} in the background", home.display());
    Ending {
        midway: true,
        ..Ending::good("watching", message)
    }
    .fact("process", process)
}

/// Describes the end of a watch.
pub(crate) fn watched(job: &Job<'_>, report: &Report) -> Ending {
    let count = report.writes.len();
    let writes = format!("{count} write{}", if count == 1 { "" } else { "s" });
    let ending = match report.unpersisted {
        None => Ending::good("watched", format!("{writes} to {}", job.store)),
        Some(due) => {
            let message = format!(
                "login {due} is not persisted yet, and stays in {}",
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
            ending.hint("persist it: `authferry persist`")
        }
    };
    let mut ending = with_facts(ending, job, report, false);
    ending.midway = true;
    ending
}
