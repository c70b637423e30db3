//! Output for GitHub's runner, on standard output and in the runner's files: masks, annotations,
//! outputs, a job summary.
//!
//! Only `--github` enables it, and only authferry's action should use that option: a mask prints a
//! token, so that the runner redacts it from then on. The token stays secret only if the runner
//! parses the line as a workflow command. So
//!
//! - each workflow command is flushed at once, and is short enough for an atomic write to a pipe;
//! - while the job's command writes to the same stream, the runner ignores workflow commands
//!   (`stop-commands`), and a mask starts on a new line, after any unfinished line of the command.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashSet,
    fmt::Write as _,
    fs::File,
    hash::{BuildHasher, RandomState},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use authferry_codex::for_each_token;
use authferry_core::Secret;
use authferry_runner::LoginObserver;
use serde_json::Value;

use crate::args::Global;
use crate::env;
use crate::outcome::Ending;
use crate::report::NONBLOCKING;

/// The maximum length of a mask, in bytes: the two lines around it take some hundred more, and a
/// write to a pipe is atomic up to 4096.
const MAX_MASK_LEN: usize = 2048;

/// The minimum length of a mask, in bytes: a shorter text is no secret, and may be part of any
/// word.
const MIN_MASK_LEN: usize = 8;

/// Masks each token of each login in the home, once.
#[derive(Debug)]
pub(crate) struct Masks {
    /// The token that resumes workflow commands, while the job's command writes to the same stream.
    resume: OnceCell<String>,
    /// The hashes of the masked texts, keyed with a random key of this process.
    masked: RefCell<HashSet<u64>>,
    hashes: RandomState,
}

impl Masks {
    pub(crate) fn new(global: &Global) -> Option<Self> {
        global.github.then(|| Self {
            resume: OnceCell::new(),
            masked: RefCell::default(),
            hashes: RandomState::new(),
        })
    }

    fn mask(&self, value: &str) {
        let hash = self.hashes.hash_one(value);
        if value.len() < MIN_MASK_LEN || !self.masked.borrow_mut().insert(hash) {
            return;
        }
        let value = escape_data(value);
        match self.resume.get() {
            None => print(&format!("::add-mask::{value}\n")),
            Some(resume) => print(&format!(
                "\n::{resume}::\n::add-mask::{value}\n::stop-commands::{resume}\n"
            )),
        }
    }
}

impl LoginObserver for Masks {
    fn on_login(&self, login: &Secret) {
        for_each_token(login, |token| {
            for part in parts_to_mask(token) {
                self.mask(part);
            }
        });
    }

    fn on_command_start(&self) {
        // A retry starts the command twice.
        self.resume.get_or_init(|| {
            let random = [1, 2].map(|half| RandomState::new().hash_one(half));
            let resume = format!("authferry-{:016x}{:016x}", random[0], random[1]);
            print(&format!("::stop-commands::{resume}\n"));
            resume
        });
    }
}

impl Drop for Masks {
    fn drop(&mut self) {
        if let Some(resume) = self.resume.get() {
            print(&format!("\n::{resume}::\n"));
        }
    }
}

/// The parts of a token to mask: the whole token, and the payload and the signature of a JWT. The
/// header of a JWT is no secret.
fn parts_to_mask(token: &str) -> impl Iterator<Item = &str> {
    let is_jwt = token.starts_with("eyJ") && token.matches('.').count() == 2;
    let parts = token.split('.').skip(1).take(if is_jwt { 2 } else { 0 });
    std::iter::once(token).chain(parts).flat_map(|part| {
        // The last part overlaps the one before rather than being short.
        let last = part.len().saturating_sub(MAX_MASK_LEN);
        let starts = (0..part.len()).step_by(MAX_MASK_LEN);
        starts.filter_map(move |start| {
            part.get(start.min(last)..part.len().min(start + MAX_MASK_LEN))
        })
    })
}

/// Writes the end of a command for the runner. A write error does not change the exit code: that
/// describes the login.
pub(crate) fn publish(ending: &Ending) {
    let files = env::GitHub::read();
    print(&annotations(ending));
    if let Some(file) = files.output {
        append(&file, &outputs(ending)).ok();
    }
    // A later command of the job does not know of the refusal.
    if let Some(file) = files
        .summary
        .filter(|_| !ending.midway || is_refused(ending))
    {
        append(&file, &summary(ending)).ok();
    }
}

fn annotations(ending: &Ending) -> String {
    let mut text = String::new();
    if ending.failed {
        let mut lines = vec![ending.message.clone()];
        lines.extend(ending.causes.iter().map(|it| format!("caused by: {it}")));
        lines.extend(ending.hints.iter().map(|it| format!("next: {it}")));
        workflow_command(&mut text, "error", &lines.join("\n"));
    }
    for (number, warning) in ending.warnings.iter().enumerate() {
        let mut lines = vec![warning.clone()];
        // The first warning is that of the rotation before the job.
        if number == 0 && is_refused(ending) && !ending.failed {
            lines.extend(ending.hints.iter().map(|it| format!("next: {it}")));
        }
        workflow_command(&mut text, "warning", &lines.join("\n"));
    }
    text
}

/// Whether the provider refuses the login.
fn is_refused(ending: &Ending) -> bool {
    REFUSALS
        .iter()
        .any(|(_, fact)| as_text(ending, fact).is_some())
}

/// The facts of a refusal, with their labels.
const REFUSALS: [(&str, &str); 2] = [
    ("dead since", "dead_since"),
    ("refused since", "refused_since"),
];

fn workflow_command(text: &mut String, level: &str, message: &str) {
    // Writing to a string cannot fail.
    writeln!(text, "::{level} title=authferry::{}", escape_data(message)).ok();
}

/// The outputs of the action, and the facts with their values.
const OUTPUTS: [(&str, &str); 4] = [
    ("fingerprint", "fingerprint"),
    ("version", "version"),
    ("expires-at", "expires_at"),
    ("rotated", "rotated"),
];

fn outputs(ending: &Ending) -> String {
    let mut text = format!("outcome={}\n", ending.outcome);
    for (name, fact) in OUTPUTS {
        if let Some(value) = as_text(ending, fact) {
            writeln!(text, "{name}={value}").ok();
        }
    }
    text
}

fn summary(ending: &Ending) -> String {
    let mut text = format!(
        "### authferry: {}\n\n{}\n\n",
        ending.outcome,
        markdown(&ending.message)
    );
    for (list, label) in [
        (&ending.causes, "caused by: "),
        (&ending.notes, ""),
        (&ending.warnings, "**warning:** "),
        (&ending.hints, "next: "),
    ] {
        for line in list {
            writeln!(text, "- {label}{}", markdown(line)).ok();
        }
    }
    text.push('\n');
    let rows: Vec<_> = [
        ("store", "store"),
        ("login", "fingerprint"),
        ("version", "version"),
        ("access token expires", "expires_at"),
        ("rotated", "rotated"),
    ]
    .into_iter()
    .chain(REFUSALS)
    .filter_map(|(label, fact)| Some((label, as_text(ending, fact)?)))
    .collect();
    if !rows.is_empty() {
        text.push_str("| | |\n|---|---|\n");
        for (label, value) in rows {
            writeln!(text, "| {label} | {} |", markdown(&value)).ok();
        }
        text.push('\n');
    }
    text
}

/// A fact as one line of text.
fn as_text(ending: &Ending, fact: &str) -> Option<String> {
    let text = match ending.facts.get(fact)? {
        Value::String(text) => text.replace(|c: char| c.is_control(), " "),
        Value::Bool(truth) => truth.to_string(),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    Some(text)
}

fn markdown(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '|' | '*' | '_' | '[' | ']' | '\\' => {
                safe.push('\\');
                safe.push(c);
            }
            c if c.is_control() => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// Escapes `%` and line ends in a workflow command's data. GitHub's runner decodes them.
fn escape_data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Writes in one piece, and flushes.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    // The reader may have closed the stream.
    out.write_all(text.as_bytes()).ok();
    out.flush().ok();
}

fn append(file: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    options.append(true).create(true).custom_flags(NONBLOCKING);
    let mut file = options.open(file)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_token_is_masked_in_parts_of_maximum_length() {
        let token = format!("{}end", "abcdefgh".repeat(MAX_MASK_LEN / 4));
        let masked: Vec<_> = parts_to_mask(&token).collect();
        assert_eq!(masked.len(), 3);
        assert!(masked.iter().all(|part| part.len() == MAX_MASK_LEN));
        let left = masked
            .iter()
            .fold(token.clone(), |left, part| left.replace(part, ""));
        assert!(left.len() <= 3, "{left}");
        assert!(masked[2].ends_with("end"));
    }

    #[test]
    fn the_header_of_a_jwt_is_not_masked() {
        let masked: Vec<_> = parts_to_mask("eyJhbGciOiJub25lIn0.claims.signature").collect();
        let whole = "eyJhbGciOiJub25lIn0.claims.signature";
        assert_eq!(masked, [whole, "claims", "signature"]);
        assert_eq!(parts_to_mask("a.plain.token").count(), 1);
    }

    #[test]
    fn every_mask_fits_into_an_atomic_pipe_write() {
        let resume = format!("authferry-{:032}", 0);
        let value = "%25".repeat(MAX_MASK_LEN / 3);
        let command = format!("\n::{resume}::\n::add-mask::{value}\n::stop-commands::{resume}\n");
        assert!(command.len() <= 4096);
    }

    #[test]
    fn line_ends_and_markup_are_escaped() {
        let ending = Ending::bad(120, "left", "a|b\n::error::<script>*c*")
            .hint("50% more")
            .fact("version", "1\noutcome=persisted");
        assert_eq!(
            annotations(&ending),
            "::error title=authferry::a|b%0A::error::<script>*c*%0Anext: 50%25 more\n"
        );
        let outputs = outputs(&ending);
        assert_eq!(outputs, "outcome=left\nversion=1 outcome=persisted\n");
        let summary = summary(&ending);
        assert!(
            summary.contains("a\\|b ::error::&lt;script>\\*c\\*"),
            "{summary}"
        );
        assert!(
            summary.contains("| version | 1 outcome=persisted |"),
            "{summary}"
        );
    }
}
