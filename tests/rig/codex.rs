//! Real Codex binaries, installed once under the build directory.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::OnceLock,
};

/// Rotates before a run when the last refresh is older than eight days, regardless of the access
/// token's expiry. Writes in place, without a lock.
pub const V0_101: &str = "0.101.0";
/// Rotates before a run when the access token has expired. Writes in place, without a lock.
pub const V0_130: &str = "0.130.0";
/// Rotates, as later versions do, when the access token expires within five minutes. Truncates the
/// auth file and writes it in place, without a lock.
pub const V0_145: &str = "0.145.0";
/// Writes in place too, but under `auth.lock`.
pub const V0_166: &str = "0.166.0";
/// Writes, as versions from 0.167.2 on, a temporary file, syncs it and renames it into place.
pub const V0_169: &str = "0.169.0";
/// Writes as 0.169.0 does.
pub const V0_171: &str = "0.171.0";

/// A released Codex, installed from npm.
#[derive(Clone, Debug)]
pub struct Codex {
    version: String,
    native: PathBuf,
    launcher: PathBuf,
    node: PathBuf,
}

impl Codex {
    /// Returns a version of Codex, and installs it if it is missing.
    ///
    /// Concurrent tests and processes share one installation under `target/codex`. It uses the
    /// `npm` on `PATH` with its configured registry.
    ///
    /// The error says what to do if `npm` or `node` is missing, or if this platform has no such
    /// Codex.
    pub fn install(version: &str) -> io::Result<Self> {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/codex");
        fs::create_dir_all(&cache)?;
        let cache = cache.canonicalize()?;
        let node = node()?;

        let lock = File::create(cache.join(format!("{version}.lock")))?;
        lock.lock()?;
        let home = cache.join(version);
        if !home.exists() {
            // We hold the lock, so a leftover of a killed install is not in use.
            let partial = cache.join(format!("{version}.partial"));
            if partial.exists() {
                fs::remove_dir_all(&partial)?;
            }
            npm_install(version, &partial)?;
            verify(version, &native(version, &partial)?)?;
            fs::rename(&partial, &home)?;
        }
        Ok(Self {
            version: version.to_owned(),
            native: native(version, &home)?,
            launcher: home.join("node_modules/.bin/codex"),
            node,
        })
    }

    /// Returns the version number.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the path of the native binary.
    #[must_use]
    pub fn native(&self) -> &Path {
        &self.native
    }

    /// Returns the path of the script that npm links into `PATH`. It starts the native binary as a
    /// child and needs `node` on `PATH`.
    #[must_use]
    pub fn launcher(&self) -> &Path {
        &self.launcher
    }

    /// Returns the path of the `node` that runs the launcher.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }
}

/// Resolves the real path of node once: the `node` on `PATH` may be a version manager's shim, and a
/// start of node takes a tenth of a second of CPU.
fn node() -> io::Result<PathBuf> {
    static NODE: OnceLock<PathBuf> = OnceLock::new();
    if let Some(node) = NODE.get() {
        return Ok(node.clone());
    }
    let asked = run(Command::new("node").args(["-p", "process.execPath"]))?;
    let path = String::from_utf8_lossy(&asked.stdout);
    let node = PathBuf::from(path.trim_end());
    Ok(NODE.get_or_init(|| node).clone())
}

fn npm_install(version: &str, into: &Path) -> io::Result<()> {
    fs::create_dir(into)?;
    run(Command::new("npm")
        .arg("install")
        .arg("--prefix")
        .arg(into)
        .args(["--no-audit", "--no-fund", "--ignore-scripts"])
        .arg(format!("@openai/codex@{version}"))
        .current_dir(into))
    .map(drop)
}

/// Finds the binary in the platform package that npm has installed. Up to 0.92.0 one package has the
/// binaries of all platforms.
fn native(version: &str, home: &Path) -> io::Result<PathBuf> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let os_in_target = if os == "macos" { "darwin" } else { os };
    for package in fs::read_dir(home.join("node_modules/@openai"))? {
        let vendor = package?.path().join("vendor");
        for target in fs::read_dir(vendor).into_iter().flatten() {
            let target = target?.path();
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            if !(name.starts_with(arch) && name.contains(os_in_target)) {
                continue;
            }
            // Versions up to 0.130.0 at least use the second folder.
            for binary in ["bin/codex", "codex/codex"] {
                let binary = target.join(binary);
                if binary.is_file() {
                    return Ok(binary);
                }
            }
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("npm has no Codex {version} for {os} on {arch}"),
    ))
}

fn verify(version: &str, binary: &Path) -> io::Result<()> {
    let version_line = run(Command::new(binary).arg("--version"))?;
    let version_line = String::from_utf8_lossy(&version_line.stdout);
    if version_line.split_whitespace().last() == Some(version) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{} is not Codex {version}: it reports {version_line:?}",
        binary.display()
    )))
}

fn run(command: &mut Command) -> io::Result<Output> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::NotFound {
            "; the real Codex comes from npm, so install Node.js"
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
