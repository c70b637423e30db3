//! Codex's own refresh, as the command of a trip.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ChildStderr, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use authferry_codex::app_server::{APP_SERVER, Ask, EXEC, Heard, QUIET};
use authferry_codex::{Failure, Home, Look, OVERRIDES};
use authferry_core::{Fingerprint, Generation};
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::time::Instant;

use crate::child::{FOREGROUND_LIMIT, Family};
use crate::own_time::Limit;
use crate::rotate::unix_now;
use crate::surroundings::{self, Surroundings};
use crate::{Rotating, supervise};

/// How long a refresh may take before it is left to its supervisor. One that a provider answers
/// takes half a second.
const LIMIT: Duration = Duration::from_mins(1);

/// After an answer that took longer than this nothing more is asked: the second one would not
/// come within the limit either, and the provider may have taken the token.
const SLOW: Duration = Duration::from_secs(10);

/// How long what the refresh wrote may take to arrive once it is gone.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// As much of an error stream as is looked at, in bytes.
const MAX_STDERR: u64 = 1 << 18;

/// How long a Codex that rotates again and again may take to end by itself.
const LOOP_LIMIT: Duration = Duration::from_secs(5);

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
    /// The supervisor: it runs Codex in a new session and completes the rotation if this process ends
    /// first. Without it, Codex only gets a new process group.
    pub supervisor: Option<Supervisor>,
    /// Whether this process has the variable by which the runner of GitHub knows the processes of
    /// a job, which it kills at the end of the job.
    pub is_tracked: bool,
}

/// How this program is started to supervise a Codex that rotates.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// This program.
    pub program: PathBuf,
    /// The options by which it finds the same store and the same rescue folder.
    pub arguments: Vec<OsString>,
}

impl Codex {
    /// Apart from our group, so that what is sent to that does not reach it; in a folder
    /// without a project configuration. `supervised`: the arguments of the supervisor, if one is
    /// used.
    pub(crate) fn command(&self, home: &Path, supervised: Option<Vec<OsString>>) -> Command {
        let supervisor = self.supervisor.as_ref().zip(supervised);
        let mut command = if let Some((supervisor, supervised)) = supervisor {
            let mut command = Command::new(&supervisor.program);
            command.arg0("authferry").args(&supervisor.arguments);
            command.args(supervised).arg("--").arg(&self.program);
            // The runner of GitHub would end it with the job, and the login with it.
            command.env_remove(surroundings::TRACKING_ID);
            command
        } else {
            let mut command = Command::new(&self.program);
            command.process_group(0);
            // The supervisor needs what opens the store, and withholds it itself.
            for variable in &self.withheld {
                command.env_remove(variable);
            }
            command
        };
        if let Some(path) = &self.path {
            command.env("PATH", path);
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
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact of the refresh"
)]
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
    /// It was left, or ended without a word after a long time: the provider may have taken the
    /// token.
    pub may_be_spent: bool,
}

/// What to do about a Codex that may be refreshing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtLimit {
    /// Its time is not over.
    Wait,
    /// It has written what it got, and does not end by itself.
    End,
    /// It may have spent the token: it is not ended.
    Leave,
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
    /// Who holds the claim.
    holder: u64,
    shield: Duration,
    /// Until when it is waited for.
    limit: Option<Limit>,
    /// Until when one that rotates again and again may end by itself.
    loop_limit: Option<Limit>,
    /// Whether the platform ends Codex with the job.
    ends_with_the_job: bool,
    /// Whether Codex rotates the login by itself.
    is_due: bool,
    /// The generations that were in the file, the first of them before the refresh.
    generations: Vec<Fingerprint>,
    talk: Option<Receiver<Talk>>,
    /// The input of the app server; closing it ends the server.
    input: Input,
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
        holder: u64,
    ) -> Self {
        Self {
            holder,
            ends_with_the_job: surroundings::ends_with_the_job(
                rotating.codex.is_tracked,
                Surroundings::look(),
            ),
            is_due: false,
            input: Input::default(),
            codex: rotating.codex,
            how,
            rotating,
            on_trial,
            lock,
            shield: rotating.shield,
            limit: None,
            loop_limit: None,
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

    /// Starts Codex in the home, which holds this login.
    pub(crate) fn spawn(&mut self, home: &Home, login: &Generation) -> io::Result<Family> {
        let before = login.fingerprint;
        self.is_due = login.issued.is_due(unix_now());
        // What listens to it is there before it is: without a thread no token is spent.
        let (send_stderr, stderr_read) = channel();
        let read_stderr = helper(move |stderr| send_stderr.send(read(stderr)).ok())?;
        let (send_talk, talked) = channel();
        let home_of_talk = home.clone();
        let is_due = self.is_due;
        let talk_with = helper(move |server: Server<Input, _>| {
            let rotated = || {
                let look = home_of_talk.settled_look();
                matches!(look, Ok(Look::Usable { generation, .. }) if generation.fingerprint != before)
            };
            let input = server.input.clone();
            let talked = talk(server, rotated, is_due, SLOW);
            // The end of its input ends the server, once it has done what it is at.
            input.lock().take();
            send_talk.send(talked).ok()
        })?;
        let mut command = self.command(home.dir());
        let spawned = inherited(self.lock.as_ref(), || Family::spawn(&mut command));
        let mut family = spawned?;
        self.limit = Some(Limit::new(LIMIT));
        self.generations.push(before);
        let (stdin, stdout, stderr) = family.pipes();
        if let Some(stderr) = stderr {
            self.stderr = Some(stderr_read);
            read_stderr.send(stderr).ok();
        }
        if let (Some(stdin), Some(stdout)) = (stdin, stdout) {
            self.talk = Some(talked);
            *self.input.lock() = Some(stdin);
            let server = Server {
                input: self.input.clone(),
                output: BufReader::new(stdout),
                number: 0,
            };
            talk_with.send(server).ok();
        }
        Ok(family)
    }

    fn command(&self, home: &Path) -> Command {
        let supervised = supervise::arguments(self.rotating, home, self.holder);
        let mut command = self.codex.command(home, Some(supervised));
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

    /// A signal does not reach the refresh, but leaves it no more than the shield's time, unless
    /// the platform ends Codex with the job.
    pub(crate) fn hurry(&mut self) {
        if let Some(limit) = &mut self.limit {
            limit.shorten(self.shield);
        }
    }

    /// When to check its limit.
    pub(crate) fn wake(&self) -> Option<Instant> {
        self.limit.as_ref().map(Limit::wake)
    }

    /// What to do now. `is_due`: the login that is in the file now is due, so that a Codex may have
    /// begun to rotate that.
    pub(crate) fn at_limit(&mut self, is_due: bool) -> AtLimit {
        let may_have_spent = self.may_have_spent(is_due);
        let Some(limit) = &mut self.limit else {
            return AtLimit::Wait;
        };
        if !limit.is_over() {
            return AtLimit::Wait;
        }
        if !may_have_spent {
            self.limit = None;
            self.so_far.out_of_time = true;
            return AtLimit::End;
        }
        if self.ends_with_the_job {
            limit.extend(FOREGROUND_LIMIT);
            if !limit.is_over() {
                return AtLimit::Wait;
            }
        }
        self.limit = None;
        self.so_far.out_of_time = true;
        self.so_far.may_be_spent = true;
        AtLimit::Leave
    }

    /// Whether Codex may have spent the token of the login that is in the file. It is asked to
    /// rotate the first login, due or not; it rotates the next ones by its own rule.
    pub(crate) fn may_have_spent(&self, is_due: bool) -> bool {
        let has_written = self.generations.len() > 1;
        !has_written || is_due
    }

    /// This generation is in the file now; returns whether Codex is to be ended, for there were too
    /// many. It has just written, so that it does so with the least risk.
    ///
    /// Once it got a login that is due again nothing more is asked, which ends the app server when it
    /// has done what it is at: it may have sent the next request.
    pub(crate) fn saw(&mut self, fingerprint: Fingerprint, is_due: bool) -> bool {
        if !self.generations.contains(&fingerprint) {
            self.generations.push(fingerprint);
        }
        let is_new = self.generations.len() > 1;
        if is_new && is_due {
            self.input.lock().take();
        }
        if self.generations.len() <= TOO_MANY {
            return false;
        }
        self.so_far.looping = true;
        let limit = self
            .loop_limit
            .get_or_insert_with(|| Limit::new(LOOP_LIMIT));
        !is_due || limit.is_over()
    }

    /// What is known of it as it is left.
    pub(crate) fn leave(&mut self) -> Refreshed {
        self.so_far.clone()
    }

    /// What became of it, now that it is gone.
    pub(crate) fn end(&mut self) -> Refreshed {
        let talk = self.talk.take();
        let talk = talk.and_then(|talk| talk.recv_timeout(LAST_WORDS).ok());
        let stderr = self.stderr.take();
        let stderr = stderr.and_then(|stderr| stderr.recv_timeout(LAST_WORDS).ok());
        let talk = talk.unwrap_or_default();
        let stderr = stderr.unwrap_or_default();
        let failure = authferry_codex::failure(&String::from_utf8_lossy(&stderr), talk.asked);
        let was_slow = self.limit.as_mut().is_some_and(|it| it.run() >= SLOW);
        let is_silent = self.generations.len() == 1 && failure.is_none() && !talk.not_understood;
        Refreshed {
            may_be_spent: is_silent && was_slow,
            failure,
            not_understood: talk.not_understood,
            ..self.so_far.clone()
        }
    }
}

/// The standard input of an app server, until it is closed.
#[derive(Clone, Debug, Default)]
struct Input(Arc<Mutex<Option<ChildStdin>>>);

impl Input {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ChildStdin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut input = self.lock();
        let input = input.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        input.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock().as_mut().map_or(Ok(()), Write::flush)
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
/// once more, to distinguish a permanent failure from a transient one. Nothing more is asked after an
/// answer that was `slow`. `is_due`: it rotates the login by itself.
fn talk<I: Write, O: BufRead>(
    mut server: Server<I, O>,
    rotated: impl Fn() -> bool,
    is_due: bool,
    slow: Duration,
) -> Talk {
    let mut talk = Talk::default();
    let mut was_slow = false;
    let conversation = [Ask::Initialize, Ask::Look, Ask::Rotate, Ask::Rotate];
    for ask in conversation {
        if was_slow {
            break;
        }
        // One that rotates what is due as it starts may do so again at each question.
        if matches!(ask, Ask::Look | Ask::Rotate) && rotated() {
            break;
        }
        talk.asked += usize::from(ask == Ask::Rotate);
        let begin = Instant::now();
        let heard = server.ask(ask);
        // A login that is due may be rotated before it answers anything at all.
        was_slow = (is_due || ask == Ask::Rotate) && begin.elapsed() >= slow;
        match heard {
            Ok(Heard::Answer | Heard::Something) => {}
            // One that has no such server ends at once, or reads on and says nothing.
            Ok(Heard::Unknown) | Err(_) => {
                talk.not_understood = !rotated();
                break;
            }
        }
    }
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
        let talk = talk(server, || false, false, slow);
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
