//! What can go wrong on the way: a request or its reply is lost, or the service fails before
//! it has done as asked, or after.

use std::sync::Arc;

use authferry_aws::{AwsStore, Settings};
use authferry_core::{CasError, ErrorKind, Origin, Secret, SecretStore, Stamp, Version, WriteId};
use serde_json::json;

use crate::fixture::{Run, Secrets, handle, has};

pub(crate) const TRIALS: &[(&str, Run)] = &[
    ("trouble::a_put_is_repeated_until_it_is_answered", |it| {
        Box::pin(a_put_is_repeated_until_it_is_answered(it))
    }),
    (
        "trouble::a_put_that_is_never_answered_is_not_current",
        |it| Box::pin(a_put_that_is_never_answered_is_not_current(it)),
    ),
    (
        "trouble::a_promotion_is_sent_once_and_settled_by_looking",
        |it| Box::pin(a_promotion_is_sent_once_and_settled_by_looking(it)),
    ),
    ("trouble::a_creation_is_settled_by_looking", |it| {
        Box::pin(a_creation_is_settled_by_looking(it))
    }),
    ("trouble::a_read_is_repeated", |it| {
        Box::pin(a_read_is_repeated(it))
    }),
    ("trouble::a_hand_between_the_two_calls_wins", |it| {
        Box::pin(a_hand_between_the_two_calls_wins(it))
    }),
];

/// The ways in which a call fails, and whether it was done all the same.
const FAULTS: [(&str, bool); 4] = [
    ("lose request", false),
    ("lose reply", true),
    ("fail before", false),
    ("fail after", true),
];

/// More than the SDK tries.
const ALWAYS: u32 = 9;

async fn a_put_is_repeated_until_it_is_answered(secrets: Arc<Secrets>) {
    let scene = Scene::set(&secrets, "repeated-put").await;
    let mut base = scene.base.clone();
    for (number, (fault, _)) in (2..).zip(FAULTS) {
        secrets.hand.fault("PutSecretValue", &scene.name, fault, 1);
        base = scene.swap(&base, number).await.expect(fault);
        scene.holds(number, fault);
        assert_eq!(secrets.hand.heal(&scene.name), 0, "{fault} never happened");
    }
}

async fn a_put_that_is_never_answered_is_not_current(secrets: Arc<Secrets>) {
    let scene = Scene::set(&secrets, "unanswered-put").await;
    for (number, (fault, _)) in (2..).zip(FAULTS) {
        secrets
            .hand
            .fault("PutSecretValue", &scene.name, fault, ALWAYS);
        let answer = scene.swap(&scene.base, number).await;
        assert!(
            matches!(&answer, Err(CasError::Ambiguous(error)) if error.kind == ErrorKind::Unavailable),
            "{fault}: {answer:?}"
        );
        scene.holds(1, fault);
        secrets.hand.heal(&scene.name);
    }
    // The last one again, as the core does after it has looked.
    let last = 1 + u64::try_from(FAULTS.len()).expect("few");
    scene
        .swap(&scene.base, last)
        .await
        .expect("the way is free");
    scene.holds(last, "sent again");
}

async fn a_promotion_is_sent_once_and_settled_by_looking(secrets: Arc<Secrets>) {
    let scene = Scene::set(&secrets, "promotion").await;
    let mut base = scene.base.clone();
    for (number, (fault, done)) in (2..).zip(FAULTS) {
        secrets
            .hand
            .fault("UpdateSecretVersionStage", &scene.name, fault, 1);
        let answer = scene.swap(&base, number).await;
        assert!(
            matches!(&answer, Err(CasError::Ambiguous(error)) if error.kind == ErrorKind::Unavailable),
            "{fault}: {answer:?}"
        );
        // A second attempt would have run into no fault, and gone through.
        scene.holds(if done { number } else { number - 1 }, fault);
        let seen = scene
            .store
            .read()
            .await
            .expect("a reader")
            .expect("a value");
        assert_eq!(
            seen.stamp.expect("ours").id == stamp(number).id,
            done,
            "{fault}"
        );

        let again = scene.swap(&base, number).await;
        if done {
            assert!(
                matches!(again, Err(CasError::Conflict)),
                "{fault}: {again:?}"
            );
        } else {
            again.expect(fault);
        }
        scene.holds(number, fault);
        base = scene
            .store
            .read()
            .await
            .expect("a reader")
            .expect("a value")
            .version;
    }
    // One for each swap, and one for each that was sent again.
    let versions = scene.all_versions();
    assert_eq!(versions, 1 + FAULTS.len(), "a version was made twice");
}

async fn a_creation_is_settled_by_looking(secrets: Arc<Secrets>) {
    for (fault, done) in FAULTS {
        let name = rig::unique("creation");
        let store = handle(&name, Settings::default());
        secrets.hand.fault("CreateSecret", &name, fault, ALWAYS);
        let answer = store.compare_and_swap(None, &login(1), &stamp(1)).await;
        assert!(
            matches!(answer, Err(CasError::Ambiguous(_))),
            "{fault}: {answer:?}"
        );
        secrets.hand.heal(&name);
        assert_eq!(
            store.read().await.expect("a reader").is_some(),
            done,
            "{fault}"
        );
        // The same again is the same write, whether or not it was done.
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

async fn a_read_is_repeated(secrets: Arc<Secrets>) {
    let scene = Scene::set(&secrets, "read").await;
    for (fault, _) in FAULTS {
        secrets.hand.fault("GetSecretValue", &scene.name, fault, 2);
        scene.store.read().await.expect(fault).expect("a value");
    }
    secrets
        .hand
        .fault("GetSecretValue", &scene.name, "fail before", ALWAYS);
    let error = scene.store.read().await.expect_err("never answered");
    secrets.hand.heal(&scene.name);
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

/// Somebody puts a fresh login there while ours waits to become the current one.
async fn a_hand_between_the_two_calls_wins(secrets: Arc<Secrets>) {
    let scene = Arc::new(Scene::set(&secrets, "hand-between").await);
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
    scene.holds(9, "put by hand");
}

/// A secret that holds login 1.
struct Scene {
    secrets: Arc<Secrets>,
    name: String,
    store: AwsStore,
    base: Version,
}

impl Scene {
    async fn set(secrets: &Arc<Secrets>, name: &str) -> Self {
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

    /// Requires that one version is current, and that it is this login.
    #[track_caller]
    fn holds(&self, number: u64, when: &str) {
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
        id: WriteId { trip: 7, number },
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
