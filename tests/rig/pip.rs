//! Packages from `PyPI`, installed once under the build directory.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Returns the folder of these packages, and installs them into `target/NAME` if they are missing.
///
/// Concurrent tests and processes share one installation. It uses the `pip` of the `python3` on
/// `PATH` with its configured index.
pub(crate) fn install(name: &str, packages: &[&str]) -> io::Result<PathBuf> {
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let cache = cache.join(name);
    fs::create_dir_all(&cache)?;
    let cache = cache.canonicalize()?;
    let version = packages.join("-").replace("==", "-");

    let lock = File::create(cache.join(format!("{version}.lock")))?;
    lock.lock()?;
    let home = cache.join(&version);
    if !home.exists() {
        // We hold the lock, so a leftover of a killed install is not in use.
        let partial = cache.join(format!("{version}.partial"));
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        let output = Command::new("python3")
            .args(["-m", "pip", "install", "--quiet"])
            .args(["--disable-pip-version-check", "--no-input"])
            .args(["--only-binary=:all:", "--target"])
            .arg(&partial)
            .args(packages)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(io::Error::other(format!("pip failed:\n{errors}")));
        }
        fs::rename(&partial, &home)?;
    }
    Ok(home)
}
