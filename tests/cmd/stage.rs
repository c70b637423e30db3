//! The sandbox of a case: separate folders, a clean environment, and a user without privileges.

use std::{
    env,
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use rig::finish;
use tempfile::TempDir;

use crate::{logins, text, tree::Tree};

/// The user of the cases if root runs the tests: root would bypass permissions.
const NOBODY: u32 = 65534;

/// Shared by all cases: the programs, and the logins as files.
pub(crate) struct Props {
    dir: TempDir,
}

/// The programs on the `PATH`. A shell reads the script of the case, since a program that any process
/// has open for writing cannot be started.
const PROGRAMS: [(&str, &str); 7] = [
    // The working directory may differ from the work folder of the case.
    (
        "codex",
        // The question whether Codex uses the login is answered here, unless the case answers it.
        "umask 077\nscript=$HOME/../work/codex.sh\n\
         case \"$*\" in *sqlite_home*app-server)\n\
         grep -q authMethod \"$script\" || {\n\
         echo '{\"id\":2,\"result\":{\"authMethod\":\"chatgpt\"}}'; exit; };;\nesac\n\
         exec sh \"$script\" \"$@\"",
    ),
    (
        "other-job",
        "# A job on another machine, in which Codex rotates the login.\n\
         export CODEX_HOME=\"$HOME/other-codex\"\n\
         exec authferry --quiet run --no-rotate-first -- cp \"$1\" \"$CODEX_HOME/auth.json\"",
    ),
    (
        "job-without-persist",
        "# A job on this machine whose store rejects the write.\n\
         export CODEX_HOME=$(mktemp -d \"$HOME/other-codex-XXXXXX\")\n\
         store=$(dirname \"${AUTHFERRY_STORE#file://}\")\n\
         authferry --quiet run --no-rotate-first -- \\\n\
         sh -c 'chmod 500 \"$2\"; cp \"$1\" \"$CODEX_HOME/auth.json\"' sh \"$1\" \"$store\"\n\
         test $? = 120 && chmod 700 \"$store\"",
    ),
    (
        "killed-rotation",
        "# A keep-alive on this machine that is killed once Codex has written.\n\
         export NEXT=\"$PWD/$1\"\n\
         authferry --quiet refresh --within 60000d --codex codex-that-is-cut-off\n\
         test $? = 137",
    ),
    (
        "codex-that-is-cut-off",
        "# Whether Codex uses the login is another question.\n\
         case \"$*\" in *sqlite_home*) exit;; esac\n\
         # Stop authferry and the supervisor first: both would write the login through.\n\
         umask 077\nauthferry=$(ps -o ppid= -p $PPID)\nkill -STOP $authferry $PPID\n\
         cp \"$NEXT\" \"$CODEX_HOME/auth.json\"\nkill -KILL $authferry $PPID",
    ),
    (
        "codex-of-the-dead",
        "echo 'ERROR codex_login::auth::manager: Failed to refresh token: Your access token \
         could not be refreshed because your refresh token was revoked.' >&2",
    ),
    (
        "codex-of-the-refused",
        "echo 'ERROR codex_login::auth::manager: Failed to refresh token status=401 Unauthorized' >&2",
    ),
];

impl Props {
    /// Creates the props, readable by every user.
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("cmd-props-").expect("a temporary folder");
        let props = Self { dir };
        props.fill().expect("room for the props");
        props
    }

    fn fill(&self) -> io::Result<()> {
        for folder in ["", "bin", "logins"].map(|name| self.path(name)) {
            DirBuilder::new().recursive(true).create(&folder)?;
            set_mode(&folder, 0o755)?;
        }
        let authferry = self.path("bin/authferry");
        let built = env!("CARGO_BIN_EXE_authferry-under-test");
        let program = env::var_os("AUTHFERRY_TEST_PROGRAM").unwrap_or_else(|| built.into());
        fs::copy(program, &authferry)?;
        set_mode(&authferry, 0o755)?;
        for (name, script) in PROGRAMS {
            let program = self.path("bin").join(name);
            fs::write(&program, format!("#!/bin/sh\n{script}\n"))?;
            set_mode(&program, 0o755)?;
        }
        for (name, content) in logins::all() {
            let login = self.path("logins").join(name);
            fs::write(&login, content)?;
            set_mode(&login, 0o644)?;
        }
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// The sandbox of one case.
pub(crate) struct Stage<'a> {
    props: &'a Props,
    dir: TempDir,
    /// The placeholders of a case's file with their paths, the longest path first.
    placeholders: [(&'static str, String); 8],
    /// The mounts during the run.
    pub(crate) mounts: Option<Mounts>,
    /// A lock on the store that the test holds.
    pub(crate) lock: Option<File>,
}

/// Shell scripts with the right to mount, for before and after the run. The mounts are in a private
/// namespace.
pub(crate) struct Mounts {
    pub(crate) before: String,
    pub(crate) after: String,
}

/// The folders that a case can change.
pub(crate) struct World {
    pub(crate) store: Tree,
    pub(crate) home: Tree,
    pub(crate) rescue: Tree,
    pub(crate) rotations: Tree,
    /// The folder of the second store, where there is one.
    pub(crate) second: Tree,
}

impl<'a> Stage<'a> {
    /// Creates the empty folders.
    pub(crate) fn new(props: &'a Props) -> io::Result<Self> {
        let dir = TempDir::with_prefix("cmd-")?;
        let root = dir.path().canonicalize()?;
        if let Some(repository) = root.ancestors().find(|path| path.join(".git").exists()) {
            let text = format!("{} is a git work tree", repository.display());
            return Err(io::Error::other(text));
        }
        let at = |name: &str| root.join(name).display().to_string();
        let placeholders = [
            ("[RESCUE]", at("user/.local/state/authferry/rescue")),
            ("[USER]", at("user")),
            ("[STORE]", at("store")),
            ("[SECOND]", at("second")),
            ("[HOME]", at("codex")),
            ("[WORK]", at("work")),
            ("[LOGINS]", props.path("logins").display().to_string()),
            ("[TEMP]", root.display().to_string()),
        ];
        for folder in ["user", "store", "codex", "work"] {
            DirBuilder::new().mode(0o700).create(root.join(folder))?;
        }
        let stage = Self {
            props,
            dir,
            placeholders,
            mounts: None,
            lock: None,
        };
        stage.set_owner()?;
        Ok(stage)
    }

    /// Replaces placeholders by paths.
    pub(crate) fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (placeholder, path) in &self.placeholders {
            text = text.replace(placeholder, path);
        }
        text
    }

    /// Replaces paths, and values that differ in each run, by placeholders.
    pub(crate) fn show(&self, output: &[u8]) -> String {
        let mut actual = String::from_utf8_lossy(output).into_owned();
        for (placeholder, path) in &self.placeholders {
            actual = actual.replace(path, placeholder);
        }
        text::normalized(&actual)
    }

    /// Returns the path of a text with placeholders, relative to the work folder.
    pub(crate) fn path(&self, text: &str) -> PathBuf {
        Path::new(&self.fill("[WORK]")).join(self.fill(text))
    }

    /// Writes a file of mode 0600, in folders of mode 0700.
    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(path);
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .mode(0o700)
                .recursive(true)
                .create(folder)?;
        }
        fs::write(&path, bytes)?;
        set_mode(&path, 0o600)
    }

    /// Reads the state of all folders.
    pub(crate) fn world(&self) -> io::Result<World> {
        Ok(World {
            store: Tree::of(&self.path("[STORE]"))?,
            home: Tree::of(&self.path("[HOME]"))?,
            rescue: Tree::of(&self.path("[RESCUE]"))?,
            rotations: Tree::of(&self.path("[USER]/.local/state/authferry/rotations"))?,
            second: Tree::of(&self.path("[SECOND]"))?,
        })
    }

    /// Gives all files to the user of the case. Skips files with the right owner, since `chown` changes
    /// the file.
    pub(crate) fn set_owner(&self) -> io::Result<()> {
        if is_root() {
            set_owner(self.dir.path())?;
        }
        Ok(())
    }

    /// Runs a program to its end, in a clean environment.
    pub(crate) fn run(&self, line: &[String], change: impl FnOnce(&mut Command)) -> Output {
        let mut command = self.prepare(line);
        let programs = self.props.path("bin").display().to_string();
        command
            .env_clear()
            .env("PATH", programs + ":/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.fill("[USER]"))
            .env("CODEX_HOME", self.fill("[HOME]"))
            .env("AUTHFERRY_STORE", self.fill("file://[STORE]/login.json"))
            .current_dir(self.path(""))
            .stdin(Stdio::null());
        change(&mut command);
        finish(&mut command)
    }

    fn prepare(&self, line: &[String]) -> Command {
        let Some(Mounts { before, after }) = &self.mounts else {
            let mut command = Command::new(&line[0]);
            command.args(&line[1..]);
            if is_root() {
                command.uid(NOBODY).gid(NOBODY);
            }
            return command;
        };
        let script = format!("set -e\n{before}\ncode=0; \"$@\" || code=$?\n{after}\nexit $code");
        let mut command = unshare();
        command.args(["sh", "-c", &self.fill(&script), "sh"]);
        if is_root() {
            command.args(["setpriv", "--clear-groups"]);
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
        }
        command.args(line);
        command
    }
}

impl Drop for Stage<'_> {
    /// Restores the permissions, so that the folders can be removed.
    fn drop(&mut self) {
        for folder in ["[STORE]", "[SECOND]", "[HOME]", "[RESCUE]"] {
            set_mode(&self.path(folder), 0o700).ok();
        }
    }
}

/// Returns whether this machine can mount in a private namespace.
pub(crate) fn can_mount() -> bool {
    unshare()
        .arg("true")
        .output()
        .is_ok_and(|it| it.status.success())
}

fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.arg("--mount");
    unshare
}

pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn set_owner(path: &Path) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if metadata.uid() != NOBODY {
        lchown(path, Some(NOBODY), Some(NOBODY))?;
    }
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            set_owner(&entry?.path())?;
        }
    }
    Ok(())
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
