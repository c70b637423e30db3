//! The events of all stories.

use std::{collections::BTreeMap, io::Write};

/// How often each event happened in the stories.
#[derive(Debug, Default)]
pub(crate) struct Tally(BTreeMap<&'static str, u64>);

/// Every event must happen: a check of an event that never happens proves nothing.
const EVENTS: [&str; 37] = [
    "begin",
    "restore killed",
    "refused",
    "rotation",
    "refresh refused",
    "persist",
    "persist killed",
    "old file",
    "reseed",
    "put by hand",
    "job lost",
    "touch",
    "receipt lost",
    "other person",
    "codex starts",
    "codex spends",
    "codex writes in time",
    "codex writes late",
    "codex ends",
    "codex ended by a job",
    "left over waited for",
    "login in use",
    "an hour passes",
    "watch stays",
    "watch persists",
    "watch killed",
    "watch ends after its job",
    "watch makes way",
    "second owner",
    "second owner persists",
    "nested restore",
    "private rotation",
    "private rotation writes",
    "private rotation persists",
    "private rotation left",
    "rotation under way",
    "machine restart",
];

impl Tally {
    pub(crate) fn add(&mut self, met: &BTreeMap<&'static str, u64>) {
        for (event, count) in met {
            *self.0.entry(event).or_default() += count;
        }
    }

    /// Prints the tally even if the test passes.
    pub(crate) fn print(&self, stories: u64) {
        let events: Vec<_> = self
            .0
            .iter()
            .map(|(event, count)| format!("{event} {count}"))
            .collect();
        let line = format!("{stories} stories: {}\n", events.join(", "));
        std::io::stderr()
            .write_all(line.as_bytes())
            .expect("stderr");
    }

    /// The events that happened in no story.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let missing = EVENTS.iter().filter(|event| !self.0.contains_key(*event));
        missing.copied().collect()
    }
}
