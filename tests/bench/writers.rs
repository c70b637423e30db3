//! The ways in which Codex writes its auth file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Instant,
};

/// Writes an auth file in a home and returns the time at which it was there.
pub(crate) type Writer = fn(&Path, &[u8]) -> io::Result<Instant>;

/// Writes as up to 0.163.0.
pub(crate) fn in_place(home: &Path, bytes: &[u8]) -> io::Result<Instant> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).truncate(true).open(auth_file(home))?;
    file.write_all(bytes)?;
    Ok(Instant::now())
}

/// Writes as 0.166.0 does.
pub(crate) fn under_a_lock(home: &Path, bytes: &[u8]) -> io::Result<Instant> {
    let lock = File::create(home.join("auth.lock"))?;
    lock.lock()?;
    in_place(home, bytes)
}

/// Writes as 0.169.0 does.
pub(crate) fn by_rename(home: &Path, bytes: &[u8]) -> io::Result<Instant> {
    let new = home.join(".auth-bench");
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, auth_file(home))?;
    Ok(Instant::now())
}

fn auth_file(home: &Path) -> PathBuf {
    home.join("auth.json")
}
