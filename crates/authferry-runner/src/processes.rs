//! What the kernel shows of processes: their identity, ancestors, and open files. Nothing here
//! decides anything, and only [`Process::signal`] has an effect.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

#[cfg(target_os = "linux")]
use std::mem::MaybeUninit;

#[cfg(target_os = "linux")]
use rustix::fs::{Mode, OFlags, RawDir, readlinkat_raw};
use rustix::process::Signal;
#[cfg(target_os = "linux")]
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

/// The folder that a test reads instead of `/proc`.
static FAKE_PROC: OnceLock<PathBuf> = OnceLock::new();

/// Reads processes from this folder instead of `/proc`, for tests with made-up processes. Only the
/// first call counts.
///
/// The pids in this folder must be higher than any that the kernel assigns (2^22), because
/// authferry sends signals to processes.
#[doc(hidden)]
pub fn make_up_processes(folder: PathBuf) {
    FAKE_PROC.set(folder).ok();
}

/// A path below `/proc`.
fn proc_path(path: impl AsRef<Path>) -> PathBuf {
    FAKE_PROC
        .get()
        .map_or(Path::new("/proc"), PathBuf::as_path)
        .join(path)
}

/// The path of a process's file in `/proc`.
fn process_path(id: i32, file: &str) -> PathBuf {
    proc_path(format!("{id}/{file}"))
}

/// A process that has not ended, as its `stat` line in `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) id: i32,
    pub(crate) parent: i32,
    /// The leader of its session.
    pub(crate) session: i32,
    /// When it was started, in ticks since boot. With the pid it identifies a process until the
    /// next boot.
    pub(crate) started: u64,
    /// The name of its program, at most 15 bytes. A process may change it.
    pub(crate) name: String,
}

impl Process {
    /// `None` if the process has ended, or the kernel does not show it.
    pub(crate) fn of(id: i32) -> Option<Self> {
        Self::parse(id, &fs::read(process_path(id, "stat")).ok()?)
    }

    fn parse(id: i32, line: &[u8]) -> Option<Self> {
        // The name is in parentheses, and may contain parentheses.
        let open = line.iter().position(|byte| *byte == b'(')?;
        let close = line.iter().rposition(|byte| *byte == b')')?;
        let name = String::from_utf8_lossy(line.get(open + 1..close)?).into_owned();
        // State, parent, group, session, and 15 fields between the session and the start time.
        let mut fields = str::from_utf8(&line[close + 1..])
            .ok()?
            .trim_ascii()
            .split(' ');
        let has_ended = matches!(fields.next()?, "Z" | "X");
        (!has_ended).then_some(())?;
        Some(Self {
            id,
            parent: fields.next()?.parse().ok()?,
            session: fields.nth(1)?.parse().ok()?,
            started: fields.nth(15)?.parse().ok()?,
            name,
        })
    }

    pub(crate) fn parent(&self) -> Option<Self> {
        (self.parent > 0).then(|| Self::of(self.parent))?
    }

    /// Whether the process has not ended, and its pid was not reused.
    pub(crate) fn is_there(&self) -> bool {
        Self::of(self.id).is_some_and(|now| now.started == self.started)
    }

    /// Sends the process a signal, if it has not ended.
    pub(crate) fn signal(&self, signal: Signal) {
        // A pid descriptor cannot name a later process with the same pid. On other systems than
        // Linux no process is visible.
        #[cfg(target_os = "linux")]
        if let Some(id) = Pid::from_raw(self.id)
            && let Ok(process) = pidfd_open(id, PidfdFlags::empty())
            && self.is_there()
        {
            // The process may have ended already.
            pidfd_send_signal(process, signal).ok();
        }
        #[cfg(not(target_os = "linux"))]
        let _ = signal;
    }

    /// How long ago the process was started; zero if unknown.
    pub(crate) fn age(&self) -> Duration {
        let uptime = fs::read_to_string(proc_path("uptime")).unwrap_or_default();
        let uptime = uptime
            .split_whitespace()
            .next()
            .and_then(|it| it.parse().ok());
        let uptime = Duration::try_from_secs_f64(uptime.unwrap_or(0.0)).unwrap_or_default();
        uptime.saturating_sub(Duration::from_millis(self.started.saturating_mul(TICK)))
    }
}

/// A tick of `/proc`, in milliseconds: the kernel reports hundredths of a second to user space,
/// at any clock rate.
const TICK: u64 = 10;

/// This process.
pub(crate) fn ourselves() -> Option<Process> {
    Process::of(i32::try_from(std::process::id()).ok()?)
}

/// This process and its ancestors, nearest first.
pub(crate) fn our_ancestry() -> Vec<Process> {
    ancestry_of(ourselves())
}

/// A process and its ancestors, nearest first.
pub(crate) fn ancestry_of(process: Option<Process>) -> Vec<Process> {
    let mut seen = HashSet::new();
    // A parent may end meanwhile, and its pid may be reused.
    std::iter::successors(process, Process::parent)
        .take_while(|process| seen.insert(process.id))
        .collect()
}

/// The ids of all processes that the kernel shows.
pub(crate) fn all() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir(proc_path("")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether the kernel shows all processes that could use a home of this user. It does not without
/// `/proc`, with the `/proc` of another PID namespace, or where users see only their own processes
/// (`hidepid`): root is another user, and may use any home.
pub(crate) fn are_visible() -> bool {
    let link = fs::read_link(proc_path("self"));
    let is_ours = link.is_ok_and(|it| it.as_os_str() == &*std::process::id().to_string());
    is_ours && Process::of(1).is_some()
}

/// The file that a process executes.
pub(crate) fn executable(id: i32) -> Option<PathBuf> {
    fs::read_link(process_path(id, "exe")).ok()
}

/// The environment variables that a process was started with, if we may read them.
pub(crate) struct Environment(Vec<u8>);

impl Environment {
    pub(crate) fn of(id: i32) -> Option<Self> {
        fs::read(process_path(id, "environ")).ok().map(Self)
    }

    /// The value of a variable that is set and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.all()
            .find_map(|(it, value)| (it == name).then_some(value))
    }

    /// The names and values of all variables that are not empty.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        let variables = self.0.split(|byte| *byte == 0).filter_map(|variable| {
            let at = variable.iter().position(|byte| *byte == b'=')?;
            Some((&variable[..at], &variable[at + 1..]))
        });
        let set = variables.filter(|(_, value)| !value.is_empty());
        set.map(|(name, value)| (OsStr::from_bytes(name), OsStr::from_bytes(value)))
    }
}

/// The current folder of a process.
pub(crate) fn current_folder(id: i32) -> Option<PathBuf> {
    fs::read_link(process_path(id, "cwd")).ok()
}

/// Whether a process has a file in the folder open for writing.
pub(crate) fn has_open_for_writing(id: i32, folder: &Path) -> bool {
    writes(&proc_path(id.to_string()), folder)
}

/// Whether another process works in a folder: its current folder is there, it has a file there open
/// for writing, or its `CODEX_HOME` is there. `false` where processes are not visible (no `/proc`,
/// another namespace).
///
/// A descriptor of the folder itself does not count: each authferry that checks the folder has one.
pub(crate) fn work_in(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else {
        return false;
    };
    let us = std::process::id().to_string();
    let processes = fs::read_dir(proc_path("")).into_iter().flatten().flatten();
    processes
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.bytes().all(|byte| byte.is_ascii_digit()) && name != us
        })
        .any(|entry| works_in(&entry.path(), &folder))
}

fn works_in(process: &Path, folder: &Path) -> bool {
    let is_inside = |path: PathBuf| path.starts_with(folder);
    fs::read_link(process.join("cwd")).is_ok_and(is_inside)
        || codex_home(process).is_some_and(is_inside)
        || writes(process, folder)
}

fn codex_home(process: &Path) -> Option<PathBuf> {
    let environment = Environment(fs::read(process.join("environ")).ok()?);
    environment.get("CODEX_HOME").map(PathBuf::from)
}

/// Whether a process has a file in the folder open for writing.
///
/// This runs for every process of the machine: only a descriptor of a file in the folder costs a
/// path and an allocation.
#[cfg(target_os = "linux")]
fn writes(process: &Path, folder: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(opened) = rustix::fs::open(process.join("fd"), flags, Mode::empty()) else {
        return false;
    };
    let folder = folder.as_os_str().as_bytes();
    let mut path = [MaybeUninit::uninit(); MAX_PATH_LEN];
    let mut entries = [MaybeUninit::uninit(); MAX_PATH_LEN];
    let mut entries = RawDir::new(&opened, &mut entries);
    while let Some(Ok(descriptor)) = entries.next() {
        let name = descriptor.file_name();
        let target = readlinkat_raw(&opened, name, &mut path[..]);
        let is_below = target.is_ok_and(|(target, _)| {
            let rest = target.strip_prefix(folder);
            rest.is_some_and(|rest| rest.starts_with(b"/"))
        });
        let name = OsStr::from_bytes(name.to_bytes());
        if is_below && is_writable(&process.join("fdinfo").join(name)) {
            return true;
        }
    }
    false
}

#[cfg(not(target_os = "linux"))]
fn writes(_: &Path, _: &Path) -> bool {
    false
}

/// The longest path that the kernel shows (`PATH_MAX`).
#[cfg(target_os = "linux")]
const MAX_PATH_LEN: usize = 4096;

/// Whether a descriptor was opened for writing, by the octal number after `flags:`.
fn is_writable(info: &Path) -> bool {
    let text = fs::read_to_string(info).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 3 != 0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that blocks, killed when dropped.
    struct WaitingProcess(Child);

    impl WaitingProcess {
        fn start(command: &mut Command) -> Self {
            Self(command.stdin(Stdio::piped()).spawn().expect("a shell"))
        }
    }

    impl Drop for WaitingProcess {
        fn drop(&mut self) {
            self.0.kill().expect("our child");
            self.0.wait().expect("our child");
        }
    }

    #[test]
    fn a_stat_line_is_parsed() {
        let rest = "1 7 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0";
        let line = |name: &str, state: &str| format!("9 ({name}) {state} {rest}\n");
        let parse = |line: String| Process::parse(9, line.as_bytes());
        let process = parse(line("a) (b", "S")).expect("a process");
        assert_eq!((process.id, process.parent, process.session), (9, 1, 5));
        assert_eq!((process.started, &*process.name), (4711, "a) (b"));
        assert_eq!(parse(line("ended", "Z")), None);
        assert_eq!(parse("9 (cut off".to_owned()), None);
    }

    #[test]
    fn this_process_and_its_ancestors_are_visible() {
        assert!(are_visible());
        let line = our_ancestry();
        assert_eq!(line.first(), ourselves().as_ref());
        assert_eq!(line[1].id, line[0].parent);
        assert!(all().any(|id| id == line[0].id));
        assert_eq!(executable(line[0].id), std::env::current_exe().ok());
        let environment = Environment::of(line[0].id).expect("ours");
        assert!(environment.get("PATH").is_some());
        assert_eq!(environment.get("NO_SUCH_VARIABLE"), None);
    }

    #[test]
    fn a_process_works_in_its_current_folder_its_home_and_where_it_writes() {
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("one");
        let home = folder.join("home");
        fs::create_dir_all(&home).expect("room");
        fs::create_dir(above.path().join("one-more")).expect("room");
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command
                .args(["-c", script])
                .current_dir("/")
                .env("FOLDER", &folder);
            command
        };
        let waits = "echo ready >$FOLDER-ready; read -r line";
        let works_there = |mut command: Command, until_ready: bool| {
            let waits = WaitingProcess::start(&mut command);
            while until_ready && !above.path().join("one-ready").exists() {
                std::thread::yield_now();
            }
            let found = work_in(&folder);
            drop(waits);
            fs::remove_file(above.path().join("one-ready")).ok();
            found
        };
        let mut inside = shell(waits);
        inside.current_dir(&home);
        assert!(works_there(inside, true), "its current folder");
        let mut codex = shell(waits);
        codex.env("CODEX_HOME", &home);
        assert!(works_there(codex, true), "its home");
        let writing = format!("exec 3>$FOLDER/home/file; {waits}");
        assert!(works_there(shell(&writing), true), "an open file");
        let reading = format!("exec 3<$FOLDER 4<$FOLDER/home/file; {waits}");
        assert!(!works_there(shell(&reading), true), "it only reads");
        let mut elsewhere = shell(waits);
        elsewhere.current_dir(above.path().join("one-more"));
        assert!(!works_there(elsewhere, true), "another folder");
        assert!(!work_in(&folder), "no process");
    }
}
