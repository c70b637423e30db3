//! The one loop that awaits: effects of the machine out, events of the world in.

use std::{
    collections::HashMap,
    future::{Future, pending},
    io,
    pin::Pin,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use authferry_codex::{Look, Unfit, Unusable};
use authferry_core::{
    CasError, Effect, Event, Fingerprint, Held, Keep, Origin, Outcome, Reply, Secret, Seen, Stamp,
    StoreError, Stored, Trip, Trouble, Version, Write,
};
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use crate::child::{Family, exit_code};
use crate::signals::{Told, reaches_the_command_by_itself};
use crate::watch::Watch;
use crate::{CommandEnd, Job, Placement, Receipt, Report, Signals, Written, rescue, seen};

/// What the store may still take, and processes left behind, once somebody wants the job
/// to end. A cancelled job on GitHub has ten seconds in all.
const HURRY: Duration = Duration::from_secs(4);

/// One trip under way.
pub(crate) struct Driver<'a> {
    job: &'a Job<'a>,
    command: Option<Command>,
    /// There was no auth file before: none is left behind either.
    placed: bool,
    /// The file descends from the trip's base: from here on there is a receipt.
    ready: bool,
    /// The version of which the receipt tells.
    version: Option<Version>,
    /// The bytes of the generations seen on disk that the store may still have to take.
    generations: HashMap<Fingerprint, Arc<Secret>>,
    /// What was read from the store last.
    stored: Option<Stored>,
    /// What was found in the auth file's place last.
    look: Look,
    family: Option<Family>,
    watch: Option<Watch>,
    request: Option<Request<'a>>,
    deadline: Option<Instant>,
    report: Report,
}

/// Something that was begun and will be answered.
enum Request<'a> {
    /// The store is at work.
    Store(Pin<Box<dyn Future<Output = Answer> + 'a>>),
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
    Deadline,
}

impl<'a> Driver<'a> {
    /// Gets ready for a trip that finds `look` in the auth file's place.
    pub(crate) fn new(job: &'a Job<'a>, look: Look, command: Option<Command>) -> Self {
        let mut driver = Self {
            job,
            command,
            placed: matches!(look, Look::Missing),
            ready: false,
            version: None,
            generations: HashMap::new(),
            stored: None,
            look: Look::Missing,
            family: None,
            watch: None,
            request: None,
            deadline: None,
            report: Report::new(),
        };
        driver.remember(look);
        driver
    }

    /// Takes over where the receipt of another process says that it stopped.
    pub(crate) fn resumed(mut self, placed: bool, unfit: Option<Unfit>) -> Self {
        self.placed = placed;
        self.ready = true;
        self.report.unfit = unfit;
        self
    }

    /// Carries a trip to its end.
    ///
    /// Fails only where nothing can be done without: when children cannot be waited for.
    pub(crate) async fn drive(
        mut self,
        (mut trip, mut effects): (Trip, Vec<Effect>),
        signals: &mut Signals,
    ) -> io::Result<Report> {
        self.deadline = Some(Instant::now() + self.job.patience);
        loop {
            let mut event = None;
            for effect in effects {
                match effect {
                    Effect::Finish(outcome) => return Ok(self.finish(&trip, outcome)),
                    Effect::Read => self.read(),
                    Effect::Swap(write) => self.swap(&write),
                    Effect::Wait(time) => {
                        self.request = Some(Request::Pause(Instant::now() + time));
                    }
                    Effect::Place => event = Some(Event::Placed(self.place())),
                    Effect::Run => event = self.run(&trip),
                    Effect::Rescue(keep) => event = Some(Event::Rescued(self.rescue(&trip, keep))),
                }
            }
            let event = match event {
                Some(event) => event,
                None => self.next_event(signals).await?,
            };
            let due = trip.due().map(|generation| generation.fingerprint);
            (trip, effects) = trip.step(event);
            self.note(&trip, due);
        }
    }

    async fn next_event(&mut self, signals: &mut Signals) -> io::Result<Event> {
        loop {
            // A backend may wait for helpers of its own; until it is done none is collected.
            let store_at_work = matches!(self.request, Some(Request::Store(_)));
            let mut family_time = None;
            if let (Some(family), false) = (&mut self.family, store_at_work) {
                let linger = self
                    .report
                    .signal
                    .map_or(self.job.linger, |_| Duration::ZERO);
                if family.gone(linger)? {
                    return Ok(self.exited());
                }
                family_time = family.wake();
            }
            let woke = tokio::select! {
                answer = answer(&mut self.request) => Woke::Answer(answer),
                told = signals.next() => Woke::Told(told),
                () = changed(self.watch.as_ref()) => Woke::FileChanged,
                () = at(family_time) => Woke::FamilyTime,
                () = at(self.deadline) => Woke::Deadline,
            };
            match woke {
                Woke::Answer(answer) => {
                    self.request = None;
                    return Ok(self.answered(answer));
                }
                Woke::Told(Told::End(signal)) => self.told_to_end(signal),
                Woke::Told(Told::Child) | Woke::FamilyTime => {}
                Woke::FileChanged => {
                    if let Some(event) = self.file_changed() {
                        return Ok(event);
                    }
                }
                Woke::Deadline => {
                    self.deadline = None;
                    return Ok(Event::Deadline);
                }
            }
        }
    }

    fn read(&mut self) {
        let store = self.job.store;
        self.request = Some(Request::Store(Box::pin(async {
            Answer::Read(store.read().await)
        })));
    }

    fn swap(&mut self, write: &Write) {
        let Some(secret) = self.generations.get(&write.generation.fingerprint) else {
            unreachable!("the machine only writes what was seen on disk");
        };
        let (store, secret, expected) =
            (self.job.store, Arc::clone(secret), write.expected.clone());
        let stamp = Stamp {
            id: write.id,
            count: write.count,
            origin: Origin::Rotation,
            writer: self.job.writer.to_owned(),
        };
        self.request = Some(Request::Store(Box::pin(async move {
            Answer::Swapped(
                store
                    .compare_and_swap(Some(&expected), &secret, &stamp)
                    .await,
            )
        })));
    }

    fn answered(&mut self, answer: Answer) -> Event {
        match answer {
            Answer::Woke => Event::Woke,
            Answer::Read(Ok(stored)) => {
                let held = stored.as_ref().map(|stored| {
                    let generation = authferry_codex::parse(&stored.secret);
                    self.report.stored_unusable = generation.as_ref().err().copied();
                    let guarantees = self.job.store.guarantees();
                    let version = stored.version.clone();
                    Held::new(version, generation.ok(), stored.stamp.as_ref(), guarantees)
                });
                self.stored = stored;
                Event::Read(Ok(held))
            }
            Answer::Read(Err(error)) => Event::Read(Err(self.trouble(error))),
            Answer::Swapped(Ok(version)) => Event::Swapped(Reply::Landed(version)),
            Answer::Swapped(Err(CasError::Conflict)) => Event::Swapped(Reply::Conflict),
            Answer::Swapped(Err(CasError::Ambiguous(error))) => {
                self.trouble(error);
                Event::Swapped(Reply::Ambiguous)
            }
            Answer::Swapped(Err(CasError::Refused(error))) => {
                Event::Swapped(Reply::Refused(self.trouble(error)))
            }
        }
    }

    fn trouble(&mut self, error: StoreError) -> Trouble {
        let transient = error.kind.is_transient();
        self.report.store_error = Some(error);
        if transient {
            Trouble::Transient
        } else {
            Trouble::Permanent
        }
    }

    fn place(&mut self) -> bool {
        let Some(stored) = &self.stored else {
            return false;
        };
        match self.job.home.place(&stored.secret) {
            Ok(()) => {
                self.report.placement = Some(Placement::Placed);
                true
            }
            Err(unfit) => {
                self.report.unfit = Some(unfit);
                false
            }
        }
    }

    /// Starts the command; returns what happened if it does not come to run.
    fn run(&mut self, trip: &Trip) -> Option<Event> {
        self.deadline = None;
        self.get_ready(trip);
        // A receipt is a help here, not a need: this process persists by itself.
        let command = self.command.as_mut()?;
        if self.report.signal.is_some() {
            self.report.command = Some(CommandEnd::Cancelled);
            return Some(self.exited());
        }
        self.watch = Some(Watch::new(self.job.home.auth_file()));
        match Family::spawn(command) {
            Ok(family) => {
                self.family = Some(family);
                None
            }
            Err(error) => {
                self.report.command = Some(CommandEnd::NotStarted(error));
                Some(self.exited())
            }
        }
    }

    /// A signal ends the command, or what it left behind; it never ends the persist, but
    /// leaves it less time, and a second one none.
    fn told_to_end(&mut self, signal: Signal) {
        let first = self.report.signal.is_none();
        self.report.signal.get_or_insert(signal.as_raw());
        if let Some(family) = &mut self.family {
            if !first {
                family.signal(Signal::KILL);
            } else if !reaches_the_command_by_itself(signal) {
                family.signal(signal);
            }
        } else {
            let now = Instant::now();
            let end = if first && self.ready {
                now + HURRY
            } else {
                now
            };
            self.deadline = self.deadline.map(|deadline| deadline.min(end));
        }
    }

    fn file_changed(&mut self) -> Option<Event> {
        // A file that is gone or odd may be so for an instant; what it is in the end, the
        // last look tells.
        let look @ Look::Usable { .. } = self.job.home.settled_look().ok()? else {
            return None;
        };
        let Seen::Usable(generation) = seen(&look) else {
            return None;
        };
        let known = seen(&self.look) == Seen::Usable(generation.clone());
        self.remember(look);
        (!known).then_some(Event::Changed(generation))
    }

    /// Nobody is left who could write the file.
    fn exited(&mut self) -> Event {
        if let Some(family) = self.family.take() {
            self.report.ended = family.ended();
            let code = family.status().map_or(u8::MAX, exit_code);
            self.report.command = Some(CommandEnd::Exited(code));
        }
        self.watch = None;
        let patience = self.report.signal.map_or(self.job.patience, |_| HURRY);
        self.deadline = Some(Instant::now() + patience);
        match self.job.home.settled_look() {
            Ok(look) => {
                let seen = seen(&look);
                self.remember(look);
                Event::Exited(seen)
            }
            Err(unfit) => {
                self.report.unfit = Some(unfit);
                Event::Exited(Seen::Unusable)
            }
        }
    }

    fn remember(&mut self, look: Look) {
        self.report.file_unusable = match &look {
            Look::Unusable { why, .. } => Some(*why),
            Look::Missing | Look::Usable { .. } => None,
        };
        if let Look::Usable { secret, generation } = &look {
            let secret = Arc::new(secret.duplicate());
            self.generations.insert(generation.fingerprint, secret);
        }
        self.look = look;
    }

    fn rescue(&mut self, trip: &Trip, keep: Keep) -> bool {
        // A request whose answer nobody awaits any more ends here.
        self.request = None;
        let wanted = match keep {
            Keep::Ours => self.ours(trip),
            Keep::Theirs => self.theirs(),
        };
        let mut kept = !wanted.is_empty();
        for (name, secret) in wanted {
            match rescue::keep(self.job.rescue, &name, &secret) {
                Ok(path) => self.report.rescued.push(path),
                Err(error) => {
                    self.report.rescue_error = Some(error);
                    kept = false;
                }
            }
        }
        kept
    }

    /// What of ours the store lacks: the generation that is due, and whatever was found in
    /// the file last, if that is something else.
    fn ours(&self, trip: &Trip) -> Vec<(String, Secret)> {
        let due = trip.due().map(|generation| generation.fingerprint);
        let base = trip.base().map(|base| base.generation.fingerprint);
        let newest = due.and_then(|due| {
            Some((
                rescue::name(Some(due)),
                self.generations.get(&due)?.duplicate(),
            ))
        });
        let last = match &self.look {
            // Nothing was read that could be worth keeping, or not all of it.
            Look::Missing
            | Look::Unusable {
                why: Unusable::Empty | Unusable::TooLarge,
                ..
            } => None,
            Look::Unusable { secret, .. } => Some((rescue::name(None), secret.duplicate())),
            Look::Usable { secret, generation } => {
                let fingerprint = Some(generation.fingerprint);
                (fingerprint != due && fingerprint != base).then(|| {
                    (
                        rescue::name(Some(generation.fingerprint)),
                        secret.duplicate(),
                    )
                })
            }
        };
        newest.into_iter().chain(last).collect()
    }

    fn theirs(&self) -> Vec<(String, Secret)> {
        let theirs = self.stored.as_ref().and_then(|stored| {
            let generation = authferry_codex::parse(&stored.secret).ok()?;
            Some((
                rescue::name(Some(generation.fingerprint)),
                stored.secret.duplicate(),
            ))
        });
        theirs.into_iter().collect()
    }

    /// File and store belong together from here on.
    fn get_ready(&mut self, trip: &Trip) {
        let found = if self.report.writes.is_empty() {
            Placement::Kept
        } else {
            Placement::Adopted
        };
        self.report.placement.get_or_insert(found);
        self.ready = true;
        self.write_receipt(trip);
    }

    /// Keeps up with a step of the machine, before which `due` was due.
    fn note(&mut self, trip: &Trip, due: Option<Fingerprint>) {
        let Some(base) = trip
            .base()
            .filter(|base| self.version.as_ref() != Some(&base.version))
        else {
            return;
        };
        self.version = Some(base.version.clone());
        let fingerprint = base.generation.fingerprint;
        if due == Some(fingerprint) {
            let version = base.version.clone();
            self.report.writes.push(Written {
                version,
                fingerprint,
                at: SystemTime::now(),
            });
        }
        let still_due = trip.due().map(|generation| generation.fingerprint);
        self.generations
            .retain(|fingerprint, _| Some(*fingerprint) == still_due);
        if self.ready {
            self.write_receipt(trip);
        }
    }

    fn write_receipt(&mut self, trip: &Trip) {
        let Some(base) = trip.base() else {
            return;
        };
        let receipt = Receipt::new(self.job.store.to_string(), base.clone(), self.placed);
        self.report.receipt_error = receipt.write(self.job.home).err();
    }

    fn finish(mut self, trip: &Trip, outcome: Outcome) -> Report {
        match &outcome {
            Outcome::Restored => self.get_ready(trip),
            Outcome::Unchanged | Outcome::Persisted { .. } => self.clean_up(self.placed),
            // Ours is safe elsewhere, and were it left here the next restore might take it
            // for the newer one.
            Outcome::Superseded { rescued: true, .. } => self.clean_up(true),
            // What is left here is the only copy, or the next restore can settle it.
            Outcome::Superseded { rescued: false, .. }
            | Outcome::Stranded { .. }
            | Outcome::Refused(_) => {}
        }
        self.report.base = trip.base().cloned();
        self.report.outcome = outcome;
        self.report
    }

    /// Takes the receipt away, and the auth file if it is still what was seen last.
    fn clean_up(&mut self, auth_file: bool) {
        // What stays behind is found and judged by the next restore.
        Receipt::remove(self.job.home).ok();
        let still = self
            .job
            .home
            .look()
            .is_ok_and(|look| seen(&look) == seen(&self.look));
        if auth_file
            && still
            && let Err(unfit) = self.job.home.remove()
        {
            self.report.unfit = Some(unfit);
        }
    }
}

async fn answer(request: &mut Option<Request<'_>>) -> Answer {
    match request {
        None => pending().await,
        Some(Request::Store(answer)) => answer.await,
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

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
