//! Writes into a case's file what the case says.

use crate::{case::Case, play::Said, text};

const QUOTES: &str = "'''";

/// Returns the file's text with what is expected brought up to date. All else stays as it
/// is, and so does what is right already: it may have been put in more general words.
pub(crate) fn rewrite(file: &str, case: &Case, said: &Said) -> String {
    let mut file = file.to_owned();
    if case.status != said.status {
        set(&mut file, "status", &said.status.to_string());
    }
    for (key, expected, said) in [
        ("stdout", &case.stdout, &said.stdout),
        ("stderr", &case.stderr, &said.stderr),
        ("report", &case.report, &said.report),
    ] {
        if !text::matches(expected, said) {
            set(&mut file, key, &quoted(&in_words_of(expected, said)));
        }
    }
    file
}

/// Puts for each line the one that was expected, where that says the same in general words.
fn in_words_of(expected: &str, said: &str) -> String {
    let lines = said.split_inclusive('\n').map(|line| {
        let mut expected = expected.split_inclusive('\n');
        expected.find(|it| text::matches(it, line)).unwrap_or(line)
    });
    lines.collect()
}

fn quoted(text: &str) -> String {
    assert!(!text.contains(QUOTES), "this cannot be quoted: {text}");
    if text.is_empty() {
        "\"\"".to_owned()
    } else {
        format!("{QUOTES}\n{text}{QUOTES}")
    }
}

/// Gives a key another value, in its own place or at the end.
fn set(file: &mut String, key: &str, value: &str) {
    let entry = format!("{key} = {value}\n");
    if let Some(old) = find(file, key) {
        file.replace_range(old, &entry);
    } else {
        file.push_str(&entry);
    }
}

/// Returns where the lines of a key and its value are.
fn find(file: &str, key: &str) -> Option<std::ops::Range<usize>> {
    let start_of_entry = format!("{key} = ");
    let mut within_quotes = false;
    let mut found = None;
    let mut at = 0;
    for line in file.split_inclusive('\n') {
        if !within_quotes && line.starts_with(&start_of_entry) {
            found = Some(at);
        }
        at += line.len();
        within_quotes ^= line.matches(QUOTES).count() % 2 == 1;
        if let (Some(start), false) = (found, within_quotes) {
            return Some(start..at);
        }
    }
    None
}
