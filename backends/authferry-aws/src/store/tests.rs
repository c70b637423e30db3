use authferry_core::{Origin, WriteId};

use super::*;
use crate::canned::{Canned, error_response, success};

const TOKEN: &str = "00000000000000010000000000000002-r3-0505050505050505";

fn login() -> Secret {
    Secret::new(b"made-up".to_vec())
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

fn put() -> crate::canned::CannedResponse {
    success(&format!(r#"{{"VersionId":"{TOKEN}"}}"#))
}

async fn swap(service: &Canned) -> Result<Version, CasError> {
    let base = Version::new("the-base");
    service
        .store()
        .compare_and_swap(Some(&base), &login(), &stamp())
        .await
}

#[tokio::test]
async fn a_swap_puts_a_pending_version_and_moves_the_label_from_the_expected_one() {
    let service = Canned::new([put(), success("{}")]);
    assert_eq!(swap(&service).await.expect("a swap").as_str(), TOKEN);
    let [put, promote] = service.requests().try_into().expect("two calls");
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

/// The first attempt may have succeeded: a retry would conflict with it.
#[tokio::test]
async fn a_promotion_is_sent_once() {
    for response in [
        error_response(500, "InternalServiceError"),
        error_response(503, ""),
        error_response(400, "ThrottlingException"),
    ] {
        let service = Canned::new([put(), response, success("{}")]);
        drop(swap(&service).await.expect_err("not done"));
        assert_eq!(
            service.actions(),
            ["PutSecretValue", "UpdateSecretVersionStage"]
        );
    }
}

#[tokio::test]
async fn a_failed_put_is_not_promoted() {
    let service = Canned::new([error_response(400, "AccessDeniedException")]);
    let answer = swap(&service).await;
    assert!(matches!(answer, Err(CasError::Refused(_))), "{answer:?}");
    // The store does not promote a version whose ID the service changed either.
    let other = Canned::new([success(r#"{"VersionId":"another"}"#)]);
    let answer = swap(&other).await;
    assert!(matches!(answer, Err(CasError::Ambiguous(_))), "{answer:?}");
    for service in [service, other] {
        assert_eq!(service.actions(), ["PutSecretValue"]);
    }
}
