//! Codex's own refresh, as the command of a trip.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStderr, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use authferry_codex::app_server::{APP_SERVER, Ask, EXEC, Heard, QUIET};
use authferry_codex::{Failure, Home, Look, OVERRIDES};
use authferry_core::{Fingerprint, Generation};
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::time::Instant;

use crate::{Rotating, child::Family, deadline};

/// How long a refresh may take. One that a provider answers takes half a second.
const LIMIT: Duration = Duration::from_mins(1);

/// A rotation that fails later than this is not asked for again: the second one would not be
/// done within the limit either.
const SLOW: Duration = Duration::from_secs(10);

/// How long what the refresh wrote may take to arrive once it is gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// As much of an error stream as is looked at, in bytes.
const MAX_STDERR: u64 = 1 << 18;

/// As many rotations as show that they will not end by themselves.
const TOO_MANY: usize = 2;

/// The Codex that rotates.
#[derive(Clone, Debug)]
pub struct Codex {
    /// The program: a path, or a name that is looked up on `PATH`.
    pub program: PathBuf,
    /// What it gets for a `PATH`, if not ours. It runs in a folder of its own, from where a
    /// relative part leads nowhere.
    pub path: Option<OsString>,
    /// Environment variables that it does not get.
    pub withheld: Vec<OsString>,
    /// A program that runs Codex in a session of its own, and ends it with this process; its
    /// first arguments are `apart` and the process to end with. Without one Codex has but a
    /// process group of its own, and outlives us.
    pub apart: Option<PathBuf>,
}

impl Codex {
    /// Apart from our group, so that what is sent to that does not reach it; in a folder
    /// where no project can tell it anything.
    pub(crate) fn command(&self, home: &Path) -> Command {
        let mut command = if let Some(apart) = &self.apart {
            let mut command = Command::new(apart);
            let us = std::process::id().to_string();
            command.arg0("authferry").args(["apart", &us]);
            command.arg(&self.program);
            command
        } else {
            let mut command = Command::new(&self.program);
            command.process_group(0);
            command
        };
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        for variable in &self.withheld {
            command.env_remove(variable);
        }
        for set in OVERRIDES {
            command.env_remove(set.variable);
        }
        command
            .envs(QUIET.iter().copied())
            .env_remove("CODEX_SQLITE_HOME")
            .env("CODEX_HOME", home)
            .current_dir(home);
        command
    }
}

/// How Codex is made to rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// Without a word to the model.
    AppServer,
    /// By a run, where there is no app server.
    Exec,
}

/// What became of a refresh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// How it failed, as far as Codex tells.
    pub failure: Option<Failure>,
    /// Codex did not know what was asked of it.
    pub not_understood: bool,
    /// It rotated again and again, and was cut off.
    pub looping: bool,
    /// It took too long, and was cut off.
    pub out_of_time: bool,
}

impl Refreshed {
    /// Whether a plain run may do what the app server did not. One that was cut off knew well
    /// what was asked of it.
    pub(crate) fn calls_for_a_run(&self) -> bool {
        let cut_off = self.out_of_time || self.looping;
        self.not_understood && self.failure.is_none() && !cut_off
    }
}

/// A refresh that is about to be made, or under way.
#[derive(Debug)]
pub(crate) struct Refresher<'a> {
    codex: &'a Codex,
    how: How,
    /// Only what this wants is refreshed.
    rotating: &'a Rotating<'a>,
    /// Whether any login is refreshed, due or not.
    on_trial: bool,
    /// The lock on its folder, which Codex inherits: it may outlive us.
    lock: Option<File>,
    shield: Duration,
    /// When it is cut off.
    until: Option<Instant>,
    /// The generations that were in the file, the first of them before the refresh.
    generations: Vec<Fingerprint>,
    talk: Option<Receiver<Talk>>,
    stderr: Option<Receiver<Vec<u8>>>,
    so_far: Refreshed,
}

/// What was talked with an app server.
#[derive(Debug, Default)]
struct Talk {
    /// How often it was told to rotate.
    asked: usize,
    not_understood: bool,
}

impl<'a> Refresher<'a> {
    pub(crate) fn new(
        rotating: &'a Rotating<'a>,
        how: How,
        on_trial: bool,
        lock: Option<File>,
    ) -> Self {
        Self {
            codex: rotating.codex,
            how,
            rotating,
            on_trial,
            lock,
            shield: rotating.shield,
            until: None,
            generations: Vec::new(),
            talk: None,
            stderr: None,
            so_far: Refreshed::default(),
        }
    }

    /// Whether this generation is to be rotated at all.
    pub(crate) fn wants(&self, generation: &Generation) -> bool {
        self.on_trial || self.rotating.wants(&generation.issued)
    }

    /// Starts Codex in the home, which holds the login of this fingerprint.
    pub(crate) fn spawn(&mut self, home: &Home, before: Fingerprint) -> io::Result<Family> {
        // What listens to it is there before it is: without a thread no token is spent.
        let (send_stderr, stderr_read) = channel();
        let read_stderr = helper(move |stderr| send_stderr.send(read(stderr)).ok())?;
        let (send_talk, talked) = channel();
        let home_of_talk = home.clone();
        let talk_with = helper(move |server| {
            let rotated = || {
                let look = home_of_talk.settled_look();
                matches!(look, Ok(Look::Usable { generation, .. }) if generation.fingerprint != before)
            };
            send_talk.send(talk(server, rotated, SLOW)).ok()
        })?;
        let mut command = self.command(home.dir());
        let spawned = inherited(self.lock.as_ref(), || Family::spawn(&mut command));
        let mut family = spawned?;
        self.until = Some(deadline::after(LIMIT));
        self.generations.push(before);
        let (stdin, stdout, stderr) = family.pipes();
        if let Some(stderr) = stderr {
            self.stderr = Some(stderr_read);
            read_stderr.send(stderr).ok();
        }
        if let (Some(stdin), Some(stdout)) = (stdin, stdout) {
            self.talk = Some(talked);
            let server = Server {
                input: stdin,
                output: BufReader::new(stdout),
                number: 0,
            };
            talk_with.send(server).ok();
        }
        Ok(family)
    }

    fn command(&self, home: &Path) -> Command {
        let mut command = self.codex.command(home);
        match self.how {
            How::AppServer => command
                .args(APP_SERVER)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
            How::Exec => command
                .args(EXEC)
                .stdin(Stdio::null())
                .stdout(Stdio::null()),
        };
        command.stderr(Stdio::piped());
        command
    }

    /// A signal does not reach the refresh, but leaves it no more than the shield's time.
    pub(crate) fn hurry(&mut self) {
        let end = deadline::after(self.shield);
        self.until = self.until.map(|until| until.min(end));
    }

    /// When the refresh is to be cut off.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The refresh is cut off for the time that it took.
    pub(crate) fn out_of_time(&mut self) {
        self.until = None;
        self.so_far.out_of_time = true;
    }

    /// This generation is in the file now; returns whether there were too many.
    pub(crate) fn saw(&mut self, fingerprint: Fingerprint) -> bool {
        if !self.generations.contains(&fingerprint) {
            self.generations.push(fingerprint);
        }
        self.so_far.looping |= self.generations.len() > TOO_MANY;
        self.so_far.looping
    }

    /// What became of it, now that it is gone.
    pub(crate) fn end(&mut self) -> Refreshed {
        let talk = self.talk.take();
        let talk = talk.and_then(|talk| talk.recv_timeout(LAST_WORDS).ok());
        let stderr = self.stderr.take();
        let stderr = stderr.and_then(|stderr| stderr.recv_timeout(LAST_WORDS).ok());
        let talk = talk.unwrap_or_default();
        let stderr = stderr.unwrap_or_default();
        Refreshed {
            failure: authferry_codex::failure(&String::from_utf8_lossy(&stderr), talk.asked),
            not_understood: talk.not_understood,
            ..self.so_far.clone()
        }
    }
}

/// Starts a thread for work that what it works with is sent to later, or never.
fn helper<T: Send + 'static, R>(
    work: impl FnOnce(T) -> R + Send + 'static,
) -> io::Result<Sender<T>> {
    let (send, receive) = channel();
    thread::Builder::new().spawn(move || {
        if let Ok(with) = receive.recv() {
            work(with);
        }
    })?;
    Ok(send)
}

/// Lets the process that `spawn` starts inherit a lock. Where that fails, it is still found by the
/// folder in which it works.
pub(crate) fn inherited<T>(lock: Option<&File>, spawn: impl FnOnce() -> T) -> T {
    let Some(lock) = lock else {
        return spawn();
    };
    fcntl_setfd(lock, FdFlags::empty()).ok();
    let spawned = spawn();
    fcntl_setfd(lock, FdFlags::CLOEXEC).ok();
    spawned
}

/// Asks for a look, and for a rotation only if the look did not lead to one: a version by
/// whose own rule the login is stale would rotate twice. A rotation that fails is asked for
/// once more, which tells a failure for good from one that passes, unless it was slow.
fn talk<I: Write, O: BufRead>(
    mut server: Server<I, O>,
    rotated: impl Fn() -> bool,
    slow: Duration,
) -> Talk {
    let mut talk = Talk::default();
    let mut asked_at = None;
    let conversation = [Ask::Initialize, Ask::Look, Ask::Rotate, Ask::Rotate];
    for ask in conversation {
        if ask == Ask::Rotate {
            let was_slow = asked_at.is_some_and(|at: Instant| at.elapsed() >= slow);
            if was_slow || rotated() {
                break;
            }
            talk.asked += 1;
            asked_at = Some(Instant::now());
        }
        match server.ask(ask) {
            Ok(Heard::Answer | Heard::Something) => {}
            // One that has no such server ends at once, or reads on and says nothing.
            Ok(Heard::Unknown) | Err(_) => {
                talk.not_understood = !rotated();
                break;
            }
        }
    }
    // Dropping its input ends the server.
    talk
}

struct Server<I, O> {
    input: I,
    output: O,
    number: u32,
}

impl<I: Write, O: BufRead> Server<I, O> {
    /// Asks, and waits for the answer.
    fn ask(&mut self, ask: Ask) -> io::Result<Heard> {
        self.number += 1;
        self.input.write_all(ask.line(self.number).as_bytes())?;
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.output.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match Heard::of(&line, self.number) {
                Heard::Something => {}
                heard @ (Heard::Answer | Heard::Unknown) => {
                    if ask == Ask::Initialize {
                        let greeting = Ask::Initialized.line(self.number);
                        self.input.write_all(greeting.as_bytes())?;
                    }
                    return Ok(heard);
                }
            }
        }
    }
}

/// Reads an error stream to its end, and returns the first part of it.
fn read(mut stderr: ChildStderr) -> Vec<u8> {
    let mut text = Vec::new();
    // What cannot be read tells nothing.
    stderr.by_ref().take(MAX_STDERR).read_to_end(&mut text).ok();
    io::copy(&mut stderr, &mut io::sink()).ok();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Talks with a server that answers everything, and rotates nothing; returns how often
    /// it was told to.
    fn asked(slow: Duration) -> usize {
        let answers = [1, 2, 3, 4].map(|number| format!("{{\"id\":{number},\"result\":{{}}}}\n"));
        let answers = answers.concat();
        let mut input = Vec::new();
        let server = Server {
            input: &mut input,
            output: answers.as_bytes(),
            number: 0,
        };
        let talk = talk(server, || false, slow);
        assert!(!talk.not_understood);
        let input = String::from_utf8(input).expect("text");
        let told = input.matches("\"refreshToken\":true").count();
        assert_eq!(talk.asked, told, "{input}");
        told
    }

    #[test]
    fn a_rotation_that_failed_is_asked_for_again_unless_it_was_slow() {
        assert_eq!(asked(Duration::MAX), 2);
        assert_eq!(asked(Duration::ZERO), 1);
    }

    #[test]
    fn a_server_that_was_cut_off_calls_for_no_run() {
        let unknown = Refreshed {
            not_understood: true,
            ..Refreshed::default()
        };
        assert!(unknown.calls_for_a_run());
        for cut_off in [
            Refreshed {
                out_of_time: true,
                ..unknown.clone()
            },
            Refreshed {
                looping: true,
                ..unknown.clone()
            },
        ] {
            assert!(!cut_off.calls_for_a_run(), "{cut_off:?}");
        }
    }
}
