//! The table of all versions and scenarios, as Markdown that this module can read again: a run of
//! one version keeps the columns of the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::{checks::Cell, names::Names, reasons, served};

/// What sorts versions: their numbers, then their text.
type Key = (Vec<u64>, String);

/// What precedes the text of a wrong cell.
const WRONG: &str = "**✗** ";

/// What precedes the text of a cell that was right at the second attempt.
const UNSTEADY: &str = "⚠ ";

/// Joins the first and the last version of a column.
const TO: &str = " – ";

/// The titles of the sections.
const DIFFERENT: &str = "## Different between versions";
const SAME: &str = "## The same in every version";
const NAMES: &str = "## What is new";

/// The title of a column that all versions share.
const EVERY: &str = "every version";

/// All cells, and what is known of each version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    versions: BTreeMap<Key, Played>,
    /// The cells of each version, by the names of their scenarios.
    cells: BTreeMap<Key, BTreeMap<String, Cell>>,
}

/// One version as it was played.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Played {
    date: String,
    names: Names,
}

impl Table {
    /// Replaces what is known of a version, but the cells that were not played.
    pub(crate) fn set(
        &mut self,
        version: &str,
        date: &str,
        names: Names,
        cells: BTreeMap<String, Cell>,
    ) {
        let key = served::numbers(version);
        let date = date.to_owned();
        self.versions.insert(key.clone(), Played { date, names });
        // A scenario that was not played keeps its cell.
        self.cells.entry(key).or_default().extend(cells);
    }

    /// Writes the table. `scenarios` are its rows.
    pub(crate) fn render(&self, scenarios: &[&str]) -> String {
        let mut text = String::from(
            "# Versions of Codex\n\n\
             `cargo drift` plays each scenario with each version of the real Codex and writes this file: \
             do not edit it. A cell says what was observed. One that is not as expected begins with ✗, \
             one that was as expected at the second attempt alone begins with ⚠. Neighbouring versions \
             with equal cells share a column. [How to judge a new version]\
             (../../.github/CONTRIBUTING.md#judge-a-new-version-of-codex).\n\n## Wrong cells\n\n",
        );
        let wrong = self.wrong(scenarios);
        let count = self.cells.values().map(BTreeMap::len).sum::<usize>();
        let versions = self.versions.len();
        if wrong.is_empty() {
            line(
                &mut text,
                &format!("None of {count} in {versions} versions."),
            );
        } else {
            let wrong_count = wrong.len();
            let sum = format!("{wrong_count} of {count} in {versions} versions:\n");
            line(&mut text, &sum);
            for row in wrong {
                line(&mut text, &row);
            }
        }
        let is_same = |name: &&&str| {
            let mut cells = self.cells.values().map(|cells| cells.get(**name));
            let first = cells.next().flatten();
            first.is_some() && cells.all(|cell| cell == first)
        };
        let (same, different): (Vec<&str>, Vec<&str>) =
            scenarios.iter().partition(|name| is_same(name));
        line(&mut text, &format!("\n{DIFFERENT}\n"));
        self.render_cells(&different, &mut text);
        line(&mut text, &format!("\n{SAME}\n"));
        row(&mut text, "scenario", [EVERY.to_owned()]);
        row(&mut text, "---", ["---".to_owned()]);
        for name in same {
            let cell = self.cells.values().find_map(|cells| cells.get(name));
            row(&mut text, name, cell.map(show));
        }
        line(&mut text, &format!("\n{NAMES}\n"));
        line(
            &mut text,
            "Names that no earlier version of this table has: variables in the binary, and settings, \
             feature flags and requests of the app server that concern logins. Literals follow each \
             other without a gap in a binary: a variable can end with letters of the next one.\n",
        );
        self.render_names(&mut text);
        text
    }

    /// A line for each cell that is not as expected at the first attempt.
    fn wrong(&self, scenarios: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        for scenario in scenarios {
            for (key, cells) in &self.cells {
                let version = &key.1;
                let text = match cells.get(*scenario) {
                    Some(Cell::Wrong(text)) => text,
                    Some(Cell::Right(_) | Cell::Unsteady(_) | Cell::Absent) | None => continue,
                };
                let reason = reasons::of(scenario, version);
                let reason = reason
                    .map(|it| format!(" Reason: {it}."))
                    .unwrap_or_default();
                lines.push(format!("- {version}, {scenario}: {text}.{reason}"));
            }
        }
        lines
    }

    fn render_cells(&self, scenarios: &[&str], text: &mut String) {
        let column = |key: &Key| -> Vec<Cell> {
            let cells = self.cells.get(key);
            let cell = |name: &&str| cells.and_then(|it| it.get(*name)).cloned();
            let cells = scenarios
                .iter()
                .map(|name| cell(name).unwrap_or(Cell::Absent));
            cells.collect()
        };
        let mut columns: Vec<(&str, &str, Vec<Cell>)> = Vec::new();
        for key in self.versions.keys() {
            let cells = column(key);
            match columns.last_mut() {
                Some((_, last, before)) if *before == cells => *last = &key.1,
                Some(_) | None => columns.push((&key.1, &key.1, cells)),
            }
        }
        let titles = columns.iter().map(|(first, last, _)| {
            if first == last {
                (*first).to_owned()
            } else {
                format!("{first}{TO}{last}")
            }
        });
        row(text, "scenario", titles);
        row(text, "---", columns.iter().map(|_| "---".to_owned()));
        for (number, scenario) in scenarios.iter().enumerate() {
            let cells = columns.iter().map(|(.., cells)| show(&cells[number]));
            row(text, scenario, cells);
        }
    }

    fn render_names(&self, text: &mut String) {
        row(
            text,
            "version",
            ["played", "variables", "about logins"].map(str::to_owned),
        );
        row(text, "---", ["---"; 3].map(str::to_owned));
        let (mut variables, mut settings) = (BTreeSet::new(), BTreeSet::new());
        for (key, played) in &self.versions {
            let new_variables = new(&played.names.variables, &mut variables);
            let new_settings = new(&played.names.settings, &mut settings);
            let cells = [played.date.clone(), new_variables, new_settings];
            row(text, &key.1, cells);
        }
    }

    /// Reads a table that this program has written. What it does not understand is left out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut table = Self::default();
        let (before, names) = text.split_once(NAMES).unwrap_or((text, ""));
        for cells in rows(names) {
            let [version, date, variables, settings] = &cells[..] else {
                continue;
            };
            let names = Names {
                variables: list(variables),
                settings: list(settings),
            };
            table.set(version, date, names, BTreeMap::new());
        }
        let (before, same) = before.split_once(SAME).unwrap_or((before, ""));
        let (_, different) = before.split_once(DIFFERENT).unwrap_or_default();
        table.read_cells(different);
        table.read_cells(same);
        table
    }

    /// Reads the cells of the versions that are known already.
    fn read_cells(&mut self, section: &str) {
        let titles = rows_of(section).next().unwrap_or_default();
        for cells in rows(section) {
            for (title, cell) in titles.iter().zip(&cells).skip(1) {
                let (first, last) = title.split_once(TO).unwrap_or((title, title));
                let range = served::numbers(first)..=served::numbers(last);
                let of_column = |key: &Key| title == EVERY || range.contains(key);
                let columns = self.cells.iter_mut().filter(|(key, _)| of_column(key));
                // A cell that was not played is empty.
                for (_, column) in columns.filter(|_| !cell.is_empty()) {
                    column.insert(cells[0].clone(), read(cell));
                }
            }
        }
    }
}

/// Returns the names that are in no earlier version, and adds them to those.
fn new(names: &BTreeSet<String>, earlier: &mut BTreeSet<String>) -> String {
    let new: Vec<_> = names.difference(earlier).cloned().collect();
    // A literal without a gap after the name of a variable: see `names::variables`.
    let is_cut = |name: &&String| {
        let mut known = earlier
            .iter()
            .filter_map(|it| name.strip_prefix(it.as_str()));
        known.any(|rest| rest.starts_with(|it: char| it.is_ascii_uppercase()))
    };
    let shown: Vec<_> = new.iter().filter(|name| !is_cut(name)).cloned().collect();
    earlier.extend(new);
    shown.join(" ")
}

fn list(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn show(cell: &Cell) -> String {
    match cell {
        Cell::Right(text) => text.clone(),
        Cell::Unsteady(text) => format!("{UNSTEADY}{text}"),
        Cell::Wrong(text) => format!("{WRONG}{text}"),
        Cell::Absent => String::new(),
    }
}

fn read(text: &str) -> Cell {
    if let Some(text) = text.strip_prefix(WRONG) {
        Cell::Wrong(text.to_owned())
    } else if let Some(text) = text.strip_prefix(UNSTEADY) {
        Cell::Unsteady(text.to_owned())
    } else {
        Cell::Right(text.to_owned())
    }
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes it");
}

fn row(text: &mut String, first: &str, cells: impl IntoIterator<Item = String>) {
    let mut cells: Vec<_> = cells.into_iter().map(|it| it.replace('|', "/")).collect();
    cells.insert(0, first.to_owned());
    line(text, &format!("| {} |", cells.join(" | ")));
}

/// The rows of the first table in a text, without the titles.
fn rows(text: &str) -> impl Iterator<Item = Vec<String>> {
    rows_of(text).skip(2)
}

fn rows_of(text: &str) -> impl Iterator<Item = Vec<String>> {
    let lines = text.lines().skip_while(|line| !line.starts_with('|'));
    let lines = lines.map_while(|line| line.strip_prefix('|')?.strip_suffix('|'));
    lines.map(|line| line.split('|').map(|cell| cell.trim().to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [&str; 3] = ["`run`: a fresh login", "outage: 500", "refusal: 401"];

    fn names(variables: &[&str], settings: &[&str]) -> Names {
        let set = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        Names {
            variables: set(variables),
            settings: set(settings),
        }
    }

    fn table() -> Table {
        let right = |text: &str| Cell::Right(text.to_owned());
        let wrong = Cell::Wrong("exit code: 1, expected 0".to_owned());
        let unsteady = Cell::Unsteady("refreshes: 2, expected 1".to_owned());
        let mut table = Table::default();
        for (version, new, [first, second]) in [
            (
                "0.63.0",
                &["CODEX_HOME"][..],
                [right("unchanged"), right("not-rotated")],
            ),
            (
                "0.101.0",
                &["CODEX_CI"],
                [right("unchanged"), right("not-rotated")],
            ),
            ("0.171.0", &["CODEX_NEW", "CODEX_HOMEX"], [wrong, unsteady]),
        ] {
            let names = names(new, &["`getAuthStatus`"]);
            let cells = [
                (ROWS[0].to_owned(), first),
                (ROWS[1].to_owned(), second),
                (ROWS[2].to_owned(), right("refused")),
            ];
            table.set(version, "2026-11-28", names, cells.into());
        }
        table
    }

    #[test]
    fn equal_columns_are_folded_and_wrong_cells_are_named() {
        let text = table().render(&ROWS);
        for line in [
            "1 of 9 in 3 versions:",
            "- 0.171.0, `run`: a fresh login: exit code: 1, expected 0.",
            "| scenario | 0.63.0 – 0.101.0 | 0.171.0 |",
            "| `run`: a fresh login | unchanged | **✗** exit code: 1, expected 0 |",
            "| outage: 500 | not-rotated | ⚠ refreshes: 2, expected 1 |",
            "| scenario | every version |",
            "| refusal: 401 | refused |",
            "| 0.63.0 | 2026-11-28 | CODEX_HOME | `getAuthStatus` |",
            "| 0.101.0 | 2026-11-28 | CODEX_CI |  |",
            "| 0.171.0 | 2026-11-28 | CODEX_NEW |  |",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }

    #[test]
    fn a_table_is_read_as_it_was_written() {
        let text = table().render(&ROWS);
        let read = Table::parse(&text);
        assert_eq!(read.cells, table().cells);
        assert_eq!(read.render(&ROWS), text);
        assert_eq!(Table::parse(""), Table::default());
    }

    #[test]
    fn a_run_of_one_version_keeps_the_others() {
        let mut table = Table::parse(&table().render(&ROWS));
        let [first, third] = ["unchanged", "dead"].map(|it| Cell::Right(it.to_owned()));
        let cells = [(ROWS[0].to_owned(), first), (ROWS[2].to_owned(), third)].into();
        table.set("0.172.0", "2026-11-30", names(&["CODEX_CI"], &[]), cells);
        let text = table.render(&ROWS);
        for line in [
            "| scenario | 0.63.0 – 0.101.0 | 0.171.0 | 0.172.0 |",
            "| outage: 500 | not-rotated | ⚠ refreshes: 2, expected 1 |  |",
            "| refusal: 401 | refused | refused | dead |",
            "| 0.172.0 | 2026-11-30 |  |  |",
        ] {
            assert!(text.lines().any(|it| it == line), "{line}\n{text}");
        }
    }
}
