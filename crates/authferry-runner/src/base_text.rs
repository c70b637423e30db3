//! The JSON form of a base in receipts and records. It holds fingerprints and versions, no secret.

use authferry_core::{
    Base, Family, Generation, Identity, Issued, Label, NotAFingerprint, SessionHints, Version,
};
use serde::{Deserialize, Serialize};

/// The head that a receipt or a record descends from.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BaseText {
    version: String,
    // Not flattened: serde does not support `i128` there.
    generation: GenerationText,
    count: u64,
    family: String,
    ancestors: Vec<String>,
    volatile_hints: bool,
    /// Missing in a base that an earlier version wrote.
    #[serde(default)]
    unrelated: Vec<String>,
}

/// The JSON form of a generation. Never flattened: serde cannot read an `i128` then.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct GenerationText {
    fingerprint: String,
    account: Option<String>,
    chatgpt_user: Option<String>,
    user: Option<String>,
    subject: Option<String>,
    session: Option<String>,
    password_time: Option<i64>,
    /// The access token's `iat`, in Unix seconds.
    iat: Option<i64>,
    /// The access token's `exp`, in Unix seconds.
    exp: Option<i64>,
    /// The file's `last_refresh`, in Unix nanoseconds.
    last_refresh: Option<i128>,
}

impl From<&Base> for BaseText {
    fn from(base: &Base) -> Self {
        Self {
            version: base.version.to_string(),
            generation: (&base.generation).into(),
            count: base.count,
            family: base.family.to_string(),
            ancestors: base.ancestors.iter().map(ToString::to_string).collect(),
            volatile_hints: base.volatile_hints,
            unrelated: base.unrelated.iter().map(ToString::to_string).collect(),
        }
    }
}

impl TryFrom<BaseText> for Base {
    type Error = NotAFingerprint;

    fn try_from(text: BaseText) -> Result<Self, Self::Error> {
        let all = |texts: &[String]| texts.iter().map(|it| it.parse()).collect::<Result<_, _>>();
        Ok(Self {
            version: Version::new(&text.version),
            generation: text.generation.try_into()?,
            count: text.count,
            family: text.family.parse::<Family>()?,
            ancestors: all(&text.ancestors)?,
            volatile_hints: text.volatile_hints,
            unrelated: all(&text.unrelated)?,
        })
    }
}

impl From<&Generation> for GenerationText {
    fn from(generation: &Generation) -> Self {
        let text = |label: &Option<Label>| label.as_ref().map(ToString::to_string);
        let Generation {
            fingerprint,
            identity,
            hints,
            issued,
        } = generation;
        Self {
            fingerprint: fingerprint.to_string(),
            account: text(&identity.account),
            chatgpt_user: text(&identity.chatgpt_user),
            user: text(&identity.user),
            subject: text(&identity.subject),
            session: text(&hints.session),
            password_time: hints.password_time,
            iat: issued.iat,
            exp: issued.exp,
            last_refresh: issued.last_refresh,
        }
    }
}

impl TryFrom<GenerationText> for Generation {
    type Error = NotAFingerprint;

    fn try_from(text: GenerationText) -> Result<Self, Self::Error> {
        let label = |text: Option<String>| text.map(|text| Label::new(&text));
        Ok(Self {
            fingerprint: text.fingerprint.parse()?,
            identity: Identity {
                account: label(text.account),
                chatgpt_user: label(text.chatgpt_user),
                user: label(text.user),
                subject: label(text.subject),
            },
            hints: SessionHints {
                session: label(text.session),
                password_time: text.password_time,
            },
            issued: Issued {
                iat: text.iat,
                exp: text.exp,
                last_refresh: text.last_refresh,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use authferry_core::Fingerprint;

    use super::*;

    #[test]
    fn a_base_survives_its_json_form() {
        let label = |text| Some(Label::new(text));
        let base = Base {
            version: Version::new("7"),
            generation: Generation {
                fingerprint: Fingerprint::new([1; 8]),
                identity: Identity {
                    account: label("account"),
                    chatgpt_user: label("chatgpt user"),
                    user: label("user"),
                    subject: label("subject"),
                },
                hints: SessionHints {
                    session: label("session"),
                    password_time: Some(1_760_000_000_000),
                },
                issued: Issued {
                    iat: Some(1_760_000_000),
                    exp: Some(1_760_864_000),
                    last_refresh: Some(1_760_000_000_123_456_789),
                },
            },
            count: 3,
            family: Family(Fingerprint::new([2; 8])),
            ancestors: vec![Fingerprint::new([2; 8]), Fingerprint::new([3; 8])],
            volatile_hints: true,
            unrelated: vec![Fingerprint::new([4; 8])],
        };
        let anonymous = Base {
            generation: Generation {
                identity: Identity::default(),
                hints: SessionHints::default(),
                issued: Issued::default(),
                ..base.generation.clone()
            },
            ..base.clone()
        };
        for base in [base, anonymous] {
            let text = serde_json::to_vec(&BaseText::from(&base)).expect("JSON");
            let read: BaseText = serde_json::from_slice(&text).expect("a base");
            assert_eq!(Base::try_from(read), Ok(base));
        }
    }
}
