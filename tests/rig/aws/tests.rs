//! What the store relies on in AWS, on the patched moto. The unpatched moto differs in most of
//! these; the rest are related behaviours.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::{Aws, BotoClient};

static SERVER: LazyLock<Aws> = LazyLock::new(Aws::moto);

/// A secret with two versions: `a` is current, `b` is pending.
struct Secret {
    boto: BotoClient,
    name: &'static str,
    a: String,
    b: String,
}

impl Secret {
    fn new(name: &'static str) -> Self {
        let secret = Self {
            boto: SERVER.boto(),
            name,
            a: "a".repeat(32),
            b: "b".repeat(32),
        };
        let new = json!({"Name": name, "SecretString": "of a", "ClientRequestToken": secret.a});
        secret
            .boto
            .secrets("create_secret", &new)
            .expect("a new secret");
        secret.put(&secret.b, "of b").expect("another version");
        secret
    }

    fn put(&self, token: &str, value: &str) -> Result<Value, String> {
        let params = json!({
            "SecretId": self.name,
            "SecretString": value,
            "ClientRequestToken": token,
            "VersionStages": ["WAITING"],
        });
        self.ask("put_secret_value", &params)
    }

    fn promote(&self, to: &str, from: Option<&str>) -> Result<Value, String> {
        let mut params = json!({
            "SecretId": self.name,
            "VersionStage": "AWSCURRENT",
            "MoveToVersionId": to,
        });
        if let Some(from) = from {
            params["RemoveFromVersionId"] = json!(from);
        }
        self.ask("update_secret_version_stage", &params)
    }

    fn ask(&self, call: &str, params: &Value) -> Result<Value, String> {
        self.boto
            .secrets(call, params)
            .map_err(|refusal| refusal.code)
    }

    /// The only version that has a label.
    fn version_with(&self, label: &str) -> Option<String> {
        let versions = self.boto.versions(self.name);
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

    /// Reads the value without naming a version.
    fn read(&self) -> String {
        let read = self.ask("get_secret_value", &json!({"SecretId": self.name}));
        read.expect("a value")["SecretString"]
            .as_str()
            .expect("a text")
            .to_owned()
    }
}

fn refusal(code: &str) -> Result<Value, String> {
    Err(code.to_owned())
}

#[test]
fn the_label_moves_only_from_its_current_version() {
    let secret = Secret::new("moves");
    let (a, b, nowhere) = (secret.a.as_str(), secret.b.as_str(), "c".repeat(32));
    for (to, from, code) in [
        (b, None, "InvalidParameterException"),
        (b, Some(b), "InvalidParameterException"),
        (b, Some(nowhere.as_str()), "ResourceNotFoundException"),
        (nowhere.as_str(), Some(a), "ResourceNotFoundException"),
    ] {
        assert_eq!(secret.promote(to, from), refusal(code), "{to} {from:?}");
        assert_eq!(
            secret.version_with("AWSCURRENT").as_deref(),
            Some(a),
            "{to} {from:?}"
        );
        assert_eq!(secret.read(), "of a");
    }
    secret
        .promote(b, Some(a))
        .expect("a swap from the current version");
    assert_eq!(secret.version_with("AWSCURRENT").as_deref(), Some(b));
    assert_eq!(secret.version_with("AWSPREVIOUS").as_deref(), Some(a));
    assert_eq!(
        secret.version_with("WAITING").as_deref(),
        Some(b),
        "other labels stay"
    );
    assert_eq!(secret.read(), "of b");
}

#[test]
fn a_plain_put_after_a_promotion_moves_the_label() {
    let secret = Secret::new("plain");
    secret
        .promote(&secret.b, Some(&secret.a))
        .expect("a swap from the current version");
    secret.boto.put(secret.name, "by hand");
    let by_hand = secret.version_with("AWSCURRENT").expect("one");
    assert!(by_hand != secret.a && by_hand != secret.b);
    assert_eq!(secret.version_with("AWSPREVIOUS").as_ref(), Some(&secret.b));
    assert_eq!(
        secret.version_with("WAITING").as_ref(),
        Some(&secret.b),
        "other labels stay"
    );
    assert_eq!(secret.read(), "by hand");
    let stale = secret.promote(&secret.a, Some(&secret.b));
    assert_eq!(stale, refusal("InvalidParameterException"));
}

#[test]
fn a_repeated_request_token_returns_its_version_or_fails() {
    let secret = Secret::new("same");
    secret
        .promote(&secret.b, Some(&secret.a))
        .expect("a swap from the current version");
    secret.put(&secret.b, "of b").expect("nothing to do");
    assert_eq!(secret.version_with("AWSCURRENT").as_ref(), Some(&secret.b));
    assert_eq!(
        secret.put(&secret.b, "other"),
        refusal("ResourceExistsException")
    );
    assert_eq!(secret.read(), "of b");
}

#[test]
fn a_label_is_on_one_version_and_the_limit_is_twenty() {
    let secret = Secret::new("labels");
    secret
        .put(&"c".repeat(32), "of c")
        .expect("another version");
    assert_eq!(secret.version_with("WAITING"), Some("c".repeat(32)));
    // Two labels exist already: AWSCURRENT and WAITING.
    for (count, answer) in [
        (19, refusal("LimitExceededException")),
        (18, Ok(json!(null))),
    ] {
        let labels: Vec<_> = (0..count).map(|number| format!("label {number}")).collect();
        let params =
            json!({"SecretId": secret.name, "SecretString": "more", "VersionStages": labels});
        let put = secret.ask("put_secret_value", &params).map(|_| json!(null));
        assert_eq!(put, answer, "{count}");
    }
}

#[test]
fn a_value_has_one_of_two_kinds_and_a_length_limit() {
    let secret = Secret::new("values");
    let longest = "x".repeat(65_536);
    secret.put(&"c".repeat(32), &longest).expect("it fits");
    let longer = secret.put(&"d".repeat(32), &format!("{longest}x"));
    assert_eq!(longer, refusal("InvalidParameterException"));
    let both = json!({"SecretId": secret.name, "SecretString": "x", "SecretBinary": "x"});
    assert_eq!(
        secret.ask("put_secret_value", &both),
        refusal("InvalidParameterException")
    );
}

#[test]
fn a_secret_in_deletion_rejects_writes() {
    let secret = Secret::new("marked");
    let delete = json!({"SecretId": secret.name, "RecoveryWindowInDays": 7});
    secret.ask("delete_secret", &delete).expect("a secret");
    let refused = refusal("InvalidRequestException");
    assert_eq!(secret.put(&"c".repeat(32), "of c"), refused);
    assert_eq!(secret.promote(&secret.b, Some(&secret.a)), refused);
    assert_eq!(
        secret.ask("get_secret_value", &json!({"SecretId": secret.name})),
        refused
    );
    let again = json!({"Name": secret.name, "SecretString": "new"});
    assert_eq!(secret.ask("create_secret", &again), refused);
}
