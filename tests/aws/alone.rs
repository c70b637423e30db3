//! What only this store has: labels, empty secrets, binary values, roles, renewal by tags.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use authferry_aws::Settings;
use authferry_core::{
    Bid, CLOCK_SKEW, CasError, ClaimError, ErrorKind, Origin, Secret, SecretStore, Stamp, WriteId,
};
use rig::Issuer;
use serde_json::json;
use tokio::sync::Barrier;

use crate::fixture::{Run, Secrets, handle, has};

pub(crate) const TRIALS: &[(&str, Run)] = &[
    ("alone::losers_leave_no_label_behind", |it| {
        Box::pin(losers_leave_no_label_behind(it))
    }),
    (
        "alone::a_swap_is_two_calls_on_one_connection_and_one_version",
        |it| Box::pin(a_swap_is_two_calls_on_one_connection_and_one_version(it)),
    ),
    ("alone::an_empty_secret_is_filled_once", |it| {
        Box::pin(an_empty_secret_is_filled_once(it))
    }),
    ("alone::a_binary_value_is_a_value", |it| {
        Box::pin(a_binary_value_is_a_value(it))
    }),
    ("alone::what_is_no_text_is_refused", |it| {
        Box::pin(what_is_no_text_is_refused(it))
    }),
    (
        "alone::a_claim_in_time_is_renewed_without_a_version",
        |it| Box::pin(a_claim_in_time_is_renewed_without_a_version(it)),
    ),
    ("alone::a_renewal_counts_for_its_own_claim_alone", |it| {
        Box::pin(a_renewal_counts_for_its_own_claim_alone(it))
    }),
    ("alone::a_role_is_taken_anew_when_its_session_ends", |it| {
        Box::pin(a_role_is_taken_anew_when_its_session_ends(it))
    }),
    ("alone::each_way_to_no_role_says_what_is_wrong", |it| {
        Box::pin(each_way_to_no_role_says_what_is_wrong(it))
    }),
];

const RACERS: u64 = 8;

/// The label of a version that never became current goes on to the next one.
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
    // The hand has asked for two of them, over a connection of its own.
    let mut counts = secrets.hand.rig("counts", name);
    let connections = counts["connections"].take();
    assert_eq!(connections, 1 + 1);
    let asked = json!({
        "CreateSecret": 1,
        "GetSecretValue": 1,
        "PutSecretValue": 1 + 1,
        "UpdateSecretVersionStage": 1,
        "connections": null,
    });
    assert_eq!(counts, asked);
    assert_eq!(secrets.hand.versions(name).len(), 2);
}

/// As infrastructure as code leaves a secret whose value is not its business.
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

async fn what_is_no_text_is_refused(secrets: Arc<Secrets>) {
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

async fn a_claim_in_time_is_renewed_without_a_version(secrets: Arc<Secrets>) {
    let name = &rig::unique("renewed");
    let claim_name = &format!("{name}-claim");
    let [first, second] = [(); 2].map(|()| handle(name, Settings::default()));
    let [first, second] = [&first, &second].map(|store| store.claims().expect("claims"));
    let now = now();
    let mut claim = first.acquire(&bid(1, now)).await.expect("free");
    let versions = secrets.hand.versions(claim_name);
    for more in 2..=4 {
        claim = first.renew(&claim, now + more * TERM).await.expect("ours");
        assert_eq!(claim.until, now + more * TERM);
    }
    assert_eq!(secrets.hand.versions(claim_name), versions);
    let held = second.acquire(&bid(2, claim.until + CLOCK_SKEW - 1)).await;
    assert!(
        matches!(&held, Err(ClaimError::Held { owner, until, .. }) if owner == "job 1" && *until == claim.until),
        "{held:?}"
    );
    first.release(&claim).await.expect("ours");
    second.acquire(&bid(2, now)).await.expect("free");
}

/// The tag of a claim that was renewed says nothing of the next one.
async fn a_renewal_counts_for_its_own_claim_alone(secrets: Arc<Secrets>) {
    let name = &rig::unique("next");
    let store = handle(name, Settings::default());
    let claims = store.claims().expect("claims");
    let now = now();
    let claim = claims.acquire(&bid(1, now)).await.expect("free");
    let claim = claims.renew(&claim, now + 100 * TERM).await.expect("ours");
    claims.release(&claim).await.expect("ours");
    let next = claims.acquire(&bid(2, now)).await.expect("free");
    let given = json!({"SecretId": format!("{name}-claim")});
    let described = secrets.hand.secrets("describe_secret", &given);
    let tag = described.expect("a secret")["Tags"][0]["Value"].take();
    let of_the_first = format!("{} held until {}", claim.version, claim.until);
    assert_eq!(tag, of_the_first);
    let taken = claims.acquire(&bid(3, next.until + CLOCK_SKEW)).await;
    taken.expect("ended, whatever the tag of the first one says");
    let lost = claims.renew(&next, now + 9 * TERM).await;
    assert!(matches!(lost, Err(ClaimError::Lost)), "{lost:?}");
}

async fn a_role_is_taken_anew_when_its_session_ends(secrets: Arc<Secrets>) {
    let [name, role_name] = ["long-job", "of-a-long-job"].map(rig::unique);
    secrets.hand.put(&name, &text(1));
    let role = secrets.role(&role_name, "acme/app");
    let lasts = |seconds: u32| {
        let given = json!([role_name, seconds]).to_string();
        secrets.hand.rig("session", &given);
    };
    let taken = || {
        let counts = secrets.hand.rig("counts", &role_name);
        counts["AssumeRoleWithWebIdentity"].clone()
    };
    lasts(3600);
    let store = handle(&name, secrets.job(&role));
    store.read().await.expect("a reader");
    store.read().await.expect("the same session");
    assert_eq!(taken(), 1, "a session was not kept");

    // The SDK takes the next session 5 to 10 seconds before the current one expires, so that
    // this one is due for replacement from the start.
    lasts(4);
    let store = handle(&name, secrets.job(&role));
    let read = store.read().await.expect("a reader");
    let base = read.expect("a value").version;
    assert_eq!(taken(), 2);
    lasts(3600);
    store
        .compare_and_swap(Some(&base), &login(2), &stamp(2))
        .await
        .expect("another session");
    assert_eq!(taken(), 3);
}

async fn each_way_to_no_role_says_what_is_wrong(secrets: Arc<Secrets>) {
    let theirs = secrets.role(&rig::unique("of-another-job"), "acme/another");
    let store = handle("any", secrets.job(&theirs));
    let error = store.read().await.expect_err("not our role");
    assert_eq!(error.kind, ErrorKind::Unauthenticated);
    let why = chain(&error);
    assert!(
        why.contains("its trust policy does not name this job"),
        "{why}"
    );
    assert!(
        why.contains("sts:AssumeRoleWithWebIdentity was answered with AccessDenied"),
        "{why}"
    );

    // The other tests fetch their tokens from the shared issuer meanwhile.
    let failing = Issuer::start();
    failing.fail(Some(503));
    let error = handle("any", Secrets::job_of(&failing, &theirs))
        .read()
        .await
        .expect_err("no token");
    assert_eq!(error.kind, ErrorKind::Unavailable, "{}", chain(&error));

    let nobody = Settings {
        job_token: None,
        ..secrets.job(&theirs)
    };
    let address = "aws-sm://eu-west-1/any?role=arn:aws:iam::123456789012:role/ci";
    let store =
        authferry_aws::open(address.parse().expect("an address"), nobody).expect("settings");
    let why = chain(&store.read().await.expect_err("no token"));
    assert!(why.contains("the job has no token of its own"), "{why}");
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

fn bid(number: u64, now: u64) -> Bid {
    Bid {
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
        id: WriteId { trip: 8, number },
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
