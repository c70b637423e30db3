//! Walks: stories of jobs, people and machines from their first step to their last, with a store
//! and a home that do as they are asked.

use alloc::{format, vec, vec::Vec};

use super::*;
use crate::copies::Content;
use crate::{Identity, Issued, Label, Policy, SessionHints};

const DAY: i64 = 86_400;

/// A store that never fails.
#[derive(Debug)]
struct Store {
    held: Held,
    versions: u32,
    /// Everything that was ever current.
    past: Vec<Held>,
}

/// A machine whose home stays.
#[derive(Debug, Default)]
struct Machine {
    file: Option<Content>,
    receipt: Option<Base>,
    /// Rescue folder and private homes, newest first.
    others: Vec<Copy>,
    refused: Vec<Fingerprint>,
    /// A person gives `--replace`.
    replace: bool,
    jobs: u64,
}

/// What happens while a command runs.
enum Act {
    /// Codex writes the auth file.
    Write(Generation),
    /// Something happens to the store.
    To(fn(&mut Store)),
    /// The job is killed.
    Kill,
}

#[test]
fn an_ephemeral_runner_begins_each_job_with_what_the_last_one_left_in_the_store() {
    let mut store = Store::with(1);
    for number in [2, 3] {
        let end = Machine::default().run(&mut store, vec![Act::Write(login(number))]);
        assert_eq!(end, Some(persisted()));
    }
    assert_eq!((store.current(), store.held.count), (3, 3));
}

#[test]
fn a_home_that_stays_brings_in_what_codex_rotated_when_it_was_run_by_hand() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    own.run(&mut store, vec![]);
    own.write(login(2));
    assert_eq!(own.run(&mut store, vec![]), Some(persisted()));
    assert_eq!(store.current(), 2);
    assert_eq!(own.kept(), [] as [u8; 0], "the head descends into it");
}

#[test]
fn a_job_lost_after_its_restore_costs_nothing_with_and_without_a_rotation() {
    for rotates in [false, true] {
        let (mut store, mut own) = (Store::with(1), Machine::default());
        assert_eq!(own.restore(&mut store), Some(Outcome::Restored));
        if rotates {
            own.write(login(2));
        }
        let end = own.run(&mut store, vec![]);
        let expected = if rotates {
            persisted()
        } else {
            Outcome::Unchanged
        };
        assert_eq!(end, Some(expected));
        assert_eq!(store.current(), if rotates { 2 } else { 1 });
    }
}

#[test]
fn of_two_jobs_forked_from_one_generation_the_later_one_is_current_and_the_other_is_kept() {
    for [first, second] in [[2, 3], [3, 2]] {
        let mut store = Store::with(1);
        let [mut one, mut other] = [Machine::default(), Machine::default()];
        one.restore(&mut store);
        other.restore(&mut store);
        one.write(login(first));
        other.write(login(second));
        assert_eq!(one.persist(&mut store), Some(persisted()));
        let end = other.persist(&mut store);
        assert_eq!(store.current(), 3);
        assert_eq!(other.kept(), [2]);
        let by = login(3).fingerprint;
        let expected = if second == 3 {
            let buried = vec![login(2).fingerprint];
            Outcome::Persisted { buried }
        } else {
            Outcome::Superseded { by, rescued: true }
        };
        assert_eq!(end, Some(expected));
    }
}

#[test]
fn a_value_put_by_hand_during_a_job_stays() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    let put = Act::To(|store| store.put_by_hand(login(100)));
    let end = own.run(&mut store, vec![put, Act::Write(login(110))]);
    assert_eq!(end, Some(superseded_by(100)));
    assert_eq!((store.current(), own.kept()), (100, vec![110]));
}

#[test]
fn a_reseed_that_a_keep_alive_rotated_stays_although_ours_is_issued_last() {
    for put in [Store::put_by_hand, Store::seed] {
        let mut store = Store::with(5);
        let mut own = Machine::default();
        own.restore(&mut store);
        put(&mut store, login(100));
        Machine::default().run(&mut store, vec![Act::Write(login(101))]);
        own.write(login(106));
        assert_eq!(own.persist(&mut store), Some(superseded_by(101)));
        assert_eq!((store.current(), own.kept()), (101, vec![106]));
        // The home still has the file and the receipt.
        own.run(&mut store, vec![]);
        assert_eq!((store.current(), own.file()), (101, Some(101)));
    }
}

#[test]
fn a_stale_image_with_an_old_file_and_an_old_receipt_makes_way() {
    for rotated in [false, true] {
        let (mut store, mut image) = (Store::with(1), Machine::default());
        image.run(&mut store, vec![]);
        for number in [3, 4] {
            Machine::default().run(&mut store, vec![Act::Write(login(number))]);
        }
        if rotated {
            image.write(login(2));
        }
        assert_eq!(image.run(&mut store, vec![]), Some(Outcome::Unchanged));
        assert_eq!((store.current(), image.file()), (4, Some(4)));
        assert_eq!(image.kept(), if rotated { vec![2] } else { vec![] });
    }
}

#[test]
fn a_runners_clock_a_day_off_changes_nothing() {
    for off in [-DAY, DAY] {
        let (mut store, mut own) = (Store::with(1), Machine::default());
        let mut next = login(2);
        next.issued.last_refresh = next
            .issued
            .last_refresh
            .map(|at| at + 3 * i128::from(off) * 1_000_000_000);
        let end = own.run(&mut store, vec![Act::Write(next.clone())]);
        assert_eq!((end, store.current()), (Some(persisted()), 2));
        own.write(login(3));
        own.run(&mut store, vec![]);
        assert_eq!((store.current(), own.kept()), (3, vec![]));
    }
}

#[test]
fn opaque_tokens_are_carried_and_what_they_replace_is_kept() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    let end = own.run(&mut store, vec![Act::Write(opaque(2))]);
    assert_eq!((end, store.current()), (Some(persisted()), 2));
    assert_eq!(own.kept(), [1]);
    own.write(opaque(3));
    own.run(&mut store, vec![]);
    assert_eq!((store.current(), own.kept()), (3, vec![2, 1]));
}

#[test]
fn a_deleted_receipt_makes_a_later_file_a_persons_own_and_an_earlier_one_an_old_one() {
    for (number, refused) in [(2, true), (0, false)] {
        let (mut store, mut own) = (Store::with(1), Machine::default());
        own.run(&mut store, vec![]);
        own.write(login(number));
        own.receipt = None;
        let end = own.run(&mut store, vec![]);
        let unknown = Outcome::Refused(Refusal::UnknownFamily);
        assert_eq!(end == Some(unknown), refused);
        let left = if refused { number } else { 1 };
        assert_eq!((store.current(), own.file()), (1, Some(left)));
        assert_eq!(own.kept(), if refused { vec![] } else { vec![number] });
    }
}

#[test]
fn a_version_that_is_deleted_and_undeleted_costs_nothing() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    own.run(&mut store, vec![Act::Write(login(2))]);
    let newest = store.held.clone();
    store.held = store.past[0].clone();
    let buried = vec![login(1).fingerprint];
    let end = own.run(&mut store, vec![]);
    assert_eq!(end, Some(Outcome::Persisted { buried }));
    assert_eq!(store.current(), 2, "the file knows better");
    store.held = newest;
    assert_eq!(own.run(&mut store, vec![]), Some(Outcome::Unchanged));
    assert_eq!((store.current(), own.file()), (2, Some(2)));
}

#[test]
fn a_store_restored_from_a_backup_under_a_job_gets_the_jobs_login() {
    for stamped in [true, false] {
        let (mut store, mut own) = (Store::with(1), Machine::default());
        own.run(&mut store, vec![Act::Write(login(2))]);
        let back = if stamped {
            Act::To(|store| store.restore_backup(0, true))
        } else {
            Act::To(|store| store.restore_backup(0, false))
        };
        let end = own.run(&mut store, vec![back, Act::Write(login(3))]);
        assert_eq!((end, store.current()), (Some(persisted()), 3));
    }
}

#[test]
fn a_rotation_carried_into_the_store_by_hand_is_as_good_as_ours() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    let carry = Act::To(|store| store.put_by_hand(login(2)));
    let end = own.run(&mut store, vec![carry, Act::Write(login(2))]);
    assert_eq!(end, Some(persisted()));
    assert_eq!(store.current(), 2);
    let end = own.run(&mut store, vec![Act::Write(login(3))]);
    assert_eq!((end, store.current()), (Some(persisted()), 3));
    assert_eq!(own.kept(), [] as [u8; 0]);
}

#[test]
fn a_job_killed_between_the_landed_swap_and_the_receipt_leaves_nothing_unclear() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    own.run(&mut store, vec![]);
    let old = own.receipt.clone();
    own.run(&mut store, vec![Act::Write(login(2)), Act::Kill]);
    own.receipt = old;
    assert_eq!(own.run(&mut store, vec![]), Some(Outcome::Unchanged));
    let known = own.receipt.as_ref().map(|base| base.generation.clone());
    assert_eq!(known, Some(login(2)), "the receipt is brought up to date");
}

#[test]
fn what_a_codex_rotates_after_such_a_kill_is_adopted_and_the_head_kept() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    own.run(&mut store, vec![]);
    let old = own.receipt.clone();
    own.run(&mut store, vec![Act::Write(login(2)), Act::Kill]);
    own.receipt = old;
    own.write(login(3));
    own.run(&mut store, vec![]);
    assert_eq!((store.current(), own.file()), (3, Some(3)));
    assert_eq!(own.kept(), [2]);
}

#[test]
fn a_set_aside_login_brought_back_by_a_cache_is_set_aside_again() {
    // The cache has the receipt of its file, or not.
    for its_receipt in [false, true] {
        for running in [false, true] {
            let (mut store, mut own) = (Store::with(1), Machine::default());
            own.run(&mut store, vec![]);
            own.write(login(8));
            let cache = own.receipt.clone();
            store.seed(opaque(100));
            own.run(&mut store, vec![]);
            assert_eq!((store.current(), own.kept()), (100, vec![8]));
            own.write(login(8));
            if its_receipt {
                own.receipt = cache;
            }
            let acts = if running {
                vec![Act::Write(login(8))]
            } else {
                vec![]
            };
            let end = own.run(&mut store, acts);
            assert_eq!(
                end,
                Some(if running { older() } else { Outcome::Unchanged })
            );
            assert_eq!((store.current(), own.kept()), (100, vec![8]));
            // What was said of it then is what the next job goes by, in this home and in another.
            own.run(&mut store, vec![]);
            assert_eq!((store.current(), own.file()), (100, Some(100)));
            for acts in [vec![], vec![Act::Write(login(8))]] {
                own.file = None;
                own.receipt = None;
                own.run(&mut store, acts);
                assert_eq!((store.current(), own.kept()), (100, vec![8]));
            }
        }
    }
}

#[test]
fn a_set_aside_login_brought_back_by_a_cache_before_the_persist_is_set_aside_again() {
    // In another home only the record knows of it.
    for another_home in [false, true] {
        let (mut store, mut own) = (Store::with(1), Machine::default());
        own.run(&mut store, vec![]);
        own.write(login(8));
        store.seed(opaque(100));
        own.restore(&mut store);
        assert_eq!(own.kept(), [8]);
        if another_home {
            own.file = None;
            own.receipt = None;
            own.restore(&mut store);
        }
        own.write(login(8));
        let base = own.receipt.clone().expect("a receipt");
        assert_eq!(base.unrelated.is_empty(), another_home);
        let watch = Trip::join(own.terms(Goal::Run), base, &own.others, own.seen());
        assert_eq!(watch.1, [], "a watch writes it through");
        assert_eq!(own.persist(&mut store), Some(older()));
        assert_eq!((store.current(), own.kept()), (100, vec![8]));
    }
}

/// Nothing was set aside, for the receipt said that the store had it: only the receipt of the
/// login that was placed over it can know of it.
#[test]
fn a_login_of_another_family_that_was_placed_over_does_not_come_back() {
    let acts: [fn(&mut Machine, &mut Store) -> Option<Outcome>; 4] = [
        |own, store| own.run(store, vec![]),
        |own, store| own.restore(store),
        |own, store| own.persist(store),
        |own, store| {
            let end = own.run(store, vec![Act::Write(login(8))]);
            assert_eq!(end, Some(older()));
            own.run(store, vec![])
        },
    ];
    for act in acts {
        let (mut store, mut own) = (Store::with(8), Machine::default());
        own.run(&mut store, vec![]);
        store.seed(opaque(100));
        own.restore(&mut store);
        assert_eq!((own.file(), own.kept()), (Some(100), vec![]));
        own.write(login(8));
        act(&mut own, &mut store);
        assert_eq!((store.current(), own.kept()), (100, vec![8]));
        // The receipt stays true through what follows.
        own.run(&mut store, vec![Act::Write(opaque(101))]);
        own.write(login(8));
        own.others.clear();
        own.run(&mut store, vec![]);
        assert_eq!((store.current(), own.kept()), (101, vec![8]));
    }
}

/// From where a rescued login is put into the store once the store works again.
#[test]
fn a_login_that_was_not_persisted_is_no_old_one_for_the_next_persist() {
    for times in [login, opaque] {
        let (mut store, mut own) = (Store::with(1), Machine::default());
        own.restore(&mut store);
        own.write(times(2));
        let base = own.receipt.clone();
        own.others = vec![copy(Place::Rescue, times(2), base)];
        assert_eq!(own.persist(&mut store), Some(persisted()));
        assert_eq!(store.current(), 2);
    }
}

/// A person logs in afresh in the home, and then decides for the store's login.
#[test]
fn a_login_that_a_person_rejected_is_never_used_by_itself() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    store.held.generation = Some(of_session(login(1), "one"));
    own.run(&mut store, vec![]);
    own.write(of_session(login(2), "another"));
    let unknown = Outcome::Refused(Refusal::UnknownFamily);
    assert_eq!(own.restore(&mut store), Some(unknown));
    own.replace = true;
    assert_eq!(own.restore(&mut store), Some(Outcome::Restored));
    own.replace = false;
    assert_eq!((own.file(), own.kept()), (Some(1), vec![2]));
    own.run(&mut store, vec![]);
    assert_eq!((store.current(), own.file()), (1, Some(1)));
    // Nor where the provider refuses the store's: whose it is nobody knows.
    own.refused.push(login(1).fingerprint);
    own.run(&mut store, vec![]);
    assert_eq!(store.current(), 1);
}

/// Codex writes 6 and 7, which the store does not take, and only a runner's clock speaks of them.
#[test]
fn what_a_rescued_login_descends_from_is_in_its_record() {
    let (mut store, mut own) = (Store::with(5), Machine::default());
    own.restore(&mut store);
    let base = own.receipt.clone().expect("a receipt");
    let (trip, _) = Trip::join(own.terms(Goal::Run), base, &[], Seen::Usable(opaque(6)));
    let (trip, _) = trip.step(Event::Changed(opaque(7)));
    assert_eq!(trip.due(), Some(&opaque(7)));
    own.write(opaque(7));
    own.keep(&trip, Keep::Ours, &[], None);
    own.file = None;
    own.receipt = None;
    assert_eq!(own.kept(), [7]);
    store.put_by_hand(opaque(6));
    own.run(&mut store, vec![]);
    assert_eq!((store.current(), own.file()), (7, Some(7)));
}

#[test]
fn a_file_torn_by_a_power_cut_is_set_aside_if_there_is_a_receipt() {
    for known in [true, false] {
        let (mut store, mut own) = (Store::with(1), Machine::default());
        own.run(&mut store, vec![]);
        own.file = Some(Content::Unusable { keepable: true });
        if !known {
            own.receipt = None;
        }
        let end = own.run(&mut store, vec![]);
        let expected = if known {
            Outcome::Unchanged
        } else {
            Outcome::Refused(Refusal::UnusableFile)
        };
        assert_eq!((end, store.current()), (Some(expected), 1));
    }
}

#[test]
fn of_several_copies_at_once_the_latest_goes_into_the_store_and_the_others_stay() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    own.run(&mut store, vec![]);
    let base = own.receipt.clone().expect("a receipt");
    own.write(login(2));
    own.others = vec![
        copy(Place::Rotation, login(3), Some(base.clone())),
        copy(Place::Rescue, login(4), Some(base)),
    ];
    own.run(&mut store, vec![]);
    assert_eq!((store.current(), own.file()), (4, Some(4)));
    assert_eq!(own.kept(), [3, 2, 4]);
}

#[test]
fn a_rotation_killed_after_codex_wrote_is_found_and_used() {
    let (mut store, mut own) = (Store::with(1), Machine::default());
    own.run(&mut store, vec![]);
    let base = own.receipt.clone();
    own.others = vec![copy(Place::Rotation, login(2), base)];
    own.run(&mut store, vec![]);
    assert_eq!((store.current(), own.file()), (2, Some(2)));
}

#[test]
fn another_members_login_never_reaches_the_store() {
    let hers = || {
        let mut hers = login(9);
        hers.identity.subject = Some(Label::new("hers"));
        hers
    };
    let (mut store, mut own) = (Store::with(1), Machine::default());
    own.run(&mut store, vec![]);
    let end = own.run(&mut store, vec![Act::Write(hers())]);
    let stranded = Outcome::Stranded {
        cause: Cause::OtherAccount,
        rescued: true,
    };
    assert_eq!(end, Some(stranded));
    let end = own.run(&mut store, vec![]);
    assert_eq!(end, Some(Outcome::Refused(Refusal::OtherAccount)));
    assert_eq!(store.current(), 1);
}

impl Store {
    fn with(number: u8) -> Self {
        let held = Held {
            version: Version::new("1"),
            generation: Some(login(number)),
            id: None,
            count: 1,
            family: Some(Family(login(number).fingerprint)),
            volatile_hints: false,
        };
        Self {
            held,
            versions: 1,
            past: vec![],
        }
    }

    fn current(&self) -> u8 {
        let generation = self.held.generation.as_ref().expect("a login");
        number(generation.fingerprint)
    }

    fn push(&mut self, held: Held) -> Version {
        self.versions += 1;
        let version = Version::new(&format!("{}", self.versions));
        let new = Held {
            version: version.clone(),
            ..held
        };
        self.past.push(core::mem::replace(&mut self.held, new));
        version
    }

    /// Without a stamp.
    fn put_by_hand(&mut self, login: Generation) {
        self.push(Held {
            generation: Some(login),
            id: None,
            count: 1,
            family: None,
            ..self.held.clone()
        });
    }

    fn seed(&mut self, login: Generation) {
        let family = Some(Family(login.fingerprint));
        self.push(Held {
            generation: Some(login),
            id: None,
            count: self.held.count + 1,
            family,
            ..self.held.clone()
        });
    }

    fn restore_backup(&mut self, index: usize, stamped: bool) {
        let old = self.past[index].clone();
        self.push(Held {
            family: old.family.filter(|_| stamped),
            count: if stamped { old.count } else { 1 },
            ..old
        });
    }

    fn swap(&mut self, write: &Write) -> Reply {
        if write.expected != self.held.version {
            return Reply::Conflict;
        }
        Reply::Landed(self.push(Held {
            generation: Some(write.generation.clone()),
            id: Some(write.id),
            count: write.count,
            family: Some(write.family),
            version: self.held.version.clone(),
            volatile_hints: write.volatile_hints,
        }))
    }
}

impl Machine {
    fn write(&mut self, login: Generation) {
        self.file = Some(Content::Usable(login));
    }

    /// What the file holds.
    fn file(&self) -> Option<u8> {
        match &self.file {
            Some(Content::Usable(login)) => Some(number(login.fingerprint)),
            _ => None,
        }
    }

    /// What the rescue folder holds, newest first.
    fn kept(&self) -> Vec<u8> {
        let records = self.others.iter().filter(|it| it.place == Place::Rescue);
        let logins = records.filter_map(Copy::generation);
        logins.map(|it| number(it.fingerprint)).collect()
    }

    fn run(&mut self, store: &mut Store, acts: Vec<Act>) -> Option<Outcome> {
        let step = Trip::start(self.terms(Goal::Run), self.copies());
        self.drive(step, store, acts)
    }

    fn restore(&mut self, store: &mut Store) -> Option<Outcome> {
        let step = Trip::start(self.terms(Goal::Restore), self.copies());
        self.drive(step, store, vec![])
    }

    fn persist(&mut self, store: &mut Store) -> Option<Outcome> {
        let base = self.receipt.clone().expect("a receipt");
        let records = self.others.iter().filter(|it| it.place == Place::Rescue);
        let records: Vec<Copy> = records.cloned().collect();
        let step = Trip::resume(self.terms(Goal::Run), base, &records, self.seen());
        self.drive(step, store, vec![])
    }

    fn terms(&mut self, goal: Goal) -> Terms {
        self.jobs += 1;
        Terms {
            goal,
            policy: Policy::Newest,
            // The address of the machine tells two of them apart.
            trip: core::ptr::from_ref(self).addr() as u64 + self.jobs,
            history: false,
            replace: self.replace,
            refused: self.refused.clone(),
            allow_account_change: false,
            is_rotation: false,
        }
    }

    fn copies(&self) -> Vec<Copy> {
        let file = Copy {
            place: Place::AuthFile,
            content: self.file.clone().unwrap_or(Content::Missing),
            origins: self.receipt.clone().map(|base| Origins {
                base,
                seen: 0,
                by_name: false,
                hints_count: true,
                elsewhere: false,
            }),
        };
        [vec![file], self.others.clone()].concat()
    }

    fn seen(&self) -> Seen {
        match &self.file {
            Some(Content::Usable(login)) => Seen::Usable(login.clone()),
            Some(Content::Unusable { .. }) => Seen::Unusable,
            Some(Content::Missing | Content::AccessOnly) | None => Seen::Missing,
        }
    }

    /// Does what the trip asks until it ends (`None`: until the job is killed).
    fn drive(&mut self, step: Step, store: &mut Store, acts: Vec<Act>) -> Option<Outcome> {
        let (mut trip, mut effects) = step;
        let found = self.copies();
        let mut acts = acts.into_iter();
        let mut running = false;
        let mut read = None;
        for _ in 0..100 {
            let event = match effects.pop() {
                Some(Effect::Read) => {
                    read = store.held.generation.clone();
                    Event::Read(Ok(Some(store.held.clone())))
                }
                Some(Effect::Place(login)) => {
                    let copies = found.iter().filter_map(Copy::generation);
                    let mut known = copies.chain(&read);
                    let login = known.find(|it| it.fingerprint == login).cloned();
                    self.write(login.expect("read, or a copy"));
                    Event::Placed(Placing::Done)
                }
                Some(Effect::Swap(write)) => {
                    let reply = store.swap(&write);
                    let is_placed = self.file() == Some(number(write.generation.fingerprint));
                    let (next, more) = trip.step(Event::Swapped(reply.clone()));
                    (trip, effects) = (next, more);
                    if matches!(reply, Reply::Landed(_)) && is_placed {
                        self.receipt = trip.base().cloned();
                    }
                    continue;
                }
                Some(Effect::Wait(_)) => Event::Woke,
                Some(Effect::Rescue(keep)) => {
                    self.keep(&trip, keep, &found, read.as_ref());
                    Event::Rescued(true)
                }
                Some(Effect::Run) => {
                    running = true;
                    self.receipt = trip.base().cloned();
                    continue;
                }
                Some(Effect::Finish(outcome)) => {
                    if outcome == Outcome::Restored {
                        self.receipt = trip.base().cloned();
                    }
                    return Some(outcome);
                }
                None if running => match acts.next() {
                    Some(Act::Write(login)) => {
                        self.write(login.clone());
                        Event::Changed(login)
                    }
                    Some(Act::To(act)) => {
                        act(store);
                        continue;
                    }
                    Some(Act::Kill) => return None,
                    None => {
                        running = false;
                        Event::Exited(self.seen())
                    }
                },
                None => panic!("the trip waits for nothing: {trip:#?}"),
            };
            (trip, effects) = trip.step(event);
        }
        panic!("no end: {trip:#?}");
    }

    fn keep(&mut self, trip: &Trip, keep: Keep, found: &[Copy], read: Option<&Generation>) {
        let base = trip.base().cloned();
        let mut kept = vec![];
        match keep {
            Keep::Copies(copies) => kept.extend(copies.into_iter().map(|it| Copy {
                place: Place::Rescue,
                content: found[it.copy].content.clone(),
                origins: it.origins.map(|origins| Origins {
                    seen: origins.seen.max(1),
                    by_name: true,
                    hints_count: false,
                    ..origins
                }),
            })),
            Keep::Theirs | Keep::TheirsInRescue => {
                let theirs = read.expect("read before it is kept").clone();
                self.others
                    .retain(|it| it.place != Place::Rescue || it.generation() != Some(&theirs));
                kept.push(copy(Place::Rescue, theirs, base));
            }
            Keep::Ours => {
                let descent = trip.descent().map(|(base, seen)| Origins {
                    base,
                    seen,
                    by_name: true,
                    hints_count: false,
                    elsewhere: false,
                });
                kept.extend(trip.due().cloned().map(|it| Copy {
                    origins: descent,
                    ..copy(Place::Rescue, it, None)
                }));
                let file = self.copies().remove(0).generation().cloned();
                kept.extend(file.map(|it| copy(Place::Rescue, it, None)));
            }
        }
        for copy in kept {
            let known = self
                .others
                .iter()
                .any(|it| it.place == Place::Rescue && it.generation() == copy.generation());
            if !known && copy.generation().is_some() {
                self.others.insert(0, copy);
            }
        }
    }
}

fn copy(place: Place, login: Generation, base: Option<Base>) -> Copy {
    Copy {
        place,
        content: Content::Usable(login),
        origins: base.map(|base| Origins {
            base,
            seen: 1,
            by_name: place == Place::Rescue,
            hints_count: false,
            elsewhere: false,
        }),
    }
}

fn persisted() -> Outcome {
    Outcome::Persisted { buried: vec![] }
}

fn older() -> Outcome {
    Outcome::Stranded {
        cause: Cause::Older,
        rescued: true,
    }
}

fn of_session(mut login: Generation, session: &str) -> Generation {
    login.hints.session = Some(Label::new(session));
    login
}

fn superseded_by(number: u8) -> Outcome {
    Outcome::Superseded {
        by: login(number).fingerprint,
        rescued: true,
    }
}

fn number(fingerprint: Fingerprint) -> u8 {
    u8::from_str_radix(&format!("{fingerprint}")[..2], 16).expect("a login of these walks")
}

/// The n-th login, issued on the n-th day.
fn login(number: u8) -> Generation {
    let at = i64::from(number) * DAY;
    Generation {
        fingerprint: Fingerprint::new([number; 8]),
        identity: Identity {
            account: Some(Label::new("workspace")),
            subject: Some(Label::new("his")),
            ..Identity::default()
        },
        hints: SessionHints::default(),
        issued: Issued {
            iat: Some(at),
            exp: Some(at + 10 * DAY),
            last_refresh: Some(i128::from(at) * 1_000_000_000),
        },
    }
}

/// Only a runner's clock speaks.
fn opaque(number: u8) -> Generation {
    let mut login = login(number);
    login.issued.iat = None;
    login.issued.exp = None;
    login
}
