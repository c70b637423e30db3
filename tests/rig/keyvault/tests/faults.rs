//! Faults between client and service.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Scene, TIMEOUT, done, get, kind, list, refused, scene, wait_until};
use crate::{
    PythonClient,
    keyvault::{ADMIN, Call, Failure, Fault, Moment, Op},
};

fn write(name: &str) -> Value {
    json!({"op": "set", "name": name, "value": "x"})
}

fn writes_to(name: &'static str) -> impl Fn(&Call) -> bool + Send + 'static {
    move |call| call.op == Op::SetSecret && call.name == name
}

/// A client that retries once after a failure, as all clients do by default.
fn retrying_client(scene: &Scene) -> PythonClient {
    let (client, secret) = ADMIN;
    PythonClient::start(
        &scene.vault,
        &json!({"client": client, "secret": secret}),
        1,
    )
}

#[test]
fn a_write_that_was_applied_but_failed_exists_and_a_retry_doubles_it() {
    let mut scene = scene();
    let fault = Fault::AppliedThen(Failure::server_error());
    scene.vault.fail(writes_to("once"), fault.clone());
    let refusal = refused(&mut scene.client, &write("once"));
    assert_eq!(
        kind(&refusal),
        (Some(500), Some("InternalServerError"), None)
    );
    assert_eq!(scene.vault.versions("once").len(), 1);

    scene.vault.fail(writes_to("twice"), fault);
    done(&mut retrying_client(&scene), &write("twice"));
    assert_eq!(
        scene.vault.versions("twice").len(),
        2,
        "one call of the client"
    );
}

#[test]
fn a_refused_write_has_no_effect() {
    let mut scene = scene();
    scene.vault.fail(
        writes_to("refused"),
        Fault::Refused(Failure::server_error()),
    );
    let refusal = refused(&mut scene.client, &write("refused"));
    assert_eq!(refusal.status, Some(500));
    assert_eq!(scene.vault.versions("refused").len(), 0);
    assert_eq!(scene.vault.faults_left(), 0, "it was for one request");
    done(&mut scene.client, &write("refused"));
}

#[test]
fn a_closed_connection_returns_no_status() {
    let mut scene = scene();
    for (name, fault, versions) in [
        ("request-lost", Fault::RequestLost, 0),
        ("reply-lost", Fault::ReplyLost, 1),
    ] {
        scene.vault.fail(writes_to(name), fault);
        let refusal = refused(&mut scene.client, &write(name));
        assert_eq!(
            (refusal.status, refusal.kind.as_str()),
            (None, "ServiceResponseError"),
            "{refusal:?}"
        );
        assert_eq!(scene.vault.versions(name).len(), versions);
    }
}

#[test]
fn a_throttled_client_retries_after_retry_after_or_its_backoff() {
    let mut scene = scene();
    let with_retry_after = Fault::Refused(Failure::throttled(Some(2)));
    scene
        .vault
        .fail(writes_to("with-retry-after"), with_retry_after.clone());
    let refusal = refused(&mut scene.client, &write("with-retry-after"));
    assert_eq!(kind(&refusal), (Some(429), Some("Throttled"), None));

    let mut retrying_client = retrying_client(&scene);
    for (name, fault, wait) in [
        ("with-retry-after", with_retry_after, 2),
        ("untold", Fault::Refused(Failure::throttled(None)), 0),
    ] {
        scene.vault.fail(writes_to(name), fault);
        let began = Instant::now();
        done(&mut retrying_client, &write(name));
        assert!(
            began.elapsed() >= Duration::from_secs(wait),
            "{name}: {:?}",
            began.elapsed()
        );
        assert_eq!(scene.vault.versions(name).len(), 1);
    }
}

#[test]
fn a_valid_token_may_be_briefly_unknown() {
    let mut scene = scene();
    scene.client.set("unknown", "x");
    let unknown = Fault::Refused(Failure::token_not_known_yet());
    scene.vault.fail(|call| call.name == "unknown", unknown);
    let refusal = refused(&mut scene.client, &get("unknown"));
    assert_eq!(refusal.status, Some(401));
    assert!(refusal.message.contains("AKV10046"), "{refusal:?}");
    assert_eq!(scene.client.get("unknown").as_deref(), Some("x"));
}

#[test]
fn writes_to_one_secret_must_not_overlap() {
    let mut scene = scene();
    let Scene {
        vault,
        client,
        other,
    } = &mut *scene;
    // Both clients are signed in.
    done(client, &write("overlap"));
    done(other, &write("elsewhere"));
    vault.rules(|rules| rules.put_latency = Duration::from_mins(10));
    let refusal = thread::scope(|scope| {
        let slow = scope.spawn(|| done(client, &write("overlap")));
        wait_until("the first one is on its way", || {
            vault.is_writing("overlap")
        });
        let refusal = refused(other, &write("overlap"));
        vault.rules(|rules| rules.put_latency = Duration::ZERO);
        done(other, &write("elsewhere"));
        slow.join().expect("a client");
        refusal
    });
    assert_eq!(refusal.kind, "ResourceExistsError");
    assert_eq!(
        kind(&refusal),
        (Some(409), Some("Conflict"), None),
        "no inner code"
    );
    assert_eq!(vault.versions("overlap").len(), 2);

    // With other rules the service accepts both.
    vault.rules(|rules| {
        rules.overlap_conflicts = false;
        rules.put_latency = Duration::from_secs(1);
    });
    thread::scope(|scope| {
        let slow = scope.spawn(|| done(client, &write("overlap")));
        done(other, &write("overlap"));
        slow.join().expect("a client");
    });
    assert_eq!(vault.versions("overlap").len(), 4);
}

#[test]
fn a_write_may_be_stamped_long_before_it_is_visible() {
    let mut scene = scene();
    let Scene {
        vault,
        client,
        other,
    } = &mut *scene;
    done(other, &list("stuck"));
    vault.rules(|rules| {
        rules.put_stuck = Duration::from_secs(8);
        rules.overlap_conflicts = false;
    });
    let (stuck, quick) = thread::scope(|scope| {
        let stuck = scope.spawn(|| done(client, &write("stuck")));
        thread::sleep(Duration::from_millis(300));
        assert_eq!(
            done(other, &list("stuck")),
            json!([]),
            "the version is not visible"
        );
        thread::sleep(Duration::from_millis(1200));
        vault.rules(|rules| rules.put_stuck = Duration::ZERO);
        let quick = done(other, &write("stuck"));
        (stuck.join().expect("a client"), quick)
    });
    assert!(stuck["created"].as_f64() < quick["created"].as_f64());
    assert_eq!(
        done(other, &get("stuck"))["version"],
        stuck["version"],
        "the last version"
    );
}

#[test]
fn a_request_can_be_held_before_and_after_its_effect() {
    let mut scene = scene();
    let Scene { vault, client, .. } = &mut *scene;
    for (name, moment, versions) in [("before", Moment::Before, 0), ("after", Moment::After, 1)] {
        let hold = vault.hold(moment, writes_to(name));
        thread::scope(|scope| {
            let writing = scope.spawn(|| done(client, &write(name)));
            hold.wait_until_held(TIMEOUT);
            assert_eq!(vault.versions(name).len(), versions);
            assert!(!writing.is_finished());
            drop(hold);
            writing.join().expect("a client");
        });
        assert_eq!(vault.versions(name).len(), 1);

        let hold = vault.hold(moment, writes_to(name));
        let refusal = thread::scope(|scope| {
            let writing = scope.spawn(|| refused(client, &write(name)));
            hold.wait_until_held(TIMEOUT);
            hold.lose();
            writing.join().expect("a client")
        });
        assert_eq!(refusal.status, None, "{refusal:?}");
        assert_eq!(vault.versions(name).len(), 1 + versions);
    }
}

/// The server completes a request that has arrived, even if the client does not wait.
#[test]
fn a_write_completes_without_its_client() {
    let scene = scene();
    scene
        .vault
        .rules(|rules| rules.put_latency = Duration::from_secs(1));
    let hold = scene.vault.hold(Moment::Before, writes_to("orphan"));
    let mut writer = retrying_client(&scene);
    thread::scope(|scope| {
        scope.spawn(move || {
            // The writing process ends before the answer.
            writer.say(&write("orphan"));
            thread::sleep(Duration::from_millis(100));
            hold.wait_until_held(TIMEOUT);
            drop(writer);
            drop(hold);
        });
    });
    wait_until("the version is visible", || {
        scene.vault.versions("orphan").len() == 1
    });
}
