//! Authentication and authorization.

use std::time::Duration;

use serde_json::{Value, json};

use super::{get, http, kind, refused, scene};
use crate::{
    Issuer, PythonClient, github_claims,
    keyvault::{ADMIN, Account, ENTRA_AUDIENCE, IDENTITY, Job, KeyVault, Op, Right, TENANT},
};

const JOB: &str = "00000000-0000-4000-8000-0000000000b1";
const VAULT: &str = "https://vault.azure.net";
const GET: &str = "Microsoft.KeyVault/vaults/secrets/getSecret/action";

/// A vault that lets the jobs of an issuer read one secret.
fn vault_for_jobs_of(issuer: &Issuer) -> KeyVault {
    let vault = KeyVault::start();
    let subject = github_claims("acme/app")["sub"].clone();
    let only = Some("shared".to_owned());
    vault.account(
        JOB,
        Account {
            jobs: vec![Job::of(issuer, subject.as_str().expect("a subject"))],
            rights: vec![Right {
                action: GET.to_owned(),
                only,
            }],
            ..Account::default()
        },
    );
    vault
}

fn token_of(issuer: &Issuer, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = github_claims("acme/app");
    claims["aud"] = json!(ENTRA_AUDIENCE);
    change(&mut claims);
    issuer.sign(claims)
}

#[test]
fn the_challenge_names_the_token_endpoint_and_the_token_is_valid_only_for_the_vault() {
    let vault = KeyVault::start();
    let mut client = PythonClient::of(&vault);
    client.set("allowed", "x");
    let calls = vault.calls();
    let seen: Vec<_> = calls
        .iter()
        .map(|(call, status)| (call.op, call.caller.is_some(), *status))
        .collect();
    assert_eq!(
        seen,
        [
            (Op::SetSecret, false, 401),
            (Op::SignIn, false, 200),
            (Op::SetSecret, true, 200),
        ]
    );

    let probe = |headers: &[(&str, &str)]| {
        http(
            &vault,
            "GET",
            "/secrets/allowed?api-version=7.6",
            headers,
            "",
        )
    };
    let (status, headers, body) = probe(&[]);
    let url = vault.url();
    assert_eq!(status, 401);
    assert_eq!(
        headers["www-authenticate"],
        format!("Bearer authorization=\"{url}/{TENANT}\", resource=\"{VAULT}\"")
    );
    assert!(body.contains("AKV10000"), "{body}");
    for (resource, status) in [(VAULT, 200), ("https://storage.azure.com", 401)] {
        let bearer = format!("Bearer {}", vault.token(ADMIN.0, resource));
        assert_eq!(probe(&[("authorization", &bearer)]).0, status, "{resource}");
    }
    let (status, _, body) = probe(&[("authorization", "Bearer made-up")]);
    assert!(status == 401 && body.contains("AKV10032"), "{body}");

    vault.revoke_tokens();
    let refusal = refused(&mut client, &get("allowed"));
    assert_eq!(refusal.status, Some(401), "{refusal:?}");
    vault.rules(|rules| rules.token_lifetime = Duration::ZERO);
    let bearer = format!("Bearer {}", vault.token(ADMIN.0, VAULT));
    assert_eq!(probe(&[("authorization", &bearer)]).0, 401, "it has ended");
}

#[test]
fn a_job_signs_in_with_its_own_token_and_has_its_rights() {
    let issuer = Issuer::start();
    let vault = vault_for_jobs_of(&issuer);
    for name in ["shared", "other"] {
        PythonClient::of(&vault).set(name, "x");
    }
    let who = json!({"client": JOB, "assertion": token_of(&issuer, |_| {})});
    let mut job = PythonClient::start(&vault, &who, 0);
    assert_eq!(job.get("shared").as_deref(), Some("x"));
    for (request, action) in [
        (get("other"), "getSecret"),
        (super::list("shared"), "readMetadata"),
        (
            json!({"op": "set", "name": "shared", "value": "y"}),
            "setSecret",
        ),
        (
            json!({"op": "update", "name": "shared", "enabled": false}),
            "update",
        ),
        (json!({"op": "deleting", "name": "shared"}), "delete"),
        (json!({"op": "purge", "name": "shared"}), "purge"),
    ] {
        let refusal = refused(&mut job, &request);
        assert_eq!(
            kind(&refusal),
            (Some(403), Some("Forbidden"), Some("ForbiddenByRbac")),
            "{request}"
        );
        assert!(
            refusal
                .message
                .contains(&format!("'Microsoft.KeyVault/vaults/secrets/{action}")),
            "{refusal:?}"
        );
    }
    assert_eq!(job.get("shared").as_deref(), Some("x"));
}

#[test]
#[expect(clippy::too_many_lines, reason = "most of them are a table")]
fn a_refused_sign_in_has_an_error_number() {
    let [issuer, other] = [Issuer::start(), Issuer::start()];
    let vault = vault_for_jobs_of(&issuer);
    let assertion = |token: String| {
        format!(
            "client_id={JOB}&grant_type=client_credentials&scope={VAULT}/.default&client_assertion={token}"
        )
    };
    let changed = |change: fn(&mut Value)| assertion(token_of(&issuer, change));
    let good = token_of(&issuer, |_| {});
    let (signed, _) = good.rsplit_once('.').expect("a signature");
    let ask = |tenant: &str, form: &str| {
        let (status, _, body) = http(
            &vault,
            "POST",
            &format!("/{tenant}/oauth2/v2.0/token"),
            &[],
            form,
        );
        let body: Value = serde_json::from_str(&body).expect("JSON");
        (status, body)
    };
    let (status, body) = ask(TENANT, &assertion(good.clone()));
    assert_eq!((status, &body["expires_in"]), (200, &json!(3600)));

    let (admin, secret) = ADMIN;
    let by_secret =
        |secret: &str, rest: &str| format!("client_id={admin}&client_secret={secret}&{rest}");
    let usual = format!("grant_type=client_credentials&scope={VAULT}/.default");
    for (what, tenant, form, number) in [
        (
            "another tenant",
            "made-up",
            by_secret(secret, &usual),
            90_002,
        ),
        (
            "another secret",
            TENANT,
            by_secret("else", &usual),
            7_000_215,
        ),
        (
            "nobody",
            TENANT,
            by_secret(secret, &usual).replace(admin, "else"),
            700_016,
        ),
        (
            "no proof",
            TENANT,
            format!("client_id={admin}&{usual}"),
            7_000_218,
        ),
        (
            "another grant",
            TENANT,
            by_secret(secret, &usual).replace("client_credentials", "password"),
            70_003,
        ),
        (
            "no scope",
            TENANT,
            by_secret(secret, "grant_type=client_credentials"),
            1_002_012,
        ),
        (
            "another audience",
            TENANT,
            changed(|it| it["aud"] = json!("https://vault.example.com")),
            700_212,
        ),
        (
            "another branch",
            TENANT,
            changed(|it| it["sub"] = json!("repo:acme/app:ref:refs/heads/x")),
            700_213,
        ),
        (
            "capital letters",
            TENANT,
            changed(|it| it["sub"] = json!("repo:Acme/app:ref:refs/heads/main")),
            700_213,
        ),
        (
            "an ended one",
            TENANT,
            changed(|it| it["exp"] = json!(1_000_000_000)),
            700_024,
        ),
        (
            "one of the future",
            TENANT,
            changed(|it| it["nbf"] = json!(4_000_000_000_u32)),
            700_024,
        ),
        (
            "another issuer",
            TENANT,
            assertion(token_of(&other, |_| {})),
            700_211,
        ),
        (
            "another's key",
            TENANT,
            assertion(token_of(&other, |it| it["iss"] = json!(issuer.url()))),
            700_027,
        ),
        (
            "no signature",
            TENANT,
            assertion(format!("{signed}.")),
            700_027,
        ),
        ("no token", TENANT, assertion("made-up".to_owned()), 50_027),
    ] {
        let (status, body) = ask(tenant, &form);
        assert_eq!(body["error_codes"], json!([number]), "{what}: {body}");
        assert!(status == 400 || status == 401, "{what}: {status}");
    }

    let who = json!({"client": admin, "secret": "else"});
    let refusal = refused(&mut PythonClient::start(&vault, &who, 0), &get("shared"));
    assert_eq!(refusal.kind, "ClientAuthenticationError");
    assert!(refusal.message.contains("AADSTS7000215"), "{refusal:?}");
}

#[test]
fn a_machine_has_a_managed_identity() {
    let scene = scene();
    let [(_, endpoint), (_, header)] = scene.vault.identity();
    let path = endpoint.strip_prefix(&scene.vault.url()).expect("here");
    let target = format!("{path}?api-version=2019-08-01&resource={VAULT}");
    let ask = |header: &str| {
        http(
            &scene.vault,
            "GET",
            &target,
            &[("x-identity-header", header)],
            "",
        )
    };
    assert_eq!(ask("else").0, 400);
    let (status, _, body) = ask(&header);
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let bearer = format!("Bearer {}", body["access_token"].as_str().expect("a token"));
    let read = || {
        let headers = [("authorization", bearer.as_str())];
        http(
            &scene.vault,
            "GET",
            "/secrets/machine?api-version=7.6",
            &headers,
            "",
        )
        .0
    };
    assert_eq!(read(), 403, "it may do nothing yet");
    scene.vault.account(
        IDENTITY,
        Account {
            rights: vec![Right::to(GET)],
            ..Account::default()
        },
    );
    assert_eq!(read(), 404);
}

#[test]
fn a_client_that_checks_the_resource_does_not_sign_in_for_another_host() {
    let scene = scene();
    let mut strict = PythonClient::strict(&scene.vault);
    scene.vault.forget_calls();
    let refusal = refused(&mut strict, &get("checked"));
    assert!(
        refusal
            .message
            .contains("does not match the requested domain"),
        "{refusal:?}"
    );
    assert!(
        scene
            .vault
            .calls()
            .iter()
            .all(|(call, _)| call.op != Op::SignIn)
    );
}
