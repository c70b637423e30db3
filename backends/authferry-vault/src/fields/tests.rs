use authferry_core::{Origin, WriteId};
use serde_json::json;

use super::*;

const FIELD: &str = "auth_json";
const LOGIN: &str = "{\"token\":\"made-up\"}\n";

fn login() -> Secret {
    Secret::new(LOGIN.as_bytes().to_vec())
}

fn ours() -> Stamp {
    Stamp {
        id: WriteId {
            trip: 0xfeed,
            number: 7,
        },
        count: u64::MAX,
        origin: Origin::Rotation,
        family: authferry_core::Family(authferry_core::Fingerprint::new([5; 8])),
        volatile_hints: false,
        writer: "https://ci.example/job/1".into(),
    }
}

fn at(number: u64) -> Point {
    Point {
        number,
        created: "2026-11-23T15:17:59.268708289Z".into(),
    }
}

fn held(number: u64, data: Value) -> Held {
    let Value::Object(data) = data else {
        panic!("no object")
    };
    let found = Found {
        at: at(number),
        data: Some(data),
    };
    Held::new(Some(found), FIELD).expect("sound data")
}

fn next(held: Held) -> Value {
    Value::Object(held.next(FIELD, &login(), &ours()).expect("text"))
}

fn stamp_of(held: &Held) -> Option<&Stamp> {
    held.stored.as_ref()?.stamp.as_ref()
}

#[test]
fn what_was_written_is_read_back() {
    let empty = Held::new(None, FIELD).expect("nothing");
    assert_eq!((empty.number(), empty.version()), (0, None));
    let read = held(1, next(empty));
    let stored = read.stored.as_ref().expect("a login");
    assert_eq!(stored.secret.expose(), LOGIN.as_bytes());
    assert_eq!(stored.version.as_str(), "1@2026-11-23T15:17:59.268708289Z");
    assert_eq!(stored.stamp, Some(ours()));
    assert_eq!(read.written_by(&login(), &ours()), read.version());
}

#[test]
fn what_others_keep_there_stays() {
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
fn a_stamp_is_of_one_login_in_one_version() {
    let data = next(held(4, json!({})));
    assert_eq!(stamp_of(&held(5, data.clone())), Some(&ours()));
    // Rolled back to.
    assert_eq!(stamp_of(&held(9, data.clone())), None);
    // Patched over.
    let mut patched = data.clone();
    patched["auth_json"] = "{}".into();
    assert_eq!(stamp_of(&held(5, patched)), None);
    // Mangled.
    for (part, value) in [
        ("id", json!("made-up")),
        ("count", json!(-1)),
        ("origin", json!("")),
        ("sha256", json!(null)),
    ] {
        let mut mangled = data.clone();
        mangled["auth_json.authferry"][part] = value;
        assert_eq!(stamp_of(&held(5, mangled)), None, "{part}");
    }
    let mut mangled = data;
    mangled["auth_json.authferry"] = "made-up".into();
    assert_eq!(stamp_of(&held(5, mangled)), None);
}

#[test]
fn a_secret_without_the_field_holds_nothing() {
    let found = held(3, json!({"note": "theirs"}));
    assert_eq!((found.number(), found.version()), (3, None));
    let gone = Found {
        at: at(6),
        data: None,
    };
    let gone = Held::new(Some(gone), FIELD).expect("nothing");
    assert_eq!((gone.number(), gone.version()), (6, None));
    assert_eq!(next(gone)["auth_json.authferry"]["version"], 7);
}

#[test]
fn a_field_of_another_type_is_damage() {
    for value in [
        json!({"tokens": {}}),
        json!(null),
        json!(1),
        json!(["made-up"]),
    ] {
        let mut data = Map::new();
        data.insert(FIELD.to_owned(), value);
        let found = Found {
            at: at(1),
            data: Some(data),
        };
        let trouble = Held::new(Some(found), FIELD).err().expect("no text");
        assert!(
            matches!(&trouble, Trouble::NotText(field) if field == FIELD),
            "{trouble:?}"
        );
    }
}

#[test]
fn what_is_no_text_is_refused() {
    let empty = Held::new(None, FIELD).expect("nothing");
    let trouble = empty.next(FIELD, &Secret::new(vec![b'{', 0xff]), &ours());
    assert!(matches!(trouble, Err(Trouble::NotUtf8)));
}

#[test]
fn another_write_is_not_this_one() {
    let read = held(5, next(held(4, json!({}))));
    let mut other = ours();
    other.id.number += 1;
    assert_eq!(read.written_by(&login(), &other), None);
    assert_eq!(read.written_by(&Secret::new(b"{}".to_vec()), &ours()), None);
}
