//! Deletion, recovery and purge.

use std::time::Duration;

use serde_json::json;

use super::{done, get, kind, list, refused, scene, wait_until};

const GONE: (Option<u64>, Option<&str>, Option<&str>) = (Some(404), Some("SecretNotFound"), None);

fn conflict(inner: &str) -> (Option<u64>, Option<&str>, Option<&str>) {
    (Some(409), Some("Conflict"), Some(inner))
}

#[test]
fn a_deleted_name_is_writable_only_after_recovery() {
    let mut scene = scene();
    scene
        .vault
        .rules(|rules| rules.delete_delay = Duration::from_mins(10));
    let set = json!({"op": "set", "name": "deleted", "value": "y"});
    scene.client.set("deleted", "x");
    let deleting = json!({"op": "deleting", "name": "deleted"});
    done(&mut scene.client, &deleting);
    assert_eq!(kind(&refused(&mut scene.client, &get("deleted"))), GONE);
    assert_eq!(done(&mut scene.client, &list("deleted")), json!([]));
    for request in [
        set.clone(),
        json!({"op": "purge", "name": "deleted"}),
        json!({"op": "recovering", "name": "deleted"}),
    ] {
        let refusal = refused(&mut scene.client, &request);
        assert_eq!(
            kind(&refusal),
            conflict("ObjectIsBeingDeleted"),
            "{request}"
        );
    }
    let deleted = json!({"op": "deleted", "name": "deleted"});
    assert_eq!(kind(&refused(&mut scene.client, &deleted)), GONE, "not yet");

    // Another secret, whose deletion completes at once.
    scene
        .vault
        .rules(|rules| rules.delete_delay = Duration::ZERO);
    let [set, deleted] = [set, deleted].map(|mut request| {
        request["name"] = json!("deleted-soon");
        request
    });
    scene.client.set("deleted-soon", "x");
    done(
        &mut scene.client,
        &json!({"op": "delete", "name": "deleted-soon"}),
    );
    assert_eq!(done(&mut scene.client, &deleted)["name"], "deleted-soon");
    let refusal = refused(&mut scene.client, &set);
    assert_eq!(kind(&refusal), conflict("ObjectIsDeletedButRecoverable"));
    done(
        &mut scene.client,
        &json!({"op": "recover", "name": "deleted-soon"}),
    );
    assert_eq!(scene.client.get("deleted-soon").as_deref(), Some("x"));
}

#[test]
fn a_recovered_name_is_readable_before_it_is_writable() {
    let mut scene = scene();
    scene.vault.rules(|rules| {
        rules.delete_delay = Duration::ZERO;
        rules.recover_delay = Duration::from_mins(10);
    });
    scene.client.set("back", "x");
    done(&mut scene.client, &json!({"op": "delete", "name": "back"}));
    done(
        &mut scene.client,
        &json!({"op": "recovering", "name": "back"}),
    );
    assert_eq!(kind(&refused(&mut scene.client, &get("back"))), GONE);
    let set = json!({"op": "set", "name": "back", "value": "y"});
    assert_eq!(
        kind(&refused(&mut scene.client, &set)),
        conflict("ObjectIsBeingRecovered")
    );

    scene
        .vault
        .rules(|rules| rules.recover_delay = Duration::from_millis(1500));
    scene.client.set("back-soon", "x");
    done(
        &mut scene.client,
        &json!({"op": "delete", "name": "back-soon"}),
    );
    // Wait until it can be read.
    done(
        &mut scene.client,
        &json!({"op": "recover", "name": "back-soon"}),
    );
    let set = json!({"op": "set", "name": "back-soon", "value": "y"});
    assert_eq!(
        kind(&refused(&mut scene.client, &set)),
        conflict("ObjectIsBeingRecovered")
    );
    wait_until("it can be written", || scene.client.ask(&set).is_ok());
}

#[test]
fn a_purged_name_becomes_free_after_a_delay() {
    let mut scene = scene();
    scene
        .vault
        .rules(|rules| rules.delete_delay = Duration::ZERO);
    scene.client.set("purged", "x");
    done(
        &mut scene.client,
        &json!({"op": "delete", "name": "purged"}),
    );
    scene
        .vault
        .rules(|rules| rules.delete_delay = Duration::from_secs(1));
    done(&mut scene.client, &json!({"op": "purge", "name": "purged"}));
    let set = json!({"op": "set", "name": "purged", "value": "y"});
    assert_eq!(
        kind(&refused(&mut scene.client, &set)),
        conflict("ObjectIsBeingDeleted")
    );
    wait_until("the name is free", || scene.client.ask(&set).is_ok());
    assert_eq!(
        scene.vault.versions("purged").len(),
        1,
        "the earlier versions are deleted"
    );
}

#[test]
fn a_disabled_deleted_secret_is_not_readable() {
    let mut scene = scene();
    scene
        .vault
        .rules(|rules| rules.delete_delay = Duration::ZERO);
    done(
        &mut scene.client,
        &json!({"op": "set", "name": "off", "value": "x", "enabled": false}),
    );
    done(&mut scene.client, &json!({"op": "deleting", "name": "off"}));
    let refusal = refused(&mut scene.client, &json!({"op": "deleted", "name": "off"}));
    assert_eq!(
        kind(&refusal),
        (Some(403), Some("Forbidden"), Some("SecretDisabled"))
    );
}
