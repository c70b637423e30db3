//! Races that callers cannot provoke: another job between two steps of one call, requests that land
//! late, and records that authferry did not write.

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

/// A fault of one swap.
#[derive(Clone, Copy)]
enum Fault {
    Pass,
    /// The request is lost.
    Lost,
    /// The swap lands, but the answer is lost.
    ReplyLost,
    /// Another job acts first.
    After(fn(&FakeStore)),
}

/// A store that remembers only its last write, and counts requests.
#[derive(Default)]
struct FakeStore(Mutex<State>);

#[derive(Default)]
struct State {
    held: Option<(Vec<u8>, Option<Stamp>)>,
    versions: u64,
    faults: VecDeque<Fault>,
    reads: usize,
    /// The id and the bytes of each swap sent.
    sent: Vec<(WriteId, Vec<u8>)>,
}

impl FakeStore {
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

impl fmt::Display for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("store:lease")
    }
}

impl fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[async_trait]
impl SecretStore for &FakeStore {
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
        let current = self.with(|state| {
            let version = Version::new(&state.versions.to_string());
            state.held.is_some().then_some(version)
        });
        if current.as_ref() != expected {
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

fn request(holder: u64, now: u64) -> LeaseRequest {
    LeaseRequest {
        owner: format!("job {holder}"),
        holder,
        now,
        until: now + 60,
        expired: None,
    }
}

fn acquire(store: &FakeStore, request: &LeaseRequest) -> Result<Lease, LeaseError> {
    block_on(StoreBackedLeases(store).acquire(request))
}

fn renew(store: &FakeStore, lease: &Lease, until: u64) -> Result<Lease, LeaseError> {
    block_on(StoreBackedLeases(store).renew(lease, until))
}

fn release(store: &FakeStore, lease: &Lease) -> Result<(), LeaseError> {
    block_on(StoreBackedLeases(store).release(lease))
}

/// Polls a future that must be ready at once.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the future is pending"),
    }
}

/// Another job acquires the lease for a minute.
fn other_job_acquires(store: &FakeStore) {
    acquire(store, &request(9, NOW + 1000)).expect("a free lease");
}

fn other_job_acquires_and_releases(store: &FakeStore) {
    let lease = acquire(store, &request(9, NOW + 1000)).expect("a free lease");
    release(store, &lease).expect("our own lease");
}

fn assert_held_by(owner: &str, answer: &Result<Lease, LeaseError>) {
    let held = matches!(answer, Err(LeaseError::Held { owner: by, .. }) if by == owner);
    assert!(held, "{answer:?}");
}

fn assert_lost<T: fmt::Debug>(answer: &Result<T, LeaseError>) {
    assert!(matches!(answer, Err(LeaseError::Lost)), "{answer:?}");
}

/// Asserts that the answer is a transient error.
fn assert_retryable<T: fmt::Debug>(answer: &Result<T, LeaseError>) {
    let is_retryable = matches!(answer, Err(LeaseError::Store(error)) if error.kind.is_transient());
    assert!(is_retryable, "{answer:?}");
}

#[test]
fn errors_name_the_owner_the_operation_and_the_store() {
    let store = FakeStore::default();
    acquire(&store, &request(1, NOW)).expect("a free lease");
    let held = acquire(&store, &request(2, NOW)).expect_err("it is held");
    assert_eq!(held.to_string(), "job 1 holds the lease");
    assert_eq!(LeaseError::Lost.to_string(), "the lease was lost");
    store.next(&[Fault::Lost]);
    let failed = acquire(&store, &request(2, NOW + 1000)).expect_err("a lost request");
    assert_eq!(
        failed.to_string(),
        "cannot write store:lease: the store is not available"
    );
}

/// Asserts that another job holds the lease. Returns the state of the record.
fn held_state(answer: Result<Lease, LeaseError>) -> RecordState {
    match answer {
        Err(LeaseError::Held { state, .. }) => state,
        other => panic!("{other:?}"),
    }
}

/// Acquires with a state that counts as expired.
fn acquire_expired(
    store: &FakeStore,
    holder: u64,
    now: u64,
    state: RecordState,
) -> Result<Lease, LeaseError> {
    let expired = Some(state);
    acquire(
        store,
        &LeaseRequest {
            expired,
            ..request(holder, now)
        },
    )
}

/// A copied or hand-written file loses the stamp, but keeps the text.
#[test]
fn a_record_without_a_stamp_counts_until_its_expiry() {
    let store = FakeStore::default();
    let text = format!("held until {}\na note", NOW + 60);
    store.put(text.as_bytes(), None);
    let status = block_on(StoreBackedLeases(&store).look())
        .expect("a store")
        .expect("held");
    assert!(status.is_foreign);
    assert_eq!(status.until, Some(NOW + 60));
    assert_eq!(status.note.as_deref(), Some("a note"));
    for holder in [0, 1] {
        assert_held_by(
            "an unknown job",
            &acquire(&store, &request(holder, NOW + 60 + CLOCK_SKEW - 1)),
        );
    }
    let lease = acquire(&store, &request(1, NOW + 60 + CLOCK_SKEW)).expect("an expired lease");
    assert_eq!(lease.note.as_deref(), Some("a note"));

    store.put(b"released\na note", None);
    assert_lost(&renew(&store, &lease, NOW + 500));
    let lease = acquire(&store, &request(2, NOW)).expect("a released lease");
    assert_eq!(lease.note.as_deref(), Some("a note"));
}

#[test]
fn a_record_that_does_not_parse_is_taken_over_once_it_has_expired() {
    let stamp = NewRecord {
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
        let store = FakeStore::default();
        store.put(text, stamp.cloned());
        let status = block_on(StoreBackedLeases(&store).look())
            .expect("a store")
            .expect("held");
        assert!(status.is_foreign);
        assert_eq!(status.until, Some(u64::MAX));
        let held = acquire(&store, &request(2, NOW));
        assert!(!format!("{held:?}").contains("made-up"), "{held:?}");
        assert!(
            matches!(held, Err(LeaseError::Held { until, .. }) if until == NOW + 60 + CLOCK_SKEW),
            "{held:?}"
        );
        let state = held_state(held);
        held_state(acquire(&store, &request(2, NOW + 86_400)));
        assert_eq!(store.with(|state| state.sent.len()), 0);
        let lease = acquire_expired(&store, 2, NOW, state).expect("it has expired");
        assert_eq!(lease.note, None);
        renew(&store, &lease, NOW + 100).expect("our own lease");
    }
}

/// A job with a clock a day ahead, killed while it holds the lease.
#[test]
fn a_lease_without_renewal_is_taken_over_regardless_of_its_expiry() {
    const DAY: u64 = 86_400;
    let store = FakeStore::default();
    let ahead = acquire(&store, &request(1, NOW + DAY)).expect("a free lease");
    let held = acquire(&store, &request(2, NOW));
    assert!(
        matches!(held, Err(LeaseError::Held { until, .. }) if until == NOW + 60 + CLOCK_SKEW),
        "{held:?}"
    );
    let state = held_state(held);

    // A renewal makes another state, which has not expired.
    let ahead = renew(&store, &ahead, NOW + DAY + 80).expect("our own lease");
    let second = held_state(acquire_expired(&store, 2, NOW + 90, state));

    // The holder renews at the last moment.
    store.next(&[Fault::After(|store| {
        let lease = acquire(store, &request(1, NOW + 86_400)).expect("its own lease");
        renew(store, &lease, NOW + 86_500).expect("its own lease");
    })]);
    let third = held_state(acquire_expired(&store, 2, NOW + 180, second));

    acquire_expired(&store, 2, NOW + 270, third).expect("it has expired");
    assert_lost(&renew(&store, &ahead, NOW + DAY + 300));
    assert_held_by("job 2", &acquire(&store, &request(3, NOW + 270)));
}

#[test]
fn a_lease_until_the_maximum_time_does_not_expire() {
    let store = FakeStore::default();
    for until in [u64::MAX, u64::MAX - CLOCK_SKEW] {
        store.remove();
        let endless = LeaseRequest {
            until,
            ..request(1, NOW)
        };
        acquire(&store, &endless).expect("a free lease");
        let late = LeaseRequest {
            now: u64::MAX - 1,
            ..request(2, NOW)
        };
        assert_held_by("job 1", &acquire(&store, &late));
    }
}

#[test]
fn a_holder_reacquires_its_expired_lease_at_once() {
    let store = FakeStore::default();
    let first = acquire(&store, &request(1, NOW)).expect("a free lease");
    let before = acquire(&store, &request(1, first.until - 1)).expect("our own lease");
    assert_eq!(before, first);
    assert_held_by("job 1", &acquire(&store, &request(2, first.until)));
    let second = acquire(&store, &request(1, first.until)).expect("our own lease");
    assert_eq!(second.until, first.until + 60);
    assert_ne!(second.version, first.version);
    assert_held_by("job 1", &acquire(&store, &request(2, second.until)));
}

#[test]
fn two_requesters_with_one_holder_number_share_the_lease() {
    let store = FakeStore::default();
    let lease = acquire(&store, &request(1, NOW)).expect("a free lease");
    assert_eq!(acquire(&store, &request(1, NOW)).expect("the same"), lease);
    release(&store, &lease).expect("our own lease");
    assert_lost(&renew(&store, &lease, NOW + 70));
}

#[test]
fn a_lost_race_names_the_new_owner() {
    let store = FakeStore::default();
    for number in 1..3 {
        store.next(&[Fault::After(other_job_acquires)]);
        assert_held_by("job 9", &acquire(&store, &request(number, NOW)));
        let winner = acquire(&store, &request(9, NOW + 1000)).expect("its own lease");
        release(&store, &winner).expect("its own lease");
    }
}

#[test]
fn a_conflict_on_a_free_lease_is_retryable() {
    let store = FakeStore::default();
    let first = acquire(&store, &request(1, NOW)).expect("a free lease");
    release(&store, &first).expect("our own lease");
    for other_job in [other_job_acquires_and_releases, FakeStore::remove] {
        store.next(&[Fault::After(other_job)]);
        let answer = acquire(&store, &request(2, NOW));
        assert_retryable(&answer);
        let error = answer.expect_err("a conflict");
        assert!(error.to_string().contains("store:lease"), "{error}");
        let lease = acquire(&store, &request(2, NOW)).expect("a free lease");
        release(&store, &lease).expect("our own lease");
    }
}

#[test]
fn an_acquire_that_lands_late_is_our_lease() {
    let store = FakeStore::default();
    store.next(&[
        Fault::Lost,
        // The lost request was only delayed.
        Fault::After(|store| {
            acquire(store, &request(1, NOW)).expect("a free lease");
        }),
    ]);
    assert_retryable(&acquire(&store, &request(1, NOW)));
    let later = request(1, NOW + 5);
    let lease = acquire(&store, &later).expect("a free lease");
    assert_eq!(lease.until, NOW + 60);
    assert_eq!(acquire(&store, &later).expect("our own lease"), lease);
}

#[test]
fn a_renewal_with_a_lost_answer_is_settled_by_the_next_call() {
    type Call = fn(&FakeStore, &Lease) -> Result<Option<Lease>, LeaseError>;
    let next: [Call; 3] = [
        |store, lease| renew(store, lease, NOW + 100).map(Some),
        |store, lease| renew(store, lease, NOW + 200).map(Some),
        |store, lease| release(store, lease).map(|()| None),
    ];
    for next in next {
        for fault in [Fault::Lost, Fault::ReplyLost] {
            let store = FakeStore::default();
            let lease = acquire(&store, &request(1, NOW)).expect("a free lease");
            store.next(&[fault]);
            assert_retryable(&renew(&store, &lease, NOW + 100));
            match next(&store, &lease).expect("our own lease") {
                Some(renewed) => {
                    assert_ne!(renewed.version, lease.version);
                    let found = acquire(&store, &request(1, NOW)).expect("our own lease");
                    assert_eq!(found, renewed);
                }
                None => other_job_acquires_and_releases(&store),
            }
        }
    }
}

#[test]
fn a_release_with_a_lost_answer_is_settled_by_a_retry() {
    for fault in [Fault::Lost, Fault::ReplyLost] {
        let store = FakeStore::default();
        let lease = acquire(&store, &request(1, NOW)).expect("a free lease");
        store.next(&[fault]);
        assert_retryable(&release(&store, &lease));
        release(&store, &lease).expect("our own lease");
        acquire(&store, &request(2, NOW)).expect("a free lease");
        // The record no longer shows our release.
        assert_lost(&release(&store, &lease));
        assert_held_by("job 2", &acquire(&store, &request(3, NOW)));
    }
}

#[test]
fn a_renewal_after_a_takeover_loses_the_lease() {
    for other_job in [other_job_acquires, FakeStore::remove] {
        let store = FakeStore::default();
        let lease = acquire(&store, &request(1, NOW)).expect("a free lease");
        store.next(&[Fault::After(other_job)]);
        assert_lost(&renew(&store, &lease, NOW + 100));
        assert_lost(&release(&store, &lease));
    }
}

/// The second attempt conflicts too, so the state of the lease is unknown.
#[test]
fn a_renewal_that_conflicts_twice_is_retryable() {
    let store = FakeStore::default();
    let lease = acquire(&store, &request(1, NOW)).expect("a free lease");
    renew(&store, &lease, NOW + 100).expect("our own lease");
    store.next(&[Fault::Pass, Fault::After(other_job_acquires)]);
    assert_retryable(&renew(&store, &lease, NOW + 200));
    assert_lost(&renew(&store, &lease, NOW + 200));
}

#[test]
fn a_removed_record_frees_the_lease() {
    let store = FakeStore::default();
    let first = acquire(&store, &request(1, NOW)).expect("a free lease");
    let first = renew(&store, &first, NOW + 100).expect("our own lease");
    store.remove();
    assert_lost(&renew(&store, &first, NOW + 100));
    acquire(&store, &request(2, NOW)).expect("a free lease");
    assert_lost(&renew(&store, &first, NOW + 100));
    assert_lost(&release(&store, &first));
    assert_held_by("job 2", &acquire(&store, &request(1, NOW)));
}

/// A store may refuse other bytes under an id that it has seen.
#[test]
fn no_write_id_has_two_texts() {
    let store = FakeStore::default();
    store.next(&[Fault::Lost]);
    assert_retryable(&acquire(&store, &request(1, NOW)));
    let mut lease = acquire(&store, &request(1, NOW + 5)).expect("a free lease");
    for until in [100, 200, 100] {
        store.next(&[Fault::Lost]);
        assert_retryable(&renew(&store, &lease, NOW + until));
        lease = renew(&store, &lease, NOW + until + 5).expect("our own lease");
    }
    store.next(&[Fault::Lost]);
    assert_retryable(&renew(&store, &lease, NOW + 300));
    lease.note = Some("another note".into());
    lease = renew(&store, &lease, NOW + 300).expect("our own lease");
    release(&store, &lease).expect("our own lease");
    let sent = store.with(|state| state.sent.clone());
    assert_eq!(sent.len(), 11);
    for (index, (id, _)) in sent.iter().enumerate() {
        let before = sent[..index].iter();
        assert!(before.clone().all(|(other, _)| other != id), "{sent:?}");
    }
}

#[test]
fn a_lease_costs_one_read_and_two_writes() {
    let store = FakeStore::default();
    let lease = acquire(&store, &request(1, NOW)).expect("a free lease");
    release(&store, &lease).expect("our own lease");
    let texts = [format!("held until {}", NOW + 60), "released".into()];
    let (reads, sent) = store.with(|state| (state.reads, state.sent.clone()));
    assert_eq!(reads, 1);
    let sent: Vec<_> = sent.into_iter().map(|(_, text)| text).collect();
    assert_eq!(sent, texts.map(String::into_bytes));
}
