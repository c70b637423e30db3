//! Faults: a request or its reply is lost, or the service fails before or after it applies the
//! request.

use std::sync::Arc;

use authferry_aws::{AwsStore, Settings};
use authferry_core::{CasError, ErrorKind, Origin, Secret, SecretStore, Stamp, Version, WriteId};
use serde_json::json;

use crate::fixture::{Run, Secrets, handle, has};

pub(crate) const TRIALS: &[(&str, Run)] = &[
    ("faults::a_put_is_retried_until_it_is_answered", |it| {
        Box::pin(a_put_is_retried_until_it_is_answered(it))
    }),
    (
        "faults::a_put_without_a_reply_does_not_become_current",
        |it| Box::pin(a_put_without_a_reply_does_not_become_current(it)),
    ),
    (
        "faults::a_promotion_is_sent_once_and_resolved_by_a_read",
        |it| Box::pin(a_promotion_is_sent_once_and_resolved_by_a_read(it)),
    ),
    ("faults::a_creation_is_resolved_by_a_read", |it| {
        Box::pin(a_creation_is_resolved_by_a_read(it))
    }),
    ("faults::a_read_is_retried", |it| {
        Box::pin(a_read_is_retried(it))
    }),
    ("faults::a_manual_write_between_the_two_calls_wins", |it| {
        Box::pin(a_manual_write_between_the_two_calls_wins(it))
    }),
];

/// The faults of a call, and whether the server still applies it.
const FAULTS: [(&str, bool); 4] = [
    ("lose request", false),
    ("lose reply", true),
    ("fail before", false),
    ("fail after", true),
];

/// More faults than the SDK has retries.
const EVERY_ATTEMPT: u32 = 9;

async fn a_put_is_retried_until_it_is_answered(secrets: Arc<Secrets>) {
    let scene = Scene::new(&secrets, "repeated-put").await;
    let mut base = scene.base.clone();
    for (number, (fault, _)) in (2..).zip(FAULTS) {
        secrets.hand.fault("PutSecretValue", &scene.name, fault, 1);
        base = scene.swap(&base, number).await.expect(fault);
        scene.assert_current(number, fault);
        assert_eq!(secrets.hand.heal(&scene.name), 0, "{fault} never happened");
    }
}

async fn a_put_without_a_reply_does_not_become_current(secrets: Arc<Secrets>) {
    let scene = Scene::new(&secrets, "unanswered-put").await;
    for (number, (fault, _)) in (2..).zip(FAULTS) {
        secrets
            .hand
            .fault("PutSecretValue", &scene.name, fault, EVERY_ATTEMPT);
        let answer = scene.swap(&scene.base, number).await;
        assert!(
            matches!(&answer, Err(CasError::Ambiguous(error)) if error.kind == ErrorKind::Unavailable),
            "{fault}: {answer:?}"
        );
        scene.assert_current(1, fault);
        secrets.hand.heal(&scene.name);
    }
    // Retry the last swap, as the core does after a read.
    let last = 1 + u64::try_from(FAULTS.len()).expect("few");
    scene
        .swap(&scene.base, last)
        .await
        .expect("no fault is left");
    scene.assert_current(last, "retried");
}

async fn a_promotion_is_sent_once_and_resolved_by_a_read(secrets: Arc<Secrets>) {
    let scene = Scene::new(&secrets, "promotion").await;
    let mut base = scene.base.clone();
    for (number, (fault, applied)) in (2..).zip(FAULTS) {
        secrets
            .hand
            .fault("UpdateSecretVersionStage", &scene.name, fault, 1);
        let answer = scene.swap(&base, number).await;
        assert!(
            matches!(&answer, Err(CasError::Ambiguous(error)) if error.kind == ErrorKind::Unavailable),
            "{fault}: {answer:?}"
        );
        // A second attempt would have met no fault, and succeeded.
        scene.assert_current(if applied { number } else { number - 1 }, fault);
        let seen = scene
            .store
            .read()
            .await
            .expect("a reader")
            .expect("a value");
        assert_eq!(
            seen.stamp.expect("ours").id == stamp(number).id,
            applied,
            "{fault}"
        );

        let again = scene.swap(&base, number).await;
        if applied {
            assert!(
                matches!(again, Err(CasError::Conflict)),
                "{fault}: {again:?}"
            );
        } else {
            again.expect(fault);
        }
        scene.assert_current(number, fault);
        base = scene
            .store
            .read()
            .await
            .expect("a reader")
            .expect("a value")
            .version;
    }
    // One version per swap: retries make none.
    let versions = scene.all_versions();
    assert_eq!(versions, 1 + FAULTS.len(), "a version was made twice");
}

async fn a_creation_is_resolved_by_a_read(secrets: Arc<Secrets>) {
    for (fault, applied) in FAULTS {
        let name = rig::unique("creation");
        let store = handle(&name, Settings::default());
        secrets
            .hand
            .fault("CreateSecret", &name, fault, EVERY_ATTEMPT);
        let answer = store.compare_and_swap(None, &login(1), &stamp(1)).await;
        assert!(
            matches!(answer, Err(CasError::Ambiguous(_))),
            "{fault}: {answer:?}"
        );
        secrets.hand.heal(&name);
        assert_eq!(
            store.read().await.expect("a reader").is_some(),
            applied,
            "{fault}"
        );
        // The repeated creation is the same write, applied or not.
        let version = store
            .compare_and_swap(None, &login(1), &stamp(1))
            .await
            .expect(fault);
        let seen = store.read().await.expect("a reader").expect("a value");
        assert_eq!(
            (seen.version, seen.secret.expose()),
            (version, login(1).expose()),
            "{fault}"
        );
    }
}

async fn a_read_is_retried(secrets: Arc<Secrets>) {
    let scene = Scene::new(&secrets, "read").await;
    for (fault, _) in FAULTS {
        secrets.hand.fault("GetSecretValue", &scene.name, fault, 2);
        scene.store.read().await.expect(fault).expect("a value");
    }
    secrets
        .hand
        .fault("GetSecretValue", &scene.name, "fail before", EVERY_ATTEMPT);
    let error = scene.store.read().await.expect_err("never answered");
    secrets.hand.heal(&scene.name);
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

/// A person writes a new login while ours is pending promotion.
async fn a_manual_write_between_the_two_calls_wins(secrets: Arc<Secrets>) {
    let scene = Arc::new(Scene::new(&secrets, "hand-between").await);
    secrets
        .hand
        .fault("UpdateSecretVersionStage", &scene.name, "delay", 1);
    let swap = tokio::spawn({
        let scene = Arc::clone(&scene);
        async move { scene.swap(&scene.base, 2).await }
    });
    secrets.hand.rig("held", &scene.name);
    secrets.hand.put(&scene.name, &text(9));
    secrets.hand.rig("let-go", &scene.name);
    let answer = swap.await.expect("no panic");
    assert!(matches!(answer, Err(CasError::Conflict)), "{answer:?}");
    scene.assert_current(9, "put by hand");
}

/// A secret that holds login 1.
struct Scene {
    secrets: Arc<Secrets>,
    name: String,
    store: AwsStore,
    base: Version,
}

impl Scene {
    async fn new(secrets: &Arc<Secrets>, name: &str) -> Self {
        let name = rig::unique(name);
        let store = handle(&name, Settings::default());
        let base = store.compare_and_swap(None, &login(1), &stamp(1)).await;
        Self {
            secrets: Arc::clone(secrets),
            name,
            store,
            base: base.expect("a new secret"),
        }
    }

    async fn swap(&self, base: &Version, number: u64) -> Result<Version, CasError> {
        self.store
            .compare_and_swap(Some(base), &login(number), &stamp(number))
            .await
    }

    /// Asserts that exactly one version is current, and that it holds this login.
    #[track_caller]
    fn assert_current(&self, number: u64, when: &str) {
        assert_eq!(
            self.secrets.hand.look(&self.name),
            Some(text(number)),
            "{when}"
        );
        let versions = self.secrets.hand.versions(&self.name);
        let current = versions
            .values()
            .filter(|labels| has(labels, "AWSCURRENT"))
            .count();
        assert_eq!(current, 1, "{when}: {versions:?}");
    }

    fn all_versions(&self) -> usize {
        let given = json!({"SecretId": self.name, "IncludeDeprecated": true});
        let all = self.secrets.hand.secrets("list_secret_version_ids", &given);
        all.expect("a secret")["Versions"]
            .as_array()
            .map_or(0, Vec::len)
    }
}

fn stamp(number: u64) -> Stamp {
    Stamp {
        id: WriteId { nonce: 7, number },
        count: number,
        origin: if number == 1 {
            Origin::Seed
        } else {
            Origin::Rotation
        },
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: String::new(),
    }
}

fn text(number: u64) -> String {
    format!("{{\"tokens\":\"made-up-{number}\"}}")
}

fn login(number: u64) -> Secret {
    Secret::new(text(number).into_bytes())
}
