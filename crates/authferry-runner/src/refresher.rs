//! Codex's own refresh, as the command of a round trip.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::Path,
    process::{ChildStderr, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use authferry_codex::app_server::{APP_SERVER, EXEC};
use authferry_codex::versions::{self, CodexVersion};
use authferry_codex::{Home, Look, RefreshFailure};
use authferry_core::{Fingerprint, Generation, Secret};
use rustix::io::{FdFlags, fcntl_setfd};
use tokio::time::Instant;

use crate::child::{FOREGROUND_LIMIT, ProcessTree};
use crate::codex_process::may_have_spent;
use crate::own_time::Limit;
use crate::sanitized::sanitized_line;
use crate::surroundings::{self, Surroundings};
use crate::{Rotating, supervise};

use conversation::{ASK_WHY, Circumstances, Conversation, ROTATE, SLOW_ANSWER, Server, converse};

pub use codex::{Codex, Supervisor};

mod codex;
mod conversation;

/// How long to wait for a refresh before leaving it to its supervisor. An answered refresh takes
/// half a second.
const REFRESH_TIMEOUT: Duration = Duration::from_mins(1);

/// How long to wait for the remaining output after Codex has exited.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(1);

/// How many bytes of the standard error are read.
const MAX_STDERR_BYTES: u64 = 1 << 18;

/// How long a Codex that rotates in a loop may take to exit by itself.
const LOOP_EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// More generations than this, the first one included, mean that Codex rotates in a loop.
const MAX_GENERATIONS: usize = 2;

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
    /// Codex was left running, or exited late and without a new login: the provider may have
    /// accepted the token.
    pub may_be_spent: bool,
    /// The provider's answer took longer than this time, after which this Codex drops it.
    pub answer_timeout: Option<Duration>,
    /// What Codex reports first on its error stream, sanitized, if it wrote no new login.
    pub error_line: Option<String>,
    /// Codex knows more of the refusal than it reports.
    pub hides_reason: bool,
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
    /// request. Not after a slow answer: the provider may have accepted the token.
    pub(crate) fn needs_exec(&self) -> bool {
        let was_stopped = self.timed_out || self.looping || self.may_be_spent;
        self.not_understood && self.failure.is_none() && !was_stopped
    }
}

/// A refresh, before or while it runs.
#[derive(Debug)]
pub(crate) struct Refresher<'a> {
    codex: &'a Codex,
    /// The version of Codex, if it is known without starting Codex.
    version: Option<CodexVersion>,
    method: RefreshMethod,
    /// Decides which login is due.
    rotating: &'a Rotating<'a>,
    /// Whether to refresh a login that is not due.
    on_trial: bool,
    /// The refused login whose reason Codex names on an ended copy. No other login is refreshed.
    refused: Option<Fingerprint>,
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
    /// The login before the refresh, whose tokens no message may show.
    login: Option<Secret>,
    /// The generations seen in the auth file; the first is the one before the refresh.
    generations: Vec<Fingerprint>,
    conversation: Option<Receiver<Conversation>>,
    /// The standard input of the app server; the server exits when it is closed.
    input: Input,
    stderr: Option<Receiver<Vec<u8>>>,
    result: Refreshed,
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
            version: rotating.codex.version(),
            method,
            rotating,
            on_trial,
            refused: None,
            lock,
            cancel_grace: rotating.cancel_grace,
            limit: None,
            loop_limit: None,
            login: None,
            generations: Vec::new(),
            conversation: None,
            stderr: None,
            result: Refreshed::default(),
        }
    }

    /// Asks Codex for the reason of a refusal: gives Codex an ended copy of the refused login.
    pub(crate) fn asking_why(mut self, refused: Fingerprint) -> Self {
        self.refused = Some(refused);
        self
    }

    /// Whether to rotate this generation.
    pub(crate) fn should_rotate(&self, generation: &Generation) -> bool {
        match self.refused {
            Some(refused) => generation.fingerprint == refused,
            None => self.on_trial || self.rotating.is_due(&generation.issued),
        }
    }

    /// Starts Codex in the home, which holds this login.
    pub(crate) fn spawn(&mut self, home: &Home, login: &Generation) -> io::Result<ProcessTree> {
        let before = login.fingerprint;
        self.login = match home.settled_look() {
            Ok(Look::Usable { secret, .. }) => Some(secret),
            Ok(Look::Missing | Look::Unusable { .. }) | Err(_) => None,
        };
        let exchanges = if self.refused.is_some() {
            place_ended_copy(home, before)?;
            ASK_WHY
        } else {
            ROTATE
        };
        let rule = versions::due_rule(self.version);
        self.is_due = self.refused.is_some() || may_have_spent(&login.issued, rule);
        // Start the reader threads before Codex: if a thread fails to start, no token is spent.
        let (send_stderr, stderr_read) = channel();
        let read_stderr = start_worker(move |stderr| send_stderr.send(read(stderr)).ok())?;
        let (send_conversation, receive_conversation) = channel();
        let conversation_home = home.clone();
        let answer_timeout = versions::answer_timeout(self.version);
        let circumstances = Circumstances {
            is_due: self.is_due,
            answer_timeout,
            slow: SLOW_ANSWER.min(answer_timeout),
        };
        let converse_with = start_worker(move |server: Server<Input, _>| {
            let rotated = || {
                let look = conversation_home.settled_look().map(Look::restored);
                matches!(look, Ok(Look::Usable { generation, .. }) if generation.fingerprint != before)
            };
            let input = server.input();
            let conversation = converse(server, exchanges, rotated, circumstances);
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
            let server = Server::new(self.input.clone(), BufReader::new(stdout));
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
        let stderr = stderr.unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr);
        let elapsed = self.limit.as_mut().map(Limit::elapsed).unwrap_or_default();
        let refresh = conversation
            .as_ref()
            .map_or(elapsed, |it| it.slowest_refresh);
        let Conversation {
            not_understood,
            account_is_null,
            ..
        } = conversation.unwrap_or_default();
        let failure = authferry_codex::classify_failure(&stderr, account_is_null);
        let has_written = self.generations.len() > 1;
        let answer_timeout = versions::answer_timeout(self.version);
        let was_dropped = !has_written && may_drop(failure, refresh, answer_timeout);
        let is_silent = !has_written && failure.is_none() && !not_understood;
        let hides_reason = authferry_codex::hides_reason(&stderr, account_is_null);
        let line = authferry_codex::error_line(&stderr).filter(|_| !has_written);
        Refreshed {
            may_be_spent: was_dropped || is_silent && elapsed >= SLOW_ANSWER,
            answer_timeout: was_dropped.then_some(answer_timeout),
            // What Codex reports of a later attempt says nothing about the dropped answer.
            hides_reason: hides_reason && !was_dropped,
            failure: failure.filter(|_| !was_dropped),
            not_understood,
            error_line: line.map(|line| sanitized_line(line, &self.login)),
            ..self.result.clone()
        }
    }
}

/// Whether Codex may have dropped the provider's answer to a refresh that took this long, and the
/// new login with it. Then Codex sends the same refresh token again, so that the last answer may be a
/// failure. A named reason of the provider counts more: the login is dead.
fn may_drop(failure: Option<RefreshFailure>, refresh: Duration, answer_timeout: Duration) -> bool {
    match failure {
        Some(RefreshFailure::Dead(_)) => false,
        Some(RefreshFailure::Refused | RefreshFailure::Transient) | None => {
            refresh >= answer_timeout
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

/// Replaces the login in the private home by an ended copy of it. Fails if another login is there.
fn place_ended_copy(home: &Home, login: Fingerprint) -> io::Result<()> {
    let Look::Usable { secret, .. } = home.settled_look().map_err(io::Error::other)? else {
        return Err(io::ErrorKind::NotFound.into());
    };
    let copy = authferry_codex::ended_copy(&secret).map_err(io::Error::other)?;
    let is_login = |look: &Look| matches!(look, Look::Usable { generation, .. } if generation.fingerprint == login);
    if home.place(&copy, is_login).map_err(io::Error::other)? {
        Ok(())
    } else {
        Err(io::ErrorKind::ResourceBusy.into())
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

    #[test]
    fn a_failure_after_a_slow_answer_does_not_show_that_the_login_is_unspent() {
        use authferry_codex::Death;
        let timeout = Duration::from_secs(20);
        let early = Duration::from_secs(12);
        for (failure, may_drop_late) in [
            (None, true),
            (Some(RefreshFailure::Transient), true),
            (Some(RefreshFailure::Refused), true),
            (Some(RefreshFailure::Dead(Death::Reused)), false),
        ] {
            assert_eq!(may_drop(failure, timeout, timeout), may_drop_late);
            assert!(!may_drop(failure, early, timeout), "{failure:?}");
        }
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
            Refreshed {
                may_be_spent: true,
                ..unknown.clone()
            },
        ] {
            assert!(!stopped.needs_exec(), "{stopped:?}");
        }
    }
}
