//! What goes wrong on the way.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{SOON, Scene, done, get, kind, list, refused, scene, wait_until};
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

/// A client that asks once more after a failure, as they all do unless told otherwise.
fn stubborn(scene: &Scene) -> PythonClient {
    let (client, secret) = ADMIN;
    PythonClient::start(
        &scene.vault,
        &json!({"client": client, "secret": secret}),
        1,
    )
}

#[test]
fn a_write_that_was_done_and_failed_is_there_and_twice_if_it_was_tried_again() {
    let mut scene = scene();
    let fault = Fault::AppliedThen(Failure::server_error());
    scene.vault.fail(writes_to("once"), fault.clone());
    let no = refused(&mut scene.client, &write("once"));
    assert_eq!(kind(&no), (Some(500), Some("InternalServerError"), None));
    assert_eq!(scene.vault.versions("once").len(), 1);

    scene.vault.fail(writes_to("twice"), fault);
    done(&mut stubborn(&scene), &write("twice"));
    assert_eq!(
        scene.vault.versions("twice").len(),
        2,
        "one call of the client"
    );
}

#[test]
fn a_write_that_was_refused_is_not_there() {
    let mut scene = scene();
    scene.vault.fail(
        writes_to("refused"),
        Fault::Refused(Failure::server_error()),
    );
    let no = refused(&mut scene.client, &write("refused"));
    assert_eq!(no.status, Some(500));
    assert_eq!(scene.vault.versions("refused").len(), 0);
    assert_eq!(scene.vault.faults_left(), 0, "it was for one request");
    done(&mut scene.client, &write("refused"));
}

#[test]
fn a_connection_that_ends_tells_nothing() {
    let mut scene = scene();
    for (name, fault, versions) in [
        ("request-lost", Fault::RequestLost, 0),
        ("reply-lost", Fault::ReplyLost, 1),
    ] {
        scene.vault.fail(writes_to(name), fault);
        let no = refused(&mut scene.client, &write(name));
        assert_eq!(
            (no.status, no.kind.as_str()),
            (None, "ServiceResponseError"),
            "{no:?}"
        );
        assert_eq!(scene.vault.versions(name).len(), versions);
    }
}

#[test]
fn a_throttled_client_comes_back_after_the_time_that_it_is_told_or_its_own() {
    let mut scene = scene();
    let told = Fault::Refused(Failure::throttled(Some(2)));
    scene.vault.fail(writes_to("told"), told.clone());
    let no = refused(&mut scene.client, &write("told"));
    assert_eq!(kind(&no), (Some(429), Some("Throttled"), None));

    let mut stubborn = stubborn(&scene);
    for (name, fault, wait) in [
        ("told", told, 2),
        ("untold", Fault::Refused(Failure::throttled(None)), 0),
    ] {
        scene.vault.fail(writes_to(name), fault);
        let began = Instant::now();
        done(&mut stubborn, &write(name));
        assert!(
            began.elapsed() >= Duration::from_secs(wait),
            "{name}: {:?}",
            began.elapsed()
        );
        assert_eq!(scene.vault.versions(name).len(), 1);
    }
}

#[test]
fn a_good_token_may_be_unknown_for_a_moment() {
    let mut scene = scene();
    scene.client.set("unknown", "x");
    let unknown = Fault::Refused(Failure::token_not_known_yet());
    scene.vault.fail(|call| call.name == "unknown", unknown);
    let no = refused(&mut scene.client, &get("unknown"));
    assert_eq!(no.status, Some(401));
    assert!(no.message.contains("AKV10046"), "{no:?}");
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
    // Both are signed in.
    done(client, &write("overlap"));
    done(other, &write("elsewhere"));
    vault.rules(|rules| rules.put_latency = Duration::from_mins(10));
    let no = thread::scope(|scope| {
        let slow = scope.spawn(|| done(client, &write("overlap")));
        wait_until("the first one is on its way", || {
            vault.is_writing("overlap")
        });
        let no = refused(other, &write("overlap"));
        vault.rules(|rules| rules.put_latency = Duration::ZERO);
        done(other, &write("elsewhere"));
        slow.join().expect("a client");
        no
    });
    assert_eq!(no.kind, "ResourceExistsError");
    assert_eq!(
        kind(&no),
        (Some(409), Some("Conflict"), None),
        "no inner code"
    );
    assert_eq!(vault.versions("overlap").len(), 2);

    // Unless the service does not mind.
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
fn a_write_may_be_stamped_long_before_it_is_there() {
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
        assert_eq!(done(other, &list("stuck")), json!([]), "nobody sees it");
        thread::sleep(Duration::from_millis(1200));
        vault.rules(|rules| rules.put_stuck = Duration::ZERO);
        let quick = done(other, &write("stuck"));
        (stuck.join().expect("a client"), quick)
    });
    assert!(stuck["created"].as_f64() < quick["created"].as_f64());
    assert_eq!(
        done(other, &get("stuck"))["version"],
        stuck["version"],
        "it came last"
    );
}

#[test]
fn a_request_can_be_held_before_and_after_it_is_done() {
    let mut scene = scene();
    let Scene { vault, client, .. } = &mut *scene;
    for (name, moment, versions) in [("before", Moment::Before, 0), ("after", Moment::After, 1)] {
        let hold = vault.hold(moment, writes_to(name));
        thread::scope(|scope| {
            let writing = scope.spawn(|| done(client, &write(name)));
            hold.wait_until_held(SOON);
            assert_eq!(vault.versions(name).len(), versions);
            assert!(!writing.is_finished());
            drop(hold);
            writing.join().expect("a client");
        });
        assert_eq!(vault.versions(name).len(), 1);

        let hold = vault.hold(moment, writes_to(name));
        let no = thread::scope(|scope| {
            let writing = scope.spawn(|| refused(client, &write(name)));
            hold.wait_until_held(SOON);
            hold.lose();
            writing.join().expect("a client")
        });
        assert_eq!(no.status, None, "{no:?}");
        assert_eq!(vault.versions(name).len(), 1 + versions);
    }
}

/// What has arrived is done, even if whoever asked does not wait for it.
#[test]
fn a_write_goes_on_without_its_writer() {
    let scene = scene();
    scene
        .vault
        .rules(|rules| rules.put_latency = Duration::from_secs(1));
    let hold = scene.vault.hold(Moment::Before, writes_to("orphan"));
    let mut writer = stubborn(&scene);
    thread::scope(|scope| {
        scope.spawn(move || {
            // Asked in a process that is gone before there is an answer.
            writer.say(&write("orphan"));
            thread::sleep(Duration::from_millis(100));
            hold.wait_until_held(SOON);
            drop(writer);
            drop(hold);
        });
    });
    wait_until("it is there", || scene.vault.versions("orphan").len() == 1);
}
