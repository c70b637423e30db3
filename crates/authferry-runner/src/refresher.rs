//! Codex's own refresh, as the command of a round trip.

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

use authferry_codex::app_server::{APP_SERVER, EXEC, REFRESH_ENV, Request, ServerReply};
use authferry_codex::{Home, Look, OVERRIDES, RefreshFailure};
use authferry_core::{Fingerprint, Generation};
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::time::Instant;

use crate::child::{FOREGROUND_LIMIT, ProcessTree};
use crate::own_time::Limit;
use crate::rotate::unix_now;
use crate::surroundings::{self, Surroundings};
use crate::{Rotating, supervise};

/// How long to wait for a refresh before leaving it to its supervisor. An answered refresh takes
/// half a second.
const REFRESH_TIMEOUT: Duration = Duration::from_mins(1);

/// No request follows an answer that took longer than this: the next answer would exceed the limit
/// too, and the provider may already have accepted the token.
const SLOW_ANSWER: Duration = Duration::from_secs(10);

/// How long to wait for the remaining output after Codex has exited.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes of the standard error are read.
const MAX_STDERR_BYTES: u64 = 1 << 18;

/// How long a Codex that rotates in a loop may take to exit by itself.
const LOOP_EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// More generations than this, the first one included, mean that Codex rotates in a loop.
const MAX_GENERATIONS: usize = 2;

/// The Codex that rotates the login.
#[derive(Clone, Debug)]
pub struct Codex {
    /// The program: a path, or a name that is looked up on `PATH`.
    pub program: PathBuf,
    /// The `PATH` of Codex, if not ours. Codex runs in another folder, where a relative part of our
    /// `PATH` does not resolve.
    pub path: Option<OsString>,
    /// Environment variables that are removed for Codex.
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
        for set in OVERRIDES {
            command.env_remove(set.variable);
        }
        command
            .envs(REFRESH_ENV.iter().copied())
            .env_remove("CODEX_SQLITE_HOME")
            .env("CODEX_HOME", home)
            .current_dir(home);
        command
    }
}

/// How to make Codex rotate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefreshMethod {
    /// Through the app server, without a request to the model.
    AppServer,
    /// By `codex exec`, for a version without an app server.
    Exec,
}

/// The result of a refresh.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact of the refresh"
)]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refreshed {
    /// The failure that Codex reported.
    pub failure: Option<RefreshFailure>,
    /// Codex did not know the request.
    pub not_understood: bool,
    /// Codex rotated in a loop and was stopped.
    pub looping: bool,
    /// Codex exceeded the timeout.
    pub timed_out: bool,
    /// Codex was left running, or exited late and without output: the provider may have accepted
    /// the token.
    pub may_be_spent: bool,
}

/// What to do with a Codex at its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LimitAction {
    /// The limit is not reached.
    Wait,
    /// Terminate Codex: it has written the new login and does not exit.
    Terminate,
    /// Leave Codex running: it may have spent the token.
    Leave,
}

impl Refreshed {
    /// Whether to retry with `codex exec`. Not after a timeout or a loop: that Codex understood the
    /// request.
    pub(crate) fn needs_exec(&self) -> bool {
        let was_stopped = self.timed_out || self.looping;
        self.not_understood && self.failure.is_none() && !was_stopped
    }
}

/// A refresh, before or while it runs.
#[derive(Debug)]
pub(crate) struct Refresher<'a> {
    codex: &'a Codex,
    method: RefreshMethod,
    /// Decides which login is due.
    rotating: &'a Rotating<'a>,
    /// Whether to refresh a login that is not due.
    on_trial: bool,
    /// The lock on the private folder. Codex inherits it, because Codex may outlive us.
    lock: Option<File>,
    /// The lease holder's id.
    holder: u64,
    cancel_grace: Duration,
    /// The time limit of the refresh.
    limit: Option<Limit>,
    /// The time limit for a looping Codex to exit.
    loop_limit: Option<Limit>,
    /// Whether the platform kills Codex at the end of the job.
    ends_with_the_job: bool,
    /// Whether the login is due, so that Codex rotates it unasked.
    is_due: bool,
    /// The generations seen in the auth file; the first is the one before the refresh.
    generations: Vec<Fingerprint>,
    conversation: Option<Receiver<Conversation>>,
    /// The standard input of the app server; the server exits when it is closed.
    input: Input,
    stderr: Option<Receiver<Vec<u8>>>,
    result: Refreshed,
}

/// The result of a conversation with the app server.
#[derive(Debug, Default)]
struct Conversation {
    /// How many rotations were requested.
    requested_rotations: usize,
    not_understood: bool,
}

impl<'a> Refresher<'a> {
    pub(crate) fn new(
        rotating: &'a Rotating<'a>,
        method: RefreshMethod,
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
            method,
            rotating,
            on_trial,
            lock,
            cancel_grace: rotating.cancel_grace,
            limit: None,
            loop_limit: None,
            generations: Vec::new(),
            conversation: None,
            stderr: None,
            result: Refreshed::default(),
        }
    }

    /// Whether to rotate this generation.
    pub(crate) fn should_rotate(&self, generation: &Generation) -> bool {
        self.on_trial || self.rotating.is_due(&generation.issued)
    }

    /// Starts Codex in the home, which holds this login.
    pub(crate) fn spawn(&mut self, home: &Home, login: &Generation) -> io::Result<ProcessTree> {
        let before = login.fingerprint;
        self.is_due = login.issued.is_due(unix_now());
        // Start the reader threads before Codex: if a thread fails to start, no token is spent.
        let (send_stderr, stderr_read) = channel();
        let read_stderr = start_worker(move |stderr| send_stderr.send(read(stderr)).ok())?;
        let (send_conversation, receive_conversation) = channel();
        let conversation_home = home.clone();
        let is_due = self.is_due;
        let converse_with = start_worker(move |server: Server<Input, _>| {
            let rotated = || {
                let look = conversation_home.settled_look();
                matches!(look, Ok(Look::Usable { generation, .. }) if generation.fingerprint != before)
            };
            let input = server.input.clone();
            let conversation = converse(server, rotated, is_due, SLOW_ANSWER);
            // At the end of its input, the server completes its request and exits.
            input.lock().take();
            send_conversation.send(conversation).ok()
        })?;
        let mut command = self.command(home.dir());
        let spawned = spawn_with_lock(self.lock.as_ref(), || ProcessTree::spawn(&mut command));
        let mut tree = spawned?;
        self.limit = Some(Limit::new(REFRESH_TIMEOUT));
        self.generations.push(before);
        let (stdin, stdout, stderr) = tree.pipes();
        if let Some(stderr) = stderr {
            self.stderr = Some(stderr_read);
            read_stderr.send(stderr).ok();
        }
        if let (Some(stdin), Some(stdout)) = (stdin, stdout) {
            self.conversation = Some(receive_conversation);
            *self.input.lock() = Some(stdin);
            let server = Server {
                input: self.input.clone(),
                output: BufReader::new(stdout),
                number: 0,
            };
            converse_with.send(server).ok();
        }
        Ok(tree)
    }

    fn command(&self, home: &Path) -> Command {
        let supervised = supervise::arguments(self.rotating, home, self.holder);
        let mut command = self.codex.command(home, Some(supervised));
        match self.method {
            RefreshMethod::AppServer => command
                .args(APP_SERVER)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
            RefreshMethod::Exec => command
                .args(EXEC)
                .stdin(Stdio::null())
                .stdout(Stdio::null()),
        };
        command.stderr(Stdio::piped());
        command
    }

    /// After a signal, shortens the limit to the cancel grace. The signal itself does not reach
    /// Codex.
    pub(crate) fn shorten_limit(&mut self) {
        if let Some(limit) = &mut self.limit {
            limit.shorten(self.cancel_grace);
        }
    }

    /// When to check the limit next.
    pub(crate) fn wake(&self) -> Option<Instant> {
        self.limit.as_ref().map(Limit::wake)
    }

    /// Returns what to do now. `is_due`: the login in the file is due, so Codex may have started to
    /// rotate it.
    pub(crate) fn at_limit(&mut self, is_due: bool) -> LimitAction {
        let may_have_spent = self.may_have_spent(is_due);
        let Some(limit) = &mut self.limit else {
            return LimitAction::Wait;
        };
        if !limit.is_over() {
            return LimitAction::Wait;
        }
        if !may_have_spent {
            self.limit = None;
            self.result.timed_out = true;
            return LimitAction::Terminate;
        }
        if self.ends_with_the_job {
            limit.extend(FOREGROUND_LIMIT);
            if !limit.is_over() {
                return LimitAction::Wait;
            }
        }
        self.limit = None;
        self.result.timed_out = true;
        self.result.may_be_spent = true;
        LimitAction::Leave
    }

    /// Whether Codex may have spent the token of the login in the file. The runner asks Codex to
    /// rotate the first login, due or not; Codex rotates later ones only when they are due.
    pub(crate) fn may_have_spent(&self, is_due: bool) -> bool {
        let has_written = self.generations.len() > 1;
        !has_written || is_due
    }

    /// Records the generation in the file; returns whether to terminate Codex because it rotates in
    /// a loop. Right after a write, Codex has most likely no refresh in flight.
    ///
    /// If the new login is due again, closes the input: the app server then completes its request,
    /// which may already be the next rotation, and exits.
    pub(crate) fn on_generation(&mut self, fingerprint: Fingerprint, is_due: bool) -> bool {
        if !self.generations.contains(&fingerprint) {
            self.generations.push(fingerprint);
        }
        let is_new = self.generations.len() > 1;
        if is_new && is_due {
            self.input.lock().take();
        }
        if self.generations.len() <= MAX_GENERATIONS {
            return false;
        }
        self.result.looping = true;
        let limit = self
            .loop_limit
            .get_or_insert_with(|| Limit::new(LOOP_EXIT_TIMEOUT));
        !is_due || limit.is_over()
    }

    /// Returns the result so far, for a Codex that is left running.
    pub(crate) fn partial_result(&self) -> Refreshed {
        self.result.clone()
    }

    /// Returns the result, once Codex has exited.
    pub(crate) fn finish(&mut self) -> Refreshed {
        let conversation = self.conversation.take();
        let conversation = conversation.and_then(|it| it.recv_timeout(OUTPUT_TIMEOUT).ok());
        let stderr = self.stderr.take();
        let stderr = stderr.and_then(|stderr| stderr.recv_timeout(OUTPUT_TIMEOUT).ok());
        let conversation = conversation.unwrap_or_default();
        let stderr = stderr.unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr);
        let rotations = conversation.requested_rotations;
        let failure = authferry_codex::classify_failure(&stderr, rotations);
        let was_slow = self
            .limit
            .as_mut()
            .is_some_and(|it| it.elapsed() >= SLOW_ANSWER);
        let not_understood = conversation.not_understood;
        let is_silent = self.generations.len() == 1 && failure.is_none() && !not_understood;
        Refreshed {
            may_be_spent: is_silent && was_slow,
            failure,
            not_understood,
            ..self.result.clone()
        }
    }
}

/// The standard input of the app server; `None` once it is closed.
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

/// Starts a thread that runs `work` on the value sent to it, if one is sent.
fn start_worker<T: Send + 'static, R>(
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

/// Lets the process that `spawn` starts inherit a lock. If the inheritance fails, other jobs still
/// find the process by its working directory.
pub(crate) fn spawn_with_lock<T>(lock: Option<&File>, spawn: impl FnOnce() -> T) -> T {
    let Some(lock) = lock else {
        return spawn();
    };
    fcntl_setfd(lock, FdFlags::empty()).ok();
    let spawned = spawn();
    fcntl_setfd(lock, FdFlags::CLOEXEC).ok();
    spawned
}

/// Reads the status, then requests a rotation unless that read caused one: a version that considers
/// the login stale would rotate twice. Retries a failed rotation once, to distinguish a permanent
/// failure from a transient one. Sends no request after an answer that took `slow` or longer.
/// `is_due`: the server rotates the login unasked.
fn converse<I: Write, O: BufRead>(
    mut server: Server<I, O>,
    rotated: impl Fn() -> bool,
    is_due: bool,
    slow: Duration,
) -> Conversation {
    let mut conversation = Conversation::default();
    let mut was_slow = false;
    let requests = [
        Request::Initialize,
        Request::ReadStatus,
        Request::Rotate,
        Request::Rotate,
    ];
    for request in requests {
        if was_slow {
            break;
        }
        // A server that rotates a due login at its start may do so again at each request.
        if matches!(request, Request::ReadStatus | Request::Rotate) && rotated() {
            break;
        }
        conversation.requested_rotations += usize::from(request == Request::Rotate);
        let started = Instant::now();
        let reply = server.send(request);
        // The server may rotate a due login before its first answer.
        was_slow = (is_due || request == Request::Rotate) && started.elapsed() >= slow;
        match reply {
            Ok(ServerReply::Done | ServerReply::Unrelated) => {}
            // A version without an app server exits at once, or reads on without an answer.
            Ok(ServerReply::UnknownMethod) | Err(_) => {
                conversation.not_understood = !rotated();
                break;
            }
        }
    }
    conversation
}

struct Server<I, O> {
    input: I,
    output: O,
    number: u32,
}

impl<I: Write, O: BufRead> Server<I, O> {
    /// Sends a request and waits for the answer.
    fn send(&mut self, request: Request) -> io::Result<ServerReply> {
        self.number += 1;
        self.input.write_all(request.line(self.number).as_bytes())?;
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.output.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match ServerReply::of(&line, self.number) {
                ServerReply::Unrelated => {}
                reply @ (ServerReply::Done | ServerReply::UnknownMethod) => {
                    if request == Request::Initialize {
                        let initialized = Request::Initialized.line(self.number);
                        self.input.write_all(initialized.as_bytes())?;
                    }
                    return Ok(reply);
                }
            }
        }
    }
}

/// Reads the standard error to its end, and returns its first part.
fn read(mut stderr: ChildStderr) -> Vec<u8> {
    let mut text = Vec::new();
    // A read error leaves the text empty or short.
    stderr
        .by_ref()
        .take(MAX_STDERR_BYTES)
        .read_to_end(&mut text)
        .ok();
    io::copy(&mut stderr, &mut io::sink()).ok();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converses with a server that answers everything and rotates nothing; returns how many
    /// rotations were requested.
    fn requested_rotations(slow: Duration) -> usize {
        let answers = [1, 2, 3, 4].map(|number| format!("{{\"id\":{number},\"result\":{{}}}}\n"));
        let answers = answers.concat();
        let mut input = Vec::new();
        let server = Server {
            input: &mut input,
            output: answers.as_bytes(),
            number: 0,
        };
        let conversation = converse(server, || false, false, slow);
        assert!(!conversation.not_understood);
        let input = String::from_utf8(input).expect("text");
        let sent = input.matches("\"refreshToken\":true").count();
        assert_eq!(conversation.requested_rotations, sent, "{input}");
        sent
    }

    #[test]
    fn a_failed_rotation_is_retried_unless_it_was_slow() {
        assert_eq!(requested_rotations(Duration::MAX), 2);
        assert_eq!(requested_rotations(Duration::ZERO), 1);
    }

    #[test]
    fn a_stopped_server_does_not_need_exec() {
        let unknown = Refreshed {
            not_understood: true,
            ..Refreshed::default()
        };
        assert!(unknown.needs_exec());
        for stopped in [
            Refreshed {
                timed_out: true,
                ..unknown.clone()
            },
            Refreshed {
                looping: true,
                ..unknown.clone()
            },
        ] {
            assert!(!stopped.needs_exec(), "{stopped:?}");
        }
    }
}
