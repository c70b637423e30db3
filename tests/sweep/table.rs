//! The counts of a whole sweep, as tables in the README.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use crate::{
    judge::{Finding, Verdict},
    parts::PARTS,
};

/// The lines before and after the tables.
const MARKS: [&str; 2] = ["<!-- the whole sweep writes this -->\n", "<!-- to here -->"];

/// The verdicts that have a column.
const COLUMNS: [(Verdict, &str); 10] = [
    (Verdict::Stored, "stored"),
    (Verdict::NotReached, "not reached"),
    (Verdict::Panicked, "panics"),
    (Verdict::Aborted, "aborts"),
    (Verdict::Kept, "kept"),
    (Verdict::Hung, "hangs"),
    (Verdict::Lied, "lies"),
    (Verdict::Spent, "spent"),
    (Verdict::Older, "older"),
    (Verdict::Lost, "lost"),
];

/// The counts of one test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    name: String,
    calls: usize,
    verdicts: BTreeMap<Verdict, usize>,
    /// Why a process aborts or panics, at which calls, and how often.
    argued: BTreeMap<(Verdict, String, String), usize>,
}

static TALLIES: Mutex<Vec<Tally>> = Mutex::new(Vec::new());

impl Tally {
    /// `name`: the test's name, whose last part numbers a shard.
    pub(crate) fn new(name: &str, calls: usize) -> Self {
        let name = name.rsplit_once("::").map_or(name, |(name, _)| name);
        Self {
            name: name.to_owned(),
            calls,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, finding: &Finding, why: Option<&'static str>) {
        *self.verdicts.entry(finding.verdict).or_insert(0) += 1;
        if let Some(why) = why {
            let key = (finding.verdict, why.to_owned(), finding.call.name.clone());
            *self.argued.entry(key).or_insert(0) += 1;
        }
    }

    /// Keeps the counts for [`write`].
    pub(crate) fn keep(self) {
        let mut all = TALLIES.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = all.iter_mut().find(|it| it.name == self.name) else {
            all.push(self);
            return;
        };
        for (verdict, count) in self.verdicts {
            *known.verdicts.entry(verdict).or_insert(0) += count;
        }
        for (key, count) in self.argued {
            *known.argued.entry(key).or_insert(0) += count;
        }
    }
}

/// Writes the tables to `target/sweep`, and with `BLESS=1` to the README.
pub(crate) fn write() -> io::Result<()> {
    let all = TALLIES.lock().unwrap_or_else(PoisonError::into_inner);
    let text = tables(&all);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(here.join("../target/sweep/tables.md"), &text)?;
    if env::var_os("BLESS").is_none_or(|value| value != "1") {
        return Ok(());
    }
    let readme: PathBuf = here.join("sweep/README.md");
    let page = fs::read_to_string(&readme)?;
    let parts = page.split_once(MARKS[0]).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKS[1])?;
        Some((before, after))
    });
    let (before, after) = parts.ok_or(io::ErrorKind::InvalidData)?;
    let [begin, end] = MARKS;
    fs::write(&readme, format!("{before}{begin}{text}{end}{after}"))
}

fn tables(all: &[Tally]) -> String {
    let titles = COLUMNS.map(|(_, title)| title).join(" | ");
    let mut lines = vec![
        String::new(),
        format!("| store and command | calls | faults | {titles} |"),
        format!("|---|{}", "---|".repeat(COLUMNS.len() + 2)),
    ];
    for store in ["file", "openbao"] {
        for part in PARTS {
            let name = format!("{store}::{}", part.name);
            let Some(tally) = all.iter().find(|it| it.name == name) else {
                continue;
            };
            let faults: usize = tally.verdicts.values().sum();
            let count = |verdict| {
                tally
                    .verdicts
                    .get(&verdict)
                    .copied()
                    .unwrap_or(0)
                    .to_string()
            };
            let counts = COLUMNS.map(|(verdict, _)| count(verdict)).join(" | ");
            let (calls, name) = (tally.calls, part.name.replace('_', " "));
            lines.push(format!(
                "| {store}: {name} | {calls} | {faults} | {counts} |"
            ));
        }
    }
    let mut argued: BTreeMap<(Verdict, &str), (usize, Vec<&str>)> = BTreeMap::new();
    for ((verdict, why, call), count) in all.iter().flat_map(|it| &it.argued) {
        let (counted, calls) = argued.entry((*verdict, why)).or_default();
        *counted += count;
        if !calls.contains(&&**call) {
            calls.push(call);
        }
    }
    lines.push(String::new());
    lines.push("| how it ends | why | at which calls | faults |".to_owned());
    lines.push("|---|---|---|---|".to_owned());
    for ((verdict, why), (count, calls)) in argued {
        let calls = calls.join("`, `");
        lines.push(format!("| {verdict:?} | {why} | `{calls}` | {count} |"));
    }
    lines.push("\n".to_owned());
    lines.join("\n")
}
