//! The scenarios: each plays one situation with one version of Codex and checks the result.

mod alone;
mod jobs;
mod outages;
mod refresh;
mod refusals;
mod signals;
mod turned_off;

use crate::{
    bench::{Bench, Seen},
    checks::Checks,
};

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) length: Length,
    pub(crate) play: fn(&Bench, &mut Checks) -> Seen,
}

/// How long a scenario takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// Some seconds.
    Short,
    /// Ten seconds and more: too long for the gate.
    Long,
    /// A minute: runs only if asked for.
    Slow,
}

/// Every scenario, in the order of the table.
pub(crate) fn all() -> Vec<Scenario> {
    let groups = [
        alone::SCENARIOS,
        jobs::SCENARIOS,
        refresh::SCENARIOS,
        outages::SCENARIOS,
        refusals::SCENARIOS,
        signals::SCENARIOS,
        turned_off::SCENARIOS,
    ];
    groups.concat()
}

/// A scenario of the usual length.
const fn scenario(name: &'static str, play: fn(&Bench, &mut Checks) -> Seen) -> Scenario {
    Scenario {
        name,
        length: Length::Short,
        play,
    }
}

impl Scenario {
    const fn of(self, length: Length) -> Self {
        Self { length, ..self }
    }
}

/// An observation.
#[expect(clippy::unnecessary_wraps, reason = "ends a scenario")]
fn seen(text: &str) -> Seen {
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_scenario_has_its_own_name() {
        let all = all();
        let names: BTreeSet<_> = all.iter().map(|it| it.name).collect();
        assert_eq!(names.len(), all.len());
        assert!(names.iter().all(|name| !name.contains('|')));
        assert!(all.len() >= 40, "{}", all.len());
    }
}
