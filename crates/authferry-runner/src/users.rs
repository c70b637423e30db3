//! Which processes use a home, and whether a job may begin there.
//!
//! Observations and decisions are separate: [`of`] and [`Owner::state`] observe, [`admit`] and
//! [`leftover`] decide.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use authferry_codex::{Home, Look};
use authferry_core::DueRule;
use rustix::fs::{major, minor};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::codex_process::{self, CodexProcess, is_codex};
use crate::job_identity::{self, Identities, JobIdentity};
use crate::processes::{self, Process};
use crate::rotate::unix_now;
use crate::supervise::SPENT_LIMIT;

/// A process that uses a home, or belongs to a job that is still running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    process: Process,
    /// Whether the process is a Codex, or a descendant of one.
    is_codex: bool,
    /// The rule by which the process rotates a login. `Any` for a process that is not a Codex.
    rule: DueRule,
}

impl fmt::Display for User {
    /// The name of the program and the pid. The arguments are not for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.process.name.chars().filter(|c| !c.is_control());
        write!(
            f,
            "{} (process {})",
            name.collect::<String>(),
            self.process.id
        )
    }
}

impl User {
    /// Returns the id of the process.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.process.id
    }

    fn new(process: Process) -> Self {
        let codex = CodexProcess::of(process.id);
        Self {
            is_codex: is_of_a_codex(&process),
            rule: codex.map_or(DueRule::Any, |codex| codex.due_rule()),
            process,
        }
    }

    /// Whether the process may have spent the refresh token of the login in `look`.
    pub(crate) fn may_have_spent(&self, look: &Look) -> bool {
        codex_process::may_be_spent(look, self.rule)
    }

    /// How long ago the login in `look` became due, by this process's rule and the wall clock. Zero
    /// if it is not due; the maximum if `look` holds no login.
    pub(crate) fn due_since(&self, look: &Look) -> Duration {
        let Look::Usable { generation, .. } = look else {
            return Duration::MAX;
        };
        let due = generation.issued.due_by_rule(self.rule);
        let since = due.map(|due| unix_now().saturating_sub(due));
        Duration::from_secs(since.and_then(|it| u64::try_from(it).ok()).unwrap_or(0))
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Whether the process is an ancestor of this process.
    pub(crate) fn is_above_us(&self) -> bool {
        processes::our_ancestry()
            .iter()
            .any(|it| it.id == self.process.id)
    }

    /// Whether the process is still running and its pid was not reused.
    pub(crate) fn is_there(&self) -> bool {
        self.process.is_there()
    }

    /// How long ago the process was started.
    pub(crate) fn age(&self) -> Duration {
        self.process.age()
    }

    /// Whether the process still uses the home.
    pub(crate) fn uses(&self, home: &Home) -> bool {
        self.is_there() && folder(home).is_some_and(|folder| uses(self.process.id, &folder))
    }
}

/// Returns which processes use a home: a process that has a file in it open for writing, or a Codex
/// that has it as its home. Excluded are this process, its ancestors (an agent may call us), and
/// other processes of authferry. `None` where processes are not visible.
pub(crate) fn of(home: &Home) -> Option<Vec<User>> {
    if !processes::are_visible() {
        return None;
    }
    let Some(folder) = folder(home) else {
        return Some(Vec::new());
    };
    let us = processes::our_ancestry();
    let ours = us.first().and_then(|us| processes::executable(us.id));
    let others = processes::all().filter(|id| !us.iter().any(|process| process.id == *id));
    // A process that exits loses its program before its open files, and writes nothing any more. A
    // watch of ours that exits would count as another program in between.
    let runs_another_program =
        |id: &i32| processes::executable(*id).is_some_and(|program| Some(program) != ours);
    let users = others
        .filter(|id| uses(*id, &folder) && runs_another_program(id))
        .filter_map(Process::of);
    Some(users.map(User::new).collect())
}

/// Returns a Codex of this home among the ancestors of this process: it started the agent that
/// started us.
pub(crate) fn above_us(home: &Home) -> Option<User> {
    let folder = folder(home)?;
    let above = processes::our_ancestry().into_iter().skip(1);
    let mut codexes = above.filter(|process| is_codex_of(process.id, &folder));
    codexes.next().map(User::new)
}

fn folder(home: &Home) -> Option<PathBuf> {
    home.dir().canonicalize().ok()
}

fn uses(id: i32, folder: &Path) -> bool {
    is_codex_of(id, folder) || processes::has_open_for_writing(id, folder)
}

/// Whether a process is a Codex that is known to use this home.
fn is_codex_of(id: i32, folder: &Path) -> bool {
    CodexProcess::of(id).is_some_and(|codex| codex.uses(folder))
}

/// Whether a process is a Codex or a descendant of one, such as a command that Codex runs.
fn is_of_a_codex(process: &Process) -> bool {
    let line = processes::ancestry_of(Some(process.clone()));
    line.iter().any(|process| is_codex(process.id))
}

/// Returns the process that holds the lock of a home, as far as the kernel shows it.
pub(crate) fn lock_holder(home: &Home) -> Option<User> {
    let found = fs::metadata(home.dir()).ok()?;
    let (device, file) = (found.dev(), found.ino());
    let lock = format!("{:02x}:{:02x}:{file}", major(device), minor(device));
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let holder = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1) == Some(&"FLOCK") && fields.get(5) == Some(&&*lock);
        is_it.then(|| fields.get(4)?.parse().ok())?
    });
    Process::of(holder?).map(User::new)
}

/// Who restored a login: the job, and the process that called us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Owner {
    /// `None` if `/proc` does not show it.
    pub(crate) job: Option<JobIdentity>,
    pub(crate) caller: Option<Caller>,
}

/// A process, identified by its id, its start time and the boot of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Caller {
    process: i32,
    started: u64,
    boot: String,
}

/// The state of the job that a receipt names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JobState {
    /// There is no receipt, or its job is unknown.
    Unknown,
    /// The receipt names this job.
    Ours,
    /// The receipt names another job, and this process of that job is still running.
    Live(User),
    /// The receipt names another job, which has ended.
    Over,
}

/// GitHub's runner starts one process of this name for each job.
const JOB_RUNNER: &str = "Runner.Worker";
/// The service manager runs as long as the machine, so it is no caller of a job.
const SERVICE_MANAGER: &str = "systemd";

impl Owner {
    /// This job.
    pub(crate) fn ours() -> Self {
        Self {
            job: JobIdentity::ours(),
            caller: caller(),
        }
    }

    /// Checks whether the job is still running: its caller is, or a process of the job that belongs
    /// neither to a Codex nor to authferry.
    pub(crate) fn state(&self) -> JobState {
        let Some(job) = &self.job else {
            return JobState::Unknown;
        };
        if JobIdentity::ours().as_ref() == Some(job) {
            return JobState::Ours;
        }
        match self.live_process() {
            Some(user) => JobState::Live(user),
            None => JobState::Over,
        }
    }

    /// Returns a running process of another job, if a CI system named both jobs.
    pub(crate) fn other_job(&self) -> Option<User> {
        let (job, ours) = (self.job.as_ref()?, JobIdentity::ours()?);
        let is_other = *job != ours && job.is_named_by_ci() && ours.is_named_by_ci();
        is_other.then(|| self.live_process())?
    }

    /// Whether the job is over, as far as can be seen.
    pub(crate) fn is_over(&self) -> bool {
        self.job.is_some() && processes::are_visible() && self.live_process().is_none()
    }

    /// Returns a running process of the job.
    fn live_process(&self) -> Option<User> {
        let caller = self.caller.as_ref().and_then(Caller::process);
        if let Some(caller) = caller {
            return Some(User::new(caller));
        }
        live_process_of(self.job.as_ref()?)
    }
}

impl Caller {
    fn process(&self) -> Option<Process> {
        let now = Process::of(self.process)?;
        let is_it = now.started == self.started && job_identity::boot()? == self.boot;
        is_it.then_some(now)
    }
}

fn caller() -> Option<Caller> {
    let above: Vec<_> = processes::our_ancestry().into_iter().skip(1).collect();
    let of_the_job = above.iter().find(|it| it.name == JOB_RUNNER);
    let caller = of_the_job.or(above.first())?;
    let is_of_the_machine = caller.id == 1 || caller.name == SERVICE_MANAGER;
    (!is_of_the_machine).then_some(())?;
    Some(Caller {
        process: caller.id,
        started: caller.started,
        boot: job_identity::boot()?,
    })
}

/// Returns a running process of a job, if one belongs neither to a Codex nor to authferry.
fn live_process_of(job: &JobIdentity) -> Option<User> {
    let us = processes::ourselves()?;
    let ours = processes::executable(us.id);
    let mut identities = Identities::new();
    let mut others = processes::all().filter_map(Process::of);
    let found = others.find(|process| {
        process.id != us.id
            && identities.is_of(process, job)
            && !is_of_a_codex(process)
            && processes::executable(process.id) != ours
    });
    found.map(User::new)
}

/// Who holds the lock of a home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    None,
    /// A watch, which hands the home over on request.
    Watch,
    /// A job or a rotation.
    Job,
}

/// Whether a job may begin in a home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The home is free.
    Free,
    /// A watch of the same job holds the lock: the login stays in the home when this use ends.
    Nested,
    /// A watch whose job is over holds the lock.
    TakesOver,
    /// The home is in use, by this process if it is known.
    Refused(Option<User>),
}

/// Decides whether a job may begin.
pub(crate) fn admit(holder: Holder, job: JobState) -> Admission {
    match (holder, job) {
        (Holder::Job, _) => Admission::Refused(None),
        (_, JobState::Live(user)) => Admission::Refused(Some(user)),
        (Holder::Watch, JobState::Ours) => Admission::Nested,
        (Holder::Watch, JobState::Over | JobState::Unknown) => Admission::TakesOver,
        (Holder::None, JobState::Ours | JobState::Over | JobState::Unknown) => Admission::Free,
    }
}

/// Facts about a process that uses the home in which a job begins.
#[derive(Clone, Debug)]
pub(crate) struct ObservedProcess {
    pub(crate) is_codex: bool,
    /// The state of its job.
    pub(crate) job: JobState,
    /// The state of the job that the home's receipt names.
    pub(crate) receipt: JobState,
    pub(crate) has_receipt: bool,
    /// Whether the home's login is due, so that the process may have spent it.
    pub(crate) is_due: bool,
    /// How long the process has been running since the last write of the auth file, or since the
    /// login became due.
    pub(crate) idle: Duration,
}

/// How a job treats a process that uses its home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leftover {
    /// The process belongs to this job: leave it alone.
    Ours,
    /// Nothing shows that an earlier job left the process: this job does not begin.
    Foreign,
    /// An earlier job left the process, which may be about to write the next login: do not kill it.
    MayWrite,
    /// An earlier job left the process: kill it if it does not end by itself.
    Ordinary,
}

/// Decides how a job that begins treats a process.
pub(crate) fn leftover(found: &ObservedProcess) -> Leftover {
    let is_ours = [&found.job, &found.receipt].contains(&&JobState::Ours);
    let is_live = matches!(found.job, JobState::Live(_));
    if is_ours {
        Leftover::Ours
    } else if !found.is_codex || is_live || !found.has_receipt {
        Leftover::Foreign
    } else if found.is_due && found.idle < SPENT_LIMIT {
        Leftover::MayWrite
    } else {
        Leftover::Ordinary
    }
}

impl User {
    /// Collects the facts about the process.
    pub(crate) fn observe(
        &self,
        receipt: Option<&Owner>,
        is_due: bool,
        idle: Duration,
    ) -> ObservedProcess {
        let job = Identities::new().of(&self.process);
        let owner = Owner { job, caller: None };
        ObservedProcess {
            is_codex: self.is_codex,
            job: owner.state(),
            receipt: receipt.map_or(JobState::Unknown, Owner::state),
            has_receipt: receipt.is_some(),
            is_due,
            idle,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
