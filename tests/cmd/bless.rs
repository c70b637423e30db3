//! Updates the expectations in a case's file with its actual output.

use crate::{case::Case, play::CaseOutput, text};

const QUOTES: &str = "'''";

/// Returns the file's text with updated expectations. An expectation that matches stays unchanged,
/// since it may contain patterns.
pub(crate) fn rewrite(file: &str, case: &Case, actual: &CaseOutput) -> String {
    let mut file = file.to_owned();
    if case.status != actual.status {
        set(&mut file, "status", &actual.status.to_string());
    }
    for (key, expected, actual) in [
        ("stdout", &case.stdout, &actual.stdout),
        ("stderr", &case.stderr, &actual.stderr),
        ("report", &case.report, &actual.report),
    ] {
        if !text::matches(expected, actual) {
            set(&mut file, key, &quoted(&keep_patterns(expected, actual)));
        }
    }
    file
}

/// Replaces each line by the expected line that matches it, to keep its patterns.
fn keep_patterns(expected: &str, actual: &str) -> String {
    let lines = actual.split_inclusive('\n').map(|line| {
        let mut expected = expected.split_inclusive('\n');
        expected.find(|it| text::matches(it, line)).unwrap_or(line)
    });
    lines.collect()
}

fn quoted(text: &str) -> String {
    assert!(
        !text.contains(QUOTES),
        "the text contains the quotes: {text}"
    );
    if text.is_empty() {
        "\"\"".to_owned()
    } else {
        format!("{QUOTES}\n{text}{QUOTES}")
    }
}

/// Sets the value of a key, in place or at the end.
fn set(file: &mut String, key: &str, value: &str) {
    let entry = format!("{key} = {value}\n");
    if let Some(old) = find(file, key) {
        file.replace_range(old, &entry);
    } else {
        file.push_str(&entry);
    }
}

/// Returns the range of the lines of a key and its value.
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
