use serde_json::json;

use super::*;
use crate::canned::{
    Canned, Request, answer, granted, metadata, no, redirect, version, written, yes,
};

fn token() -> SecretString {
    "made-up-token".into()
}

fn wire(servers: &[&Canned]) -> Wire {
    wire_in(servers, None)
}

fn wire_in(servers: &[&Canned], namespace: Option<&str>) -> Wire {
    let servers: Vec<_> = servers.iter().map(|server| &*server.address).collect();
    let settings = Settings {
        servers: Some(servers.join(",")),
        namespace: namespace.map(ToOwned::to_owned),
        ..Settings::default()
    };
    Wire::new(&settings).expect("servers")
}

async fn write(wire: &Wire) -> Result<Point, Failure> {
    let data = Map::from_iter([("auth_json".to_owned(), "{}".into())]);
    wire.write(&token(), "secret", "ci/codex", data, 4).await
}

async fn read(wire: &Wire) -> Result<Option<Found>, Failure> {
    wire.read(&token(), "secret", "ci/codex").await
}

fn only(server: &Canned) -> Request {
    let mut requests = server.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.remove(0)
}

#[tokio::test]
async fn a_write_has_its_condition_with_it() {
    let server = Canned::new(vec![written(5)]).await;
    let at = write(&wire_in(&[&server], Some("admin/team"))).await;
    assert_eq!(at.expect("a version"), metadata_point(5));
    let request = only(&server);
    assert_eq!(request.line(), "POST /v1/secret/data/ci/codex");
    assert_eq!(request.header("X-Vault-Token"), Some("made-up-token"));
    assert_eq!(request.header("X-Vault-Namespace"), Some("admin/team"));
    assert_eq!(
        request.body,
        json!({"data": {"auth_json": "{}"}, "options": {"cas": 4}})
    );
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_read() {
    let long = "x".repeat(2 << 20);
    let answers = vec![
        version(4, &json!({ "auth_json": long })),
        answer(200, &json!({ "data": long })),
    ];
    let server = Canned::new(answers).await;
    let wire = wire(&[&server]);
    let failure = read(&wire).await.err().expect("too long");
    assert!(matches!(failure, Failure::Silent(Silence::TooLong(_))));
    // The write may have been made all the same.
    let failure = write(&wire).await.expect_err("too long");
    assert!(matches!(&failure, Failure::Silent(it) if it.may_have_acted()));
    assert_eq!(server.requests().len(), 2, "asked for again");
}

/// The library does not look at what it puts into a path, and nobody else does it.
#[tokio::test]
async fn a_path_arrives_as_it_was_meant() {
    for (path, wanted) in [
        ("a b", "a%20b"),
        ("50%/x", "50%25/x"),
        ("a?b=c", "a%3Fb=c"),
        ("a#b", "a%23b"),
        ("%2e%2e/sys", "%252e%252e/sys"),
        ("Jürgen", "J%C3%BCrgen"),
        ("a+b&c;d@e:f", "a+b&c;d@e:f"),
        ("{self.mount}", "%7Bself.mount%7D"),
    ] {
        let server = Canned::new(vec![no(404, &[])]).await;
        let found = wire(&[&server]).read(&token(), "team/kv", path).await;
        assert!(found.expect("nothing").is_none());
        assert_eq!(
            only(&server).line(),
            format!("GET /v1/team/kv/data/{wanted}")
        );
    }
}

#[tokio::test]
async fn a_read_tells_what_is_there_from_what_was() {
    let data = json!({"auth_json": "{}", "n": 1});
    let gone = answer(
        404,
        &json!({"data": {"data": null, "metadata": metadata(7)}, "errors": null}),
    );
    let server = Canned::new(vec![version(5, &data), gone, no(404, &[])]).await;
    let wire = wire(&[&server]);
    let found = read(&wire).await.expect("an answer").expect("a version");
    assert_eq!(found.at, metadata_point(5));
    assert_eq!(found.data.map(Value::Object), Some(data));
    let found = read(&wire).await.expect("an answer").expect("a version");
    assert_eq!(found.at, metadata_point(7));
    assert_eq!(found.data, None);
    assert!(read(&wire).await.expect("an answer").is_none());
}

/// Else a login would be called missing, and seeded anew.
#[tokio::test]
async fn a_place_that_is_missing_is_not_an_empty_one() {
    for text in ["no handler for route \"nope\"", "namespace not found"] {
        let server = Canned::new(vec![no(404, &[text])]).await;
        let failure = read(&wire(&[&server])).await.err().expect("no place");
        let told = matches!(&failure, Failure::Answer(answer) if answer.texts == [text]);
        assert!(told, "{failure:?}");
    }
}

#[tokio::test]
async fn a_login_sends_what_it_has_and_no_token() {
    let server = Canned::new(vec![granted("made-up-1", 60), granted("made-up-2", 0)]).await;
    let wire = wire(&[&server]);
    let jwt = "made.up.jwt".into();
    let grant = wire
        .log_in_by_jwt("github", Some("ci"), &jwt)
        .await
        .expect("a token");
    assert_eq!(grant.token.expose_secret(), "made-up-1");
    assert_eq!(grant.lease, Duration::from_mins(1));
    assert!(grant.renewable);
    let (role, secret) = ("made-up-role".into(), "made-up-secret".into());
    let grant = wire
        .log_in_by_role("team/approle", &role, &secret)
        .await
        .expect("a token");
    assert_eq!(grant.lease, Duration::ZERO);
    let requests = server.requests();
    assert_eq!(requests[0].line(), "POST /v1/auth/github/login");
    assert_eq!(
        requests[0].body,
        json!({"jwt": "made.up.jwt", "role": "ci"})
    );
    assert_eq!(requests[1].line(), "POST /v1/auth/team/approle/login");
    let body = json!({"role_id": "made-up-role", "secret_id": "made-up-secret"});
    assert_eq!(requests[1].body, body);
    assert!(
        requests
            .iter()
            .all(|request| request.header("X-Vault-Token").is_none())
    );
}

#[tokio::test]
async fn a_token_that_no_header_can_hold_is_no_answer() {
    let server = Canned::new(vec![granted("made-up\n", 60)]).await;
    let grant = wire(&[&server]).log_in_by_jwt("jwt", None, &token()).await;
    assert!(matches!(grant, Err(Failure::Unintelligible)));
}

#[tokio::test]
async fn a_token_is_renewed_looked_up_and_revoked_by_itself() {
    let server = Canned::new(vec![
        granted("made-up-token", 90),
        yes(&json!({"id": "made-up"})),
        answer(204, &json!(null)),
    ])
    .await;
    let wire = wire(&[&server]);
    let grant = wire.renew(&token()).await.expect("more time");
    assert_eq!(grant.lease, Duration::from_secs(90));
    wire.look_up(&token()).await.expect("a good token");
    wire.revoke(&token()).await.expect("an end");
    let wanted = [
        "POST /v1/auth/token/renew-self",
        "GET /v1/auth/token/lookup-self",
        "POST /v1/auth/token/revoke-self",
    ];
    assert_eq!(server.lines(), wanted);
    for request in server.requests() {
        assert_eq!(request.header("X-Vault-Token"), Some("made-up-token"));
    }
}

#[tokio::test]
async fn a_mount_tells_what_it_is() {
    for (data, wanted) in [
        (
            json!({"type": "kv", "options": {"version": "2"}}),
            Engine::KeyValue2,
        ),
        (
            json!({"type": "kv", "options": {"version": "1"}}),
            Engine::KeyValue1,
        ),
        (json!({"type": "kv", "options": null}), Engine::KeyValue1),
        (json!({"type": "transit", "options": {}}), Engine::Another),
    ] {
        let server = Canned::new(vec![yes(&data)]).await;
        let engine = wire(&[&server]).engine(&token(), "team/kv").await;
        assert_eq!(engine.expect("an answer"), wanted);
        assert_eq!(
            only(&server).line(),
            "GET /v1/sys/internal/ui/mounts/team/kv"
        );
    }
}

#[tokio::test]
async fn a_write_is_sent_once_whatever_comes_back() {
    for (reply, answered) in [
        (String::new(), false),
        (
            "HTTP/1.1 200 x\r\nContent-Length: 99\r\n\r\n{".to_owned(),
            false,
        ),
        (no(500, &["internal error"]), true),
        (no(503, &["Vault is sealed"]), true),
        (no(429, &[]), true),
        (no(412, &[]), true),
    ] {
        let server = Canned::new(vec![reply, written(5), written(6)]).await;
        let other = Canned::new(vec![written(5)]).await;
        let failure = write(&wire(&[&server, &other])).await.expect_err("no yes");
        let silent = matches!(&failure, Failure::Silent(silence) if silence.may_have_acted());
        assert_eq!(silent, !answered, "{failure:?}");
        assert_eq!(
            matches!(failure, Failure::Answer(_)),
            answered,
            "{failure:?}"
        );
        assert_eq!(server.lines(), ["POST /v1/secret/data/ci/codex"]);
        assert!(other.lines().is_empty());
    }
}

#[tokio::test]
async fn a_yes_that_makes_no_sense_is_no_yes() {
    // The second one is a store of version 1.
    for reply in [
        answer(200, &json!({"made-up": 1})),
        answer(204, &json!(null)),
    ] {
        let server = Canned::new(vec![reply]).await;
        let failure = write(&wire(&[&server])).await.expect_err("no sense");
        assert!(matches!(failure, Failure::Unintelligible), "{failure:?}");
        assert!(!format!("{failure:?}").contains("made-up"));
    }
}

#[tokio::test]
async fn a_read_is_made_again_until_a_server_can_answer() {
    let sealed = || no(503, &["Vault is sealed"]);
    let mounted = "Upgrading from non-versioned to versioned data. This backend will be […]";
    let first = Canned::new(vec![sealed(), String::new(), sealed()]).await;
    let second = Canned::new(vec![no(400, &[mounted]), version(5, &json!({}))]).await;
    let both = wire(&[&first, &second]);
    let found = read(&both).await.expect("an answer").expect("a version");
    assert_eq!(found.at.number, 5);
    assert_eq!((first.lines().len(), second.lines().len()), (2, 2));
}

#[tokio::test]
async fn a_read_is_given_up_in_the_end() {
    let sealed = || no(503, &["Vault is sealed"]);
    let server = Canned::new(vec![sealed(), sealed(), sealed(), version(5, &json!({}))]).await;
    let failure = read(&wire(&[&server])).await.err().expect("no answer");
    assert!(matches!(
        failure,
        Failure::Answer(Answer { status: 503, .. })
    ));
    assert_eq!(server.lines().len(), 3);
}

#[tokio::test]
async fn a_no_to_a_read_is_taken_at_once() {
    let server = Canned::new(vec![no(403, &["permission denied"])]).await;
    let failure = read(&wire(&[&server])).await.err().expect("no");
    assert!(matches!(
        failure,
        Failure::Answer(Answer { status: 403, .. })
    ));
    assert_eq!(server.lines().len(), 1);
}

#[tokio::test]
async fn a_server_that_is_not_reached_is_passed_by_even_for_a_write() {
    let there = Canned::new(vec![written(5), written(6)]).await;
    let settings = Settings {
        servers: Some(format!("http://127.0.0.1:1,{}", there.address)),
        ..Settings::default()
    };
    let wire = Wire::new(&settings).expect("servers");
    write(&wire).await.expect("the second one");
    // It is asked first from then on.
    assert_eq!(wire.current.load(Ordering::Relaxed), 1);
    write(&wire).await.expect("the second one");
    assert_eq!(there.lines().len(), 2);
}

#[tokio::test]
async fn a_standby_may_point_to_a_named_server_alone() {
    let leader = Canned::new(vec![written(5)]).await;
    let stranger = Canned::new(vec![written(5)]).await;
    let to = |server: &Canned| redirect(&format!("{}/v1/secret/data/ci/codex", server.address));
    let standby = Canned::new(vec![to(&leader), to(&stranger)]).await;
    let wire = wire(&[&standby, &leader]);
    write(&wire).await.expect("the leader");
    let request = only(&leader);
    assert_eq!(request.header("X-Vault-Token"), Some("made-up-token"));
    assert_eq!(request.body["options"]["cas"], 4);

    let failure = write(&wire).await.expect_err("a stranger");
    let elsewhere = |silence: &Silence| matches!(silence, Silence::Elsewhere(_));
    assert!(
        matches!(&failure, Failure::Silent(s) if elsewhere(s)),
        "{failure:?}"
    );
    assert!(stranger.requests().is_empty());
}

#[tokio::test]
async fn a_read_waits_for_the_leader_that_takes_over() {
    let old = redirect("http://127.0.0.1:1/v1/secret/data/ci/codex");
    let standby = Canned::new(vec![old, version(5, &json!({}))]).await;
    let found = read(&wire(&[&standby])).await;
    assert_eq!(found.expect("an answer").expect("a version").at.number, 5);
}

#[tokio::test]
async fn a_count_beyond_the_librarys_is_not_cut_off() {
    let server = Canned::new(vec![written(1)]).await;
    let number = u64::from(u32::MAX) + 1;
    let wire = wire(&[&server]);
    let failure = wire.write(&token(), "kv", "a", Map::new(), number).await;
    assert!(failure.is_err());
    assert!(server.requests().is_empty());
}

fn metadata_point(number: u64) -> Point {
    Point {
        number,
        created: metadata(number)["created_time"]
            .as_str()
            .expect("text")
            .to_owned(),
    }
}
