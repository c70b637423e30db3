//! Every message of the program, as a transcript in a file.
//!
//! Each `.toml` file in this folder is one case: setup, command line, expected output, and expected
//! changes. The `README.md` explains how to write a case.

mod bless;
mod case;
mod check;
mod logins;
mod play;
mod scene;
mod stage;
mod teeth;
mod text;
mod tree;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use authferry_conformance::timed;
use libtest_mimic::{Arguments, Trial};

use crate::stage::Props;

const THREADS: usize = 8;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // A case mostly waits: for the disk, for a lock, for a process to exit.
    arguments.test_threads.get_or_insert(THREADS);
    let props = Arc::new(Props::new());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cmd");
    let mut files = Vec::new();
    collect(&folder, &mut files).expect("the folder of the cases");
    // In reverse order, to start the slowest case, `store/locked`, early.
    files.sort_by(|one, other| other.cmp(one));
    let mut trials = teeth::trials(&props, &folder);
    trials.extend(files.into_iter().map(|file| {
        let name = file.strip_prefix(&folder).expect("a file in the folder");
        let name = name.with_extension("").display().to_string();
        let props = Arc::clone(&props);
        Trial::ignorable_test(name.clone(), move || {
            timed(&name, || play::file(&props, &file))
        })
    }));
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|end| end == "toml") {
            files.push(path);
        }
    }
    Ok(())
}
