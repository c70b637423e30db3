//! Which processes are a Codex, which home each Codex uses, and whether that Codex may have spent
//! the login.
//!
//! A process whose executable `/proc` does not show (another user's process, no `/proc`) does not
//! count as a Codex. A Codex whose home is not visible counts as using any home for
//! [`CodexProcess::may_use`], and none for [`CodexProcess::uses`].

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use authferry_codex::Look;
use authferry_core::{DueRule, Issued};

use crate::processes::{self, Environment, Process};
use crate::rotate::unix_now;

/// A process that executes Codex.
#[derive(Clone, Debug)]
pub(crate) struct CodexProcess {
    process: Process,
    /// The file that it executes.
    program: PathBuf,
    /// Its `CODEX_HOME`, canonical; `None` if it is not visible, or is not a folder.
    home: Option<PathBuf>,
}

impl CodexProcess {
    /// Returns the process if it is a Codex that has not ended.
    pub(crate) fn of(id: i32) -> Option<Self> {
        let program = program(id)?;
        Some(Self {
            process: Process::of(id)?,
            program,
            home: home_of(id),
        })
    }

    /// Returns the process.
    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Whether this Codex is known to use this home, given by the home's canonical path.
    pub(crate) fn uses(&self, home: &Path) -> bool {
        self.home.as_deref() == Some(home)
    }

    /// Whether this Codex may use this home: a Codex whose home is not visible may use any.
    pub(crate) fn may_use(&self, home: &Path) -> bool {
        let home = home.canonicalize();
        self.home
            .as_ref()
            .is_none_or(|theirs| home.is_ok_and(|home| *theirs == home))
    }

    /// Returns the rule by which this Codex rotates a login.
    pub(crate) fn due_rule(&self) -> DueRule {
        // After an update the manifest at that path belongs to another version.
        if self.program.as_os_str().as_bytes().ends_with(b" (deleted)") {
            return DueRule::Any;
        }
        authferry_codex::due_rule(&self.program)
    }
}

/// Whether a process executes Codex.
pub(crate) fn is_codex(id: i32) -> bool {
    program(id).is_some()
}

/// Returns every Codex that is known to use a home, given by its canonical path.
pub(crate) fn all_of(home: &Path) -> impl Iterator<Item = CodexProcess> {
    let codexes = processes::all().filter_map(CodexProcess::of);
    codexes.filter(move |codex| codex.uses(home))
}

/// Whether a Codex with this rule may have spent the refresh token of this login: the provider's
/// answer may be in flight, and no file has the new login until Codex has written it.
pub(crate) fn may_have_spent(login: &Issued, rule: DueRule) -> bool {
    login.due_by_rule(rule).is_some_and(|due| due <= unix_now())
}

/// Whether the login that was read from the home may be spent, by this rule.
pub(crate) fn may_be_spent(look: &Look, rule: DueRule) -> bool {
    match look {
        Look::Usable { generation, .. } => may_have_spent(&generation.issued, rule),
        // A torn file says nothing about the login that Codex has in memory.
        Look::Unusable { .. } => true,
        Look::Missing => false,
    }
}

/// The executable of a process, if it is Codex.
fn program(id: i32) -> Option<PathBuf> {
    processes::executable(id).filter(|program| authferry_codex::is_codex(program))
}

/// The home that a Codex with this process's environment uses.
fn home_of(id: i32) -> Option<PathBuf> {
    let environment = Environment::of(id)?;
    let home = match environment.get("CODEX_HOME") {
        Some(home) => PathBuf::from(home),
        None => Path::new(environment.get("HOME")?).join(".codex"),
    };
    let home = processes::current_folder(id).map_or_else(|| home.clone(), |here| here.join(&home));
    home.canonicalize().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use super::*;

    fn ends_in(seconds: i64) -> Issued {
        Issued {
            exp: Some(unix_now().saturating_add(seconds)),
            ..Issued::default()
        }
    }

    #[test]
    fn the_due_rule_of_the_version_decides_whether_a_login_may_be_spent() {
        for (seconds, rule, may_be) in [
            (100, DueRule::Ending, true),
            (100, DueRule::Any, true),
            (100, DueRule::Ended, false),
            (0, DueRule::Ended, true),
            (400, DueRule::Any, false),
        ] {
            let found = may_have_spent(&ends_in(seconds), rule);
            assert_eq!(found, may_be, "{seconds} {rule:?}");
        }
    }

    #[test]
    fn a_codex_is_found_by_its_executable_and_by_its_home_through_a_link() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().canonicalize().expect("there");
        let (program, home, link) = (
            folder.join("codex"),
            folder.join("home"),
            folder.join("link"),
        );
        fs::create_dir(&home).expect("room");
        symlink(&home, &link).expect("room");
        let sleep = ["/bin/sleep", "/usr/bin/sleep"].map(Path::new);
        let sleep = sleep.into_iter().find(|it| it.exists()).expect("sleep");
        fs::copy(sleep, &program).expect("room");
        let run = |program: &Path, change: &dyn Fn(&mut Command)| {
            let mut command = Command::new(program);
            change(command.arg("60").env_clear().env("LOADED", "yes"));
            let mut child = command.spawn().expect("a program");
            let id = i32::try_from(child.id()).expect("a small number");
            // While a program is being loaded, its environment is not visible yet.
            let is_loaded = || Environment::of(id).is_some_and(|it| it.get("LOADED").is_some());
            while !is_loaded() {
                std::thread::yield_now();
            }
            let found = (CodexProcess::of(id), all_of(&home).count());
            child.kill().expect("our child");
            child.wait().expect("our child");
            found
        };
        let set = |name: &'static str, value: PathBuf| {
            move |command: &mut Command| {
                command.env(name, &value);
            }
        };
        let (codex, count) = run(&program, &set("CODEX_HOME", link.clone()));
        let codex = codex.expect("a Codex");
        assert!(codex.uses(&home) && codex.may_use(&link) && !codex.may_use(&folder));
        assert_eq!((codex.due_rule(), count), (DueRule::Any, 1));
        let (codex, count) = run(&program, &|_| ());
        let codex = codex.expect("a Codex");
        assert!(
            !codex.uses(&home) && codex.may_use(&home),
            "its home is unknown"
        );
        assert_eq!(count, 0);
        let (other, count) = run(sleep, &set("CODEX_HOME", home.clone()));
        assert!(other.is_none() && count == 0, "not a Codex");
    }
}
