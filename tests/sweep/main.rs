//! The sweep: at each system call of each command, one run gets SIGKILL before the call, and one
//! run in which the call fails.
//!
//! `tests/sweep/README.md` says what it covers and what it found.

mod argued;
mod calls;
mod judge;
mod parts;
mod position;
mod programs;
mod scene;
mod stand_in;
mod store;
mod sweep;
mod table;
mod teeth;
mod tracee;
mod tracer;

use std::{
    env,
    ffi::OsStr,
    path::Path,
    process::ExitCode,
    sync::{Arc, LazyLock},
};

use authferry_conformance::timed;
use libtest_mimic::{Arguments, Trial};

use crate::{
    parts::{PARTS, Part},
    store::Store,
};

/// More than the gate's machine has cores: a run waits for Codex half of its time.
const THREADS: usize = 4;

/// The number of tests into which the whole sweep of a part is divided.
const SHARDS: usize = 4;

fn main() -> ExitCode {
    let name = env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(OsStr::new("codex")) {
        return stand_in::play();
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let file = Arc::new(Lazy::new(Store::file));
    let vault = Arc::new(Lazy::new(Store::vault));
    let mut trials = teeth::trials();
    let shards = if sweep::is_whole() { SHARDS } else { 1 };
    for shard in 0..shards {
        for part in PARTS {
            for (store, every) in [(&file, 1), (&vault, 10)] {
                let (name, store) = (named(&part, every, shard), Arc::clone(store));
                let run = move || {
                    timed(&name, || {
                        sweep::sweep(&name, &part, &store, every, (shard, shards))
                    })
                };
                trials.push(Trial::test(named(&part, every, shard), run));
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(vault);
    if sweep::is_whole() {
        table::write().expect("room for the tables");
    }
    conclusion.exit_code()
}

/// A store that the first test creates.
type Lazy = LazyLock<Store, fn() -> Store>;

fn named(part: &Part, every: usize, shard: usize) -> String {
    let store = if every == 1 { "file" } else { "openbao" };
    format!("{store}::{}::{shard}", part.name)
}
