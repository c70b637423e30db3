//! What GitHub's runner is told, on standard output and in files of its own: masks,
//! annotations, outputs, a job summary.
//!
//! Only `--github` says so, and only the action that comes with authferry should: a mask is
//! a token, printed so that the runner prints it never again. That holds as long as the
//! runner takes the line for an order, so
//!
//! - each order is written at once, and in no more bytes than a pipe takes in one piece;
//! - while a command writes to the same stream, its lines are no orders to the runner
//!   (`stop-commands`), and none of its unfinished lines swallows one of ours.

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

use authferry_codex::each_token;
use authferry_core::Secret;
use authferry_runner::Witness;
use serde_json::Value;

use crate::args::Global;
use crate::ending::Ending;
use crate::env;
use crate::report::NEVER_WAIT;

/// As long as a mask may be, in bytes; the two lines around it take some hundred more, and a
/// pipe takes 4096 in one piece.
const LONGEST: usize = 2048;

/// The least that is masked, in bytes: what is shorter is no secret, and may be in any word.
const SHORTEST: usize = 8;

/// Masks each token that comes into the home, once.
#[derive(Debug)]
pub(crate) struct Masks {
    /// The word that makes the runner listen again, while a command is on the same stream.
    resume: OnceCell<String>,
    /// What was masked, by a hash with a key of this process.
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
        if value.len() < SHORTEST || !self.masked.borrow_mut().insert(hash) {
            return;
        }
        let value = data(value);
        match self.resume.get() {
            None => say(&format!("::add-mask::{value}\n")),
            Some(word) => say(&format!(
                "\n::{word}::\n::add-mask::{value}\n::stop-commands::{word}\n"
            )),
        }
    }
}

impl Witness for Masks {
    fn sees(&self, login: &Secret) {
        each_token(login, |token| {
            for piece in pieces(token) {
                self.mask(piece);
            }
        });
    }

    fn command_begins(&self) {
        // It may be the second time.
        self.resume.get_or_init(|| {
            let word = [1, 2].map(|half| RandomState::new().hash_one(half));
            let word = format!("authferry-{:016x}{:016x}", word[0], word[1]);
            say(&format!("::stop-commands::{word}\n"));
            word
        });
    }
}

impl Drop for Masks {
    fn drop(&mut self) {
        if let Some(word) = self.resume.get() {
            say(&format!("\n::{word}::\n"));
        }
    }
}

/// What of a token is masked: all of it, and of a JWT also what it claims and its signature,
/// each by itself. Its head is everybody's.
fn pieces(token: &str) -> impl Iterator<Item = &str> {
    let is_jwt = token.starts_with("eyJ") && token.matches('.').count() == 2;
    let parts = token.split('.').skip(1).take(if is_jwt { 2 } else { 0 });
    std::iter::once(token).chain(parts).flat_map(|part| {
        // The last one begins earlier rather than being short.
        let last = part.len().saturating_sub(LONGEST);
        let starts = (0..part.len()).step_by(LONGEST);
        starts.filter_map(move |start| part.get(start.min(last)..part.len().min(start + LONGEST)))
    })
}

/// Tells the end of a command. What cannot be written is no reason to fail: the login
/// matters more.
pub(crate) fn tell(ending: &Ending) {
    let files = env::GitHub::read();
    say(&annotations(ending));
    if let Some(file) = files.output {
        append(&file, &outputs(ending)).ok();
    }
    if let Some(file) = files.summary.filter(|_| !ending.midway) {
        append(&file, &summary(ending)).ok();
    }
}

fn annotations(ending: &Ending) -> String {
    let mut text = String::new();
    if ending.failed {
        let mut lines = vec![ending.message.clone()];
        lines.extend(ending.causes.iter().map(|it| format!("caused by: {it}")));
        lines.extend(ending.hints.iter().map(|it| format!("next: {it}")));
        order(&mut text, "error", &lines.join("\n"));
    }
    for warning in &ending.warnings {
        order(&mut text, "warning", warning);
    }
    text
}

fn order(text: &mut String, level: &str, message: &str) {
    // Writing to a string cannot fail.
    writeln!(text, "::{level} title=authferry::{}", data(message)).ok();
}

/// What the action names as its outputs, from the facts of the same meaning.
const OUTPUTS: [(&str, &str); 4] = [
    ("fingerprint", "fingerprint"),
    ("version", "version"),
    ("expires-at", "expires_at"),
    ("rotated", "rotated"),
];

fn outputs(ending: &Ending) -> String {
    let mut text = format!("outcome={}\n", ending.outcome);
    for (name, fact) in OUTPUTS {
        if let Some(value) = shown(ending, fact) {
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
        ("access token ends", "expires_at"),
        ("rotated", "rotated"),
    ]
    .into_iter()
    .filter_map(|(label, fact)| Some((label, shown(ending, fact)?)))
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

/// A fact on one line.
fn shown(ending: &Ending, fact: &str) -> Option<String> {
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

/// The runner's own way to write a line that has line ends in it.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// In one piece, and at once.
fn say(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody may be listening any more.
    out.write_all(text.as_bytes()).ok();
    out.flush().ok();
}

fn append(file: &Path, text: &str) -> io::Result<()> {
    let mut options = File::options();
    options.append(true).create(true).custom_flags(NEVER_WAIT);
    let mut file = options.open(file)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_token_is_masked_in_pieces_none_of_which_is_short() {
        let token = format!("{}end", "abcdefgh".repeat(LONGEST / 4));
        let masked: Vec<_> = pieces(&token).collect();
        assert_eq!(masked.len(), 3);
        assert!(masked.iter().all(|piece| piece.len() == LONGEST));
        let left = masked
            .iter()
            .fold(token.clone(), |left, piece| left.replace(piece, ""));
        assert!(left.len() <= 3, "{left}");
        assert!(masked[2].ends_with("end"));
    }

    #[test]
    fn the_head_of_a_jwt_is_not_masked_by_itself() {
        let masked: Vec<_> = pieces("eyJhbGciOiJub25lIn0.claims.signature").collect();
        let whole = "eyJhbGciOiJub25lIn0.claims.signature";
        assert_eq!(masked, [whole, "claims", "signature"]);
        assert_eq!(pieces("a.plain.token").count(), 1);
    }

    #[test]
    fn every_order_fits_into_what_a_pipe_takes_in_one_piece() {
        let word = format!("authferry-{:032}", 0);
        let value = "%25".repeat(LONGEST / 3);
        let order = format!("\n::{word}::\n::add-mask::{value}\n::stop-commands::{word}\n");
        assert!(order.len() <= 4096);
    }

    #[test]
    fn a_text_stays_on_its_line() {
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
