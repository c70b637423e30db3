//! A JSON value of any type, deserialized without a copy.

use core::{fmt, marker::PhantomData, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use zeroize::Zeroizing;

use crate::{AuthFileError, Fault, Member};

/// A member's value, or its absence.
///
/// `Option<String>` would copy the tokens and would not distinguish `null` from a missing member.
/// The errors of `Option<String>` would come from serde, whose messages quote the file.
#[derive(Default)]
pub(crate) enum JsonValue<'a, M = IgnoredAny> {
    #[default]
    Missing,
    Null,
    Text(Text<'a>),
    Object(M),
    Other,
}

/// A JSON string.
pub(crate) enum Text<'a> {
    Plain(&'a str),
    /// A copy of a string that contains escapes.
    Unescaped(Zeroizing<String>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Unescaped(text) => text,
        }
    }
}

impl<M> JsonValue<'_, M> {
    /// Returns whether the member is neither missing nor `null`; Codex treats both alike.
    pub(crate) fn is_set(&self) -> bool {
        !matches!(self, Self::Missing | Self::Null)
    }

    /// Returns the string of an optional member, which may be missing or `null`.
    pub(crate) fn optional_text(&self, member: Member) -> Result<Option<&str>, AuthFileError> {
        match self {
            Self::Missing | Self::Null => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            Self::Object(_) | Self::Other => Err(fault(member, Fault::WrongType)),
        }
    }

    /// Returns the string of a required member.
    pub(crate) fn text(&self, member: Member) -> Result<&str, AuthFileError> {
        match self {
            Self::Text(text) if text.is_empty() => Err(fault(member, Fault::Empty)),
            Self::Text(text) => Ok(text),
            Self::Missing => Err(fault(member, Fault::Missing)),
            Self::Null => Err(fault(member, Fault::Null)),
            Self::Object(_) | Self::Other => Err(fault(member, Fault::WrongType)),
        }
    }

    /// Returns the string; `None` for any other value.
    pub(crate) fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.to_string()),
            Self::Missing | Self::Null | Self::Object(_) | Self::Other => None,
        }
    }

    /// Returns the object of a required member.
    pub(crate) fn object(&self, member: Member) -> Result<&M, AuthFileError> {
        match self {
            Self::Object(members) => Ok(members),
            Self::Missing => Err(fault(member, Fault::Missing)),
            Self::Null => Err(fault(member, Fault::Null)),
            Self::Text(_) | Self::Other => Err(fault(member, Fault::WrongType)),
        }
    }
}

fn fault(member: Member, fault: Fault) -> AuthFileError {
    AuthFileError::Member { member, fault }
}

impl<'de: 'a, 'a, M: Deserialize<'de>> Deserialize<'de> for JsonValue<'a, M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue(PhantomData))
    }
}

/// Accepts every JSON type.
struct AnyValue<'a, M>(PhantomData<JsonValue<'a, M>>);

impl<'de: 'a, 'a, M: Deserialize<'de>> Visitor<'de> for AnyValue<'a, M> {
    type Value = JsonValue<'a, M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(JsonValue::Text(Text::Plain(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(JsonValue::Text(Text::Unescaped(Zeroizing::new(
            text.to_owned(),
        ))))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        M::deserialize(MapAccessDeserializer::new(map)).map(JsonValue::Object)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(JsonValue::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(JsonValue::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(JsonValue::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(JsonValue::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(JsonValue::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(JsonValue::Other)
    }
}
