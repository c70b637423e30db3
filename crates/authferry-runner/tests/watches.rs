//! A watch and the commands that follow it, in one process.

use std::{fs, os::unix::fs::DirBuilderExt, pin::pin, time::Duration};

use authferry_codex::Home;
use authferry_conformance::MemoryStore;
use authferry_core::{Outcome, Secret, SecretStore};
use authferry_runner::rescue::Rescue;
use authferry_runner::{Job, Placement, Receipt, Replace, Signals};
use tempfile::TempDir;

const STORE_TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_persist_with_a_stale_receipt_accepts_what_a_watch_persisted() {
    let (_above, store, home, rescue) = scene().await;
    let job = job(&store, &home, &rescue);
    let mut signals = Signals::install().expect("signals");
    authferry_runner::restore(&job, None, &mut signals)
        .await
        .expect("a round trip");
    let before = Receipt::read(&home).expect("readable").expect("a receipt");

    let mut others = Signals::install().expect("signals");
    let watching = authferry_runner::watch(&job, &before, &mut others, || ());
    let persisting = async {
        for number in 1..=2 {
            fs::write(home.auth_file(), login(number)).expect("room");
            while stored(&store).await != login(number) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        authferry_runner::persist(&job, &before, &mut signals).await
    };
    let (watched, persisted) = tokio::join!(watching, persisting);

    let watched = watched.expect("a watch");
    assert_eq!((watched.writes.len(), watched.unpersisted), (2, None));
    let persisted = persisted.expect("a round trip");
    assert_eq!(persisted.outcome, Outcome::Unchanged);
    assert_eq!(persisted.began, Some(before.base.generation.fingerprint));
    assert!(persisted.base.expect("known").generation != before.base.generation);
    let left = fs::read_dir(home.dir()).expect("the home").next();
    assert!(left.is_none(), "{left:?}");
}

#[tokio::test]
async fn a_home_with_a_watch_counts_as_free_and_the_watch_keeps_running() {
    let (_above, store, home, rescue) = scene().await;
    let job = job(&store, &home, &rescue);
    let mut signals = Signals::install().expect("signals");
    authferry_runner::restore(&job, None, &mut signals)
        .await
        .expect("a round trip");
    let before = Receipt::read(&home).expect("readable").expect("a receipt");
    let held = store.read().await.expect("memory").expect("a login");

    let mut others = Signals::install().expect("signals");
    let mut watching = pin!(authferry_runner::watch(&job, &before, &mut others, || ()));
    let looking = async {
        while !home.dir().join("authferry-watch").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        authferry_runner::preview_restore(&job, &held)
    };
    let foreseen = tokio::select! {
        ended = &mut watching => panic!("{ended:?}"),
        foreseen = looking => foreseen,
    };
    let foreseen = foreseen.expect("the home is free");
    assert_eq!(foreseen.outcome, Outcome::Restored);
    assert_eq!(foreseen.placement, Some(Placement::Kept));
    let go_on = tokio::time::timeout(Duration::from_millis(50), &mut watching);
    assert!(go_on.await.is_err(), "the watch ended");
}

/// A home, and a store that holds login 0.
async fn scene() -> (TempDir, MemoryStore, Home, Rescue) {
    let above = TempDir::new().expect("a temporary folder");
    let dir = above.path().join("home");
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .expect("a folder");
    let (home, rescue) = (
        Home::new(&dir).expect("a home"),
        Rescue::new(above.path().join("rescue")),
    );
    let store = MemoryStore::new("watches");
    let first = Secret::new(login(0).into_bytes());
    authferry_runner::seed(&authferry_runner::Seed {
        store: &store,
        secret: &first,
        origins: None,
        replace: Replace::Nothing,
        refused: Vec::new(),
        writer: "a person",
        rescue: &rescue,
        store_timeout: STORE_TIMEOUT,
    })
    .await
    .expect("an empty store");
    (above, store, home, rescue)
}

async fn stored(store: &MemoryStore) -> String {
    let stored = store.read().await.expect("memory").expect("a login");
    String::from_utf8(stored.secret.expose().to_vec()).expect("a text")
}

fn job<'a>(store: &'a dyn SecretStore, home: &'a Home, rescue: &'a Rescue) -> Job<'a> {
    Job::new(store, home, rescue, "a job", STORE_TIMEOUT)
}

/// An auth file whose tokens are made up; a higher number was issued later.
fn login(number: usize) -> String {
    // {"iat":N} in base64url.
    let claims = ["eyJpYXQiOjEwMH0", "eyJpYXQiOjEwMX0", "eyJpYXQiOjEwMn0"][number];
    format!(
        r#"{{"tokens":{{"id_token":"e30.e30.x","access_token":"e30.{claims}.x","refresh_token":"made-up-{number}","account_id":"account"}}}}"#
    )
}
