//! The one loop that awaits: effects of the machine out, events of the world in.

use std::{
    collections::HashMap,
    fs::File,
    future::{Future, pending},
    pin::Pin,
    process::Command,
    sync::Arc,
    time::Duration,
};

use authferry_codex::{Look, Unfit};
use authferry_core::{
    CasError, Effect, Event, Fingerprint, Generation, Outcome, Reply, Secret, Seen, StoreError,
    Stored, Trip, Trouble, Version,
};
use rustix::process::{Pid, Signal};
use tokio::time::{Instant, sleep_until};

use crate::child::{Family, Rest};
use crate::codex_process::{self, CodexProcess};
use crate::lease::Lease;
use crate::own_time::Limit;
use crate::refresher::{AtLimit, Refresher};
use crate::rotate::unix_now;
use crate::sign::Sign;
use crate::signals::Told;
use crate::supervise::{Orphan, SPENT_LIMIT};
use crate::unwound::guarded;
use crate::users::Owner;
use crate::watch::Watch;
use crate::{CommandEnd, FoundCopy, Job, Receipt, Report, Signals, deadline, seen};

use others::Others;
use pace::Pace;

pub(crate) mod ask;
mod hold;
pub(crate) mod keep;
mod others;
mod pace;
mod panicked;
mod stand_by;

/// How long the store may still take after somebody said for the first and for the second
/// time that the job is to end. GitHub sends SIGINT, 7.5 s later SIGTERM, 2.5 s later
/// SIGKILL; a rescue has to come before that.
const HURRY: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(2)];

/// How long processes that the command left behind may stay then. A Codex that is about to
/// write its new tokens down takes some milliseconds.
const LEAVE: Duration = Duration::from_secs(1);

/// Signals that come closer together are one wish to end the job: a terminal that is closed
/// and a service manager send several at once.
const ONE_WISH: Duration = Duration::from_millis(500);

/// How long a request may go on that was under way as a cancelled command ended.
const CUT: Duration = Duration::from_secs(1);

/// How often a file that changes after the last look at it is looked at once more.
const LAST_LOOKS: u32 = 5;

/// One trip under way.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact of the trip"
)]
pub(crate) struct Driver<'a, 'l> {
    job: &'a Job<'a>,
    /// Keeps other trips out of the home; `None` while that is missing.
    alone: Option<File>,
    command: Option<Command>,
    /// The command is not ours: somebody else's steps are at work until we are told to go.
    sign: Option<Sign>,
    /// What is done in the command's place, if that is to refresh the login.
    refresher: Option<Refresher<'a>>,
    /// The command is a Codex that another process has started to rotate the login, and this is
    /// until when it may have spent the token.
    supervising: Option<Limit>,
    /// The home is that of a rotation.
    is_private: bool,
    /// A claim that is held for as long as the trip takes.
    lease: Option<&'a mut Lease<'l>>,
    /// The file has no refresh token, and nothing that becomes of it is persisted.
    lent: bool,
    /// There was no auth file before: none is left behind either.
    placed: bool,
    /// Nothing is placed: a copy that counts is put into the store, and that is all.
    settling: bool,
    /// The file descends from the trip's base: from here on there is a receipt.
    ready: bool,
    /// Whose login this is on this machine, once there is a receipt.
    owner: Option<Owner>,
    /// Which other processes use the home, once the command has ended.
    others: Option<Others>,
    /// The version of which the receipt tells.
    version: Option<Version>,
    /// The generation that was sent to the store last.
    sent: Option<Fingerprint>,
    /// The bytes of the generations seen on disk that the store may still have to take.
    generations: HashMap<Fingerprint, Arc<Secret>>,
    /// What was found on this machine before the trip, in the machine's order.
    copies: Vec<FoundCopy>,
    /// What was read from the store just before the trip.
    known: Option<Stored>,
    /// What was read from the store last.
    stored: Option<Stored>,
    /// What was found in the auth file's place last.
    look: Look,
    /// A whole login that was seen after that, and that the next look did not find again.
    glimpse: Option<Look>,
    /// One that came too fast after another, and that the machine was not told of.
    deferred: Option<Look>,
    /// What the machine is told next.
    queued: Option<Event>,
    pace: Pace,
    /// When to look again at a file that changed too fast.
    look_again: Option<Instant>,
    family: Option<Family>,
    watch: Option<Watch>,
    request: Option<Request<'a>>,
    deadline: Option<Instant>,
    /// Since when the store may take its time.
    begin: Instant,
    /// Until when the store may take its time, once the command has ended during a request:
    /// one budget for that request and for the persist.
    budget_end: Option<Instant>,
    /// When a request is given up that was under way as the command ended.
    cut: Option<Instant>,
    /// When somebody said last that the job is to end.
    told_at: Option<Instant>,
    /// How often somebody said that the job is to end.
    told: usize,
    /// Signals that wait until a Codex has written what it may have got.
    hold: Option<hold::Hold>,
    report: Report,
}

/// Something that was begun and will be answered.
enum Request<'a> {
    /// The store is at work.
    Store {
        answer: Pin<Box<dyn Future<Output = Answer> + 'a>>,
        swap: bool,
    },
    /// Time passes until then.
    Pause(Instant),
}

/// An answer, with what the machine is not to see still in it.
enum Answer {
    Read(Result<Option<Stored>, StoreError>),
    Swapped(Result<Version, CasError>),
    Woke,
}

/// What the loop woke up for.
enum Woke {
    Answer(Answer),
    Told(Told),
    FileChanged,
    FamilyTime,
    Renewed,
    LimitTime,
    Cut,
    Deadline,
}

impl<'a, 'l> Driver<'a, 'l> {
    /// Gets ready for a trip that finds `look` in the auth file's place.
    pub(crate) fn new(
        job: &'a Job<'a>,
        alone: Option<File>,
        look: Look,
        command: Option<Command>,
        placed: bool,
    ) -> Self {
        let mut driver = Self {
            job,
            alone,
            command,
            sign: None,
            refresher: None,
            supervising: None,
            is_private: false,
            lease: None,
            lent: job.access_only,
            placed,
            settling: false,
            ready: false,
            owner: None,
            others: None,
            version: None,
            sent: None,
            generations: HashMap::new(),
            copies: Vec::new(),
            known: None,
            stored: None,
            look: Look::Missing,
            glimpse: None,
            deferred: None,
            queued: None,
            pace: Pace::default(),
            look_again: None,
            family: None,
            watch: None,
            request: None,
            deadline: None,
            begin: Instant::now(),
            budget_end: None,
            cut: None,
            told_at: None,
            told: 0,
            hold: None,
            report: Report::new(),
        };
        driver.report.nested = job.nested;
        driver.remember(look);
        driver
    }

    /// Begins with what was just read, which saves a request.
    pub(crate) fn knowing(mut self, known: Option<Stored>) -> Self {
        self.known = known;
        self
    }

    /// What came before was the store's time as well.
    pub(crate) fn since(mut self, begin: Instant) -> Self {
        self.begin = begin;
        self
    }

    /// Places nothing.
    pub(crate) fn settling(mut self) -> Self {
        self.settling = true;
        self
    }

    /// Begins with what was found on this machine.
    pub(crate) fn with_copies(mut self, copies: Vec<FoundCopy>) -> Self {
        self.copies = copies;
        self
    }

    /// Begins with a whole login that was gone at the next look.
    pub(crate) fn with_glimpse(mut self, glimpse: Option<&Look>) -> Self {
        if let Some(Look::Usable { secret, generation }) = glimpse {
            self.see(generation, secret);
        }
        self
    }

    /// Refreshes the login in the command's place.
    pub(crate) fn refreshing(mut self, refresher: Refresher<'a>) -> Self {
        self.refresher = Some(refresher);
        self.is_private = true;
        self
    }

    /// Goes on with a Codex that was started to rotate the login.
    pub(crate) fn supervising(mut self, orphan: Orphan, watch: Watch) -> Self {
        self.family = Some(orphan.family);
        self.supervising = Some(orphan.limit);
        self.is_private = true;
        self.watch = Some(watch);
        self
    }

    /// Renews a claim for as long as the trip takes.
    pub(crate) fn holding(mut self, lease: Option<&'a mut Lease<'l>>) -> Self {
        self.lease = lease;
        self
    }

    /// Goes on as a part of the job that the home's receipt names.
    pub(crate) fn owned_by(mut self, owner: Option<Owner>) -> Self {
        self.owner = owner;
        self
    }

    /// Takes over where the receipt of another process says that it stopped.
    pub(crate) fn resumed(mut self, receipt: &Receipt, unfit: Option<Unfit>) -> Self {
        self.version = Some(receipt.base.version.clone());
        self.lent = receipt.access_only;
        self.owner = Some(receipt.owner.clone());
        self.ready = true;
        self.report.began = receipt.began;
        self.report.unfit = unfit;
        self
    }

    /// Carries a trip to its end. What the command wrote is kept whatever panics.
    pub(crate) async fn drive(
        mut self,
        step: (Trip, Vec<Effect>),
        signals: &mut Signals,
    ) -> Report {
        match guarded(self.carry(step, signals)).await {
            Ok((trip, outcome)) => self.finish(&trip, outcome),
            Err(panicked) => self.keep_what_is_there(panicked, signals).await,
        }
    }

    async fn carry(
        &mut self,
        (mut trip, mut effects): (Trip, Vec<Effect>),
        signals: &mut Signals,
    ) -> (Trip, Outcome) {
        // A trip that waits for others has all of its time once they have ended.
        if self.family.is_none() && self.others.is_none() {
            self.deadline = Some(deadline::from(self.begin, self.job.patience));
        }
        let mut last_looks = 0;
        loop {
            let mut event = None;
            for effect in std::mem::take(&mut effects) {
                match effect {
                    Effect::Finish(outcome) => {
                        last_looks += 1;
                        match self
                            .changed_after_all(&outcome)
                            .filter(|_| last_looks < LAST_LOOKS)
                        {
                            Some(seen) => (trip, effects) = trip.reopen(seen),
                            None => return (trip, outcome),
                        }
                        break;
                    }
                    Effect::Read => self.read(),
                    Effect::Swap(write) => self.swap(&write),
                    Effect::Wait(time) => {
                        self.request = Some(Request::Pause(deadline::after(time)));
                    }
                    Effect::Place(login) => event = Some(Event::Placed(self.place(&trip, login))),
                    Effect::Run => event = self.run(&trip),
                    Effect::Rescue(keep) => {
                        let kept = self.is_kept_by_the_store(&keep).await
                            || self.rescue(&trip, &keep).await;
                        event = Some(Event::Rescued(kept));
                    }
                }
            }
            if !effects.is_empty() {
                continue;
            }
            let event = match event {
                Some(event) => event,
                None => self.next_event(&trip, signals).await,
            };
            let due = trip.due().map(|generation| generation.fingerprint);
            (trip, effects) = trip.step(event);
            self.note(&trip, due);
        }
    }

    async fn next_event(&mut self, trip: &Trip, signals: &mut Signals) -> Event {
        loop {
            if let Some(event) = self.queued.take() {
                return event;
            }
            let renewing = self.lease.as_ref().is_some_and(|lease| lease.is_at_work());
            let store_at_work = renewing || matches!(self.request, Some(Request::Store { .. }));
            let mut family_time = None;
            let is_spared = self.spares();
            if let Some(family) = &mut self.family {
                // A backend may wait for helpers of its own: until it is done, or is cut
                // short, no other child than the command is collected.
                if store_at_work {
                    if self.cut.is_none() && family.command_is_gone() {
                        let left = self.patience();
                        let end = *self.budget_end.get_or_insert(deadline::after(left));
                        self.cut = Some(if self.told > 0 {
                            end.min(deadline::after(CUT))
                        } else {
                            end
                        });
                    }
                } else {
                    self.cut = None;
                    let linger = match self.told {
                        0 => self.job.linger,
                        1 => self.job.linger.min(LEAVE),
                        _ => Duration::ZERO,
                    };
                    match family.rest(linger, &is_spared) {
                        Rest::Alive => family_time = family.wake(),
                        Rest::Gone => {
                            self.look_for_others();
                            if !self.is_waiting_for_others() {
                                return self.exited(trip);
                            }
                        }
                        Rest::Spared(count) => return self.left(trip, count),
                    }
                }
            } else if self.others.is_some() && !store_at_work && !self.is_waiting_for_others() {
                return self.exited(trip);
            }
            let limit_time = self.limit_time();
            let family_time = family_time.or(self.others_wake());
            let woke = tokio::select! {
                answer = answer(&mut self.request) => Woke::Answer(answer),
                told = signals.next() => Woke::Told(told),
                () = changed(self.watch.as_ref()) => Woke::FileChanged,
                () = at(self.look_again) => Woke::FileChanged,
                () = at(family_time) => Woke::FamilyTime,
                () = renewed(self.lease.as_deref_mut()) => Woke::Renewed,
                () = at(limit_time) => Woke::LimitTime,
                () = at(self.cut) => Woke::Cut,
                () = at(self.deadline) => Woke::Deadline,
            };
            match woke {
                Woke::Answer(answer) => {
                    if let Some(Request::Store { .. }) = self.request {
                        // It answers: the persist has all of its time.
                        self.budget_end = None;
                    }
                    self.request = None;
                    return self.answered(answer);
                }
                Woke::Told(Told::End(signal)) => self.told_to_end(signal),
                Woke::Told(Told::Other(signal)) => self.pass_on(signal),
                Woke::Told(Told::Child) | Woke::FamilyTime | Woke::Renewed => {}
                Woke::LimitTime => {
                    self.look_at_the_hold();
                    if self.is_to_be_left() {
                        return self.left(trip, 1);
                    }
                }
                Woke::FileChanged => {
                    if let Some(event) = self.file_changed() {
                        return event;
                    }
                }
                Woke::Cut => {
                    self.cut = None;
                    let Some(Request::Store { swap, .. }) = self.request else {
                        if let Some(lease) = &mut self.lease {
                            lease.give_up();
                        }
                        continue;
                    };
                    self.request = None;
                    self.report.doubtful |= swap;
                    return if swap {
                        Event::Swapped(Reply::Ambiguous)
                    } else {
                        Event::Read(Err(Trouble::Transient))
                    };
                }
                Woke::Deadline => {
                    self.deadline = None;
                    return Event::Deadline;
                }
            }
        }
    }

    /// Starts the command; returns what happened if it does not come to run.
    fn run(&mut self, trip: &Trip) -> Option<Event> {
        self.deadline = None;
        self.get_ready(trip);
        // A receipt is a help here, not a need: this process persists by itself.
        if self.report.signal.is_some() {
            self.report.command = Some(CommandEnd::Cancelled);
            return Some(self.exited(trip));
        }
        self.watch = (!self.lent).then(|| Watch::new(self.job.home.auth_file()));
        let spawned = match (&mut self.refresher, &mut self.command, trip.base()) {
            // Somebody else has rotated it: a claim on a login that moved is worth nothing.
            (Some(refresher), _, Some(base)) if !refresher.wants(&base.generation) => {
                return Some(self.exited(trip));
            }
            // What the claim kept others from, they may be doing already.
            (Some(_), _, Some(_)) if self.lease.as_ref().is_some_and(|it| !it.is_held()) => {
                return Some(self.exited(trip));
            }
            (Some(refresher), _, Some(base)) => refresher.spawn(self.job.home, &base.generation),
            (None, Some(command), _) => {
                if let Some(witness) = self.job.witness {
                    witness.command_begins();
                }
                Family::spawn(command)
            }
            (Some(_), _, None) | (None, None, _) => unreachable!("there is something to be run"),
        };
        match spawned {
            Ok(family) => {
                self.family = Some(family);
                None
            }
            Err(error) => {
                self.report.command = Some(CommandEnd::NotStarted(error));
                Some(self.exited(trip))
            }
        }
    }

    /// A signal whose meaning only the command knows is the command's to act on. Before there is
    /// a command it does what it does by default: the job ends. After it nothing is left but to
    /// persist.
    fn pass_on(&mut self, signal: Signal) {
        let is_running = self.family.is_some();
        if (is_running && self.is_private) || (!is_running && !self.ready) {
            self.told_to_end(signal);
        } else if is_running && !self.is_held_back(Told::Other(signal)) {
            self.pass_on_now(signal);
        }
    }

    /// A signal ends the command, or what it left behind; it never ends the persist, but
    /// leaves it less time.
    fn told_to_end(&mut self, signal: Signal) {
        let now = Instant::now();
        if self
            .told_at
            .is_some_and(|before| now < deadline::from(before, ONE_WISH))
        {
            return;
        }
        self.told_at = Some(now);
        self.told += 1;
        self.cut = self.cut.map(|cut| cut.min(deadline::from(now, CUT)));
        self.report.signal.get_or_insert(signal.as_raw());
        if let (true, Some(_)) = (self.is_private, &self.family) {
            if let Some(refresher) = &mut self.refresher {
                refresher.hurry();
            }
        } else if self.family.is_some() {
            self.signal_command(signal);
        } else {
            // Before the file is placed there is nothing to save.
            let left = if self.ready {
                self.patience()
            } else {
                Duration::ZERO
            };
            let end = deadline::from(now, left);
            self.deadline = self.deadline.map(|deadline| deadline.min(end));
        }
    }

    /// How long the store may take from now on.
    fn patience(&self) -> Duration {
        match self.told {
            0 => self.job.patience,
            1 => HURRY[0].min(self.job.patience),
            _ => HURRY[1].min(self.job.patience),
        }
    }

    /// Looks at the file until it holds still. What was whole meanwhile is not forgotten.
    fn take_look(&mut self) -> Result<Look, Unfit> {
        let mut glimpse = None;
        let look = self.job.home.settled_look_with(&mut glimpse);
        if matches!(look, Ok(Look::Usable { .. })) {
            self.glimpse = None;
        } else if glimpse.is_some() && !self.lent {
            self.glimpse = glimpse;
        }
        look
    }

    fn file_changed(&mut self) -> Option<Event> {
        self.look_again = None;
        // A file that is gone or odd may be so for an instant; what it is in the end, the
        // last look tells.
        let look @ Look::Usable { .. } = self.take_look().ok()? else {
            return None;
        };
        let Seen::Usable(generation) = seen(&look) else {
            return None;
        };
        let known = seen(&self.look) == Seen::Usable(generation.clone());
        if !known && !self.is_private {
            self.look_again = self.pace.note(generation.fingerprint, Instant::now());
            if self.look_again.is_some() {
                self.deferred = Some(look);
                return None;
            }
        }
        self.deferred = None;
        self.remember(look);
        let is_due = generation.issued.is_due(unix_now());
        if let Some(refresher) = &mut self.refresher
            && refresher.saw(generation.fingerprint, is_due)
        {
            self.cut_off();
        }
        if let (false, Some(limit)) = (known, &mut self.supervising) {
            *limit = Limit::new(SPENT_LIMIT);
        }
        self.look_at_the_hold();
        (!known).then_some(Event::Changed(generation))
    }

    /// Which processes are not ended: a Codex of this home that may have spent the refresh token.
    fn spares(&self) -> impl Fn(Pid) -> bool + use<> {
        let login = self.login_on_disk().filter(|_| !self.lent);
        let issued = login.map(|login| login.issued);
        // What was started to rotate may do so whether the login is due or not.
        let refresher = self.refresher.as_ref();
        let is_asked = refresher.is_some_and(|it| it.may_have_spent(false));
        let home = self.job.home.dir().to_owned();
        move |pid| {
            let Some(issued) = &issued else {
                return false;
            };
            let codex = CodexProcess::of(pid.as_raw_nonzero().get());
            codex.is_some_and(|codex| {
                let may_have_spent =
                    is_asked || codex_process::may_have_spent(issued, codex.due_rule());
                may_have_spent && codex.may_use(&home)
            })
        }
    }

    /// The login that a Codex in this home has, as far as is known.
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

    /// When to look at the time limits of a Codex and of signals that are held back.
    fn limit_time(&self) -> Option<Instant> {
        self.family.as_ref()?;
        let refresh = self.refresher.as_ref().and_then(Refresher::wake);
        let supervising = self.supervising.as_ref().map(Limit::wake);
        let hold = self.hold.as_ref().map(hold::Hold::wake);
        [refresh, supervising, hold].into_iter().flatten().min()
    }

    /// Looks at the time limit of a Codex that rotates; returns whether it is over and Codex may
    /// have spent the token. One that has written what it got, or that cannot be refreshing any
    /// more, is ended.
    fn is_to_be_left(&mut self) -> bool {
        let login = self.login_on_disk();
        let is_due = login.is_some_and(|login| login.issued.is_due(unix_now()));
        if let Some(refresher) = &mut self.refresher {
            match refresher.at_limit(is_due) {
                AtLimit::Wait => {}
                AtLimit::End => self.cut_off(),
                AtLimit::Leave => return true,
            }
        }
        if self.supervising.as_mut().is_some_and(Limit::is_over) {
            self.supervising = None;
            self.cut_off();
        }
        false
    }

    /// Ends what does not end by itself.
    fn cut_off(&mut self) {
        if let Some(family) = &mut self.family {
            family.signal(Signal::KILL);
        }
    }

    /// Nobody is left who could write the file.
    fn exited(&mut self, trip: &Trip) -> Event {
        if let Some(family) = self.family.take() {
            self.note_end(&family);
            self.report.refreshed = self.refresher.as_mut().map(Refresher::end);
        }
        self.last_look(trip, Event::Exited)
    }

    /// Our time limit is over, and processes are left alone that may still write the file.
    fn left(&mut self, trip: &Trip, count: usize) -> Event {
        self.report.left_running = count;
        if let Some(family) = self.family.take() {
            self.note_end(&family);
            self.report.refreshed = self.refresher.as_mut().map(Refresher::leave);
        }
        self.last_look(trip, Event::Left)
    }

    fn note_end(&mut self, family: &Family) {
        self.report.ended = family.ended();
        self.report.left = family.left();
        let end = family.end().map(CommandEnd::Exited);
        self.report.command = Some(end.unwrap_or(CommandEnd::Running));
    }

    /// Looks at the file for the last time.
    fn last_look(&mut self, trip: &Trip, event: fn(Seen) -> Event) -> Event {
        self.watch = None;
        self.hold = None;
        self.look_again = None;
        self.report.rotations_in_a_loop = self.pace.rotations_in_a_loop();
        let end = deadline::after(self.patience());
        self.deadline = Some(self.budget_end.map_or(end, |of_before| of_before.min(end)));
        let (glimpse, deferred) = (self.glimpse.take(), self.deferred.take());
        // A private home, in which nobody is left: what a killed Codex was about to do is done.
        let is_over = self.report.left == 0 && self.report.left_running == 0;
        if self.is_private && is_over {
            let base = trip.base().map(|base| base.generation.fingerprint);
            self.job.home.rename_for_codex(base);
        }
        let found = match self.take_look() {
            Ok(look) => {
                let found = seen(&look);
                self.remember(look);
                found
            }
            Err(unfit) => {
                self.report.unfit = Some(unfit);
                Seen::Unusable
            }
        };
        let exited = event(match trip.base().filter(|_| self.lent) {
            Some(base) => Seen::Usable(base.generation.clone()),
            None => found.clone(),
        });
        // Nobody will see again what was in the file before.
        let glimpse = self.glimpse.take().or(glimpse);
        let glimpse = glimpse.filter(|_| !matches!(found, Seen::Usable(_)));
        let deferred = deferred.filter(|look| seen(look) != found);
        match glimpse.or(deferred) {
            Some(Look::Usable { secret, generation }) => {
                self.see(&generation, &secret);
                self.queued = Some(exited);
                Event::Changed(generation)
            }
            Some(Look::Missing | Look::Unusable { .. }) | None => exited,
        }
    }

    fn remember(&mut self, look: Look) {
        self.report.file_unusable = match &look {
            Look::Unusable { why, .. } => Some(*why),
            Look::Missing | Look::Usable { .. } => None,
        };
        if let Look::Usable { secret, generation } = &look {
            self.see(generation, secret);
        }
        self.look = look;
    }

    /// Keeps the bytes of a login until the store has them.
    fn see(&mut self, generation: &Generation, secret: &Secret) {
        if let Some(witness) = self.job.witness {
            witness.sees(secret);
        }
        let secret = Arc::new(secret.duplicate());
        self.generations.insert(generation.fingerprint, secret);
    }
}

async fn answer(request: &mut Option<Request<'_>>) -> Answer {
    match request {
        None => pending().await,
        Some(Request::Store { answer, .. }) => answer.await,
        Some(Request::Pause(until)) => {
            sleep_until(*until).await;
            Answer::Woke
        }
    }
}

async fn changed(watch: Option<&Watch>) {
    match watch {
        Some(watch) => watch.changed().await,
        None => pending().await,
    }
}

pub(crate) async fn renewed(lease: Option<&mut Lease<'_>>) {
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
