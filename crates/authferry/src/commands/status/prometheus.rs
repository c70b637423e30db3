//! `status --prometheus`: metrics in Prometheus' text format.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    process,
};

use authferry_codex::Death;
use authferry_core::Issued;
use authferry_runner::RefusalNote;

use super::attention::{Problem, ProblemKind};
use super::lease_reading::LeaseReading;
use crate::args::Global;
use crate::outcome::{Ending, Result};
use crate::{exit, report};

/// What is known of a login.
#[derive(Debug)]
pub(super) struct LoginFacts<'a> {
    pub(super) issued: Issued,
    pub(super) lease: &'a LeaseReading,
    pub(super) refusal: Option<&'a RefusalNote>,
    pub(super) problems: &'a [Problem],
    /// How many copies are saved outside of the store.
    pub(super) copies: usize,
}

/// The metrics of a store; without facts, those of a store whose login cannot be read.
pub(super) fn text(store: &str, login: Option<&LoginFacts<'_>>) -> String {
    let mut metrics = Metrics::of(store);
    metrics.family("authferry_up", "Whether the store's login could be read.");
    metrics.sample(&[], u8::from(login.is_some()));
    let Some(login) = login else {
        return metrics.text;
    };
    if let Some(expiry) = login.issued.exp {
        let name = "authferry_login_access_token_expiry_timestamp_seconds";
        metrics.family(name, "When the access token expires, in Unix seconds.");
        metrics.sample(&[], expiry);
    }
    if let Some(due) = login.issued.due() {
        let name = "authferry_login_rotation_due_timestamp_seconds";
        metrics.family(name, "When a rotation is due, in Unix seconds.");
        metrics.sample(&[], due);
    }
    let is_readable = match login.lease {
        LeaseReading::Unsupported => None,
        LeaseReading::Read(_) => Some(true),
        LeaseReading::Unknown(_) => Some(false),
    };
    if let Some(is_readable) = is_readable {
        let help = "Whether the lease, which has the note of a refusal, could be read.";
        metrics.family("authferry_lease_up", help);
        metrics.sample(&[], u8::from(is_readable));
    }
    // What cannot be read is unknown, not a no: there is no sample then.
    if is_readable != Some(false) {
        let help = "Whether the provider refuses the login, by its reason.";
        metrics.family("authferry_login_refused", help);
        for (name, death) in REASONS {
            let is_refused = login.refusal.is_some_and(|note| note.death == death);
            metrics.sample(&[("reason", name)], u8::from(is_refused));
        }
    }
    let help = "Whether the login has this problem, as in `status --check`.";
    metrics.family("authferry_login_attention", help);
    let is_known = |kind: &ProblemKind| match kind {
        ProblemKind::Dead | ProblemKind::Refused | ProblemKind::Lease => is_readable != Some(false),
        ProblemKind::LaterCopy
        | ProblemKind::Expired
        | ProblemKind::SecondStore
        | ProblemKind::LeaseUnknown
        | ProblemKind::Expiring
        | ProblemKind::Overdue => true,
    };
    for kind in ProblemKind::ALL.into_iter().filter(is_known) {
        let has_problem = login.problems.iter().any(|it| it.kind == kind);
        metrics.sample(&[("problem", kind.name())], u8::from(has_problem));
    }
    let help = "How many copies of the login are saved outside of the store.";
    metrics.family("authferry_copies_rescued", help);
    metrics.sample(&[], login.copies);
    metrics.text
}

/// The reasons of a refusal. Each is a series, so that an alert can name one.
const REASONS: [(&str, Option<Death>); 4] = [
    ("reused", Some(Death::Reused)),
    ("expired", Some(Death::Expired)),
    ("revoked", Some(Death::Revoked)),
    ("unnamed", None),
];

/// Metrics in the text format: the samples of each family follow its name.
struct Metrics<'a> {
    store: &'a str,
    family: &'static str,
    text: String,
}

impl<'a> Metrics<'a> {
    fn of(store: &'a str) -> Self {
        Self {
            store,
            family: "",
            text: String::new(),
        }
    }

    fn family(&mut self, name: &'static str, help: &str) {
        self.family = name;
        // Writing to a string cannot fail.
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge").ok();
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let store = [("store", self.store)];
        let labels = store.iter().chain(labels);
        let labels: Vec<_> = labels
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(value)))
            .collect();
        let (family, labels) = (self.family, labels.join(","));
        writeln!(self.text, "{family}{{{labels}}} {value}").ok();
    }
}

/// Escapes a label's value. Other control characters have no place in an address.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// Refuses a file that must not be replaced: one of authferry, a login, a device or a pipe.
pub(super) fn check(file: &Path, global: &Global) -> Result<()> {
    if file == Path::new("-") {
        return Ok(());
    }
    report::check(file, "--prometheus", global)?;
    if fs::metadata(file).is_ok_and(|found| !found.is_file()) {
        let problem = format!("{} is no regular file", file.display());
        let ending = Ending::refused(exit::REFUSED, problem);
        return Err(ending
            .hint("use another file with `--prometheus FILE`, or `-` for standard output")
            .into());
    }
    Ok(())
}

/// Adds the metrics to the end of the command: to its output, or to a file.
pub(super) fn publish(file: &Path, metrics: &str, mut ending: Ending) -> Ending {
    if file == Path::new("-") {
        ending.lines = metrics.lines().map(str::to_owned).collect();
        return ending;
    }
    let Err(error) = replace(file, metrics) else {
        return ending;
    };
    let problem = format!(
        "the metrics cannot be written to {}: {error}",
        file.display()
    );
    if ending.failed {
        ending.warnings.push(problem);
        return ending;
    }
    Ending {
        code: exit::FAILED,
        outcome: "failed",
        message: problem,
        failed: true,
        ..ending
    }
    .hint("use a writable folder with `--prometheus FILE`")
}

/// Replaces a file by a rename: a collector never reads a part of it.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let next = format!(".{}.{}", name.display(), process::id());
    let next = file.with_file_name(next);
    let mut options = File::options();
    // The collector is another user. The metrics hold no secret.
    options.write(true).create_new(true).mode(0o644);
    let write = || {
        options.open(&next)?.write_all(text.as_bytes())?;
        fs::rename(&next, file)
    };
    let written = write();
    if written.is_err() {
        fs::remove_file(&next).ok();
    }
    written
}

#[cfg(test)]
mod tests {
    use authferry_core::Fingerprint;

    use super::*;

    fn facts<'a>(lease: &'a LeaseReading, refusal: Option<&'a RefusalNote>) -> LoginFacts<'a> {
        LoginFacts {
            issued: Issued {
                exp: Some(1000),
                ..Issued::default()
            },
            lease,
            refusal,
            problems: &[],
            copies: 2,
        }
    }

    #[test]
    fn a_label_is_escaped() {
        let text = text("file:///a\"b\\c\nd", None);
        assert!(
            text.ends_with("authferry_up{store=\"file:///a\\\"b\\\\c\\nd\"} 0\n"),
            "{text}"
        );
    }

    #[test]
    fn an_unreadable_lease_is_unknown_not_a_no() {
        let unknown = LeaseReading::Unknown(Box::default());
        let text = text("s", Some(&facts(&unknown, None)));
        assert!(
            text.contains("authferry_lease_up{store=\"s\"} 0\n"),
            "{text}"
        );
        assert!(!text.contains("authferry_login_refused"), "{text}");
    }

    #[test]
    fn each_reason_of_a_refusal_is_a_series() {
        let note = RefusalNote {
            fingerprint: Fingerprint::new([7; 8]),
            since: 1,
            tried: 1,
            death: Some(Death::Expired),
            by: "a job".to_owned(),
        };
        let lease = LeaseReading::Read(None);
        let text = text("s", Some(&facts(&lease, Some(&note))));
        let refused = |line: &&str| line.starts_with("authferry_login_refused{");
        let refused: Vec<_> = text.lines().filter(refused).collect();
        assert_eq!(
            refused,
            [
                "authferry_login_refused{store=\"s\",reason=\"reused\"} 0",
                "authferry_login_refused{store=\"s\",reason=\"expired\"} 1",
                "authferry_login_refused{store=\"s\",reason=\"revoked\"} 0",
                "authferry_login_refused{store=\"s\",reason=\"unnamed\"} 0",
            ]
        );
        assert!(text.ends_with("authferry_copies_rescued{store=\"s\"} 2\n"));
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("authferry.prom");
        fs::write(&file, "before").expect("disk space");
        replace(&file, "after").expect("disk space");
        assert_eq!(fs::read_to_string(&file).expect("a file"), "after");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        let missing = folder.path().join("missing/authferry.prom");
        assert!(replace(&missing, "after").is_err());
    }
}
