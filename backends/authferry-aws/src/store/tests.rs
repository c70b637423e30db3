use authferry_core::{Origin, WriteId};

use super::*;
use crate::canned::{Canned, no, yes};

const TOKEN: &str = "00000000000000010000000000000002-r3-0505050505050505";

fn login() -> Secret {
    Secret::new(b"made-up".to_vec())
}

fn stamp() -> Stamp {
    Stamp {
        id: WriteId { trip: 1, number: 2 },
        count: 3,
        origin: Origin::Rotation,
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: "a job".into(),
    }
}

fn put() -> crate::canned::Answer {
    yes(&format!(r#"{{"VersionId":"{TOKEN}"}}"#))
}

async fn swap(service: &Canned) -> Result<Version, CasError> {
    let base = Version::new("the-base");
    service
        .store()
        .compare_and_swap(Some(&base), &login(), &stamp())
        .await
}

#[tokio::test]
async fn a_swap_puts_a_version_aside_and_moves_the_label_from_the_expected_one() {
    let service = Canned::new([put(), yes("{}")]);
    assert_eq!(swap(&service).await.expect("a swap").as_str(), TOKEN);
    let [put, promote] = service.asked().try_into().expect("two calls");
    assert_eq!(put.action, "PutSecretValue");
    for part in [
        r#""SecretId":"ci/codex""#,
        r#""ClientRequestToken":"00000000000000010000000000000002-r3-0505050505050505""#,
        r#""VersionStages":["AUTHFERRY_PENDING"]"#,
        r#""SecretString":"made-up""#,
    ] {
        assert!(put.body.contains(part), "{part}: {}", put.body);
    }
    assert_eq!(promote.action, "UpdateSecretVersionStage");
    for part in [
        r#""VersionStage":"AWSCURRENT""#,
        r#""MoveToVersionId":"00000000000000010000000000000002-r3-0505050505050505""#,
        r#""RemoveFromVersionId":"the-base""#,
    ] {
        assert!(promote.body.contains(part), "{part}: {}", promote.body);
    }
}

/// The first attempt may have gone through: a second one would run into it.
#[tokio::test]
async fn a_promotion_is_sent_once() {
    for answer in [
        no(500, "InternalServiceError"),
        no(503, ""),
        no(400, "ThrottlingException"),
    ] {
        let service = Canned::new([put(), answer, yes("{}")]);
        drop(swap(&service).await.expect_err("not done"));
        assert_eq!(
            service.actions(),
            ["PutSecretValue", "UpdateSecretVersionStage"]
        );
    }
}

#[tokio::test]
async fn what_was_not_put_is_not_promoted() {
    let service = Canned::new([no(400, "AccessDeniedException")]);
    let answer = swap(&service).await;
    assert!(matches!(answer, Err(CasError::Refused(_))), "{answer:?}");
    // Nor is what came to be under another name than was asked for.
    let other = Canned::new([yes(r#"{"VersionId":"another"}"#)]);
    let answer = swap(&other).await;
    assert!(matches!(answer, Err(CasError::Ambiguous(_))), "{answer:?}");
    for service in [service, other] {
        assert_eq!(service.actions(), ["PutSecretValue"]);
    }
}
