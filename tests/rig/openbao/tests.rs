//! The rig's servers behave as its tests assume.

use serde_json::{Value, json};

use super::OpenBao;
use crate::{Issuer, github_claims, gitlab_claims};

#[test]
fn bao_kv_get_returns_what_bao_kv_put_wrote() {
    for server in [OpenBao::dev(), OpenBao::raft()] {
        assert_eq!(server.look_by_hand("secret", "ci/codex", "login"), None);
        server.put_by_hand("secret", "ci/codex", "login", b"made-up\n", None);
        let found = server.look_by_hand("secret", "ci/codex", "login");
        assert_eq!(found.as_deref(), Some(&b"made-up\n"[..]), "{server:?}");
        assert_eq!(server.look_by_hand("secret", "ci/codex", "other"), None);
        let read = server.admin().read("secret/data/ci/codex");
        assert_eq!(
            read.expect("a value")["data"]["data"],
            json!({"login": "made-up\n"})
        );
    }
}

#[test]
fn a_restart_keeps_data_and_a_seal_hides_it() {
    let server = OpenBao::raft();
    let value = json!({"data": {"login": "made-up"}});
    server.admin().write("secret/data/kept", &value);

    let before = server.address();
    server.restart(0);
    assert_eq!(server.address(), before);
    assert!(server.admin().read("secret/data/kept").is_some());

    server.seal(0);
    let sealed = server.admin().request("GET", "secret/data/kept", None);
    assert_eq!(sealed.expect("a reply").status, 503);
    server.unseal(0);
    assert!(server.admin().read("secret/data/kept").is_some());
}

#[test]
fn another_server_leads_after_the_leader_was_killed() {
    let cluster = OpenBao::cluster(3);
    let value = json!({"data": {"login": "made-up"}});
    cluster.admin().write("secret/data/kept", &value);
    let first = cluster.leader();

    cluster.kill(first);
    let second = cluster.leader();
    assert_ne!(first, second);
    assert!(cluster.admin_of(second).read("secret/data/kept").is_some());

    cluster.restart(first);
    assert!(cluster.admin_of(first).read("secret/data/kept").is_some());
}

#[test]
fn a_job_logs_in_only_with_a_token_of_the_issuer() {
    let (server, issuer) = (OpenBao::dev(), Issuer::start());
    let admin = server.admin();
    admin.trust("ci", &issuer);
    let role = json!({
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["vault.example"],
        "bound_claims": {"repository": "acme/app"},
        "token_policies": ["default"],
    });
    admin.write("auth/ci/role/app", &role);
    let login = |token: &str| {
        let body = json!({"role": "app", "jwt": token});
        let reply = admin.request("POST", "auth/ci/login", Some(&body));
        reply.expect("a reply")
    };

    let addressed = |mut claims: Value, audience: &str| {
        claims["aud"] = json!(audience);
        issuer.sign(claims)
    };
    let good = addressed(github_claims("acme/app"), "vault.example");
    let reply = login(&good);
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(
        admin.is_valid_token(
            reply.body["auth"]["client_token"]
                .as_str()
                .expect("a token")
        )
    );

    let mut ended = github_claims("acme/app");
    ended["exp"] = json!(1_000_000_000);
    let (tampered, _) = good.rsplit_once('.').expect("a signature");
    let another = Issuer::start();
    for (bad, expected) in [
        (
            addressed(github_claims("acme/app"), "else"),
            "invalid audience (aud) claim",
        ),
        (
            addressed(github_claims("acme/other"), "vault.example"),
            "claim \"repository\" does not match",
        ),
        (
            addressed(gitlab_claims("acme/app"), "vault.example"),
            "claim \"repository\" is missing",
        ),
        (addressed(ended, "vault.example"), "token is expired"),
        (another.sign(github_claims("acme/app")), "signature"),
        (format!("{tampered}.{}", "A".repeat(86)), "signature"),
    ] {
        let reply = login(&bad);
        assert_eq!(reply.status, 400, "{expected}: {reply:?}");
        let errors = reply.body["errors"].to_string().replace("\\\"", "\"");
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
}
