use authferry_conformance::{Fault, Faulty, MemoryStore};
use authferry_core::{Base, ErrorKind, Generation};

use super::*;
use crate::rescue::Reason;

const LIMIT: Duration = Duration::from_secs(8);

fn login(number: u64) -> Secret {
    let text = format!(
        r#"{{"tokens":{{"id_token":"e30.e30.x","access_token":"made-up","refresh_token":"made-up-{number}","account_id":"account"}}}}"#
    );
    Secret::new(text.into_bytes())
}

fn parse(secret: &Secret) -> Generation {
    authferry_codex::parse(secret).expect("a login")
}

fn record(base: Option<Base>) -> Record {
    Record::new("memory:a".into(), Reason::NotPersisted, base, "a job")
}

fn second(store: &MemoryStore, faults: Vec<Fault>) -> SecondStore {
    SecondStore::new(Arc::new(Faulty::new(Box::new(store.clone()), faults)))
}

/// Adds a login as a job would that has not read the second store.
async fn add(
    store: &MemoryStore,
    faults: Vec<Fault>,
    number: u64,
) -> Result<Location, SecondStoreError> {
    let second = second(store, faults);
    second.add(&login(number), &record(None), LIMIT).await
}

/// Reads the store again and returns the names of its copies.
async fn names(store: &MemoryStore) -> Vec<String> {
    let second = second(store, Vec::new());
    second.load(LIMIT).await.expect("a document");
    let listed = second.list().into_iter();
    let mut names: Vec<_> = listed.map(|it| it.location.argument()).collect();
    names.sort();
    names
}

fn sorted(logins: &[u64]) -> Vec<String> {
    let mut names: Vec<_> = logins.iter().map(|it| copy_name(&login(*it))).collect();
    names.sort();
    names
}

#[tokio::test(start_paused = true)]
async fn a_copy_round_trips_byte_for_byte_with_its_record() {
    let store = MemoryStore::new("second");
    let location = second(&store, vec![])
        .add(&login(1), &record(None), LIMIT)
        .await
        .expect("room");
    assert_eq!(location.place(), "memory:second");
    let another = second(&store, vec![]);
    another.load(LIMIT).await.expect("a document");
    let [found] = &another.list()[..] else {
        panic!("one copy");
    };
    assert_eq!(found.secret.expose(), login(1).expose());
    assert_eq!(found.location, location);
    let found = found.record.clone().expect("a record");
    assert_eq!(
        (found.store, found.job),
        ("memory:a".into(), "a job".into())
    );
}

#[tokio::test(start_paused = true)]
async fn a_copy_does_not_overwrite_another_one() {
    let store = MemoryStore::new("second");
    for number in 1..=3 {
        add(&store, vec![], number).await.expect("room");
    }
    assert_eq!(names(&store).await, sorted(&[1, 2, 3]));
    second(&store, vec![])
        .remove(&copy_name(&login(2)), "memory:a", LIMIT)
        .await
        .expect("removed");
    assert_eq!(names(&store).await, sorted(&[1, 3]));
}

#[tokio::test(start_paused = true)]
async fn concurrent_rescues_are_both_kept() {
    let store = MemoryStore::new("second");
    let late = Fault::Delay(Duration::from_secs(1));
    let (one, other) = (second(&store, vec![late]), second(&store, vec![]));
    let (first, second) = (login(1), login(2));
    let record = record(None);
    let (one, other) = tokio::join!(
        one.add(&first, &record, LIMIT),
        other.add(&second, &record, LIMIT)
    );
    one.expect("after a conflict");
    other.expect("room");
    assert_eq!(names(&store).await, sorted(&[1, 2]));
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_resolved_by_a_read() {
    for fault in [
        Fault::Lost,
        Fault::ReplyLost,
        Fault::Refused(ErrorKind::Throttled),
    ] {
        let store = MemoryStore::new("second");
        add(&store, vec![fault], 1).await.expect("after a retry");
        assert_eq!(store.history().len(), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_write_is_reported_within_the_limit() {
    let store = MemoryStore::new("second");
    let denied = Fault::Refused(ErrorKind::PermissionDenied);
    let failed = add(&store, vec![denied], 1).await.expect_err("denied");
    assert!(matches!(failed, SecondStoreError::Store(_)), "{failed}");

    let started = Instant::now();
    for fault in [
        Fault::Lost,
        Fault::Delay(Duration::from_hours(1)),
        Fault::Refused(ErrorKind::Unavailable),
    ] {
        let failed = add(&store, vec![fault; 100], 1).await;
        failed.expect_err("never answered");
    }
    assert!(started.elapsed() <= 3 * LIMIT);
    assert!(store.history().is_empty());
}

#[tokio::test(start_paused = true)]
async fn foreign_content_is_not_overwritten() {
    for foreign in [login(9).expose(), b"", b"{\"format\":2,\"copies\":[]}"] {
        let store = MemoryStore::new("second");
        store.put_by_hand(foreign);
        let second = second(&store, vec![]);
        for failed in [
            second.load(LIMIT).await,
            second.add(&login(1), &record(None), LIMIT).await.map(drop),
            second.remove("a", "memory:a", LIMIT).await,
        ] {
            let failed = failed.expect_err("foreign");
            assert!(matches!(failed, SecondStoreError::Foreign(_)), "{failed}");
        }
        let history = store.history();
        assert_eq!(history.len(), 1);
        assert_eq!(history[0].secret.expose(), foreign);
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_copy_is_written_once_and_its_record_keeps_the_family() {
    let store = MemoryStore::new("second");
    let second = second(&store, vec![]);
    let base = |number| base(&parse(&login(number)), vec![]);
    let known = || second.list().remove(0).record.expect("a record").base;
    for _ in 0..2 {
        let record = record(Some(base(1)));
        let added = second.add(&login(2), &record, LIMIT).await;
        added.expect("room");
    }
    assert_eq!(store.history().len(), 1);
    // A job that finds the login again knows less about it.
    let again = record(Some(base(3)));
    let added = second.add(&login(2), &again, LIMIT).await;
    added.expect("room");
    assert_eq!(known(), Some(base(1)));
    let of_the_store = Record {
        reason: Reason::Replaced,
        ..again
    };
    let added = second.add(&login(2), &of_the_store, LIMIT).await;
    added.expect("room");
    assert_eq!(known(), Some(base(3)));
    assert_eq!(names(&store).await, sorted(&[2]));
}

#[tokio::test(start_paused = true)]
async fn a_full_store_drops_only_known_ancestors() {
    let store = MemoryStore::new("second");
    let mut count = 0;
    let full = loop {
        let second = second(&store, vec![]);
        match second.add(&long_login(count), &record(None), LIMIT).await {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, SecondStoreError::NoRoom(_)), "{full}");
    assert!(count > 3, "{count}");
    let before = store.history().len();
    // For another store, this is not an ancestor.
    let known = base(
        &parse(&long_login(0)),
        vec![parse(&long_login(1)).fingerprint],
    );
    let others = Record {
        store: "memory:b".into(),
        ..record(Some(known.clone()))
    };
    let second = second(&store, vec![]);
    let failed = second.add(&long_login(count), &others, LIMIT).await;
    assert!(matches!(failed, Err(SecondStoreError::NoRoom(_))));
    assert_eq!(store.history().len(), before);

    let (newest, record) = (long_login(count), record(Some(known)));
    let added = second.add(&newest, &record, LIMIT).await;
    added.expect("in the place of an ancestor");
    let kept: Vec<_> = (0..=count).filter(|number| *number != 1).collect();
    let mut expected: Vec<_> = kept
        .iter()
        .map(|number| copy_name(&long_login(*number)))
        .collect();
    expected.sort();
    assert_eq!(names(&store).await, expected);
}

/// A login of about 8 kB.
fn long_login(number: u64) -> Secret {
    let login = login(number);
    let text = String::from_utf8_lossy(login.expose()).into_owned();
    Secret::new(format!("{text}{}", " ".repeat(8 * 1024)).into_bytes())
}

fn base(generation: &Generation, ancestors: Vec<authferry_core::Fingerprint>) -> Base {
    Base {
        version: Version::new("1"),
        generation: generation.clone(),
        count: 1,
        family: Family(generation.fingerprint),
        ancestors,
        volatile_hints: false,
        unrelated: vec![],
    }
}
