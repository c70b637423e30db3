//! The event loop: executes the state machine's effects and feeds events back to it.

use std::{
    collections::HashMap,
    fs::File,
    future::{Future, pending},
    pin::Pin,
    process::Command,
    sync::Arc,
    time::Duration,
};

use authferry_codex::{HomeError, Look};
use authferry_core::{
    CasError, Effect, Event, Fingerprint, Generation, Outcome, Reply, Retryable, RoundTrip, Secret,
    Seen, StoreError, Stored, Version,
};
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep_until};

use crate::child::{ProcessTree, TreeState};
use crate::codex_process::{self, CodexProcess};
use crate::lease::LeaseKeeper;
use crate::own_time::Limit;
use crate::refresher::{LimitAction, Refresher};
use crate::rotate::unix_now;
use crate::signals::SignalEvent;
use crate::supervise::{Orphan, SPENT_LIMIT};
use crate::unwound::guarded;
use crate::users::Owner;
use crate::watch::Watch;
use crate::watch_marker::WatchMarker;
use crate::{CommandEnd, FoundCopy, Job, Receipt, Report, Signals, deadline, seen};

use other_users::OtherUsers;
use pace::Pace;

mod after_panic;
pub(crate) mod cleanup;
mod other_users;
mod pace;
mod signal_hold;
pub(crate) mod store_io;
mod watch_loop;

/// The store timeout after the first and after the second end signal. GitHub sends SIGINT, 7.5 s
/// later SIGTERM, 2.5 s later SIGKILL; a rescue has to finish before that.
const CANCELLED_STORE_TIMEOUTS: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(2)];

/// The exit grace after the first end signal. A Codex that is about to write its new tokens needs
/// some milliseconds.
const CANCELLED_EXIT_GRACE: Duration = Duration::from_secs(1);

/// Signals within this window count as one request to end the job: a terminal that is closed and a
/// service manager send several at once.
const SAME_SIGNAL_WINDOW: Duration = Duration::from_millis(500);

/// The timeout of a request that is in flight when a cancelled command ends.
const CANCELLED_REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// The limit of repeated reads of a file that changes after its final read.
const MAX_FINAL_READS: u32 = 5;

/// Drives one round trip.
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact")]
pub(crate) struct RoundTripDriver<'a, 'l> {
    job: &'a Job<'a>,
    /// Keeps other round trips out of the home; `None` while the home does not exist.
    home_lock: Option<File>,
    command: Option<Command>,
    /// In a watch: other steps of the job use the home until a signal or a handover request
    /// arrives.
    marker: Option<WatchMarker>,
    /// Refreshes the login instead of running a command.
    refresher: Option<Refresher<'a>>,
    /// The command is a Codex that another process started to rotate the login; it may spend the
    /// refresh token until this limit.
    supervising: Option<Limit>,
    /// The home is the private home of a rotation.
    is_private: bool,
    /// A lease to renew during the round trip.
    lease: Option<&'a mut LeaseKeeper<'l>>,
    /// The file has no refresh token, and its changes are not persisted.
    access_only: bool,
    /// There was no auth file before, so it is removed at the end.
    placed: bool,
    /// Adopts a copy into the store and places nothing.
    without_placing: bool,
    /// The file descends from the base: from here on there is a receipt.
    is_ready: bool,
    /// The job that owns the login on this machine, once there is a receipt.
    owner: Option<Owner>,
    /// Other processes that use the home, once the command has ended.
    others: Option<OtherUsers>,
    /// The version in the receipt.
    version: Option<Version>,
    /// The generation of the last swap.
    last_sent: Option<Fingerprint>,
    /// The bytes of generations read from disk that the store may not hold yet.
    generations: HashMap<Fingerprint, Arc<Secret>>,
    /// The copies found on this machine before the round trip, in the state machine's order.
    copies: Vec<FoundCopy>,
    /// A store read that the caller made just before the round trip.
    known: Option<Stored>,
    /// The last store read.
    stored: Option<Stored>,
    /// The last read of the auth file.
    look: Look,
    /// A complete login that appeared after `look` and that the next read did not find again.
    transient: Option<Look>,
    /// A login that followed another one too fast, and that the state machine has not seen yet.
    deferred: Option<Look>,
    /// The next event for the state machine.
    queued_event: Option<Event>,
    pace: Pace,
    /// When to read a file again that changed too fast.
    reread_at: Option<Instant>,
    tree: Option<ProcessTree>,
    watch: Option<Watch>,
    request: Option<PendingRequest<'a>>,
    deadline: Option<Instant>,
    /// The start of the store timeout.
    begin: Instant,
    /// The deadline of the store, once the command has ended during a request: one budget for that
    /// request and for the persist.
    budget_end: Option<Instant>,
    /// When to abandon a request that was in flight as the command ended.
    request_cutoff: Option<Instant>,
    /// When the last end signal arrived.
    last_signal_at: Option<Instant>,
    /// The number of end signals so far.
    signals_received: usize,
    /// Signals held back until a Codex has written the login that it may have received.
    hold: Option<signal_hold::Hold>,
    report: Report,
}

/// A pending request or pause.
enum PendingRequest<'a> {
    /// A store request.
    Store {
        answer: Pin<Box<dyn Future<Output = RequestResult> + 'a>>,
        swap: bool,
    },
    /// A pause until this time.
    Pause(Instant),
}

/// The result of a pending request. It may hold a secret, which the state machine must not see.
enum RequestResult {
    Read(Result<Option<Stored>, StoreError>),
    Swapped(Result<Version, CasError>),
    PauseOver,
}

/// Why the event loop woke up.
enum Wakeup {
    Answered(RequestResult),
    SignalEvent(SignalEvent),
    FileChanged,
    TreeCheck,
    Renewed,
    LimitCheck,
    RequestCutoff,
    Deadline,
}

impl<'a, 'l> RoundTripDriver<'a, 'l> {
    /// Prepares a round trip that finds `look` in the home.
    pub(crate) fn new(
        job: &'a Job<'a>,
        home_lock: Option<File>,
        look: Look,
        command: Option<Command>,
        placed: bool,
    ) -> Self {
        let mut driver = Self {
            job,
            home_lock,
            command,
            marker: None,
            refresher: None,
            supervising: None,
            is_private: false,
            lease: None,
            access_only: job.access_only,
            placed,
            without_placing: false,
            is_ready: false,
            owner: None,
            others: None,
            version: None,
            last_sent: None,
            generations: HashMap::new(),
            copies: Vec::new(),
            known: None,
            stored: None,
            look: Look::Missing,
            transient: None,
            deferred: None,
            queued_event: None,
            pace: Pace::default(),
            reread_at: None,
            tree: None,
            watch: None,
            request: None,
            deadline: None,
            begin: Instant::now(),
            budget_end: None,
            request_cutoff: None,
            last_signal_at: None,
            signals_received: 0,
            hold: None,
            report: Report::new(),
        };
        driver.report.nested = job.nested;
        driver.remember(look);
        driver
    }

    /// Uses a store read of the caller, which saves a request.
    pub(crate) fn with_stored(mut self, known: Option<Stored>) -> Self {
        self.known = known;
        self
    }

    /// Counts the store timeout from `begin`.
    pub(crate) fn since(mut self, begin: Instant) -> Self {
        self.begin = begin;
        self
    }

    /// Adopts a copy into the store and places nothing.
    pub(crate) fn without_placing(mut self) -> Self {
        self.without_placing = true;
        self
    }

    /// Sets the copies found on this machine.
    pub(crate) fn with_copies(mut self, copies: Vec<FoundCopy>) -> Self {
        self.copies = copies;
        self
    }

    /// Adds a complete login that the next read did not find again.
    pub(crate) fn with_transient(mut self, transient: Option<&Look>) -> Self {
        if let Some(Look::Usable { secret, generation }) = transient {
            self.keep_secret(generation, secret);
        }
        self
    }

    /// Refreshes the login instead of running a command.
    pub(crate) fn refreshing(mut self, refresher: Refresher<'a>) -> Self {
        self.refresher = Some(refresher);
        self.is_private = true;
        self
    }

    /// Continues with a Codex that was started to rotate the login.
    pub(crate) fn supervising(mut self, orphan: Orphan, watch: Watch) -> Self {
        self.tree = Some(orphan.tree);
        self.supervising = Some(orphan.limit);
        self.is_private = true;
        self.watch = Some(watch);
        self
    }

    /// Renews a lease during the round trip.
    pub(crate) fn with_lease(mut self, lease: Option<&'a mut LeaseKeeper<'l>>) -> Self {
        self.lease = lease;
        self
    }

    /// Continues the job that the home's receipt names.
    pub(crate) fn owned_by(mut self, owner: Option<Owner>) -> Self {
        self.owner = owner;
        self
    }

    /// Resumes from the receipt of another process.
    pub(crate) fn resumed(mut self, receipt: &Receipt, home_error: Option<HomeError>) -> Self {
        self.version = Some(receipt.base.version.clone());
        self.access_only = receipt.access_only;
        self.owner = Some(receipt.owner.clone());
        self.is_ready = true;
        self.report.began = receipt.began;
        self.report.home_error = home_error;
        self
    }

    /// Runs the round trip to its end. If anything panics, it still saves what the command wrote.
    pub(crate) async fn drive(
        mut self,
        step: (RoundTrip, Vec<Effect>),
        signals: &mut Signals,
    ) -> Report {
        match guarded(self.run_machine(step, signals)).await {
            Ok((round_trip, outcome)) => self.finish(&round_trip, outcome),
            Err(panicked) => self.rescue_after_panic(panicked, signals).await,
        }
    }

    async fn run_machine(
        &mut self,
        (mut round_trip, mut effects): (RoundTrip, Vec<Effect>),
        signals: &mut Signals,
    ) -> (RoundTrip, Outcome) {
        // A round trip that waits for other users of the home starts its store timeout when they
        // have ended.
        if self.tree.is_none() && self.others.is_none() {
            self.deadline = Some(deadline::from(self.begin, self.job.store_timeout));
        }
        let mut final_reads = 0;
        loop {
            let mut event = None;
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Finish(outcome) => {
                        final_reads += 1;
                        match self
                            .changed_since_final_read(&outcome)
                            .filter(|_| final_reads < MAX_FINAL_READS)
                        {
                            Some(seen) => (round_trip, effects) = round_trip.reopen(seen),
                            None => return (round_trip, outcome),
                        }
                        break;
                    }
                    Effect::Read => self.read(),
                    Effect::Swap(write) => self.swap(&write),
                    Effect::Wait(time) => {
                        self.request = Some(PendingRequest::Pause(deadline::after(time)));
                    }
                    Effect::Place(login) => {
                        event = Some(Event::Placed(self.place(&round_trip, login)));
                    }
                    Effect::Run => event = self.run(&round_trip),
                    Effect::Rescue(keep) => {
                        let kept = self.is_in_store_history(&keep).await
                            || self.rescue(&round_trip, &keep).await;
                        event = Some(Event::Rescued(kept));
                    }
                }
            }
            if !effects.is_empty() {
                continue;
            }
            let event = match event {
                Some(event) => event,
                None => self.next_event(&round_trip, signals).await,
            };
            let due = round_trip.due().map(|generation| generation.fingerprint);
            (round_trip, effects) = round_trip.step(event);
            self.note(&round_trip, due);
        }
    }

    async fn next_event(&mut self, round_trip: &RoundTrip, signals: &mut Signals) -> Event {
        loop {
            if let Some(event) = self.queued_event.take() {
                return event;
            }
            let is_renewing = self.lease.as_ref().is_some_and(|lease| lease.is_renewing());
            let is_store_busy =
                is_renewing || matches!(self.request, Some(PendingRequest::Store { .. }));
            let mut tree_check_at = None;
            let is_protected = self.protection();
            if let Some(tree) = &mut self.tree {
                // A backend may wait for child processes. Reap only the command until the store
                // request ends or is abandoned.
                if is_store_busy {
                    if self.request_cutoff.is_none() && tree.has_command_ended() {
                        let timeout = self.store_timeout();
                        let end = *self.budget_end.get_or_insert(deadline::after(timeout));
                        self.request_cutoff = Some(if self.signals_received > 0 {
                            end.min(deadline::after(CANCELLED_REQUEST_TIMEOUT))
                        } else {
                            end
                        });
                    }
                } else {
                    self.request_cutoff = None;
                    let exit_grace = match self.signals_received {
                        0 => self.job.exit_grace,
                        1 => self.job.exit_grace.min(CANCELLED_EXIT_GRACE),
                        _ => Duration::ZERO,
                    };
                    match tree.reap(exit_grace, &is_protected) {
                        TreeState::Running => tree_check_at = tree.wake(),
                        TreeState::Ended => {
                            self.check_other_users();
                            if !self.is_waiting_for_other_users() {
                                return self.command_ended(round_trip);
                            }
                        }
                        TreeState::TimedOut(count) => return self.leave_running(round_trip, count),
                    }
                }
            } else if self.others.is_some() && !is_store_busy && !self.is_waiting_for_other_users()
            {
                return self.command_ended(round_trip);
            }
            let limit_at = self.limit_at();
            let tree_check_at = tree_check_at.or(self.other_users_check_at());
            let wakeup = tokio::select! {
                answer = answer(&mut self.request) => Wakeup::Answered(answer),
                event = signals.next() => Wakeup::SignalEvent(event),
                () = changed(self.watch.as_ref()) => Wakeup::FileChanged,
                () = at(self.reread_at) => Wakeup::FileChanged,
                () = at(tree_check_at) => Wakeup::TreeCheck,
                () = renewed(self.lease.as_deref_mut()) => Wakeup::Renewed,
                () = at(limit_at) => Wakeup::LimitCheck,
                () = at(self.request_cutoff) => Wakeup::RequestCutoff,
                () = at(self.deadline) => Wakeup::Deadline,
            };
            match wakeup {
                Wakeup::Answered(answer) => {
                    if let Some(PendingRequest::Store { .. }) = self.request {
                        // The store answers, so the persist gets a full timeout.
                        self.budget_end = None;
                    }
                    self.request = None;
                    return self.answered(answer);
                }
                Wakeup::SignalEvent(SignalEvent::End(signal)) => self.handle_end_signal(signal),
                Wakeup::SignalEvent(SignalEvent::Other(signal)) => self.forward(signal),
                Wakeup::SignalEvent(SignalEvent::Child) | Wakeup::TreeCheck | Wakeup::Renewed => {}
                Wakeup::LimitCheck => {
                    self.check_signal_hold();
                    if self.should_leave_running() {
                        return self.leave_running(round_trip, 1);
                    }
                }
                Wakeup::FileChanged => {
                    if let Some(event) = self.file_changed() {
                        return event;
                    }
                }
                Wakeup::RequestCutoff => {
                    self.request_cutoff = None;
                    let Some(PendingRequest::Store { swap, .. }) = self.request else {
                        if let Some(lease) = &mut self.lease {
                            lease.abandon_renewal();
                        }
                        continue;
                    };
                    self.request = None;
                    self.report.doubtful |= swap;
                    return if swap {
                        Event::Swapped(Reply::Ambiguous)
                    } else {
                        Event::Read(Err(Retryable::Yes))
                    };
                }
                Wakeup::Deadline => break,
            }
        }
        self.deadline = None;
        Event::Deadline
    }

    /// Starts the command; returns an event if the command does not run.
    fn run(&mut self, round_trip: &RoundTrip) -> Option<Event> {
        self.deadline = None;
        self.mark_ready(round_trip);
        // A failed receipt write does not stop the command: this process persists without it.
        if self.report.signal.is_some() {
            self.report.command = Some(CommandEnd::Cancelled);
            return Some(self.command_ended(round_trip));
        }
        self.watch = (!self.access_only).then(|| Watch::new(self.job.home.auth_file()));
        let spawned = match (&mut self.refresher, &mut self.command, round_trip.base()) {
            // The login is no longer due: another job has rotated it since the proof.
            (Some(refresher), _, Some(base)) if !refresher.should_rotate(&base.generation) => {
                return Some(self.command_ended(round_trip));
            }
            // The lease is lost or expired: another job may be rotating already.
            (Some(_), _, Some(_)) if self.lease.as_ref().is_some_and(|it| !it.is_held()) => {
                return Some(self.command_ended(round_trip));
            }
            (Some(refresher), _, Some(base)) => refresher.spawn(self.job.home, &base.generation),
            (None, Some(command), _) => {
                if let Some(observer) = self.job.observer {
                    observer.on_command_start();
                }
                ProcessTree::spawn(command)
            }
            (Some(_), _, None) | (None, None, _) => {
                unreachable!("there is a command or a base to refresh")
            }
        };
        match spawned {
            Ok(tree) => {
                self.tree = Some(tree);
                None
            }
            Err(error) => {
                self.report.command = Some(CommandEnd::NotStarted(error));
                Some(self.command_ended(round_trip))
            }
        }
    }

    /// Forwards a signal whose meaning only the command knows. Before the command runs, the signal
    /// does what it does by default: the job ends. After the command, the job only persists.
    fn forward(&mut self, signal: Signal) {
        let is_running = self.tree.is_some();
        if (is_running && self.is_private) || (!is_running && !self.is_ready) {
            self.handle_end_signal(signal);
        } else if is_running && !self.hold_back(SignalEvent::Other(signal)) {
            self.forward_now(signal);
        }
    }

    /// Handles an end signal: it ends the command and its leftover processes. It never ends the
    /// persist, but shortens the persist's timeout.
    fn handle_end_signal(&mut self, signal: Signal) {
        let now = Instant::now();
        if self
            .last_signal_at
            .is_some_and(|last| now < deadline::from(last, SAME_SIGNAL_WINDOW))
        {
            return;
        }
        self.last_signal_at = Some(now);
        self.signals_received += 1;
        self.request_cutoff = self
            .request_cutoff
            .map(|cutoff| cutoff.min(deadline::from(now, CANCELLED_REQUEST_TIMEOUT)));
        self.report.signal.get_or_insert(signal.as_raw());
        if let (true, Some(_)) = (self.is_private, &self.tree) {
            if let Some(refresher) = &mut self.refresher {
                refresher.shorten_limit();
            }
        } else if self.tree.is_some() {
            self.signal_command(signal);
        } else {
            // Before the file is placed there is nothing to save.
            let timeout = if self.is_ready {
                self.store_timeout()
            } else {
                Duration::ZERO
            };
            let end = deadline::from(now, timeout);
            self.deadline = self.deadline.map(|deadline| deadline.min(end));
        }
    }

    /// The store timeout, counted from now.
    fn store_timeout(&self) -> Duration {
        match self.signals_received {
            0 => self.job.store_timeout,
            1 => CANCELLED_STORE_TIMEOUTS[0].min(self.job.store_timeout),
            _ => CANCELLED_STORE_TIMEOUTS[1].min(self.job.store_timeout),
        }
    }

    /// Reads the file until it is stable. Keeps a complete login that appeared in between.
    fn read_file(&mut self) -> Result<Look, HomeError> {
        let mut transient = None;
        let mut look = self.job.home.settled_look_with(&mut transient);
        if self.is_private {
            look = look.map(Look::restored);
        }
        if matches!(look, Ok(Look::Usable { .. })) {
            self.transient = None;
        } else if transient.is_some() && !self.access_only {
            self.transient = transient;
        }
        look
    }

    fn file_changed(&mut self) -> Option<Event> {
        self.reread_at = None;
        // A file may be missing or torn for an instant; the final read decides.
        let look @ Look::Usable { .. } = self.read_file().ok()? else {
            return None;
        };
        let Seen::Usable(generation) = seen(&look) else {
            return None;
        };
        let known = seen(&self.look) == Seen::Usable(generation.clone());
        if !known && !self.is_private {
            self.reread_at = self.pace.note(generation.fingerprint, Instant::now());
            if self.reread_at.is_some() {
                self.deferred = Some(look);
                return None;
            }
        }
        self.deferred = None;
        self.remember(look);
        let is_due = generation.issued.is_due(unix_now());
        if let Some(refresher) = &mut self.refresher
            && refresher.on_generation(generation.fingerprint, is_due)
        {
            self.kill_tree();
        }
        if let (false, Some(limit)) = (known, &mut self.supervising) {
            *limit = Limit::new(SPENT_LIMIT);
        }
        self.check_signal_hold();
        (!known).then_some(Event::Changed(generation))
    }

    /// Returns which processes must not be killed: a Codex of this home that may have spent the
    /// refresh token.
    fn protection(&self) -> impl Fn(Pid) -> bool + use<> {
        let login = self.login_on_disk().filter(|_| !self.access_only);
        let issued = login.map(|login| login.issued);
        // A Codex that was started to rotate may do so even if the login is not due.
        let refresher = self.refresher.as_ref();
        let is_refreshing = refresher.is_some_and(|it| it.may_have_spent(false));
        let home = self.job.home.dir().to_owned();
        move |pid| {
            let Some(issued) = &issued else {
                return false;
            };
            let codex = CodexProcess::of(pid.as_raw_nonzero().get());
            codex.is_some_and(|codex| {
                let may_have_spent =
                    is_refreshing || codex_process::may_have_spent(issued, codex.due_rule());
                may_have_spent && codex.may_use(&home)
            })
        }
    }

    /// The login that a Codex in this home has in memory, as far as is known.
    fn login_on_disk(&self) -> Option<Generation> {
        match &self.look {
            Look::Usable { generation, .. } => Some(generation.clone()),
            Look::Missing | Look::Unusable { .. } => self
                .report
                .base
                .as_ref()
                .map(|base| base.generation.clone()),
        }
    }

    /// The next time limit of a Codex or of held signals.
    fn limit_at(&self) -> Option<Instant> {
        self.tree.as_ref()?;
        let refresh = self.refresher.as_ref().and_then(Refresher::wake);
        let supervising = self.supervising.as_ref().map(Limit::wake);
        let hold = self.hold.as_ref().map(signal_hold::Hold::wake);
        [refresh, supervising, hold].into_iter().flatten().min()
    }

    /// Checks the time limit of a Codex that rotates; returns whether it has passed while Codex may
    /// have spent the token. Kills a Codex that has written its new login, or that can no longer be
    /// refreshing.
    fn should_leave_running(&mut self) -> bool {
        let login = self.login_on_disk();
        let is_due = login.is_some_and(|login| login.issued.is_due(unix_now()));
        if let Some(refresher) = &mut self.refresher {
            match refresher.at_limit(is_due) {
                LimitAction::Wait => {}
                LimitAction::Terminate => self.kill_tree(),
                LimitAction::Leave => return true,
            }
        }
        if self.supervising.as_mut().is_some_and(Limit::is_over) {
            self.supervising = None;
            self.kill_tree();
        }
        false
    }

    /// Kills the process tree.
    fn kill_tree(&mut self) {
        if let Some(tree) = &mut self.tree {
            tree.signal(Signal::KILL);
        }
    }

    /// No process that could write the file is left.
    fn command_ended(&mut self, round_trip: &RoundTrip) -> Event {
        if let Some(tree) = self.tree.take() {
            self.note_end(&tree);
            self.report.refreshed = self.refresher.as_mut().map(Refresher::finish);
        }
        self.final_read(round_trip, Event::Exited)
    }

    /// The time limit has passed: leaves processes running that may still write the file.
    fn leave_running(&mut self, round_trip: &RoundTrip, count: usize) -> Event {
        self.report.left_running = count;
        if let Some(tree) = self.tree.take() {
            self.note_end(&tree);
            self.report.refreshed = self.refresher.as_ref().map(Refresher::partial_result);
        }
        self.final_read(round_trip, Event::CodexRunning)
    }

    fn note_end(&mut self, tree: &ProcessTree) {
        self.report.terminated = tree.terminated();
        self.report.unkillable = tree.unkillable();
        let end = tree.exit_code().map(CommandEnd::Exited);
        self.report.command = Some(end.unwrap_or(CommandEnd::Running));
    }

    /// Reads the file for the last time.
    fn final_read(&mut self, round_trip: &RoundTrip, event: fn(Seen) -> Event) -> Event {
        self.watch = None;
        self.hold = None;
        self.reread_at = None;
        self.report.rotations_in_a_loop = self.pace.rotations_in_a_loop();
        let end = deadline::after(self.store_timeout());
        self.deadline = Some(self.budget_end.map_or(end, |it| it.min(end)));
        let (transient, deferred) = (self.transient.take(), self.deferred.take());
        // No process is left in the private home: finish the rename that a killed Codex did not.
        let is_over = self.report.unkillable == 0 && self.report.left_running == 0;
        if self.is_private && is_over {
            let base = round_trip.base().map(|base| base.generation.fingerprint);
            self.job.home.undo_ended_copy();
            self.job.home.rename_for_codex(base);
        }
        let found = match self.read_file() {
            Ok(look) => {
                let found = seen(&look);
                self.remember(look);
                found
            }
            Err(home_error) => {
                self.report.home_error = Some(home_error);
                Seen::AuthFileError
            }
        };
        let ended = event(match round_trip.base().filter(|_| self.access_only) {
            Some(base) => Seen::Usable(base.generation.clone()),
            None => found.clone(),
        });
        // No later read finds these earlier logins: pass them to the state machine now.
        let transient = self.transient.take().or(transient);
        let transient = transient.filter(|_| !matches!(found, Seen::Usable(_)));
        let deferred = deferred.filter(|look| seen(look) != found);
        match transient.or(deferred) {
            Some(Look::Usable { secret, generation }) => {
                self.keep_secret(&generation, &secret);
                self.queued_event = Some(ended);
                Event::Changed(generation)
            }
            Some(Look::Missing | Look::Unusable { .. }) | None => ended,
        }
    }

    fn remember(&mut self, look: Look) {
        self.report.file_unusable = match &look {
            Look::Unusable { why, .. } => Some(*why),
            Look::Missing | Look::Usable { .. } => None,
        };
        if let Look::Usable { secret, generation } = &look {
            self.keep_secret(generation, secret);
        }
        self.look = look;
    }

    /// Keeps the bytes of a login until the store holds it.
    fn keep_secret(&mut self, generation: &Generation, secret: &Secret) {
        if let Some(observer) = self.job.observer {
            observer.on_login(secret);
        }
        let secret = Arc::new(secret.duplicate());
        self.generations.insert(generation.fingerprint, secret);
    }
}

async fn answer(request: &mut Option<PendingRequest<'_>>) -> RequestResult {
    match request {
        None => pending().await,
        Some(PendingRequest::Store { answer, .. }) => answer.await,
        Some(PendingRequest::Pause(until)) => {
            sleep_until(*until).await;
            RequestResult::PauseOver
        }
    }
}

async fn changed(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => pending().await,
    }
}

pub(crate) async fn renewed(lease: Option<&mut LeaseKeeper<'_>>) {
    match lease {
        Some(lease) => lease.renew().await,
        None => pending().await,
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
