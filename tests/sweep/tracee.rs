//! One traced thread, and its process as the system shows it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::{ffi::OsStrExt, fs::FileExt},
    path::Path,
};

use nix::{errno::Errno, libc, unistd::Pid};

use crate::calls;

/// The commands of authferry, by which its processes are named.
const COMMANDS: [&str; 7] = [
    "run",
    "restore",
    "persist",
    "refresh",
    "seed",
    "watch",
    "supervise",
];

/// How often a thread's accesses to one thing in `/proc` are swept.
const MAX_ACCESSES: usize = 2;

/// More than the length of a path in `/proc`, in bytes.
const MAX_PATH: usize = 48;

/// The program that makes the calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// authferry, under this name.
    Traced(String),
    /// Another program.
    Other,
}

impl Kind {
    /// Whether it is a child between fork and exec, which resets each signal in turn.
    fn is_before_exec(&self) -> bool {
        matches!(self, Self::Traced(name) if name.contains('>'))
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Traced(name) => name.clone(),
            Self::Other => "another program".to_owned(),
        }
    }
}

/// A thread.
pub(crate) struct Tracee {
    /// Its process.
    pub(crate) owner: Pid,
    pub(crate) kind: Kind,
    /// Its number in the process.
    pub(crate) thread: usize,
    /// How many calls it has made.
    pub(crate) calls: usize,
    /// Whether it is in a call.
    pub(crate) is_inside: bool,
    /// The error with which its current call fails.
    pub(crate) failing: Option<Errno>,
    /// How often it accessed each thing in `/proc`.
    accesses: BTreeMap<String, usize>,
    /// Whether it accesses a thing in `/proc` that is no longer swept.
    is_repeating: bool,
    memory: Option<File>,
}

impl Tracee {
    pub(crate) fn new(owner: Pid, kind: Kind, thread: usize) -> Self {
        Self {
            owner,
            kind,
            thread,
            calls: 0,
            is_inside: false,
            failing: None,
            accesses: BTreeMap::new(),
            is_repeating: false,
            memory: None,
        }
    }

    /// Whether this call accesses a thing in `/proc` that was swept before.
    ///
    /// The number of a machine's processes and of their open files is chance, and the calls are the
    /// same for each. A process of the scene counts separately from the others.
    pub(crate) fn repeats_access(
        &mut self,
        id: Pid,
        registers: &libc::user_regs_struct,
        mut is_foreign: impl FnMut(i32) -> bool,
    ) -> bool {
        let number = registers.orig_rax.cast_signed();
        if self.kind.is_before_exec() && number == libc::SYS_rt_sigaction {
            return self.has_seen("each signal".to_owned());
        }
        let at = match calls::path_argument(number) {
            Some(0) => registers.rdi,
            Some(_) => registers.rsi,
            // The following calls use the opened file.
            None => return self.is_repeating && calls::works_with_a_file(number),
        };
        let path = self.path(id, at);
        // A call with an empty path works on an open file.
        if path.as_deref() != Some("") {
            let thing = path.and_then(|path| thing(&path, &mut is_foreign));
            self.is_repeating = thing.is_some_and(|thing| self.has_seen(thing));
        }
        self.is_repeating
    }

    /// Whether a thing was accessed often enough.
    fn has_seen(&mut self, thing: String) -> bool {
        let accesses = self.accesses.entry(thing).or_insert(0);
        *accesses += 1;
        *accesses > MAX_ACCESSES
    }

    fn path(&mut self, id: Pid, at: u64) -> Option<String> {
        if self.memory.is_none() {
            self.memory = File::open(format!("/proc/{id}/mem")).ok();
        }
        let mut bytes = [0; MAX_PATH];
        let read = self.memory.as_ref()?.read_at(&mut bytes, at).ok()?;
        let path = bytes[..read].split(|&byte| byte == 0).next()?;
        Some(String::from_utf8_lossy(path).into_owned())
    }
}

/// What a path in `/proc` is about: all open files of a process count as one, and so do all
/// processes outside the scene.
fn thing(path: &str, mut is_foreign: impl FnMut(i32) -> bool) -> Option<String> {
    let mut words = path.strip_prefix("/proc/")?.split('/');
    let process = words.next()?;
    let process = match process.parse() {
        Ok(number) if is_foreign(number) => "another",
        Ok(_) | Err(_) => process,
    };
    let words = words.map(|word| word.parse().map_or(word, |_: u32| "N"));
    let words: Vec<&str> = [process].into_iter().chain(words).collect();
    Some(words.join("/"))
}

/// Returns the process of a thread.
pub(crate) fn owner_of(thread: Pid) -> Option<Pid> {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let owner = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    Some(Pid::from_raw(owner.trim().parse().ok()?))
}

/// Returns the kind of a process that has just executed a program.
pub(crate) fn kind_of(process: Pid, program: &Path) -> Kind {
    let executes = fs::read_link(format!("/proc/{process}/exe"));
    if executes.is_ok_and(|path| path == program)
        && let Ok(line) = fs::read(format!("/proc/{process}/cmdline"))
    {
        let mut words = line
            .split(|&byte| byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned());
        if let Some(command) = words.find(|word| COMMANDS.contains(&word.as_str())) {
            return Kind::Traced(command);
        }
    }
    Kind::Other
}

/// Whether a process has the folder of the scene in its environment.
pub(crate) fn is_of_the_scene(process: i32, scene: &Path) -> bool {
    let scene = scene.as_os_str().as_bytes();
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    environment.windows(scene.len()).any(|part| part == scene)
}

/// Returns the processes of a scene.
pub(crate) fn processes(scene: &Path) -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|&id| is_of_the_scene(id, scene))
        .map(Pid::from_raw)
        .collect()
}
