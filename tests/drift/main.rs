//! `cargo drift`: every scenario with every version of the real Codex, as one table.
//!
//! Codex changes often, and authferry depends on much of what it does. This command installs the
//! versions from npm, plays each scenario through the real program against the provider's stub, and
//! writes `crates/authferry-codex/VERSIONS.md`. No account is involved.

mod bench;
mod checks;
mod facts;
mod names;
mod options;
mod play;
mod reasons;
mod scenarios;
mod served;
mod table;

use std::{
    collections::BTreeMap,
    env,
    error::Error,
    fs,
    panic::set_hook,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    time::Instant,
};

use time::OffsetDateTime;

use crate::{
    bench::{AUTHFERRY, Bench},
    checks::Cell,
    options::{Options, say},
    play::{Cells, lock, play},
    table::Table,
};

fn main() -> ExitCode {
    // The scenarios start a copy of this file under the product's name, which runs the product.
    let called = env::args_os().next().unwrap_or_default();
    if Path::new(&called).file_name() == Some(AUTHFERRY.as_ref()) {
        return authferry::main();
    }
    match Options::parse(env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            say(&format!("error: {why}"));
            ExitCode::from(2)
        }
    }
}

/// Runs the command. Returns whether every cell is as expected, or has a reason.
fn run(options: &Options) -> Result<bool, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let program = bench::copy_program(folder.path())?;
    let benches = install(&options.versions()?, &program);
    if benches.is_empty() {
        return Err("none of the versions can be installed".into());
    }
    // A scenario that fails ends by a panic of the rig: its text is in the cell.
    set_hook(Box::new(|_| {}));
    let began = Instant::now();
    let file = table_file();
    let table_lock = Mutex::new(());
    let mistakes = Mutex::new(Vec::new());
    // After each version, so that a run that is ended loses little.
    let cells = play(&benches, options, |version, bench, cells| {
        if options.writes_table()
            && let Err(why) = update_table(&file, &table_lock, version, bench, cells)
        {
            lock(&mistakes).push(format!("{version} is not in the table: {why}"));
        }
    });
    let mut wrong = unexplained(&cells);
    wrong.append(&mut lock(&mistakes));
    let count: usize = cells.values().map(BTreeMap::len).sum();
    let seconds = began.elapsed().as_secs();
    say(&format!(
        "{count} cells, {} wrong; {seconds} s",
        wrong.len()
    ));
    for line in &wrong {
        say(&format!("   {line}"));
    }
    if options.writes_table() {
        say(&format!("the table is {}", file.display()));
    }
    Ok(wrong.is_empty())
}

/// Installs the versions, and leaves out those that npm does not serve.
fn install(versions: &[String], program: &Path) -> Vec<(String, Bench)> {
    let mut benches = Vec::new();
    for version in versions {
        match Bench::of(version, program) {
            Ok(bench) => benches.push((version.clone(), bench)),
            Err(why) => say(&format!("{version} is left out: {why}")),
        }
    }
    benches
}

/// Returns a line for each wrong cell without a reason.
fn unexplained(cells: &Cells) -> Vec<String> {
    let mut lines = Vec::new();
    for (version, cells) in cells {
        for (scenario, cell) in cells {
            if let Cell::Wrong(text) = cell
                && reasons::of(scenario, version).is_none()
            {
                lines.push(format!("{version}, {scenario}: {text}"));
            }
        }
    }
    lines
}

/// Brings the column of a version up to date.
fn update_table(
    file: &Path,
    table_lock: &Mutex<()>,
    version: &str,
    bench: &Bench,
    cells: &BTreeMap<String, Cell>,
) -> Result<(), Box<dyn Error>> {
    let names = names::of(&bench.codex)?;
    let _held = lock(table_lock);
    let mut table = Table::parse(&fs::read_to_string(file).unwrap_or_default());
    let today = OffsetDateTime::now_utc().date().to_string();
    table.set(version, &today, names, cells.clone());
    let rows: Vec<_> = scenarios::all().iter().map(|it| it.name).collect();
    Ok(fs::write(file, table.render(&rows))?)
}

fn table_file() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let root = root.unwrap_or_else(|| Path::new("."));
    root.join("crates/authferry-codex/VERSIONS.md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_cell_fails_the_run() {
        let cell = |cell| [("`run`: a fresh login".to_owned(), cell)].into();
        let text = "exit code: 1, expected 0".to_owned();
        let cells: Cells = [
            ("0.169.0".to_owned(), cell(Cell::Right("unchanged".into()))),
            ("0.170.0".to_owned(), cell(Cell::Unsteady(text.clone()))),
            ("0.171.0".to_owned(), cell(Cell::Wrong(text))),
        ]
        .into();
        let expected = "0.171.0, `run`: a fresh login: exit code: 1, expected 0";
        assert_eq!(unexplained(&cells), [expected]);
    }
}
