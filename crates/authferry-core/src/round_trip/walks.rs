//! Scenarios with jobs, people and machines from start to end, with a store and a home that never
//! fail.

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
    /// Every value that was current.
    past: Vec<Held>,
}

/// A machine with a persistent home.
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

/// An action while a command runs.
enum Act {
    /// Codex writes the auth file.
    Write(Generation),
    /// Another party changes the store.
    ChangeStore(fn(&mut Store)),
    /// The job is killed.
    Kill,
}

#[test]
fn an_ephemeral_runner_starts_each_job_with_the_stores_login() {
    let mut store = Store::with(1);
    for number in [2, 3] {
        let end = Machine::default().run(&mut store, vec![Act::Write(login(number))]);
        assert_eq!(end, Some(persisted()));
    }
    assert_eq!((store.current(), store.held.count), (3, 3));
}

#[test]
fn a_persistent_home_brings_in_a_manual_rotation() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    machine.run(&mut store, vec![]);
    machine.write(login(2));
    assert_eq!(machine.run(&mut store, vec![]), Some(persisted()));
    assert_eq!(store.current(), 2);
    assert_eq!(machine.kept(), [] as [u8; 0], "the head descends into it");
}

#[test]
fn a_job_killed_after_its_restore_loses_no_login() {
    for rotates in [false, true] {
        let (mut store, mut machine) = (Store::with(1), Machine::default());
        assert_eq!(machine.restore(&mut store), Some(Outcome::Restored));
        if rotates {
            machine.write(login(2));
        }
        let end = machine.run(&mut store, vec![]);
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
fn the_later_of_two_forked_rotations_wins_and_the_other_is_rescued() {
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
            let overwritten = vec![login(2).fingerprint];
            Outcome::Persisted { overwritten }
        } else {
            Outcome::Superseded { by, rescued: true }
        };
        assert_eq!(end, Some(expected));
    }
}

#[test]
fn a_manual_write_during_a_job_stays() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    let put = Act::ChangeStore(|store| store.put_by_hand(login(100)));
    let end = machine.run(&mut store, vec![put, Act::Write(login(110))]);
    assert_eq!(end, Some(superseded_by(100)));
    assert_eq!((store.current(), machine.kept()), (100, vec![110]));
}

#[test]
fn a_rotated_reseed_stays_although_ours_is_later() {
    for put in [Store::put_by_hand, Store::seed] {
        let mut store = Store::with(5);
        let mut machine = Machine::default();
        machine.restore(&mut store);
        put(&mut store, login(100));
        Machine::default().run(&mut store, vec![Act::Write(login(101))]);
        machine.write(login(106));
        assert_eq!(machine.persist(&mut store), Some(superseded_by(101)));
        assert_eq!((store.current(), machine.kept()), (101, vec![106]));
        // The home still has its file and receipt.
        machine.run(&mut store, vec![]);
        assert_eq!((store.current(), machine.file()), (101, Some(101)));
    }
}

#[test]
fn a_stale_image_is_replaced_by_the_head() {
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
fn a_runners_clock_that_is_a_day_off_is_tolerated() {
    for off in [-DAY, DAY] {
        let (mut store, mut machine) = (Store::with(1), Machine::default());
        let mut next = login(2);
        next.issued.last_refresh = next
            .issued
            .last_refresh
            .map(|at| at + 3 * i128::from(off) * 1_000_000_000);
        let end = machine.run(&mut store, vec![Act::Write(next.clone())]);
        assert_eq!((end, store.current()), (Some(persisted()), 2));
        machine.write(login(3));
        machine.run(&mut store, vec![]);
        assert_eq!((store.current(), machine.kept()), (3, vec![]));
    }
}

#[test]
fn opaque_tokens_are_persisted_and_the_replaced_login_is_kept() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    let end = machine.run(&mut store, vec![Act::Write(opaque(2))]);
    assert_eq!((end, store.current()), (Some(persisted()), 2));
    assert_eq!(machine.kept(), [1]);
    machine.write(opaque(3));
    machine.run(&mut store, vec![]);
    assert_eq!((store.current(), machine.kept()), (3, vec![2, 1]));
}

#[test]
fn without_a_receipt_a_later_file_is_refused_and_an_earlier_one_set_aside() {
    for (number, refused) in [(2, true), (0, false)] {
        let (mut store, mut machine) = (Store::with(1), Machine::default());
        machine.run(&mut store, vec![]);
        machine.write(login(number));
        machine.receipt = None;
        let end = machine.run(&mut store, vec![]);
        let unknown = Outcome::Refused(Refusal::UnknownFamily);
        assert_eq!(end == Some(unknown), refused);
        let left = if refused { number } else { 1 };
        assert_eq!((store.current(), machine.file()), (1, Some(left)));
        assert_eq!(machine.kept(), if refused { vec![] } else { vec![number] });
    }
}

#[test]
fn a_deleted_and_undeleted_version_loses_no_login() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    machine.run(&mut store, vec![Act::Write(login(2))]);
    let newest = store.held.clone();
    store.held = store.past[0].clone();
    let overwritten = vec![login(1).fingerprint];
    let end = machine.run(&mut store, vec![]);
    assert_eq!(end, Some(Outcome::Persisted { overwritten }));
    assert_eq!(store.current(), 2, "the file has the later login");
    store.held = newest;
    assert_eq!(machine.run(&mut store, vec![]), Some(Outcome::Unchanged));
    assert_eq!((store.current(), machine.file()), (2, Some(2)));
}

#[test]
fn a_store_restored_from_a_backup_during_a_job_gets_the_jobs_login() {
    for stamped in [true, false] {
        let (mut store, mut machine) = (Store::with(1), Machine::default());
        machine.run(&mut store, vec![Act::Write(login(2))]);
        let back = if stamped {
            Act::ChangeStore(|store| store.restore_backup(0, true))
        } else {
            Act::ChangeStore(|store| store.restore_backup(0, false))
        };
        let end = machine.run(&mut store, vec![back, Act::Write(login(3))]);
        assert_eq!((end, store.current()), (Some(persisted()), 3));
    }
}

#[test]
fn a_rotation_stored_by_hand_counts_as_ours() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    let carry = Act::ChangeStore(|store| store.put_by_hand(login(2)));
    let end = machine.run(&mut store, vec![carry, Act::Write(login(2))]);
    assert_eq!(end, Some(persisted()));
    assert_eq!(store.current(), 2);
    let end = machine.run(&mut store, vec![Act::Write(login(3))]);
    assert_eq!((end, store.current()), (Some(persisted()), 3));
    assert_eq!(machine.kept(), [] as [u8; 0]);
}

#[test]
fn a_kill_between_swap_and_receipt_leaves_the_login_unchanged() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    machine.run(&mut store, vec![]);
    let old = machine.receipt.clone();
    machine.run(&mut store, vec![Act::Write(login(2)), Act::Kill]);
    machine.receipt = old;
    assert_eq!(machine.run(&mut store, vec![]), Some(Outcome::Unchanged));
    let known = machine.receipt.as_ref().map(|base| base.generation.clone());
    assert_eq!(known, Some(login(2)), "the receipt is updated");
}

#[test]
fn a_rotation_after_a_kill_between_swap_and_receipt_is_adopted() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    machine.run(&mut store, vec![]);
    let old = machine.receipt.clone();
    machine.run(&mut store, vec![Act::Write(login(2)), Act::Kill]);
    machine.receipt = old;
    machine.write(login(3));
    machine.run(&mut store, vec![]);
    assert_eq!((store.current(), machine.file()), (3, Some(3)));
    assert_eq!(machine.kept(), [2]);
}

#[test]
fn a_set_aside_login_from_a_cache_is_set_aside_again() {
    // The cache restores the receipt, or only the file.
    for its_receipt in [false, true] {
        for running in [false, true] {
            let (mut store, mut machine) = (Store::with(1), Machine::default());
            machine.run(&mut store, vec![]);
            machine.write(login(8));
            let cache = machine.receipt.clone();
            store.seed(opaque(100));
            machine.run(&mut store, vec![]);
            assert_eq!((store.current(), machine.kept()), (100, vec![8]));
            machine.write(login(8));
            if its_receipt {
                machine.receipt = cache;
            }
            let acts = if running {
                vec![Act::Write(login(8))]
            } else {
                vec![]
            };
            let end = machine.run(&mut store, acts);
            assert_eq!(
                end,
                Some(if running { older() } else { Outcome::Unchanged })
            );
            assert_eq!((store.current(), machine.kept()), (100, vec![8]));
            // The record decides for the next job too, in this home and in another.
            machine.run(&mut store, vec![]);
            assert_eq!((store.current(), machine.file()), (100, Some(100)));
            for acts in [vec![], vec![Act::Write(login(8))]] {
                machine.file = None;
                machine.receipt = None;
                machine.run(&mut store, acts);
                assert_eq!((store.current(), machine.kept()), (100, vec![8]));
            }
        }
    }
}

#[test]
fn a_set_aside_login_from_a_cache_is_not_persisted() {
    // In another home only the record names the login.
    for another_home in [false, true] {
        let (mut store, mut machine) = (Store::with(1), Machine::default());
        machine.run(&mut store, vec![]);
        machine.write(login(8));
        store.seed(opaque(100));
        machine.restore(&mut store);
        assert_eq!(machine.kept(), [8]);
        if another_home {
            machine.file = None;
            machine.receipt = None;
            machine.restore(&mut store);
        }
        machine.write(login(8));
        let base = machine.receipt.clone().expect("a receipt");
        assert_eq!(base.unrelated.is_empty(), another_home);
        let watch = RoundTrip::join(
            machine.terms(Goal::Run),
            base,
            &machine.others,
            machine.seen(),
        );
        assert_eq!(watch.1, [], "a watch writes it through");
        assert_eq!(machine.persist(&mut store), Some(older()));
        assert_eq!((store.current(), machine.kept()), (100, vec![8]));
    }
}

/// The login was not backed up, because by its receipt the store had it. Only the receipt of the
/// new login can list it.
#[test]
fn a_replaced_login_of_another_family_is_not_persisted_again() {
    let acts: [fn(&mut Machine, &mut Store) -> Option<Outcome>; 4] = [
        |machine, store| machine.run(store, vec![]),
        |machine, store| machine.restore(store),
        |machine, store| machine.persist(store),
        |machine, store| {
            let end = machine.run(store, vec![Act::Write(login(8))]);
            assert_eq!(end, Some(older()));
            machine.run(store, vec![])
        },
    ];
    for act in acts {
        let (mut store, mut machine) = (Store::with(8), Machine::default());
        machine.run(&mut store, vec![]);
        store.seed(opaque(100));
        machine.restore(&mut store);
        assert_eq!((machine.file(), machine.kept()), (Some(100), vec![]));
        machine.write(login(8));
        act(&mut machine, &mut store);
        assert_eq!((store.current(), machine.kept()), (100, vec![8]));
        // Later receipts still list it.
        machine.run(&mut store, vec![Act::Write(opaque(101))]);
        machine.write(login(8));
        machine.others.clear();
        machine.run(&mut store, vec![]);
        assert_eq!((store.current(), machine.kept()), (101, vec![8]));
    }
}

/// The next persist, after the store works again, writes the rescued login.
#[test]
fn the_next_persist_writes_a_rescued_login() {
    for times in [login, opaque] {
        let (mut store, mut machine) = (Store::with(1), Machine::default());
        machine.restore(&mut store);
        machine.write(times(2));
        let base = machine.receipt.clone();
        machine.others = vec![copy(Place::Rescue, times(2), base)];
        assert_eq!(machine.persist(&mut store), Some(persisted()));
        assert_eq!(store.current(), 2);
    }
}

/// A person logs in again in the home, then chooses the store's login.
#[test]
fn a_login_that_a_person_replaced_is_not_used_automatically() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    store.held.generation = Some(of_session(login(1), "one"));
    machine.run(&mut store, vec![]);
    machine.write(of_session(login(2), "another"));
    let unknown = Outcome::Refused(Refusal::UnknownFamily);
    assert_eq!(machine.restore(&mut store), Some(unknown));
    machine.replace = true;
    assert_eq!(machine.restore(&mut store), Some(Outcome::Restored));
    machine.replace = false;
    assert_eq!((machine.file(), machine.kept()), (Some(1), vec![2]));
    machine.run(&mut store, vec![]);
    assert_eq!((store.current(), machine.file()), (1, Some(1)));
    // Not even if the provider refuses the store's login: the family of the other is unknown.
    machine.refused.push(login(1).fingerprint);
    machine.run(&mut store, vec![]);
    assert_eq!(store.current(), 1);
}

/// Codex writes 6 and 7, which the store refuses. Only a runner's clock dates them.
#[test]
fn the_record_of_a_rescued_login_has_its_ancestors() {
    let (mut store, mut machine) = (Store::with(5), Machine::default());
    machine.restore(&mut store);
    let base = machine.receipt.clone().expect("a receipt");
    let (round_trip, _) =
        RoundTrip::join(machine.terms(Goal::Run), base, &[], Seen::Usable(opaque(6)));
    let (round_trip, _) = round_trip.step(Event::Changed(opaque(7)));
    assert_eq!(round_trip.due(), Some(&opaque(7)));
    machine.write(opaque(7));
    machine.keep(&round_trip, Keep::Ours, &[], None);
    machine.file = None;
    machine.receipt = None;
    assert_eq!(machine.kept(), [7]);
    store.put_by_hand(opaque(6));
    machine.run(&mut store, vec![]);
    assert_eq!((store.current(), machine.file()), (7, Some(7)));
}

#[test]
fn a_torn_file_is_set_aside_only_with_a_receipt() {
    for known in [true, false] {
        let (mut store, mut machine) = (Store::with(1), Machine::default());
        machine.run(&mut store, vec![]);
        machine.file = Some(Content::AuthFileError { keepable: true });
        if !known {
            machine.receipt = None;
        }
        let end = machine.run(&mut store, vec![]);
        let expected = if known {
            Outcome::Unchanged
        } else {
            Outcome::Refused(Refusal::UnusableFile)
        };
        assert_eq!((end, store.current()), (Some(expected), 1));
    }
}

#[test]
fn the_latest_of_several_copies_is_stored_and_the_others_are_kept() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    machine.run(&mut store, vec![]);
    let base = machine.receipt.clone().expect("a receipt");
    machine.write(login(2));
    machine.others = vec![
        copy(Place::Rotation, login(3), Some(base.clone())),
        copy(Place::Rescue, login(4), Some(base)),
    ];
    machine.run(&mut store, vec![]);
    assert_eq!((store.current(), machine.file()), (4, Some(4)));
    assert_eq!(machine.kept(), [3, 2, 4]);
}

#[test]
fn a_rotation_killed_after_codex_wrote_is_adopted() {
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    machine.run(&mut store, vec![]);
    let base = machine.receipt.clone();
    machine.others = vec![copy(Place::Rotation, login(2), base)];
    machine.run(&mut store, vec![]);
    assert_eq!((store.current(), machine.file()), (2, Some(2)));
}

#[test]
fn another_members_login_never_reaches_the_store() {
    let other_person = || {
        let mut other_person = login(9);
        other_person.identity.subject = Some(Label::new("hers"));
        other_person
    };
    let (mut store, mut machine) = (Store::with(1), Machine::default());
    machine.run(&mut store, vec![]);
    let end = machine.run(&mut store, vec![Act::Write(other_person())]);
    let not_persisted = Outcome::NotPersisted {
        cause: Cause::OtherAccount,
        rescued: true,
    };
    assert_eq!(end, Some(not_persisted));
    let end = machine.run(&mut store, vec![]);
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

    /// Writes a login without a stamp.
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

    /// The number of the login in the file.
    fn file(&self) -> Option<u8> {
        match &self.file {
            Some(Content::Usable(login)) => Some(number(login.fingerprint)),
            _ => None,
        }
    }

    /// The numbers of the logins in the rescue folder, newest first.
    fn kept(&self) -> Vec<u8> {
        let records = self.others.iter().filter(|it| it.place == Place::Rescue);
        let logins = records.filter_map(Copy::generation);
        logins.map(|it| number(it.fingerprint)).collect()
    }

    fn run(&mut self, store: &mut Store, acts: Vec<Act>) -> Option<Outcome> {
        let step = RoundTrip::start(self.terms(Goal::Run), self.copies());
        self.drive(step, store, acts)
    }

    fn restore(&mut self, store: &mut Store) -> Option<Outcome> {
        let step = RoundTrip::start(self.terms(Goal::Restore), self.copies());
        self.drive(step, store, vec![])
    }

    fn persist(&mut self, store: &mut Store) -> Option<Outcome> {
        let base = self.receipt.clone().expect("a receipt");
        let records = self.others.iter().filter(|it| it.place == Place::Rescue);
        let records: Vec<Copy> = records.cloned().collect();
        let step = RoundTrip::resume(self.terms(Goal::Run), base, &records, self.seen());
        self.drive(step, store, vec![])
    }

    fn terms(&mut self, goal: Goal) -> Terms {
        self.jobs += 1;
        Terms {
            goal,
            policy: Policy::Newest,
            // The memory address distinguishes two machines.
            nonce: core::ptr::from_ref(self).addr() as u64 + self.jobs,
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
            Some(Content::AuthFileError { .. }) => Seen::AuthFileError,
            Some(Content::Missing | Content::AccessOnly) | None => Seen::Missing,
        }
    }

    /// Executes the effects of a round trip until it ends. Returns `None` if the job is killed.
    fn drive(&mut self, step: Step, store: &mut Store, acts: Vec<Act>) -> Option<Outcome> {
        let (mut round_trip, mut effects) = step;
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
                    let (next, more) = round_trip.step(Event::Swapped(reply.clone()));
                    (round_trip, effects) = (next, more);
                    if matches!(reply, Reply::Landed(_)) && is_placed {
                        self.receipt = round_trip.base().cloned();
                    }
                    continue;
                }
                Some(Effect::Wait(_)) => Event::Waited,
                Some(Effect::Rescue(keep)) => {
                    self.keep(&round_trip, keep, &found, read.as_ref());
                    Event::Rescued(true)
                }
                Some(Effect::Run) => {
                    running = true;
                    self.receipt = round_trip.base().cloned();
                    continue;
                }
                Some(Effect::Finish(outcome)) => {
                    if outcome == Outcome::Restored {
                        self.receipt = round_trip.base().cloned();
                    }
                    return Some(outcome);
                }
                None if running => match acts.next() {
                    Some(Act::Write(login)) => {
                        self.write(login.clone());
                        Event::Changed(login)
                    }
                    Some(Act::ChangeStore(act)) => {
                        act(store);
                        continue;
                    }
                    Some(Act::Kill) => return None,
                    None => {
                        running = false;
                        Event::Exited(self.seen())
                    }
                },
                None => panic!("no effect is pending: {round_trip:#?}"),
            };
            (round_trip, effects) = round_trip.step(event);
        }
        panic!("no end: {round_trip:#?}");
    }

    fn keep(
        &mut self,
        round_trip: &RoundTrip,
        keep: Keep,
        found: &[Copy],
        read: Option<&Generation>,
    ) {
        let base = round_trip.base().cloned();
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
                let descent = round_trip.descent().map(|(base, seen)| Origins {
                    base,
                    seen,
                    by_name: true,
                    hints_count: false,
                    elsewhere: false,
                });
                kept.extend(round_trip.due().cloned().map(|it| Copy {
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
    Outcome::Persisted {
        overwritten: vec![],
    }
}

fn older() -> Outcome {
    Outcome::NotPersisted {
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

/// A login with an opaque token: only a runner's clock dates it.
fn opaque(number: u8) -> Generation {
    let mut login = login(number);
    login.issued.iat = None;
    login.issued.exp = None;
    login
}
