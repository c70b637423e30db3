//! Patterns and placeholders for output that differs in each run.

/// A wildcard within one line.
const WILDCARD: &str = "[..]";

/// Returns whether a text matches the expectation, line by line.
pub(crate) fn matches(expected: &str, text: &str) -> bool {
    expected.split('\n').count() == text.split('\n').count()
        && expected
            .split('\n')
            .zip(text.split('\n'))
            .all(|(expected, line)| matches_line(expected, line))
}

fn matches_line(expected: &str, line: &str) -> bool {
    let Some((start, after)) = expected.split_once(WILDCARD) else {
        return expected == line;
    };
    let Some(mut rest) = line.strip_prefix(start) else {
        return false;
    };
    let mut parts: Vec<_> = after.split(WILDCARD).collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(end)
}

/// Replaces random versions and times by placeholders.
pub(crate) fn normalized(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let of_word = |c: char| c.is_ascii_alphanumeric();
        let word = rest.find(|c| !of_word(c)).unwrap_or(rest.len());
        shown.push_str(placeholder_for(&rest[..word]));
        rest = &rest[word..];
        let gap = rest.find(of_word).unwrap_or(rest.len());
        shown.push_str(&rest[..gap]);
        rest = &rest[gap..];
    }
    shown
}

fn placeholder_for(word: &str) -> &str {
    let all = |is: fn(&u8) -> bool| word.as_bytes().iter().all(is);
    match word.len() {
        // A file store's version.
        32 if all(u8::is_ascii_hexdigit) => "[VERSION]",
        // A Unix time in seconds or milliseconds.
        10 | 13 if all(u8::is_ascii_digit) => "[TIME]",
        _ => word,
    }
}
