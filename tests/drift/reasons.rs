//! Wrong cells that cannot be right, each with its reason.

/// A scenario, a version, and why the cell cannot be as expected.
const REASONS: &[(&str, &str, &str)] = &[];

/// Returns why a cell cannot be as expected.
pub(crate) fn of(scenario: &str, version: &str) -> Option<&'static str> {
    let mut found = REASONS
        .iter()
        .filter(|it| it.0 == scenario && it.1 == version);
    found.next().map(|(_, _, why)| *why)
}
