//! Access to the blobs of Azurite.

use std::sync::Arc;

use super::http;
use crate::{
    Azurite,
    keyvault::{ADMIN, Account, Call, Failure, Fault, KeyVault, Op, Right},
};

const STORAGE: &str = "https://storage.azure.com";
const GUEST: &str = "00000000-0000-4000-8000-0000000000b2";

#[test]
fn an_authorized_caller_swaps_a_blob_by_etag() {
    let azurite = Arc::new(Azurite::start());
    let vault = KeyVault::with_blobs(&azurite);
    let container = azurite.container();
    let target = format!("/devstoreaccount1/{container}/pointer.json");
    let bearer =
        |account: &str, resource: &str| format!("Bearer {}", vault.token(account, resource));
    let admin = bearer(ADMIN.0, STORAGE);
    let ask = |method: &str, bearer: &str, more: &[(&str, &str)], body: &str| {
        let mut headers = vec![("authorization", bearer), ("x-ms-version", "2023-11-03")];
        headers.extend_from_slice(more);
        let (status, headers, body) = http(&vault, method, &target, &headers, body);
        let header = |name: &str| {
            headers
                .get(name)
                .and_then(|it| it.to_str().ok())
                .unwrap_or_default()
                .to_owned()
        };
        (status, header("x-ms-error-code"), header("etag"), body)
    };
    let put = |condition: (&str, &str), body: &str| {
        ask(
            "PUT",
            &admin,
            &[("x-ms-blob-type", "BlockBlob"), condition],
            body,
        )
    };

    assert_eq!(ask("GET", &admin, &[], "").0, 404);
    let (status, _, first, _) = put(("if-none-match", "*"), "one");
    assert_eq!(status, 201);
    assert!(first.starts_with('"') && first.ends_with('"'), "{first}");
    let (status, code, ..) = put(("if-none-match", "*"), "two");
    assert_eq!((status, code.as_str()), (409, "BlobAlreadyExists"));
    let (status, _, second, _) = put(("if-match", &first), "two");
    assert_eq!(status, 201);
    assert_ne!(first, second);
    let (status, code, ..) = put(("if-match", &first), "three");
    assert_eq!((status, code.as_str()), (412, "ConditionNotMet"));
    let (status, _, etag, body) = ask("GET", &admin, &[], "");
    assert_eq!((status, etag, body.as_str()), (200, second.clone(), "two"));

    // A reader must not write, and a token for the vault allows neither.
    let read = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read";
    for (only, status) in [
        (None, 200),
        (Some(container.clone()), 200),
        (Some("other".to_owned()), 403),
    ] {
        let rights = vec![Right {
            action: read.to_owned(),
            only,
        }];
        vault.account(
            GUEST,
            Account {
                rights,
                ..Account::default()
            },
        );
        assert_eq!(ask("GET", &bearer(GUEST, STORAGE), &[], "").0, status);
    }
    let guest = bearer(GUEST, STORAGE);
    let (status, code, ..) = ask("PUT", &guest, &[("x-ms-blob-type", "BlockBlob")], "x");
    assert_eq!(
        (status, code.as_str()),
        (403, "AuthorizationPermissionMismatch")
    );
    assert_eq!(ask("DELETE", &guest, &[], "").0, 403);
    let of_the_vault = bearer(ADMIN.0, "https://vault.azure.net");
    assert_eq!(ask("GET", &of_the_vault, &[], "").0, 401);

    // A swap that was applied but answered with a failure.
    let writes = |call: &Call| call.op == Op::WriteBlob && call.name.ends_with("/pointer.json");
    let failure = Failure::new(
        500,
        "InternalError",
        "The server encountered an internal error.",
    );
    vault.fail(writes, Fault::AppliedThen(failure));
    let (status, code, ..) = put(("if-match", &second), "three");
    assert_eq!((status, code.as_str()), (500, "InternalError"));
    assert_eq!(ask("GET", &admin, &[], "").3, "three");
    assert_eq!(ask("DELETE", &admin, &[], "").0, 202);
}
