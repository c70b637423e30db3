//! How to start the Codex that rotates.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Command,
};

use authferry_codex::app_server::REFRESH_ENV;

use crate::surroundings;

/// The Codex that rotates the login.
#[derive(Clone, Debug)]
pub struct Codex {
    /// The program: a path, or a name that is looked up on `PATH`.
    pub program: PathBuf,
    /// The `PATH` of Codex, if not ours. Codex runs in another folder, where a relative part of our
    /// `PATH` does not resolve.
    pub path: Option<OsString>,
    /// Environment variables that are removed for Codex, among them all that make it ignore the
    /// auth file.
    pub withheld: Vec<OsString>,
    /// The supervisor: it runs Codex in a new session, and completes the rotation if this process
    /// exits first. Without a supervisor, Codex only gets a new process group.
    pub supervisor: Option<Supervisor>,
    /// Whether this process has the environment variable by which the GitHub runner finds the
    /// processes of a job, which it kills at the end of the job.
    pub is_tracked: bool,
}

/// How to start this program as the supervisor of a Codex that rotates.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// This program.
    pub program: PathBuf,
    /// The options that select the same store and the same rescue folder.
    pub arguments: Vec<OsString>,
}

impl Codex {
    /// Builds the command of Codex. It runs outside our process group, so that signals to the group
    /// do not reach it, and in a folder without a project configuration. `supervised`: the
    /// arguments of the supervisor, if it is used.
    pub(crate) fn command(&self, home: &Path, supervised: Option<Vec<OsString>>) -> Command {
        let supervisor = self.supervisor.as_ref().zip(supervised);
        let mut command = if let Some((supervisor, supervised)) = supervisor {
            let mut command = Command::new(&supervisor.program);
            command.arg0("authferry").args(&supervisor.arguments);
            command.args(supervised).arg("--").arg(&self.program);
            // The GitHub runner would kill the supervisor at the end of the job and lose the login.
            command.env_remove(surroundings::TRACKING_ID);
            command
        } else {
            let mut command = Command::new(&self.program);
            command.process_group(0);
            // A supervisor keeps these variables: it needs the store's credentials, and removes the
            // variables for Codex itself.
            for variable in &self.withheld {
                command.env_remove(variable);
            }
            command
        };
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        command
            .envs(REFRESH_ENV.iter().copied())
            .env_remove("CODEX_SQLITE_HOME")
            .env("CODEX_HOME", home)
            .current_dir(home);
        command
    }
}
