//! What callers cannot bring about: somebody else between two steps of one call, requests
//! that land late, and records that were not written here.

use alloc::{collections::VecDeque, vec::Vec};
use core::{
    fmt,
    pin::pin,
    task::{Context, Poll, Waker},
};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::{Guarantees, Reads, Swap};

const NOW: u64 = 1_760_000_000;

/// What happens to one swap.
#[derive(Clone, Copy)]
enum Fault {
    Pass,
    /// It never arrives, and nobody knows.
    Lost,
    /// It is done, and nobody knows.
    ReplyLost,
    /// Somebody does something else first.
    After(fn(&Shelf)),
}

/// A store that remembers no write but the last, and counts what it is asked.
#[derive(Default)]
struct Shelf(Mutex<State>);

#[derive(Default)]
struct State {
    held: Option<(Vec<u8>, Option<Stamp>)>,
    versions: u64,
    faults: VecDeque<Fault>,
    reads: usize,
    /// The id and the bytes of each swap that was sent.
    sent: Vec<(WriteId, Vec<u8>)>,
}

impl Shelf {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, text: &[u8], stamp: Option<Stamp>) {
        self.with(|state| {
            state.versions += 1;
            state.held = Some((text.to_vec(), stamp));
        });
    }

    fn remove(&self) {
        self.with(|state| state.held = None);
    }

    fn next(&self, faults: &[Fault]) {
        self.with(|state| state.faults.extend(faults));
    }

    fn error(&self) -> StoreError {
        StoreError {
            kind: ErrorKind::Unavailable,
            operation: "write",
            store: self.to_string(),
            source: None,
        }
    }
}

impl fmt::Display for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shelf:claim")
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
impl SecretStore for &Shelf {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: Swap::Atomic,
            stamps: true,
            reads: Reads::Strong,
            history: false,
            max_len: 100,
        }
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        Ok(self.with(|state| {
            state.reads += 1;
            let (text, stamp) = state.held.clone()?;
            Some(Stored {
                secret: Secret::new(text),
                version: Version::new(&state.versions.to_string()),
                stamp,
            })
        }))
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let fault = self.with(|state| {
            state.sent.push((stamp.id, new.expose().to_vec()));
            state.faults.pop_front()
        });
        match fault {
            Some(Fault::Lost) => return Err(CasError::Ambiguous(self.error())),
            Some(Fault::After(act)) => act(self),
            Some(Fault::Pass | Fault::ReplyLost) | None => {}
        }
        let there = self.with(|state| {
            let version = Version::new(&state.versions.to_string());
            state.held.is_some().then_some(version)
        });
        if there.as_ref() != expected {
            return Err(CasError::Conflict);
        }
        self.put(new.expose(), Some(stamp.clone()));
        match fault {
            Some(Fault::ReplyLost) => Err(CasError::Ambiguous(self.error())),
            Some(Fault::Pass | Fault::Lost | Fault::After(_)) | None => {
                Ok(Version::new(&self.with(|state| state.versions).to_string()))
            }
        }
    }
}

fn bid(holder: u64, now: u64) -> Bid {
    Bid {
        owner: format!("job {holder}"),
        holder,
        now,
        until: now + 60,
        expired: None,
    }
}

fn acquire(shelf: &Shelf, bid: &Bid) -> Result<Claim, ClaimError> {
    done(Beside(shelf).acquire(bid))
}

fn renew(shelf: &Shelf, claim: &Claim, until: u64) -> Result<Claim, ClaimError> {
    done(Beside(shelf).renew(claim, until))
}

fn release(shelf: &Shelf, claim: &Claim) -> Result<(), ClaimError> {
    done(Beside(shelf).release(claim))
}

/// Nothing here ever waits.
fn done<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("it waits"),
    }
}

/// Somebody else wins a claim for a minute.
fn another_wins(shelf: &Shelf) {
    acquire(shelf, &bid(9, NOW + 1000)).expect("a free claim");
}

fn another_comes_and_goes(shelf: &Shelf) {
    let claim = acquire(shelf, &bid(9, NOW + 1000)).expect("a free claim");
    release(shelf, &claim).expect("our own claim");
}

fn held_by(owner: &str, answer: &Result<Claim, ClaimError>) {
    let held = matches!(answer, Err(ClaimError::Held { owner: by, .. }) if by == owner);
    assert!(held, "{answer:?}");
}

fn lost<T: fmt::Debug>(answer: &Result<T, ClaimError>) {
    assert!(matches!(answer, Err(ClaimError::Lost)), "{answer:?}");
}

/// Requires that the caller was told to come again.
fn unclear<T: fmt::Debug>(answer: &Result<T, ClaimError>) {
    let told = matches!(answer, Err(ClaimError::Store(error)) if error.kind.is_transient());
    assert!(told, "{answer:?}");
}

#[test]
fn errors_say_who_what_and_where() {
    let shelf = Shelf::default();
    acquire(&shelf, &bid(1, NOW)).expect("a free claim");
    let held = acquire(&shelf, &bid(2, NOW)).expect_err("it is held");
    assert_eq!(held.to_string(), "job 1 holds the claim");
    assert_eq!(ClaimError::Lost.to_string(), "the claim was lost");
    shelf.next(&[Fault::Lost]);
    let failed = acquire(&shelf, &bid(2, NOW + 1000)).expect_err("a lost request");
    assert_eq!(
        failed.to_string(),
        "cannot write shelf:claim: the store is not available"
    );
}

/// Requires that somebody else holds the claim, and returns the state of the record.
fn state_of(answer: Result<Claim, ClaimError>) -> RecordState {
    match answer {
        Err(ClaimError::Held { state, .. }) => state,
        other => panic!("{other:?}"),
    }
}

/// Asks with a state that was seen for long enough.
fn acquire_expired(
    shelf: &Shelf,
    holder: u64,
    now: u64,
    state: RecordState,
) -> Result<Claim, ClaimError> {
    let expired = Some(state);
    acquire(
        shelf,
        &Bid {
            expired,
            ..bid(holder, now)
        },
    )
}

/// Copying a file, or writing it by hand, loses the stamp and not the text.
#[test]
fn a_record_without_a_stamp_counts_until_its_end() {
    let shelf = Shelf::default();
    let text = format!("held until {}\na note", NOW + 60);
    shelf.put(text.as_bytes(), None);
    let standing = done(Beside(&shelf).look()).expect("a shelf").expect("held");
    assert!(standing.is_foreign);
    assert_eq!(standing.until, Some(NOW + 60));
    assert_eq!(standing.note.as_deref(), Some("a note"));
    for holder in [0, 1] {
        held_by(
            "an unknown job",
            &acquire(&shelf, &bid(holder, NOW + 60 + CLOCK_SKEW - 1)),
        );
    }
    let claim = acquire(&shelf, &bid(1, NOW + 60 + CLOCK_SKEW)).expect("its end is over");
    assert_eq!(claim.note.as_deref(), Some("a note"));

    shelf.put(b"released\na note", None);
    lost(&renew(&shelf, &claim, NOW + 500));
    let claim = acquire(&shelf, &bid(2, NOW)).expect("it was given back");
    assert_eq!(claim.note.as_deref(), Some("a note"));
}

#[test]
fn a_record_that_makes_no_sense_is_taken_over_once_it_was_seen_for_long_enough() {
    let stamp = Record {
        owner: "job 1".into(),
        holder: 1,
        until: None,
        note: None,
    }
    .stamp(None);
    let texts: [(&[u8], _); 6] = [
        (b"made-up-token", None),
        (b"made-up-token", Some(&stamp)),
        (b"", Some(&stamp)),
        (b"held until made-up-token", Some(&stamp)),
        (b"held until -1", Some(&stamp)),
        (b"held until \xff", Some(&stamp)),
    ];
    for (text, stamp) in texts {
        let shelf = Shelf::default();
        shelf.put(text, stamp.cloned());
        let standing = done(Beside(&shelf).look()).expect("a shelf").expect("held");
        assert!(standing.is_foreign);
        assert_eq!(standing.until, Some(u64::MAX));
        let held = acquire(&shelf, &bid(2, NOW));
        assert!(!format!("{held:?}").contains("made-up"), "{held:?}");
        assert!(
            matches!(held, Err(ClaimError::Held { until, .. }) if until == NOW + 60 + CLOCK_SKEW),
            "{held:?}"
        );
        let state = state_of(held);
        state_of(acquire(&shelf, &bid(2, NOW + 86_400)));
        assert_eq!(shelf.with(|state| state.sent.len()), 0);
        let claim = acquire_expired(&shelf, 2, NOW, state).expect("it has expired");
        assert_eq!(claim.note, None);
        renew(&shelf, &claim, NOW + 100).expect("our own claim");
    }
}

/// A clock a day ahead, killed while it holds the claim.
#[test]
fn a_claim_that_nobody_renews_is_taken_over_whatever_its_end() {
    const DAY: u64 = 86_400;
    let shelf = Shelf::default();
    let ahead = acquire(&shelf, &bid(1, NOW + DAY)).expect("a free claim");
    let held = acquire(&shelf, &bid(2, NOW));
    assert!(
        matches!(held, Err(ClaimError::Held { until, .. }) if until == NOW + 60 + CLOCK_SKEW),
        "{held:?}"
    );
    let state = state_of(held);

    // It is renewed: another state, which nobody has seen for long.
    let ahead = renew(&shelf, &ahead, NOW + DAY + 80).expect("our own claim");
    let second = state_of(acquire_expired(&shelf, 2, NOW + 90, state));

    // Renewed at the last moment.
    shelf.next(&[Fault::After(|shelf| {
        let claim = acquire(shelf, &bid(1, NOW + 86_400)).expect("its own claim");
        renew(shelf, &claim, NOW + 86_500).expect("its own claim");
    })]);
    let third = state_of(acquire_expired(&shelf, 2, NOW + 180, second));

    acquire_expired(&shelf, 2, NOW + 270, third).expect("it has expired");
    lost(&renew(&shelf, &ahead, NOW + DAY + 300));
    held_by("job 2", &acquire(&shelf, &bid(3, NOW + 270)));
}

#[test]
fn the_end_of_time_is_no_end() {
    let shelf = Shelf::default();
    for until in [u64::MAX, u64::MAX - CLOCK_SKEW] {
        shelf.remove();
        let endless = Bid {
            until,
            ..bid(1, NOW)
        };
        acquire(&shelf, &endless).expect("a free claim");
        let late = Bid {
            now: u64::MAX - 1,
            ..bid(2, NOW)
        };
        held_by("job 1", &acquire(&shelf, &late));
    }
}

#[test]
fn who_asks_again_after_the_end_is_granted_anew_and_at_once() {
    let shelf = Shelf::default();
    let first = acquire(&shelf, &bid(1, NOW)).expect("a free claim");
    let before = acquire(&shelf, &bid(1, first.until - 1)).expect("our own claim");
    assert_eq!(before, first);
    held_by("job 1", &acquire(&shelf, &bid(2, first.until)));
    let second = acquire(&shelf, &bid(1, first.until)).expect("our own claim");
    assert_eq!(second.until, first.until + 60);
    assert_ne!(second.version, first.version);
    held_by("job 1", &acquire(&shelf, &bid(2, second.until)));
}

#[test]
fn two_askers_with_one_number_are_one() {
    let shelf = Shelf::default();
    let claim = acquire(&shelf, &bid(1, NOW)).expect("a free claim");
    assert_eq!(acquire(&shelf, &bid(1, NOW)).expect("the same"), claim);
    release(&shelf, &claim).expect("our own claim");
    lost(&renew(&shelf, &claim, NOW + 70));
}

#[test]
fn who_is_beaten_between_the_look_and_the_write_is_told_by_whom() {
    let shelf = Shelf::default();
    for number in 1..3 {
        shelf.next(&[Fault::After(another_wins)]);
        held_by("job 9", &acquire(&shelf, &bid(number, NOW)));
        let winner = acquire(&shelf, &bid(9, NOW + 1000)).expect("its own claim");
        release(&shelf, &winner).expect("its own claim");
    }
}

#[test]
fn who_is_too_late_for_what_is_free_again_asks_again() {
    let shelf = Shelf::default();
    let first = acquire(&shelf, &bid(1, NOW)).expect("a free claim");
    release(&shelf, &first).expect("our own claim");
    for another in [another_comes_and_goes, Shelf::remove] {
        shelf.next(&[Fault::After(another)]);
        let answer = acquire(&shelf, &bid(2, NOW));
        unclear(&answer);
        let error = answer.expect_err("unclear");
        assert!(error.to_string().contains("shelf:claim"), "{error}");
        let claim = acquire(&shelf, &bid(2, NOW)).expect("a free claim");
        release(&shelf, &claim).expect("our own claim");
    }
}

#[test]
fn an_attempt_that_lands_late_is_our_claim() {
    let shelf = Shelf::default();
    shelf.next(&[
        Fault::Lost,
        // What was lost was only held up.
        Fault::After(|shelf| {
            acquire(shelf, &bid(1, NOW)).expect("a free claim");
        }),
    ]);
    unclear(&acquire(&shelf, &bid(1, NOW)));
    let later = bid(1, NOW + 5);
    let claim = acquire(&shelf, &later).expect("a free claim");
    assert_eq!(claim.until, NOW + 60);
    assert_eq!(acquire(&shelf, &later).expect("our own claim"), claim);
}

#[test]
fn a_lost_renewal_is_settled_by_whatever_is_asked_next() {
    type Ask = fn(&Shelf, &Claim) -> Result<Option<Claim>, ClaimError>;
    let next: [Ask; 3] = [
        |shelf, claim| renew(shelf, claim, NOW + 100).map(Some),
        |shelf, claim| renew(shelf, claim, NOW + 200).map(Some),
        |shelf, claim| release(shelf, claim).map(|()| None),
    ];
    for next in next {
        for fault in [Fault::Lost, Fault::ReplyLost] {
            let shelf = Shelf::default();
            let claim = acquire(&shelf, &bid(1, NOW)).expect("a free claim");
            shelf.next(&[fault]);
            unclear(&renew(&shelf, &claim, NOW + 100));
            match next(&shelf, &claim).expect("our own claim") {
                Some(renewed) => {
                    assert_ne!(renewed.version, claim.version);
                    let found = acquire(&shelf, &bid(1, NOW)).expect("our own claim");
                    assert_eq!(found, renewed);
                }
                None => another_comes_and_goes(&shelf),
            }
        }
    }
}

#[test]
fn a_lost_release_is_settled_by_asking_again() {
    for fault in [Fault::Lost, Fault::ReplyLost] {
        let shelf = Shelf::default();
        let claim = acquire(&shelf, &bid(1, NOW)).expect("a free claim");
        shelf.next(&[fault]);
        unclear(&release(&shelf, &claim));
        release(&shelf, &claim).expect("our own claim");
        acquire(&shelf, &bid(2, NOW)).expect("a free claim");
        // Nobody can tell any more that it was given back.
        lost(&release(&shelf, &claim));
        held_by("job 2", &acquire(&shelf, &bid(3, NOW)));
    }
}

#[test]
fn who_is_overtaken_while_it_renews_has_lost() {
    for another in [another_wins, Shelf::remove] {
        let shelf = Shelf::default();
        let claim = acquire(&shelf, &bid(1, NOW)).expect("a free claim");
        shelf.next(&[Fault::After(another)]);
        lost(&renew(&shelf, &claim, NOW + 100));
        lost(&release(&shelf, &claim));
    }
}

/// The second attempt is overtaken too, so nothing is known of what is there now.
#[test]
fn who_is_overtaken_twice_asks_again() {
    let shelf = Shelf::default();
    let claim = acquire(&shelf, &bid(1, NOW)).expect("a free claim");
    renew(&shelf, &claim, NOW + 100).expect("our own claim");
    shelf.next(&[Fault::Pass, Fault::After(another_wins)]);
    unclear(&renew(&shelf, &claim, NOW + 200));
    lost(&renew(&shelf, &claim, NOW + 200));
}

#[test]
fn a_removed_record_frees_the_claim() {
    let shelf = Shelf::default();
    let first = acquire(&shelf, &bid(1, NOW)).expect("a free claim");
    let first = renew(&shelf, &first, NOW + 100).expect("our own claim");
    shelf.remove();
    lost(&renew(&shelf, &first, NOW + 100));
    acquire(&shelf, &bid(2, NOW)).expect("a free claim");
    lost(&renew(&shelf, &first, NOW + 100));
    lost(&release(&shelf, &first));
    held_by("job 2", &acquire(&shelf, &bid(1, NOW)));
}

/// A store may refuse other bytes under an id that it has seen.
#[test]
fn no_id_stands_for_two_texts() {
    let shelf = Shelf::default();
    shelf.next(&[Fault::Lost]);
    unclear(&acquire(&shelf, &bid(1, NOW)));
    let mut claim = acquire(&shelf, &bid(1, NOW + 5)).expect("a free claim");
    for until in [100, 200, 100] {
        shelf.next(&[Fault::Lost]);
        unclear(&renew(&shelf, &claim, NOW + until));
        claim = renew(&shelf, &claim, NOW + until + 5).expect("our own claim");
    }
    shelf.next(&[Fault::Lost]);
    unclear(&renew(&shelf, &claim, NOW + 300));
    claim.note = Some("another note".into());
    claim = renew(&shelf, &claim, NOW + 300).expect("our own claim");
    release(&shelf, &claim).expect("our own claim");
    let sent = shelf.with(|state| state.sent.clone());
    assert_eq!(sent.len(), 11);
    for (index, (id, _)) in sent.iter().enumerate() {
        let before = sent[..index].iter();
        assert!(before.clone().all(|(other, _)| other != id), "{sent:?}");
    }
}

#[test]
fn a_claim_costs_a_read_and_two_writes() {
    let shelf = Shelf::default();
    let claim = acquire(&shelf, &bid(1, NOW)).expect("a free claim");
    release(&shelf, &claim).expect("our own claim");
    let texts = [format!("held until {}", NOW + 60), "released".into()];
    let (reads, sent) = shelf.with(|state| (state.reads, state.sent.clone()));
    assert_eq!(reads, 1);
    let sent: Vec<_> = sent.into_iter().map(|(_, text)| text).collect();
    assert_eq!(sent, texts.map(String::into_bytes));
}
