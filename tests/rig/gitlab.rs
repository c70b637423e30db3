//! A program that runs GitLab pipelines on this machine, installed once under the build directory.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use crate::Node24;

const VERSION: &str = "4.75.1";

/// `gitlab-ci-local` with its dependencies.
#[derive(Clone, Debug)]
pub struct GitlabCiLocal {
    node: Node24,
    script: PathBuf,
    rsync: PathBuf,
}

impl GitlabCiLocal {
    /// Returns the program, and installs it if it is missing.
    ///
    /// Concurrent tests and processes share one installation under `target/gitlab-ci-local`. It
    /// uses the `npm` on `PATH`. An `rsync` that is not on `PATH` is unpacked from the package that
    /// `apt-get` downloads, which needs no root.
    pub fn install() -> io::Result<Self> {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/gitlab-ci-local");
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
            npm_install(&partial)?;
            fs::rename(&partial, &home)?;
        }
        let rsync = match on_path("rsync") {
            Some(rsync) => rsync,
            None => unpack_rsync(&cache)?,
        };
        Ok(Self {
            // `gitlab-ci-local` needs a newer Node than this machine may have.
            node: Node24::install()?,
            script: home.join("node_modules/gitlab-ci-local/dist/index.js"),
            rsync,
        })
    }

    /// Returns the Node that runs it.
    #[must_use]
    pub fn node(&self) -> PathBuf {
        self.node.program()
    }

    /// Returns the script of `gitlab-ci-local`.
    #[must_use]
    pub fn script(&self) -> &Path {
        &self.script
    }

    /// Returns the `rsync` that must be on its `PATH`.
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

/// Unpacks the system's `rsync` package, and dependencies that a minimal system lacks.
fn unpack_rsync(cache: &Path) -> io::Result<PathBuf> {
    let home = cache.join("rsync");
    let program = home.join("rsync");
    if program.exists() {
        return Ok(program);
    }
    let missing = |error: io::Error| {
        let what = "gitlab-ci-local needs rsync, which is not on PATH and could not be downloaded";
        io::Error::new(
            error.kind(),
            format!("{what}; hint: install the package rsync\n{error}"),
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
            // The package list may be stale. Only root can update it.
            run(Command::new("apt-get").arg("update"))?;
            download()
        })
        .map_err(missing)?;
    for package in fs::read_dir(&partial)? {
        let mut dpkg = Command::new("dpkg");
        dpkg.arg("--extract").arg(package?.path()).arg(&partial);
        run(&mut dpkg).map_err(missing)?;
    }
    // The libraries are outside the system's search path.
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
