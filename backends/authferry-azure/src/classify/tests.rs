//! What each answer means, as far as it is known what Azure answers.

use authferry_core::ErrorKind::{
    self, NotFound, PermissionDenied, Throttled, TooLarge, Unauthenticated, Unavailable, Unexpected,
};

use super::{Unwritten, of_blob, of_put, of_vault};
use crate::{
    trouble::Trouble,
    wire::{Answer, Failure, NoToken},
};

fn answer(status: u16, code: &str, inner: &str) -> Answer {
    Answer {
        status,
        code: code.to_owned(),
        inner: inner.to_owned(),
        ..Answer::default()
    }
}

#[test]
fn every_answer_to_a_put_says_what_is_known() {
    for (status, inner, kind, is_certain) in [
        (400, "", Unexpected, true),
        (401, "", Unauthenticated, true),
        (403, "ForbiddenByRbac", PermissionDenied, true),
        (403, "ForbiddenByFirewall", PermissionDenied, true),
        (403, "AccessDenied", PermissionDenied, true),
        (404, "", Unexpected, true),
        (408, "", Unavailable, false),
        // Two writes at once, of which nobody says what becomes of the one that is told so.
        (409, "", Unavailable, false),
        (409, "ObjectIsDeletedButRecoverable", NotFound, true),
        (409, "ObjectIsBeingDeleted", Unavailable, true),
        (409, "ObjectIsBeingRecovered", Unavailable, true),
        (413, "", TooLarge, true),
        (429, "", Throttled, true),
        (500, "", Unavailable, false),
        (502, "", Unavailable, false),
        (503, "", Unavailable, false),
        (504, "", Unavailable, false),
    ] {
        let (found, certain) = match of_put(Failure::Answer(answer(status, "Any", inner))) {
            Unwritten::Refused(trouble) => (trouble.kind(), true),
            Unwritten::Unknown(trouble) => (trouble.kind(), false),
        };
        assert_eq!((found, certain), (kind, is_certain), "{status} {inner}");
    }
}

#[test]
fn a_put_that_never_left_was_not_done_and_one_without_an_answer_may_have_been() {
    let certain = |failure: Failure| matches!(of_put(failure), Unwritten::Refused(_));
    let no = answer(400, "700213", "");
    assert!(certain(Failure::NoToken(NoToken::Answer(no))));
    assert!(certain(Failure::Impostor));
    assert!(!certain(Failure::Unintelligible));
}

#[test]
fn a_key_that_is_not_known_yet_is_no_bad_token() {
    let unknown = Answer {
        text: "AKV10046: Unable to resolve the key".to_owned(),
        ..answer(401, "Unauthorized", "")
    };
    let trouble = of_vault(Failure::Answer(unknown), "look");
    assert_eq!(trouble.kind(), Unavailable, "{trouble}");
    let wrong = of_vault(Failure::Answer(answer(401, "Unauthorized", "")), "look");
    assert!(matches!(wrong, Trouble::BadToken));
}

#[test]
fn each_no_of_a_storage_account_is_told_apart() {
    let kind = |status: u16, code: &str| -> ErrorKind {
        of_blob(Failure::Answer(answer(status, code, "")), "look").kind()
    };
    for (status, code, known) in [
        (401, "InvalidAuthenticationInfo", Unauthenticated),
        (403, "AuthenticationFailed", Unauthenticated),
        (403, "AuthorizationFailure", PermissionDenied),
        (403, "AuthorizationPermissionMismatch", PermissionDenied),
        (404, "ContainerNotFound", NotFound),
        (429, "ServerBusy", Throttled),
        (503, "ServerBusy", Unavailable),
    ] {
        assert_eq!(kind(status, code), known, "{status} {code}");
    }
}
