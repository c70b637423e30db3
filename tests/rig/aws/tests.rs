//! What the store relies on in AWS, as the corrected server does it: each of these is another
//! thing on moto as it is, or was near enough to be looked at.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{Aws, Hand};

static SERVER: LazyLock<Aws> = LazyLock::new(Aws::moto);

/// A secret with two versions: `a`, which is current, and `b`, which waits.
struct Secret {
    hand: Hand,
    name: &'static str,
    a: String,
    b: String,
}

impl Secret {
    fn new(name: &'static str) -> Self {
        let secret = Self {
            hand: SERVER.hand(),
            name,
            a: "a".repeat(32),
            b: "b".repeat(32),
        };
        let new = json!({"Name": name, "SecretString": "of a", "ClientRequestToken": secret.a});
        secret
            .hand
            .secrets("create_secret", &new)
            .expect("a new secret");
        secret.put(&secret.b, "of b").expect("another version");
        secret
    }

    fn put(&self, token: &str, value: &str) -> Result<Value, String> {
        let given = json!({
            "SecretId": self.name,
            "SecretString": value,
            "ClientRequestToken": token,
            "VersionStages": ["WAITING"],
        });
        self.ask("put_secret_value", &given)
    }

    fn promote(&self, to: &str, from: Option<&str>) -> Result<Value, String> {
        let mut given = json!({
            "SecretId": self.name,
            "VersionStage": "AWSCURRENT",
            "MoveToVersionId": to,
        });
        if let Some(from) = from {
            given["RemoveFromVersionId"] = json!(from);
        }
        self.ask("update_secret_version_stage", &given)
    }

    fn ask(&self, call: &str, given: &Value) -> Result<Value, String> {
        self.hand.secrets(call, given).map_err(|no| no.code)
    }

    /// The one version that has a label.
    fn with(&self, label: &str) -> Option<String> {
        let versions = self.hand.versions(self.name);
        let has = |labels: &Value| {
            labels
                .as_array()
                .is_some_and(|all| all.iter().any(|it| it == label))
        };
        let mut holders = versions.iter().filter(|(_, labels)| has(labels));
        let holder = holders.next().map(|(version, _)| version.clone());
        assert_eq!(holders.next(), None, "{label} is on several: {versions:?}");
        holder
    }

    /// What is read without a word on which version.
    fn read(&self) -> String {
        let read = self.ask("get_secret_value", &json!({"SecretId": self.name}));
        read.expect("a value")["SecretString"]
            .as_str()
            .expect("a text")
            .to_owned()
    }
}

fn no(code: &str) -> Result<Value, String> {
    Err(code.to_owned())
}

#[test]
fn the_label_moves_from_where_it_is_and_from_nowhere_else() {
    let secret = Secret::new("moves");
    let (a, b, nowhere) = (secret.a.as_str(), secret.b.as_str(), "c".repeat(32));
    for (to, from, code) in [
        (b, None, "InvalidParameterException"),
        (b, Some(b), "InvalidParameterException"),
        (b, Some(nowhere.as_str()), "ResourceNotFoundException"),
        (nowhere.as_str(), Some(a), "ResourceNotFoundException"),
    ] {
        assert_eq!(secret.promote(to, from), no(code), "{to} {from:?}");
        assert_eq!(
            secret.with("AWSCURRENT").as_deref(),
            Some(a),
            "{to} {from:?}"
        );
        assert_eq!(secret.read(), "of a");
    }
    secret.promote(b, Some(a)).expect("from where it is");
    assert_eq!(secret.with("AWSCURRENT").as_deref(), Some(b));
    assert_eq!(secret.with("AWSPREVIOUS").as_deref(), Some(a));
    assert_eq!(
        secret.with("WAITING").as_deref(),
        Some(b),
        "other labels stay"
    );
    assert_eq!(secret.read(), "of b");
}

#[test]
fn a_plain_put_after_a_promotion_moves_the_label_on() {
    let secret = Secret::new("plain");
    secret
        .promote(&secret.b, Some(&secret.a))
        .expect("from where it is");
    secret.hand.put(secret.name, "by hand");
    let by_hand = secret.with("AWSCURRENT").expect("one");
    assert!(by_hand != secret.a && by_hand != secret.b);
    assert_eq!(secret.with("AWSPREVIOUS").as_ref(), Some(&secret.b));
    assert_eq!(
        secret.with("WAITING").as_ref(),
        Some(&secret.b),
        "other labels stay"
    );
    assert_eq!(secret.read(), "by hand");
    let stale = secret.promote(&secret.a, Some(&secret.b));
    assert_eq!(stale, no("InvalidParameterException"));
}

#[test]
fn the_same_token_is_the_same_version_or_nothing() {
    let secret = Secret::new("same");
    secret
        .promote(&secret.b, Some(&secret.a))
        .expect("from where it is");
    secret.put(&secret.b, "of b").expect("nothing to do");
    assert_eq!(secret.with("AWSCURRENT").as_ref(), Some(&secret.b));
    assert_eq!(
        secret.put(&secret.b, "other"),
        no("ResourceExistsException")
    );
    assert_eq!(secret.read(), "of b");
}

#[test]
fn a_label_is_on_one_version_and_there_are_twenty_at_most() {
    let secret = Secret::new("labels");
    secret
        .put(&"c".repeat(32), "of c")
        .expect("another version");
    assert_eq!(secret.with("WAITING"), Some("c".repeat(32)));
    // Two are there already: AWSCURRENT and WAITING.
    for (count, answer) in [(19, no("LimitExceededException")), (18, Ok(json!(null)))] {
        let labels: Vec<_> = (0..count).map(|number| format!("label {number}")).collect();
        let given =
            json!({"SecretId": secret.name, "SecretString": "more", "VersionStages": labels});
        let put = secret.ask("put_secret_value", &given).map(|_| json!(null));
        assert_eq!(put, answer, "{count}");
    }
}

#[test]
fn a_value_is_one_of_two_kinds_and_not_too_long() {
    let secret = Secret::new("values");
    let longest = "x".repeat(65_536);
    secret.put(&"c".repeat(32), &longest).expect("it fits");
    let longer = secret.put(&"d".repeat(32), &format!("{longest}x"));
    assert_eq!(longer, no("InvalidParameterException"));
    let both = json!({"SecretId": secret.name, "SecretString": "x", "SecretBinary": "x"});
    assert_eq!(
        secret.ask("put_secret_value", &both),
        no("InvalidParameterException")
    );
}

#[test]
fn what_waits_to_be_deleted_takes_nothing() {
    let secret = Secret::new("marked");
    let delete = json!({"SecretId": secret.name, "RecoveryWindowInDays": 7});
    secret.ask("delete_secret", &delete).expect("a secret");
    let refused = no("InvalidRequestException");
    assert_eq!(secret.put(&"c".repeat(32), "of c"), refused);
    assert_eq!(secret.promote(&secret.b, Some(&secret.a)), refused);
    assert_eq!(
        secret.ask("get_secret_value", &json!({"SecretId": secret.name})),
        refused
    );
    let again = json!({"Name": secret.name, "SecretString": "new"});
    assert_eq!(secret.ask("create_secret", &again), refused);
}
