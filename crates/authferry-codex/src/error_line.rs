//! Which line of Codex's error stream says why Codex failed.

/// Returns the first line that may say so; `None` if there is none. The line is another program's
/// text: it may hold control characters, and quote a server.
///
/// In a private home, Codex may print warnings first that have nothing to do with the login.
#[must_use]
pub fn error_line(stderr: &str) -> Option<&str> {
    let lines = stderr.lines().map(str::trim);
    let mut lines = lines.filter(|line| !line.is_empty() && !is_about_something_else(line));
    let line = lines.next()?;
    let label = LABELS.iter().find_map(|label| line.strip_prefix(label));
    Some(label.map_or(line, str::trim_start))
}

/// Words of lines that healthy versions print as well (0.63.0 to 0.171.0).
const HARMLESS: &[&str] = &[
    "WARNING: proceeding, even though we could not",
    "could not find bubblewrap on PATH",
    "failed to refresh available models",
    "cloud config bundle",
    // At its end, after authferry has stopped reading.
    "Failed to write to stdout",
];

/// What a program writes before its first error. The message that shows the line has a label already.
const LABELS: &[&str] = &["error:", "Error:", "ERROR:"];

fn is_about_something_else(line: &str) -> bool {
    HARMLESS.iter().any(|words| line.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_about_the_failure_is_chosen() {
        for (stderr, line) in [
            ("", None),
            ("\n \n", None),
            (
                "env: 'node': No such file or directory\n",
                Some("env: 'node': No such file or directory"),
            ),
            (
                "\nerror: unexpected argument '--made-up' found\n\nUsage: codex\n",
                Some("unexpected argument '--made-up' found"),
            ),
            (
                "WARNING: proceeding, even though we could not create PATH aliases: made up\n",
                None,
            ),
            (
                "WARNING: proceeding, even though we could not update PATH: made up\n\
                 ERROR codex_app_server: Codex could not find bubblewrap on PATH. Install it\n\
                 ERROR codex_core::auth: made up\n",
                Some("ERROR codex_core::auth: made up"),
            ),
        ] {
            assert_eq!(error_line(stderr), line, "{stderr:?}");
        }
    }
}
