//! A program that runs GitLab pipelines on this machine, installed once and kept under the
//! build directory.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::Node24;

const VERSION: &str = "4.75.1";

/// `gitlab-ci-local`, with what it needs.
#[derive(Clone, Debug)]
pub struct GitlabCiLocal {
    node: Node24,
    script: PathBuf,
    rsync: PathBuf,
}

impl GitlabCiLocal {
    /// Returns it, installing it if it is not there yet.
    ///
    /// However many tests and processes ask at the same time, it is installed once: under
    /// `target/gitlab-ci-local`, by the `npm` on `PATH`. An `rsync` that is not on `PATH` is
    /// unpacked from what `apt-get` downloads, for which nobody has to be root.
    pub fn install() -> io::Result<Self> {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/gitlab-ci-local");
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
            npm_install(&partial)?;
            fs::rename(&partial, &home)?;
        }
        let rsync = match on_path("rsync") {
            Some(rsync) => rsync,
            None => unpack_rsync(&cache)?,
        };
        Ok(Self {
            // It needs a newer Node than may be here.
            node: Node24::install()?,
            script: home.join("node_modules/gitlab-ci-local/dist/index.js"),
            rsync,
        })
    }

    /// Returns the Node that it runs on.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        self.node.program()
    }

    /// Returns the script that is it.
    #[must_use]
    pub fn script(&self) -> &Path {
        &self.script
    }

    /// Returns the `rsync` that it needs on its `PATH`.
    #[must_use]
    pub fn rsync(&self) -> &Path {
        &self.rsync
    }
}

fn npm_install(into: &Path) -> io::Result<()> {
    fs::create_dir(into)?;
    run(Command::new("npm")
        .arg("install")
        .arg("--prefix")
        .arg(into)
        .args(["--no-audit", "--no-fund", "--ignore-scripts"])
        .arg(format!("gitlab-ci-local@{VERSION}"))
        .current_dir(into))
    .map(drop)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut found = std::env::split_paths(&path).map(|folder| folder.join(name));
    found.find(|program| program.is_file())
}

/// Unpacks the system's own package, and those it needs that a small system lacks.
fn unpack_rsync(cache: &Path) -> io::Result<PathBuf> {
    let home = cache.join("rsync");
    let program = home.join("rsync");
    if program.exists() {
        return Ok(program);
    }
    let missing = |error: io::Error| {
        let what = "there is no rsync on PATH, which gitlab-ci-local needs, and none can be had";
        io::Error::new(
            error.kind(),
            format!("{what}: install the package rsync\n{error}"),
        )
    };
    let partial = cache.join("rsync.partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir(&partial)?;
    let download = || {
        run(Command::new("apt-get")
            .args(["download", "rsync", "libpopt0", "libxxhash0"])
            .current_dir(&partial))
    };
    download()
        .or_else(|_| {
            // What it knows of may be gone by now. That only root can mend.
            run(Command::new("apt-get").arg("update"))?;
            download()
        })
        .map_err(missing)?;
    for package in fs::read_dir(&partial)? {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--extract").arg(package?.path()).arg(&partial);
        run(&mut dpkg).map_err(missing)?;
    }
    // Its libraries are not where the system looks for them.
    let mut script = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o755)
        .open(partial.join("rsync"))?;
    write!(
        script,
        "#!/bin/sh\nhome={}\nexport LD_LIBRARY_PATH=\"$(echo \"$home\"/usr/lib/*-linux-*)\"\nexec \"$home/usr/bin/rsync\" \"$@\"\n",
        home.display()
    )?;
    drop(script);
    fs::rename(&partial, &home)?;
    run(Command::new(&program).arg("--version")).map_err(missing)?;
    Ok(program)
}

fn run(command: &mut Command) -> io::Result<Output> {
    let program = command.get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run {program}: {error}")))?;
    if output.status.success() {
        return Ok(output);
    }
    Err(io::Error::other(format!(
        "{program} failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    )))
}
