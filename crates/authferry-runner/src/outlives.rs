//! Which process is a Codex, whether it may have spent the login's refresh token, and whether the
//! platform ends it with the job.
//!
//! Each rule is a pure function of what [`Process::look`] reads. If that cannot be read (no `/proc`,
//! another user's process), the process does not count as a Codex.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::Duration,
};

use authferry_core::{DueRule, Issued};
use rustix::process::Pid;

/// Marks a process as a part of a job on GitHub: the runner kills every process with it in its
/// environment when the job ends.
pub(crate) const TRACKING_ID: &str = "RUNNER_TRACKING_ID";

/// The namespace of process ids in which a machine boots: its number is part of the kernel's
/// interface (`PROC_PID_INIT_INO`).
const FIRST_NAMESPACE: &str = "pid:[4026531836]";

/// What a control group of a container has in its path where the container shares the process ids
/// of its host.
const CONTAINERS: [&str; 6] = [
    "/docker",
    "/kubepods",
    "/libpod",
    "/containerd",
    "/lxc",
    "/buildkit",
];

/// What a process is and which home it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    /// The file that it executes; `None` if that cannot be seen.
    pub(crate) program: Option<PathBuf>,
    /// The home that a Codex in its place uses; `None` if that cannot be seen.
    pub(crate) codex_home: Option<PathBuf>,
    /// Whether it has [`TRACKING_ID`] in its environment.
    pub(crate) is_tracked: bool,
}

impl Process {
    /// Looks at a process, given by its number or as `self`. `None` if it has ended, or nothing
    /// can be seen.
    pub(crate) fn look(process: impl std::fmt::Display) -> Option<Self> {
        Self::read(Path::new(&format!("/proc/{process}")))
    }

    /// Looks at a process by its folder in `/proc`.
    fn read(folder: &Path) -> Option<Self> {
        let program = fs::read_link(folder.join("exe")).ok();
        let environment = fs::read(folder.join("environ")).ok();
        if program.is_none() && environment.is_none() {
            return None;
        }
        let environment = environment.unwrap_or_default();
        let variable = |name: &str| variable(&environment, name);
        let home = variable("CODEX_HOME").map(PathBuf::from);
        let default = || Some(PathBuf::from(variable("HOME")?).join(".codex"));
        Some(Self {
            program,
            codex_home: home.or_else(default),
            is_tracked: variable(TRACKING_ID).is_some(),
        })
    }

    /// Whether it is a Codex that uses this home. One whose home cannot be seen uses any.
    pub(crate) fn is_codex_of(&self, home: &Path) -> bool {
        let program = self.program.as_deref();
        program.is_some_and(authferry_codex::is_codex)
            && self
                .codex_home
                .as_deref()
                .is_none_or(|theirs| is_same(theirs, home))
    }

    /// By which rule it rotates a login, if it is a Codex.
    pub(crate) fn due_rule(&self) -> DueRule {
        let program = self.program.as_deref();
        program.map_or(DueRule::Any, authferry_codex::due_rule)
    }

    /// Whether it is a Codex that may have spent this login's refresh token, which is in the file
    /// of its home: the login is due by the rule of its version. The provider's answer may be on
    /// its way: until Codex has written it down, nothing else has the login.
    pub(crate) fn may_have_spent(&self, home: &Path, login: &Issued, now: i64) -> bool {
        self.is_codex_of(home) && is_due(login, self.due_rule(), now)
    }
}

/// Whether a Codex of this rule has begun to rotate a login by now, in Unix seconds.
pub(crate) fn is_due(login: &Issued, rule: DueRule, now: i64) -> bool {
    login.due_by_rule(rule).is_some_and(|due| due <= now)
}

/// Whether the platform ends a process when this one ends, or soon after it.
pub(crate) fn ends_with_the_job(is_tracked: bool, surroundings: Surroundings) -> bool {
    is_tracked || surroundings.is_container || surroundings.is_first_process
}

/// Returns for how long a process has been there, given by its folder in `/proc`; `None` if that
/// cannot be seen. The time in which the machine slept counts.
fn age(folder: &Path) -> Option<Duration> {
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let stat = fs::read_to_string(folder.join("stat")).ok()?;
    // The name of the program, in brackets, may have spaces.
    let (_, fields) = stat.rsplit_once(')')?;
    let started: f64 = fields.split_whitespace().nth(STARTED)?.parse().ok()?;
    Duration::try_from_secs_f64(uptime - started / CLOCK_TICKS).ok()
}

/// The place of the time of its start among the fields behind the name, and its unit: 100 on every
/// Linux.
const STARTED: usize = 19;
const CLOCK_TICKS: f64 = 100.0;

/// Returns the Codexes that use this home and have been there for this long.
pub(crate) fn codexes_older_than(home: &Path, least: Duration) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let old = entries.filter_map(|entry| {
        let folder = entry.path();
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let is_codex = Process::read(&folder)?.is_codex_of(home);
        let is_old = is_codex && age(&folder)? >= least;
        Pid::from_raw(pid).filter(|_| is_old)
    });
    old.collect()
}

/// Where this process runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// In a container, whose processes end with its first one.
    pub(crate) is_container: bool,
    /// This process is the first one of its container, or of its namespace.
    pub(crate) is_first_process: bool,
}

impl Surroundings {
    pub(crate) fn look() -> Self {
        let namespace = fs::read_link("/proc/self/ns/pid");
        let namespace = namespace.map(|it| it.to_string_lossy().into_owned());
        let groups = fs::read_to_string("/proc/self/cgroup");
        Self {
            is_container: is_container(
                namespace.ok().as_deref(),
                groups.as_deref().unwrap_or_default(),
            ),
            is_first_process: std::process::id() == 1,
        }
    }
}

/// Whether a process with this namespace of process ids and these control groups runs in a
/// container. A file such as `/.dockerenv` proves nothing: virtual machines are made from images
/// too.
fn is_container(namespace: Option<&str>, groups: &str) -> bool {
    namespace.is_some_and(|it| it != FIRST_NAMESPACE)
        || CONTAINERS.iter().any(|name| groups.contains(name))
}

/// The value of a variable, unless that is empty.
fn variable<'a>(environment: &'a [u8], name: &str) -> Option<&'a std::ffi::OsStr> {
    let variables = environment.split(|byte| *byte == 0);
    let mut values =
        variables.filter_map(|it| it.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    let value = values.next().filter(|value| !value.is_empty());
    value.map(std::ffi::OsStr::from_bytes)
}

/// Whether two paths name the same folder.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other
        || one
            .canonicalize()
            .is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn process(program: &str, home: Option<&str>) -> Process {
        Process {
            program: Some(PathBuf::from(program)),
            codex_home: home.map(PathBuf::from),
            is_tracked: false,
        }
    }

    fn ends_at(exp: i64) -> Issued {
        Issued {
            exp: Some(exp),
            ..Issued::default()
        }
    }

    #[test]
    fn a_process_is_read_from_the_system() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(Process::read(folder.path()), None);
        symlink("/opt/codex", folder.path().join("exe")).expect("room");
        let read = |environment: &str| {
            fs::write(folder.path().join("environ"), environment).expect("room");
            Process::read(folder.path()).expect("a process")
        };
        assert_eq!(
            read("HOME=/h\0CODEX_HOME=/c\0"),
            process("/opt/codex", Some("/c"))
        );
        assert_eq!(
            read("CODEX_HOME=\0HOME=/h\0RUNNER_TRACKING_ID=github_1\0"),
            Process {
                is_tracked: true,
                ..process("/opt/codex", Some("/h/.codex"))
            }
        );
        let other = read("NOT_CODEX_HOME=/c\0RUNNER_TRACKING_ID_2=x\0");
        assert_eq!(other, process("/opt/codex", None));
    }

    #[test]
    fn a_codex_of_a_home_may_have_spent_a_login_that_is_due() {
        let home = Path::new("/made-up/home");
        for (program, theirs, exp, may_have) in [
            ("/bin/codex", Some("/made-up/home"), 1000, true),
            ("/bin/codex", None, 1000, true),
            ("/bin/codex", Some("/made-up/other"), 1000, false),
            ("/bin/node", Some("/made-up/home"), 1000, false),
            ("/bin/codex", Some("/made-up/home"), 1300, true),
            ("/bin/codex", Some("/made-up/home"), 1301, false),
        ] {
            let process = process(program, theirs);
            let found = process.may_have_spent(home, &ends_at(exp), 1000);
            assert_eq!(found, may_have, "{program} {theirs:?} {exp}");
        }
        let unseen = Process {
            program: None,
            ..process("/bin/codex", None)
        };
        assert!(!unseen.may_have_spent(home, &ends_at(0), 1000));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_codex_is_found_by_its_home_and_its_age() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("codex");
        let sleep = ["/bin/sleep", "/usr/bin/sleep"].map(Path::new);
        let sleep = sleep.into_iter().find(|it| it.exists()).expect("sleep");
        fs::copy(sleep, &program).expect("room");
        let mut codex = std::process::Command::new(&program);
        codex.arg("60").env("CODEX_HOME", folder.path());
        let mut codex = codex.spawn().expect("a program");
        let pid = Pid::from_child(&codex);
        let found = |home: &Path, least: u64| {
            codexes_older_than(home, Duration::from_millis(least)).contains(&pid)
        };
        while !found(folder.path(), 0) {
            std::thread::yield_now();
        }
        assert!(!found(folder.path(), 3_600_000));
        assert!(!found(Path::new("/made-up"), 0));
        while !found(folder.path(), 200) {
            std::thread::yield_now();
        }
        codex.kill().expect("our child");
        codex.wait().expect("our child");
    }

    #[test]
    fn the_rule_of_the_version_decides() {
        let ending = ends_at(1100);
        assert!(is_due(&ending, DueRule::Ending, 1000));
        assert!(is_due(&ending, DueRule::Any, 1000));
        assert!(!is_due(&ending, DueRule::Ended, 1000));
        assert!(is_due(&ending, DueRule::Ended, 1100));
    }

    #[test]
    fn a_link_to_a_home_is_that_home() {
        let folder = tempfile::tempdir().expect("a folder");
        let (home, link) = (folder.path().join("home"), folder.path().join("link"));
        fs::create_dir(&home).expect("room");
        symlink(&home, &link).expect("room");
        let codex = Process {
            codex_home: Some(link),
            ..process("/bin/codex", None)
        };
        assert!(codex.is_codex_of(&home));
        assert!(!codex.is_codex_of(folder.path()));
    }

    #[test]
    fn a_process_ends_with_its_job_in_a_container_or_where_the_runner_tracks_it() {
        let machine = Surroundings::default();
        let container = Surroundings {
            is_container: true,
            ..machine
        };
        let first = Surroundings {
            is_first_process: true,
            ..machine
        };
        assert!(!ends_with_the_job(false, machine));
        assert!(ends_with_the_job(true, machine));
        assert!(ends_with_the_job(false, container));
        assert!(ends_with_the_job(false, first));
    }

    #[test]
    fn a_container_is_known_by_its_namespace_or_its_control_group() {
        for (namespace, groups, is) in [
            (
                Some(FIRST_NAMESPACE),
                "0::/user.slice/session-1.scope",
                false,
            ),
            (Some("pid:[4026532201]"), "0::/", true),
            (Some(FIRST_NAMESPACE), "1:cpu:/docker/0123", true),
            (Some(FIRST_NAMESPACE), "0::/kubepods.slice/pod1", true),
            (None, "", false),
        ] {
            assert_eq!(
                is_container(namespace, groups),
                is,
                "{namespace:?} {groups}"
            );
        }
    }
}
