use authferry_core::{Origin, WriteId};
use serde_json::json;

use super::*;

const FIELD: &str = "auth_json";
const LOGIN: &str = "{\"token\":\"made-up\"}\n";

fn login() -> Secret {
    Secret::new(LOGIN.as_bytes().to_vec())
}

fn our_stamp() -> Stamp {
    Stamp {
        id: WriteId {
            nonce: 0xfeed,
            number: 7,
        },
        count: u64::MAX,
        origin: Origin::Rotation,
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: "https://ci.example/job/1".into(),
    }
}

fn id(number: u64) -> VersionId {
    VersionId {
        number,
        created: "2026-11-23T15:17:59.268708289Z".into(),
    }
}

fn held(number: u64, data: Value) -> SecretFields {
    let Value::Object(data) = data else {
        panic!("no object")
    };
    let found = KvSecret {
        id: id(number),
        data: Some(data),
    };
    SecretFields::new(Some(found), FIELD).expect("sound data")
}

fn next(held: SecretFields) -> Value {
    Value::Object(held.next(FIELD, &login(), &our_stamp()).expect("text"))
}

fn stamp_of(held: &SecretFields) -> Option<&Stamp> {
    held.stored.as_ref()?.stamp.as_ref()
}

#[test]
fn a_written_login_is_read_back() {
    let empty = SecretFields::new(None, FIELD).expect("nothing");
    assert_eq!((empty.number(), empty.version()), (0, None));
    let read = held(1, next(empty));
    let stored = read.stored.as_ref().expect("a login");
    assert_eq!(stored.secret.expose(), LOGIN.as_bytes());
    assert_eq!(stored.version.as_str(), "1@2026-11-23T15:17:59.268708289Z");
    assert_eq!(stored.stamp, Some(our_stamp()));
    assert_eq!(read.written_by(&login(), &our_stamp()), read.version());
}

#[test]
fn foreign_fields_are_preserved() {
    let before = json!({"note": "theirs", "auth_json": "{}", "n": 7, "other.authferry": {"x": 1}});
    let after = next(held(4, before));
    assert_eq!(after["note"], "theirs");
    assert_eq!(after["n"], 7);
    assert_eq!(after["other.authferry"], json!({"x": 1}));
    assert_eq!(after["auth_json"], LOGIN);
    let meta = &after["auth_json.authferry"];
    assert_eq!(meta["parent"], "4@2026-11-23T15:17:59.268708289Z");
    assert_eq!(meta["version"], 5);
}

#[test]
fn a_stamp_belongs_to_one_login_in_one_version() {
    let data = next(held(4, json!({})));
    assert_eq!(stamp_of(&held(5, data.clone())), Some(&our_stamp()));
    // `bao kv rollback`.
    assert_eq!(stamp_of(&held(9, data.clone())), None);
    // `bao kv patch`.
    let mut patched = data.clone();
    patched["auth_json"] = "{}".into();
    assert_eq!(stamp_of(&held(5, patched)), None);
    // Damaged metadata.
    for (part, value) in [
        ("id", json!("made-up")),
        ("count", json!(-1)),
        ("origin", json!("")),
        ("sha256", json!(null)),
    ] {
        let mut damaged = data.clone();
        damaged["auth_json.authferry"][part] = value;
        assert_eq!(stamp_of(&held(5, damaged)), None, "{part}");
    }
    let mut damaged = data;
    damaged["auth_json.authferry"] = "made-up".into();
    assert_eq!(stamp_of(&held(5, damaged)), None);
}

#[test]
fn a_secret_without_the_field_is_empty() {
    let found = held(3, json!({"note": "theirs"}));
    assert_eq!((found.number(), found.version()), (3, None));
    let gone = KvSecret {
        id: id(6),
        data: None,
    };
    let gone = SecretFields::new(Some(gone), FIELD).expect("nothing");
    assert_eq!((gone.number(), gone.version()), (6, None));
    assert_eq!(next(gone)["auth_json.authferry"]["version"], 7);
}

#[test]
fn a_field_that_is_not_a_string_is_an_error() {
    for value in [
        json!({"tokens": {}}),
        json!(null),
        json!(1),
        json!(["made-up"]),
    ] {
        let mut data = Map::new();
        data.insert(FIELD.to_owned(), value);
        let found = KvSecret {
            id: id(1),
            data: Some(data),
        };
        let error = SecretFields::new(Some(found), FIELD)
            .err()
            .expect("an error");
        assert!(
            matches!(&error, VaultError::NotText(field) if field == FIELD),
            "{error:?}"
        );
    }
}

#[test]
fn a_value_that_is_not_utf8_is_refused() {
    let empty = SecretFields::new(None, FIELD).expect("nothing");
    let error = empty.next(FIELD, &Secret::new(vec![b'{', 0xff]), &our_stamp());
    assert!(matches!(error, Err(VaultError::NotUtf8)));
}

#[test]
fn another_write_is_not_recognized_as_this_one() {
    let read = held(5, next(held(4, json!({}))));
    let mut other = our_stamp();
    other.id.number += 1;
    assert_eq!(read.written_by(&login(), &other), None);
    assert_eq!(
        read.written_by(&Secret::new(b"{}".to_vec()), &our_stamp()),
        None
    );
}
