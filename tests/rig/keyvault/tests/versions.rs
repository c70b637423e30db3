//! Writes, reads and lists of versions.

use std::{thread, time::Duration};

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{done, get, ids, kind, list, refused, scene};
use crate::keyvault::{
    Rules,
    secrets::{Change, Page, Secrets},
};

#[test]
fn each_write_adds_a_version_with_its_tags() {
    let mut scene = scene();
    let client = &mut scene.client;
    let first = done(
        client,
        &json!({
            "op": "set", "name": "with-tags", "value": "one\n",
            "tags": {"parent": "none"}, "enabled": true, "content_type": "application/json",
        }),
    );
    let second = client.set("with-tags", "two");
    let id = first["version"].as_str().expect("a version");
    assert!(
        id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "{id}"
    );
    assert_ne!(id, second);

    assert_eq!(client.get("with-tags").as_deref(), Some("two"));
    let old = done(
        client,
        &json!({"op": "get", "name": "with-tags", "version": id}),
    );
    assert_eq!(old, first, "as it was answered");
    assert_eq!(old["value"], "one\n");
    assert_eq!(old["tags"], json!({"parent": "none"}));
    assert_eq!(old["content_type"], "application/json");
    assert_eq!(done(client, &get("with-tags"))["tags"], Value::Null);
}

#[test]
fn times_are_whole_seconds_and_may_be_in_the_future() {
    let mut scene = scene();
    let now = OffsetDateTime::now_utc();
    if now.millisecond() < 500 {
        let remaining = Duration::from_millis(u64::from(500 - now.millisecond()));
        thread::sleep(remaining);
    }
    let before = OffsetDateTime::now_utc();
    let set = json!({"op": "set", "name": "times", "value": "x"});
    let written = done(&mut scene.client, &set);
    let after = OffsetDateTime::now_utc();
    let created = written["created"].as_f64().expect("a time");
    assert!(
        (created - created.round()).abs() < f64::EPSILON,
        "{created}"
    );
    #[expect(clippy::cast_precision_loss, reason = "a time in seconds fits")]
    let [before, after] =
        [before, after].map(|it| (it.unix_timestamp_nanos() as f64 / 1e9).round());
    assert!(
        before <= created && created <= after,
        "{before} {created} {after}"
    );
}

#[test]
fn a_read_returns_the_last_write_and_the_list_is_not_sorted_by_time() {
    let mut scene = scene();
    let client = &mut scene.client;
    let written: Vec<_> = (0..12)
        .map(|n| client.set("order", &n.to_string()))
        .collect();
    assert_eq!(client.get("order").as_deref(), Some("11"));

    let listed = done(client, &list("order"));
    let mut sorted = written.clone();
    sorted.sort();
    assert_eq!(ids(&listed), sorted);
    assert_ne!(written, sorted, "drawn at random");
    let mut listed = listed.as_array().expect("a list").iter();
    assert!(listed.all(|row| row["value"].is_null() && row["created"].is_f64()));
}

#[test]
fn a_disabled_newest_version_has_no_fallback() {
    let mut scene = scene();
    let client = &mut scene.client;
    let old = client.set("disabled", "old");
    let newest = client.set("disabled", "new");
    done(
        client,
        &json!({"op": "update", "name": "disabled", "version": newest, "enabled": false}),
    );

    let refusal = refused(client, &get("disabled"));
    assert_eq!(
        kind(&refusal),
        (Some(403), Some("Forbidden"), Some("SecretDisabled")),
        "{refusal:?}"
    );
    let named = json!({"op": "get", "name": "disabled", "version": old});
    assert_eq!(done(client, &named)["value"], "old");
    assert_eq!(ids(&done(client, &list("disabled"))).len(), 2);
}

#[test]
fn a_missing_secret_is_not_found_and_has_no_versions() {
    let mut scene = scene();
    let client = &mut scene.client;
    let refusal = refused(client, &get("missing"));
    assert_eq!(refusal.kind, "ResourceNotFoundError");
    assert_eq!(kind(&refusal), (Some(404), Some("SecretNotFound"), None));
    assert_eq!(done(client, &list("missing")), json!([]));
    client.set("there", "x");
    let refusal = refused(
        client,
        &json!({"op": "get", "name": "there", "version": "0".repeat(32)}),
    );
    assert_eq!(kind(&refusal), (Some(404), Some("SecretNotFound"), None));
}

#[test]
fn a_list_has_pages_that_may_be_short_or_empty() {
    let mut scene = scene();
    let mut written: Vec<_> = (0..30)
        .map(|n| scene.client.set("pages", &n.to_string()))
        .collect();
    written.sort();
    for (hidden, lengths) in [
        (1, [25, 5].as_slice()),
        (40, &[5, 25, 0]),
        (60, &[0, 20, 10, 0]),
    ] {
        scene.vault.rules(|rules| rules.hidden_rows = hidden);
        let pages = done(&mut scene.client, &json!({"op": "pages", "name": "pages"}));
        let pages: Vec<_> = pages.as_array().expect("pages").iter().map(ids).collect();
        let seen: Vec<_> = pages.iter().map(Vec::len).collect();
        assert_eq!(seen, lengths, "{hidden} hidden");
        assert_eq!(pages.concat(), written, "{hidden} hidden");
    }
    let two = json!({"op": "pages", "name": "pages", "max_page_size": 2});
    scene.vault.rules(|rules| rules.hidden_rows = 0);
    let pages = done(&mut scene.client, &two);
    assert_eq!(pages.as_array().map(Vec::len), Some(15));
    let refusal = refused(
        &mut scene.client,
        &json!({"op": "pages", "name": "pages", "max_page_size": 26}),
    );
    assert_eq!(kind(&refusal), (Some(400), Some("BadParameter"), None));
    assert!(
        done(&mut scene.client, &json!({"op": "names"}))
            .to_string()
            .contains("\"pages\"")
    );
}

#[test]
fn a_list_continues_after_concurrent_writes() {
    let (mut secrets, rules) = (
        Secrets::default(),
        Rules {
            hidden_rows: 0,
            ..Rules::default()
        },
    );
    let write = |secrets: &mut Secrets| {
        let written = secrets.put("host", "it", "x".to_owned(), Change::default(), 0);
        written.expect("room")["id"].clone()
    };
    let before: Vec<_> = (0..40).map(|_| write(&mut secrets)).collect();
    let mut seen = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = Page {
            address: "https://host:443/?".to_owned(),
            size: 7,
            after: after.as_deref(),
        };
        let page = secrets.versions("host", "it", &page, &rules);
        let rows = page["value"].as_array().expect("rows");
        seen.extend(rows.iter().map(|row| row["id"].clone()));
        if page["nextLink"].is_null() {
            break;
        }
        let last = seen.last().and_then(Value::as_str).expect("a row");
        after = last.rsplit('/').next().map(str::to_owned);
        write(&mut secrets);
    }
    let kept: Vec<_> = before.iter().filter(|id| seen.contains(id)).collect();
    assert_eq!(kept.len(), before.len(), "none was left out");
    let mut once = seen.clone();
    once.sort_by_key(Value::to_string);
    once.dedup();
    assert_eq!(once.len(), seen.len(), "no duplicates");
}

#[test]
fn the_address_of_a_next_page_names_the_default_port() {
    let scene = scene();
    let token = scene.vault.token(crate::ADMIN.0, "https://vault.azure.net");
    scene.vault.rules(|rules| rules.hidden_rows = 80);
    let write = |host: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("host", host)];
        super::http(
            &scene.vault,
            "PUT",
            "/secrets/port?api-version=7.6",
            &headers,
            r#"{"value":"x"}"#,
        );
        super::http(
            &scene.vault,
            "GET",
            "/secrets/port/versions?api-version=7.6",
            &headers,
            "",
        )
        .2
    };
    let page = write("made-up.vault.azure.net");
    let next = r#""nextLink":"https://made-up.vault.azure.net:443/secrets/port/versions?api-version=7.6&$skiptoken="#;
    assert!(page.contains(next), "{page}");
}

#[test]
fn a_version_may_be_listed_late() {
    let mut scene = scene();
    scene
        .vault
        .rules(|rules| rules.list_lag = Duration::from_mins(10));
    let id = scene.client.set("late", "x");
    assert_eq!(done(&mut scene.client, &list("late")), json!([]));
    assert_eq!(
        scene.client.get("late").as_deref(),
        Some("x"),
        "the version is visible"
    );
    scene.vault.rules(|rules| rules.list_lag = Duration::ZERO);
    assert_eq!(ids(&done(&mut scene.client, &list("late"))), [id]);
}

#[test]
fn an_update_changes_the_time_and_replaces_the_tags() {
    let mut scene = scene();
    let client = &mut scene.client;
    let set = json!({"op": "set", "name": "changed", "value": "x", "tags": {"a": "1", "b": "2"}});
    let first = done(client, &set);
    let newest = done(client, &set);
    thread::sleep(Duration::from_millis(1100));
    let change = json!({"op": "update", "name": "changed", "tags": {"b": "3"}});
    let changed = done(client, &change);
    assert_eq!(changed["version"], newest["version"], "none was named");
    assert_eq!(changed["tags"], json!({"b": "3"}));
    assert_eq!(changed["created"], newest["created"]);
    assert!(changed["updated"].as_f64() > newest["updated"].as_f64());
    let old = json!({"op": "get", "name": "changed", "version": first["version"]});
    assert_eq!(done(client, &old), first);
}

#[test]
fn a_value_or_tags_that_are_too_large_are_refused() {
    let mut scene = scene();
    let client = &mut scene.client;
    let set = |value: String, tags: usize| {
        let tags: serde_json::Map<_, _> = (0..tags).map(|n| (n.to_string(), json!("x"))).collect();
        json!({"op": "set", "name": "large", "value": value, "tags": tags})
    };
    done(client, &set("x".repeat(25 * 1024), 15));
    for (value, tags) in [("x".repeat(25 * 1024 + 1), 0), ("x".to_owned(), 16)] {
        let refusal = refused(client, &set(value, tags));
        assert_eq!(kind(&refusal), (Some(400), Some("BadParameter"), None));
    }
    assert_eq!(scene.vault.versions("large").len(), 1);
}
