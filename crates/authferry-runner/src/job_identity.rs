//! Which job a process belongs to.
//!
//! A CI system sets an environment variable that is unique for each job and that its processes
//! inherit. `sudo` drops that variable, so the nearest ancestor that has one counts. A
//! container without such a variable is one job. Elsewhere a session is one job: a terminal, an SSH
//! login, what cron starts.

use std::{collections::HashMap, ffi::OsStr, fmt, fs, sync::OnceLock};

use serde::{Deserialize, Serialize};

use crate::processes::{self, Environment, Process};
use crate::surroundings::{self, TRACKING_ID};

/// The environment variables whose value is unique for each job, and for each leg of a matrix.
/// Variables that all jobs of a pipeline share are excluded.
pub const JOB_VARIABLES: &[&str] = &[
    TRACKING_ID,
    "CI_JOB_ID",
    "BUILDKITE_JOB_ID",
    "CIRCLE_WORKFLOW_JOB_ID",
    "SYSTEM_JOBID",
    "TRAVIS_JOB_ID",
    "BITBUCKET_STEP_UUID",
    "SLURM_JOB_ID",
    "BUILD_URL",
];

/// The value that people give `RUNNER_TRACKING_ID`, so that GitHub's runner does not kill a
/// process.
const UNTRACKED: &str = "0";

/// How many bytes of a variable are kept.
const MAX_VALUE: usize = 512;

/// The job variable of this process. The caller passes it in, because a process that is not
/// dumpable cannot read its own `/proc/self/environ`.
static OUR_VARIABLE: OnceLock<Option<String>> = OnceLock::new();

/// Sets the job of this process from the first of [`JOB_VARIABLES`] that has a value.
///
/// Call it once, before anything else. Without this call, authferry reads the variables from
/// `/proc`.
pub fn name_job(value_of: impl Fn(&str) -> Option<String>) {
    // Only the first call counts.
    OUR_VARIABLE.set(variable(value_of)).ok();
}

/// The name of a job, as a receipt stores it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct JobIdentity(String);

impl fmt::Display for JobIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JobIdentity {
    /// The job of this process; `None` if `/proc` does not show it.
    pub(crate) fn ours() -> Option<Self> {
        Identities::new().of(&processes::ourselves()?)
    }

    /// Whether a CI system has named the job. Only then do two names prove two jobs: a person may
    /// continue the same job in another terminal.
    pub(crate) fn is_named_by_ci(&self) -> bool {
        let name = self.0.split_once('=');
        name.is_some_and(|(name, _)| JOB_VARIABLES.contains(&name))
    }

    #[cfg(test)]
    pub(crate) fn made_up(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// The jobs of processes, each looked up once.
pub(crate) struct Identities {
    /// The job variable of each process, or that of the nearest ancestor with one.
    variables: HashMap<i32, Option<String>>,
    boot: Option<String>,
    container: Option<String>,
}

impl Identities {
    pub(crate) fn new() -> Self {
        Self {
            variables: HashMap::new(),
            boot: boot(),
            container: container(),
        }
    }

    /// The job of a process.
    pub(crate) fn of(&mut self, process: &Process) -> Option<JobIdentity> {
        if let Some(variable) = self.variable(process) {
            return Some(JobIdentity(variable));
        }
        if let Some(container) = &self.container {
            return Some(JobIdentity(container.clone()));
        }
        // A session can outlive its leader; the kernel reuses its number only after both have
        // ended.
        let leader = Process::of(process.session).map_or(0, |leader| leader.started);
        let (boot, session) = (self.boot.as_ref()?, process.session);
        Some(JobIdentity(format!("session:{boot}:{session}:{leader}")))
    }

    /// Whether a process belongs to a job.
    pub(crate) fn is_of(&mut self, process: &Process, job: &JobIdentity) -> bool {
        let Some(own) = self.of(process) else {
            return false;
        };
        own == *job || is_leaderless(&own, job)
    }

    fn variable(&mut self, process: &Process) -> Option<String> {
        let mut below = Vec::new();
        let mut found = None;
        for process in processes::ancestry_of(Some(process.clone())) {
            if let Some(known) = self.variables.get(&process.id) {
                found.clone_from(known);
                break;
            }
            found = variable_of(process.id);
            below.push(process.id);
            if found.is_some() {
                break;
            }
        }
        for id in below {
            self.variables.insert(id, found.clone());
        }
        found
    }
}

/// Whether two names are of the same session, whose leader has ended for one of the two.
fn is_leaderless(one: &JobIdentity, other: &JobIdentity) -> bool {
    let session = |it: &JobIdentity| {
        let (session, leader) = it.0.rsplit_once(':')?;
        session
            .starts_with("session:")
            .then(|| (session.to_owned(), leader == "0"))
    };
    match (session(one), session(other)) {
        (Some((one, one_has_none)), Some((other, other_has_none))) => {
            one == other && (one_has_none || other_has_none)
        }
        (None, _) | (_, None) => false,
    }
}

/// The variable in which a CI system has named the job of a process.
fn variable_of(process: i32) -> Option<String> {
    let is_ours = u32::try_from(process) == Ok(std::process::id());
    if let (true, Some(ours)) = (is_ours, OUR_VARIABLE.get()) {
        return ours.clone();
    }
    let environment = Environment::of(process)?;
    // Each ancestor is checked for nine variables: search its environment once.
    let names = |name: &OsStr| JOB_VARIABLES.iter().any(|it| name == *it);
    let given: Vec<_> = environment.all().filter(|(name, _)| names(name)).collect();
    variable(|name| {
        let (_, value) = given.iter().find(|(it, _)| *it == name)?;
        Some(value.to_string_lossy().into_owned())
    })
}

fn variable(value_of: impl Fn(&str) -> Option<String>) -> Option<String> {
    JOB_VARIABLES.iter().find_map(|name| {
        let value = value_of(name).filter(|value| !value.is_empty() && value != UNTRACKED)?;
        let cut = value
            .char_indices()
            .map(|(at, _)| at)
            .find(|at| *at >= MAX_VALUE);
        Some(format!("{name}={}", &value[..cut.unwrap_or(value.len())]))
    })
}

/// The ID of this boot of the machine.
pub(crate) fn boot() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// The container of this process, if it has its own PID namespace.
fn container() -> Option<String> {
    let namespace = surroundings::inner_pid_namespace()?;
    let first = Process::of(1)?.started;
    Some(format!("container:{namespace}:{first}"))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// The job of a shell that is started with this change, and of a child shell without variables.
    fn jobs(change: impl FnOnce(&mut Command)) -> [Option<JobIdentity>; 2] {
        let mut command = Command::new("sh");
        command.args(["-c", "env -i sh -c 'echo $$; read -r line; :'; :"]);
        for name in JOB_VARIABLES {
            command.env_remove(name);
        }
        change(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = command.spawn().expect("a shell");
        let mut output = String::new();
        let stdout = shell.stdout.take().expect("a pipe");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut output)
            .expect("a line");
        let outer = i32::try_from(shell.id()).expect("a small number");
        let inner = output.trim().parse().expect("a number");
        let found = [outer, inner].map(|id| Identities::new().of(&Process::of(id)?));
        drop(shell.stdin.take());
        shell.wait().expect("our child");
        found
    }

    #[test]
    fn the_variable_of_the_nearest_ancestor_names_the_job() {
        let job = JobIdentity("CI_JOB_ID=7".to_owned());
        assert!(job.is_named_by_ci());
        let named = Some(job);
        let found = jobs(|command| {
            command
                .env("CI_JOB_ID", "7")
                .env("BUILD_URL", "http://ci/1");
        });
        assert_eq!(found, [named.clone(), named]);
        // A process that is meant to outlive its GitHub job has no job by that variable.
        let [found, _] = jobs(|command| {
            command.env("RUNNER_TRACKING_ID", "0").env("CI_JOB_ID", "8");
        });
        assert_eq!(found, Some(JobIdentity("CI_JOB_ID=8".to_owned())));
    }

    #[test]
    fn without_a_variable_a_container_or_a_session_is_a_job() {
        let ours = JobIdentity::ours().expect("a job");
        let [outer, inner] = jobs(|_| ());
        assert_eq!([outer.as_ref(), inner.as_ref()], [Some(&ours); 2]);
        let process = processes::ourselves().expect("there");
        assert!(Identities::new().is_of(&process, &ours));
    }

    #[test]
    fn a_session_outlives_its_leader() {
        let session = |text: &str| JobIdentity(format!("session:boot:{text}"));
        let gone = session("5:0");
        assert!(is_leaderless(&session("5:100"), &gone));
        assert!(is_leaderless(&gone, &session("5:100")));
        assert!(!is_leaderless(&session("5:100"), &session("5:200")));
        assert!(!is_leaderless(&session("6:100"), &gone));
        assert!(!is_leaderless(
            &JobIdentity("CI_JOB_ID=5:0".to_owned()),
            &gone
        ));
        assert!(!gone.is_named_by_ci() && JobIdentity("CI_JOB_ID=5".to_owned()).is_named_by_ci());
    }
}
