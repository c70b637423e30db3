//! Plays scenarios side by side.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

use crate::{
    bench::Bench,
    checks::{Cell, Checks},
    options::{Options, say},
    reasons,
    scenarios::Scenario,
};

/// The cells of each version, by the names of their scenarios.
pub(crate) type Cells = BTreeMap<String, BTreeMap<String, Cell>>;

/// Plays the chosen scenarios with every version, oldest first. `ended` gets each version with all
/// of its cells.
pub(crate) fn play(
    benches: &[(String, Bench)],
    options: &Options,
    ended: impl Fn(&str, &Bench, &BTreeMap<String, Cell>) + Sync,
) -> Cells {
    let mut queue = VecDeque::new();
    let mut left = BTreeMap::new();
    for (version, bench) in benches {
        let chosen = options.scenarios(version);
        left.insert(version.as_str(), chosen.len());
        queue.extend(chosen.into_iter().map(|it| (version.as_str(), bench, it)));
    }
    let total = queue.len();
    let queue = Mutex::new(queue);
    let progress = Mutex::new((left, Cells::new(), 0));
    let work = || {
        loop {
            let next = lock(&queue).pop_front();
            let Some((version, bench, scenario)) = next else {
                return;
            };
            let began = Instant::now();
            let cell = play_twice(scenario, version, bench);
            let seconds = began.elapsed().as_secs_f32();
            let line = describe(version, scenario.name, &cell, seconds);

            let mut progress = lock(&progress);
            let (left, cells, number) = &mut *progress;
            *number += 1;
            say(&format!("{number:>4}/{total} {line}"));
            let cells = cells.entry(version.to_owned()).or_default();
            cells.insert(scenario.name.to_owned(), cell);
            let of_version = cells.clone();
            let left = left.entry(version).or_default();
            *left -= 1;
            let is_last = *left == 0;
            drop(progress);
            if is_last {
                ended(version, bench, &of_version);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(work);
        }
    });
    let (_, cells, _) = progress
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    cells
}

/// Locks a mutex, even if a scenario has panicked meanwhile.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(version: &str, scenario: &str, cell: &Cell, seconds: f32) -> String {
    let (mark, text) = match cell {
        Cell::Right(text) => ("  ok ", text.as_str()),
        Cell::Unsteady(text) => (" 2nd ", text.as_str()),
        Cell::Wrong(text) => ("WRONG", text.as_str()),
        Cell::Absent => ("  -  ", ""),
    };
    format!("{mark} {version:<8} {seconds:>5.1} s  {scenario}: {text}")
}

/// Plays a scenario, and once more if its cell is wrong: a busy machine can exceed a time limit.
fn play_twice(scenario: Scenario, version: &str, bench: &Bench) -> Cell {
    let attempt = || {
        let (cell, details) = play_once(scenario, bench);
        if !details.is_empty() {
            say(&format!("-- {version}, {}:\n{details}", scenario.name));
        }
        cell
    };
    let first = attempt();
    let has_reason = reasons::of(scenario.name, version).is_some();
    if matches!(first, Cell::Wrong(_)) && !has_reason {
        first.after_second(attempt())
    } else {
        first
    }
}

fn play_once(scenario: Scenario, bench: &Bench) -> (Cell, String) {
    let mut checks = Checks::default();
    let seen = catch_unwind(AssertUnwindSafe(|| (scenario.play)(bench, &mut checks)));
    let seen = match seen {
        Ok(Ok(seen)) => seen,
        Ok(Err(why)) => {
            checks.broken(&why.to_string());
            String::new()
        }
        Err(panic) => {
            checks.broken(panic_text(panic.as_ref()));
            String::new()
        }
    };
    checks.verdict(&seen)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic")
}
