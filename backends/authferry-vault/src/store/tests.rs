use std::error::Error;

use authferry_core::{ErrorKind, Origin, WriteId};
use serde_json::{Value, json};

use super::*;
use crate::canned::{Canned, error_response, granted, success, version, written};

const ADDRESS: &str = "vault://secret/ci/codex";
const READ: &str = "GET /v1/secret/data/ci/codex";
const WRITE: &str = "POST /v1/secret/data/ci/codex";
const ENGINE: &str = "GET /v1/sys/internal/ui/mounts/secret";
const LOOK_UP: &str = "GET /v1/auth/token/lookup-self";
const LOG_IN: &str = "POST /v1/auth/jwt/login";

fn login() -> Secret {
    Secret::new(b"{\"token\":\"made-up-new\"}".to_vec())
}

fn stamp() -> Stamp {
    Stamp {
        id: WriteId {
            nonce: 1,
            number: 2,
        },
        count: 3,
        origin: Origin::Rotation,
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: "a job".into(),
    }
}

fn old() -> Value {
    json!({"auth_json": "{\"token\":\"made-up-old\"}"})
}

fn base() -> Version {
    Version::new("4@2026-11-23T15:17:04.268708289Z")
}

fn engine(version: &str) -> String {
    success(&json!({"type": "kv", "options": {"version": version}}))
}

fn by_jwt(server: &Canned) -> VaultStore {
    let settings = Settings {
        job_token: Some(authferry_http::JobToken::Variable {
            name: "CI_TOKEN".into(),
            value: Some("made.up.jwt".into()),
        }),
        ..Settings::default()
    };
    server.store_with("vault://secret/ci/codex?auth=jwt", settings)
}

async fn swap(store: &VaultStore, expected: Option<&Version>) -> Result<Version, CasError> {
    store.compare_and_swap(expected, &login(), &stamp()).await
}

/// The messages of an error and its sources. Checks that none contains a secret.
fn full_message(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut all = format!("{error:?}");
    let mut below = error.source();
    while let Some(error) = below {
        text = format!("{text}: {error}");
        all = format!("{all} {error:?}");
        below = error.source();
    }
    assert!(!format!("{text} {all}").contains("made-up"), "{all}");
    text
}

#[tokio::test]
async fn a_swap_reads_and_writes() {
    let server = Canned::new(vec![version(4, &old()), written(5)]).await;
    let version = swap(&server.store(ADDRESS), Some(&base())).await;
    assert_eq!(
        version.expect("a swap").as_str(),
        "5@2026-11-23T15:17:05.268708289Z"
    );
    assert_eq!(server.lines(), [READ, WRITE]);
    assert_eq!(server.requests()[1].body["options"], json!({"cas": 4}));
}

#[tokio::test]
async fn a_reused_version_number_conflicts() {
    let server = Canned::new(vec![version(4, &old())]).await;
    let older = Version::new("4@2020-01-01T00:00:00Z");
    let answer = swap(&server.store(ADDRESS), Some(&older)).await;
    assert!(matches!(answer, Err(CasError::Conflict)), "{answer:?}");
    assert_eq!(server.lines(), [READ]);
}

#[tokio::test]
async fn a_lost_race_is_a_conflict() {
    let faster = error_response(
        400,
        &["check-and-set parameter did not match the current version"],
    );
    let server = Canned::new(vec![version(4, &old()), faster]).await;
    let answer = swap(&server.store(ADDRESS), Some(&base())).await;
    assert!(matches!(answer, Err(CasError::Conflict)), "{answer:?}");
}

#[tokio::test]
async fn a_lost_response_is_ambiguous_for_the_write_only() {
    let server = Canned::new(vec![version(4, &old()), String::new()]).await;
    let answer = swap(&server.store(ADDRESS), Some(&base())).await;
    let Err(CasError::Ambiguous(error)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(full_message(&error).starts_with(
        "cannot write vault://secret/ci/codex: the store is not available: the connection was lost"
    ));

    let server = Canned::new(vec![String::new(), String::new(), String::new()]).await;
    let answer = swap(&server.store(ADDRESS), Some(&base())).await;
    assert!(matches!(answer, Err(CasError::Refused(_))), "{answer:?}");
    assert_eq!(server.lines(), [READ, READ, READ]);
}

#[tokio::test]
async fn a_write_that_succeeded_is_not_repeated() {
    let server = Canned::new(vec![version(4, &old()), written(5)]).await;
    let first = swap(&server.store(ADDRESS), Some(&base())).await;
    let data = server.requests()[1].body["data"].clone();
    let server = Canned::new(vec![version(5, &data)]).await;
    let second = swap(&server.store(ADDRESS), Some(&base())).await;
    assert_eq!(first.expect("a swap"), second.expect("the same"));
    assert_eq!(server.lines(), [READ]);
}

#[tokio::test]
async fn kv_version_1_is_refused_before_a_write() {
    // A missing secret gets the same response from both versions.
    let server = Canned::new(vec![error_response(404, &[]), engine("1")]).await;
    let answer = swap(&server.store(ADDRESS), None).await;
    let Err(CasError::Refused(error)) = answer else {
        panic!("{answer:?}");
    };
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(
        full_message(&error)
            .ends_with("secret is a KV version 1 secrets engine, which has no compare-and-swap")
    );
    assert_eq!(server.lines(), [READ, ENGINE]);
    // An existing secret gets a different response.
    let server = Canned::new(vec![success(&json!({"auth_json": "made-up"})), engine("1")]).await;
    let error = server.store(ADDRESS).read().await.expect_err("version 1");
    assert!(full_message(&error).contains("version 1"));
}

#[tokio::test]
async fn the_engine_is_checked_once() {
    let nothing = || error_response(404, &[]);
    let server = Canned::new(vec![
        nothing(),
        engine("2"),
        nothing(),
        nothing(),
        written(1),
    ])
    .await;
    let store = server.store(ADDRESS);
    assert!(store.read().await.expect("an answer").is_none());
    assert!(store.read().await.expect("an answer").is_none());
    swap(&store, None).await.expect("a swap");
    assert_eq!(server.lines(), [READ, ENGINE, READ, READ, WRITE]);
    assert_eq!(server.requests()[4].body["options"], json!({"cas": 0}));
}

#[tokio::test]
async fn a_token_without_the_right_to_check_the_engine_can_read() {
    let server = Canned::new(vec![
        error_response(404, &[]),
        error_response(403, &["permission denied"]),
    ])
    .await;
    let store = server.store(ADDRESS);
    assert!(store.read().await.expect("an answer").is_none());
    assert_eq!(server.lines(), [READ, ENGINE]);
}

#[tokio::test]
async fn a_missing_right_is_distinguished_from_an_unknown_token() {
    let denied = || error_response(403, &["permission denied"]);
    let good = success(&json!({"policies": ["default"]}));
    for (answers, kind, wanted) in [
        (
            vec![denied(), good],
            ErrorKind::PermissionDenied,
            [READ, LOOK_UP].as_slice(),
        ),
        (
            vec![denied(), denied()],
            ErrorKind::Unauthenticated,
            &[READ, LOOK_UP],
        ),
        // HashiCorp's Vault names the token.
        (
            vec![error_response(403, &["permission denied", "invalid token"])],
            ErrorKind::Unauthenticated,
            &[READ],
        ),
    ] {
        let server = Canned::new(answers).await;
        let error = server.store(ADDRESS).read().await.expect_err("denied");
        assert_eq!(error.kind, kind, "{}", full_message(&error));
        assert_eq!(server.lines(), wanted);
    }
}

#[tokio::test]
async fn a_revoked_token_of_the_session_is_replaced() {
    let denied = || error_response(403, &["permission denied"]);
    let server = Canned::new(vec![
        granted("made-up-1", 60),
        denied(),
        denied(),
        granted("made-up-2", 60),
        version(4, &old()),
        denied(),
        denied(),
        granted("made-up-3", 60),
        written(5),
    ])
    .await;
    swap(&by_jwt(&server), Some(&base())).await.expect("a swap");
    assert_eq!(
        server.lines(),
        [
            LOG_IN, READ, LOOK_UP, LOG_IN, READ, WRITE, LOOK_UP, LOG_IN, WRITE
        ]
    );
    let last = server.requests().pop().expect("a write");
    assert_eq!(last.header("X-Vault-Token"), Some("made-up-3"));
}

#[tokio::test]
async fn a_second_denied_token_is_an_error() {
    let denied = || error_response(403, &["permission denied", "invalid token"]);
    let server = Canned::new(vec![
        granted("made-up-1", 60),
        denied(),
        granted("made-up-2", 60),
        denied(),
    ])
    .await;
    let error = by_jwt(&server).read().await.expect_err("denied");
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    assert_eq!(server.lines(), [LOG_IN, READ, LOG_IN, READ]);
}

#[tokio::test]
async fn a_value_too_long_or_not_utf8_is_not_sent() {
    let server = Canned::new(vec![version(4, &old())]).await;
    let store = server.store(ADDRESS);
    let long = Secret::new(vec![b'x'; MAX_LEN + 1]);
    let answer = store.compare_and_swap(Some(&base()), &long, &stamp()).await;
    let too_large = |error: &StoreError| error.kind == ErrorKind::TooLarge;
    assert!(
        matches!(&answer, Err(CasError::Refused(error)) if too_large(error)),
        "{answer:?}"
    );
    assert!(server.requests().is_empty());
    let bytes = Secret::new(vec![b'{', 0xff]);
    let answer = store
        .compare_and_swap(Some(&base()), &bytes, &stamp())
        .await;
    assert!(matches!(answer, Err(CasError::Refused(_))), "{answer:?}");
    assert_eq!(server.lines(), [READ]);
}

#[tokio::test]
async fn a_history_needs_two_versions() {
    let max = |versions: u64| success(&json!({"max_versions": versions, "cas_required": false}));
    let denied = || error_response(403, &["permission denied"]);
    let cases = [
        (vec![max(1)], false),
        (vec![max(2)], true),
        (vec![max(0), max(1)], false),
        (vec![max(0), max(2)], true),
        (vec![max(0), max(0)], true),
        (vec![denied()], false),
        (vec![max(0), denied()], false),
        (vec![success(&json!({}))], false),
    ];
    let of_the_secret = "GET /v1/secret/metadata/ci/codex";
    let asked = [of_the_secret, "GET /v1/secret/config"];
    for (answers, kept) in cases {
        let (number, what) = (answers.len(), format!("{answers:?}"));
        let server = Canned::new(answers).await;
        let store = server.store(ADDRESS);
        assert_eq!(store.keeps_history().await, kept, "{what}");
        assert_eq!(server.lines(), asked[..number], "{what}");
    }
}

#[tokio::test]
async fn display_and_debug_show_no_secret() {
    let server = Canned::new(vec![version(4, &old())]).await;
    let store = server.store(ADDRESS);
    let stored = store.read().await.expect("a login");
    let text = format!("{store} {store:?} {:?} {stored:?}", store.leases);
    assert!(text.starts_with("vault://secret/ci/codex VaultStore(vault://secret/ci/codex)"));
    assert!(!text.contains("made-up"), "{text}");
}

#[test]
fn the_guarantees_are_these() {
    let settings = Settings {
        servers: Some("https://vault.example".into()),
        net: authferry_http::Net::default(),
        ..Settings::default()
    };
    let address = || ADDRESS.parse().expect("an address");
    let store = open(address(), settings).expect("a store");
    let wanted = Guarantees {
        swap: Swap::Atomic,
        stamps: true,
        reads: Reads::Eventual,
        history: false,
        max_len: 524_288,
    };
    assert_eq!(store.guarantees(), wanted);
    let nowhere = open(address(), Settings::default());
    assert!(matches!(nowhere, Err(ConfigError::NoServer)));
}

/// A standby returns the version before the last write.
#[tokio::test]
async fn a_read_older_than_our_last_write_is_retried() {
    let newer = json!({"auth_json": "{\"token\":\"made-up-new\"}"});
    let server = Canned::new(vec![
        version(4, &old()),
        written(5),
        version(4, &old()),
        version(5, &newer),
    ])
    .await;
    let store = server.store(ADDRESS);
    let landed = swap(&store, Some(&base())).await.expect("a swap");
    let stored = store.read().await.expect("an answer").expect("a login");
    assert_eq!(stored.version, landed);
    assert_eq!(server.lines(), [READ, WRITE, READ, READ]);
}

#[tokio::test]
async fn a_server_that_stays_stale_is_unavailable() {
    let stale = || version(4, &old());
    let server = Canned::new(vec![
        version(5, &old()),
        stale(),
        stale(),
        stale(),
        stale(),
        stale(),
        stale(),
    ])
    .await;
    let store = server.store(ADDRESS);
    store.read().await.expect("an answer");
    let error = store.read().await.expect_err("an older one");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let text = full_message(&error);
    assert!(text.contains("reads are stale"), "{text}");
    // A stale read is not a conflict.
    let answer = swap(&store, Some(&base())).await;
    assert!(matches!(answer, Err(CasError::Refused(_))), "{answer:?}");
    assert_eq!(server.lines(), [READ; 7]);
}

/// A standby returns the lease as it was before its renewal.
#[tokio::test]
async fn a_read_older_than_the_expected_version_is_retried() {
    let server = Canned::new(vec![
        version(4, &old()),
        version(4, &old()),
        version(5, &old()),
        written(6),
    ])
    .await;
    let expected = Version::new("5@2026-11-23T15:17:05.268708289Z");
    let landed = swap(&server.store(ADDRESS), Some(&expected)).await;
    landed.expect("a swap");
    assert_eq!(server.lines(), [READ, READ, READ, WRITE]);
}

/// The version numbers restart; the creation times continue.
#[tokio::test]
async fn a_recreated_secret_is_not_stale() {
    let recreated = |number: u64| {
        let created = format!("2026-11-24T00:00:{number:02}Z");
        let metadata = json!({
            "created_time": created, "custom_metadata": null, "deletion_time": "",
            "destroyed": false, "version": number,
        });
        success(&json!({"data": old(), "metadata": metadata}))
    };
    let nothing = || error_response(404, &[]);
    let server = Canned::new(vec![
        version(4, &old()),
        recreated(1),
        nothing(),
        engine("2"),
        nothing(),
        nothing(),
    ])
    .await;
    let store = server.store(ADDRESS);
    store.read().await.expect("an answer");
    let stored = store.read().await.expect("an answer").expect("a login");
    assert_eq!(stored.version.as_str(), "1@2026-11-24T00:00:01Z");
    assert!(store.read().await.expect("an answer").is_none(), "deleted");
    assert_eq!(server.lines(), [READ, READ, READ, ENGINE, READ, READ]);
}
