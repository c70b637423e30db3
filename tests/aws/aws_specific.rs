//! Behaviour specific to AWS: labels, empty secrets, binary values, roles, lease renewal by tags.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use authferry_aws::Settings;
use authferry_core::{
    CLOCK_SKEW, CasError, ErrorKind, LeaseError, LeaseRequest, Origin, Secret, SecretStore, Stamp,
    WriteId,
};
use rig::Issuer;
use serde_json::json;
use tokio::sync::Barrier;

use crate::fixture::{Run, Secrets, handle, has};

pub(crate) const TRIALS: &[(&str, Run)] = &[
    ("aws_specific::losers_leave_no_label_behind", |it| {
        Box::pin(losers_leave_no_label_behind(it))
    }),
    (
        "aws_specific::a_swap_is_two_calls_on_one_connection_and_one_version",
        |it| Box::pin(a_swap_is_two_calls_on_one_connection_and_one_version(it)),
    ),
    ("aws_specific::an_empty_secret_is_filled_once", |it| {
        Box::pin(an_empty_secret_is_filled_once(it))
    }),
    ("aws_specific::a_binary_value_is_a_value", |it| {
        Box::pin(a_binary_value_is_a_value(it))
    }),
    ("aws_specific::a_value_that_is_not_text_is_refused", |it| {
        Box::pin(a_value_that_is_not_text_is_refused(it))
    }),
    (
        "aws_specific::an_unexpired_lease_is_renewed_without_a_version",
        |it| Box::pin(an_unexpired_lease_is_renewed_without_a_version(it)),
    ),
    ("aws_specific::a_renewal_extends_only_its_own_lease", |it| {
        Box::pin(a_renewal_extends_only_its_own_lease(it))
    }),
    (
        "aws_specific::a_role_is_assumed_again_when_its_session_expires",
        |it| Box::pin(a_role_is_assumed_again_when_its_session_expires(it)),
    ),
    (
        "aws_specific::each_failure_to_assume_a_role_names_its_cause",
        |it| Box::pin(each_failure_to_assume_a_role_names_its_cause(it)),
    ),
];

const RACERS: u64 = 8;

/// The label of a version that never became current moves to the next pending version.
async fn losers_leave_no_label_behind(secrets: Arc<Secrets>) {
    let name = &rig::unique("losers");
    let first = handle(name, Settings::default());
    let mut base = first
        .compare_and_swap(None, &login(0), &stamp(0))
        .await
        .expect("a new secret");
    for round in 1..=5 {
        let start = Arc::new(Barrier::new(8));
        let racers: Vec<_> = (0..RACERS)
            .map(|lane| {
                let (store, base) = (handle(name, Settings::default()), base.clone());
                let (start, number) = (Arc::clone(&start), round * 10 + lane);
                tokio::spawn(async move {
                    start.wait().await;
                    store
                        .compare_and_swap(Some(&base), &login(number), &stamp(number))
                        .await
                })
            })
            .collect();
        let mut won = Vec::new();
        for racer in racers {
            won.extend(racer.await.expect("no panic").ok());
        }
        assert_eq!(won.len(), 1);
        base = won.remove(0);
        let versions = secrets.hand.versions(name);
        for label in ["AWSCURRENT", "AWSPREVIOUS", "AUTHFERRY_PENDING"] {
            let holders = versions
                .values()
                .filter(|labels| has(labels, label))
                .count();
            assert_eq!(holders, 1, "{label}: {versions:?}");
        }
        assert!(has(&versions[base.as_str()], "AWSCURRENT"), "{versions:?}");
    }
}

async fn a_swap_is_two_calls_on_one_connection_and_one_version(secrets: Arc<Secrets>) {
    let name = &rig::unique("two-calls");
    secrets.hand.put(name, &text(1));
    let store = handle(name, Settings::default());
    let base = store
        .read()
        .await
        .expect("a reader")
        .expect("a value")
        .version;
    store
        .compare_and_swap(Some(&base), &login(2), &stamp(2))
        .await
        .expect("a swap");
    // Two of the requests came from `hand`, over its own connection.
    let mut counts = secrets.hand.rig("counts", name);
    let connections = counts["connections"].take();
    assert_eq!(connections, 1 + 1);
    let requests = json!({
        "CreateSecret": 1,
        "GetSecretValue": 1,
        "PutSecretValue": 1 + 1,
        "UpdateSecretVersionStage": 1,
        "connections": null,
    });
    assert_eq!(counts, requests);
    assert_eq!(secrets.hand.versions(name).len(), 2);
}

/// Infrastructure as code creates a secret without a value like this.
async fn an_empty_secret_is_filled_once(secrets: Arc<Secrets>) {
    for _ in 0..10 {
        let name = rig::unique("empty");
        secrets
            .hand
            .secrets("create_secret", &json!({"Name": name}))
            .expect("a new secret");
        let store = handle(&name, Settings::default());
        assert!(store.read().await.expect("a reader").is_none());
        let start = Arc::new(Barrier::new(8));
        let racers: Vec<_> = (0..RACERS)
            .map(|lane| {
                let (store, start) = (handle(&name, Settings::default()), Arc::clone(&start));
                tokio::spawn(async move {
                    start.wait().await;
                    (
                        lane,
                        store
                            .compare_and_swap(None, &login(lane), &stamp(lane))
                            .await,
                    )
                })
            })
            .collect();
        let mut won = Vec::new();
        for racer in racers {
            match racer.await.expect("no panic") {
                (lane, Ok(version)) => won.push((lane, version)),
                (_, Err(CasError::Conflict)) => {}
                (_, Err(error)) => panic!("{error:?}"),
            }
        }
        let [(lane, version)] = &won[..] else {
            panic!("{won:?}");
        };
        let seen = store.read().await.expect("a reader").expect("a value");
        assert_eq!(
            (&seen.version, seen.secret.expose()),
            (version, login(*lane).expose())
        );
    }
}

async fn a_binary_value_is_a_value(secrets: Arc<Secrets>) {
    let name = &rig::unique("binary");
    let given = json!({"Name": name, "SecretBinary": text(1)});
    secrets
        .hand
        .secrets("create_secret", &given)
        .expect("a new secret");
    let store = handle(name, Settings::default());
    let seen = store.read().await.expect("a reader").expect("a value");
    assert_eq!(seen.secret.expose(), text(1).as_bytes());
    assert_eq!(seen.stamp, None);
    store
        .compare_and_swap(Some(&seen.version), &login(2), &stamp(2))
        .await
        .expect("a swap");
    assert_eq!(secrets.hand.look(name), Some(text(2)));
}

async fn a_value_that_is_not_text_is_refused(secrets: Arc<Secrets>) {
    let name = &rig::unique("no-text");
    let store = handle(name, Settings::default());
    let bytes = Secret::new(vec![0xff]);
    let answer = store.compare_and_swap(None, &bytes, &stamp(1)).await;
    assert!(
        matches!(&answer, Err(CasError::Refused(error)) if error.kind == ErrorKind::Malformed),
        "{answer:?}"
    );
    assert_eq!(secrets.hand.look(name), None);
}

async fn an_unexpired_lease_is_renewed_without_a_version(secrets: Arc<Secrets>) {
    let name = &rig::unique("renewed");
    let lease_name = &format!("{name}-lease");
    let [first, second] = [(); 2].map(|()| handle(name, Settings::default()));
    let [first, second] = [&first, &second].map(|store| store.leases().expect("leases"));
    let now = now();
    let mut lease = first.acquire(&lease_request(1, now)).await.expect("free");
    let versions = secrets.hand.versions(lease_name);
    for more in 2..=4 {
        lease = first.renew(&lease, now + more * TERM).await.expect("ours");
        assert_eq!(lease.until, now + more * TERM);
    }
    assert_eq!(secrets.hand.versions(lease_name), versions);
    let held = second
        .acquire(&lease_request(2, lease.until + CLOCK_SKEW - 1))
        .await;
    assert!(
        matches!(&held, Err(LeaseError::Held { owner, until, .. }) if owner == "job 1" && *until == lease.until),
        "{held:?}"
    );
    first.release(&lease).await.expect("ours");
    second.acquire(&lease_request(2, now)).await.expect("free");
}

/// The renewal tag of a lease does not apply to the next lease.
async fn a_renewal_extends_only_its_own_lease(secrets: Arc<Secrets>) {
    let name = &rig::unique("next");
    let store = handle(name, Settings::default());
    let leases = store.leases().expect("leases");
    let now = now();
    let lease = leases.acquire(&lease_request(1, now)).await.expect("free");
    let lease = leases.renew(&lease, now + 100 * TERM).await.expect("ours");
    leases.release(&lease).await.expect("ours");
    let next = leases.acquire(&lease_request(2, now)).await.expect("free");
    let given = json!({"SecretId": format!("{name}-lease")});
    let described = secrets.hand.secrets("describe_secret", &given);
    let tag = described.expect("a secret")["Tags"][0]["Value"].take();
    let first_tag = format!("{} held until {}", lease.version, lease.until);
    assert_eq!(tag, first_tag);
    let taken = leases
        .acquire(&lease_request(3, next.until + CLOCK_SKEW))
        .await;
    taken.expect("an expired lease, despite the tag of the first one");
    let lost = leases.renew(&next, now + 9 * TERM).await;
    assert!(matches!(lost, Err(LeaseError::Lost)), "{lost:?}");
}

async fn a_role_is_assumed_again_when_its_session_expires(secrets: Arc<Secrets>) {
    let [name, role_name] = ["long-job", "of-a-long-job"].map(rig::unique);
    secrets.hand.put(&name, &text(1));
    let role = secrets.role(&role_name, "acme/app");
    let set_session_seconds = |seconds: u32| {
        let given = json!([role_name, seconds]).to_string();
        secrets.hand.rig("session", &given);
    };
    let sessions = || {
        let counts = secrets.hand.rig("counts", &role_name);
        counts["AssumeRoleWithWebIdentity"].clone()
    };
    set_session_seconds(3600);
    let store = handle(&name, secrets.job(&role));
    store.read().await.expect("a reader");
    store.read().await.expect("the same session");
    assert_eq!(sessions(), 1, "the session was not reused");

    // The SDK renews a session 5 to 10 seconds before its expiry, so this one is due from the start.
    set_session_seconds(4);
    let store = handle(&name, secrets.job(&role));
    let read = store.read().await.expect("a reader");
    let base = read.expect("a value").version;
    assert_eq!(sessions(), 2);
    set_session_seconds(3600);
    store
        .compare_and_swap(Some(&base), &login(2), &stamp(2))
        .await
        .expect("another session");
    assert_eq!(sessions(), 3);
}

async fn each_failure_to_assume_a_role_names_its_cause(secrets: Arc<Secrets>) {
    let other_role = secrets.role(&rig::unique("of-another-job"), "acme/another");
    let store = handle("any", secrets.job(&other_role));
    let error = store.read().await.expect_err("not our role");
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    let why = chain(&error);
    assert!(
        why.contains("its trust policy does not name this job"),
        "{why}"
    );
    assert!(
        why.contains("sts:AssumeRoleWithWebIdentity returned AccessDenied"),
        "{why}"
    );

    // A separate issuer: other tests use the shared one at the same time.
    let failing = Issuer::start();
    failing.fail(Some(503));
    let error = handle("any", Secrets::job_of(&failing, &other_role))
        .read()
        .await
        .expect_err("no token");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{}", chain(&error));

    let without_token = Settings {
        job_token: None,
        ..secrets.job(&other_role)
    };
    let address = "aws-sm://eu-west-1/any?role=arn:aws:iam::123456789012:role/ci";
    let store =
        authferry_aws::open(address.parse().expect("an address"), without_token).expect("settings");
    let why = chain(&store.read().await.expect_err("no token"));
    assert!(why.contains("the job has no OIDC token"), "{why}");
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

const TERM: u64 = 600;

fn lease_request(number: u64, now: u64) -> LeaseRequest {
    LeaseRequest {
        owner: format!("job {number}"),
        holder: number,
        now,
        until: now + TERM,
        expired: None,
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs()
}

pub(crate) fn stamp(number: u64) -> Stamp {
    Stamp {
        id: WriteId { nonce: 8, number },
        count: number,
        origin: Origin::Rotation,
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: String::new(),
    }
}

fn text(number: u64) -> String {
    format!("{{\"tokens\":\"made-up-{number}\"}}")
}

pub(crate) fn login(number: u64) -> Secret {
    Secret::new(text(number).into_bytes())
}
