//! A JSON value that is read without a copy and never refused for its type.

use core::{fmt, marker::PhantomData, ops::Deref};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use zeroize::Zeroizing;

use crate::{Fault, Member, Unusable};

/// A member's value, or its absence.
///
/// Plain `Option<String>` would copy the tokens, could not tell `null` from nothing, and
/// would leave the naming of a wrong type to serde, whose messages quote the file.
#[derive(Default)]
pub(crate) enum Value<'a, M = IgnoredAny> {
    #[default]
    Missing,
    Null,
    Text(Text<'a>),
    Object(M),
    Other,
}

/// A text in the file.
pub(crate) enum Text<'a> {
    Plain(&'a str),
    /// One that was written with escapes, so that it had to be copied.
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

impl<M> Value<'_, M> {
    /// Returns whether it is there and not `null`, which is all one to Codex.
    pub(crate) fn is_set(&self) -> bool {
        !matches!(self, Self::Missing | Self::Null)
    }

    /// Returns the text of a member that may as well be missing or `null`.
    pub(crate) fn optional_text(&self, member: Member) -> Result<Option<&str>, Unusable> {
        match self {
            Self::Missing | Self::Null => Ok(None),
            Self::Text(text) => Ok(Some(text)),
            Self::Object(_) | Self::Other => Err(fault(member, Fault::WrongType)),
        }
    }

    /// Returns the text of a member that has to hold one.
    pub(crate) fn text(&self, member: Member) -> Result<&str, Unusable> {
        match self {
            Self::Text(text) if text.is_empty() => Err(fault(member, Fault::Empty)),
            Self::Text(text) => Ok(text),
            Self::Missing => Err(fault(member, Fault::Missing)),
            Self::Null => Err(fault(member, Fault::Null)),
            Self::Object(_) | Self::Other => Err(fault(member, Fault::WrongType)),
        }
    }

    /// Returns the text, if it is one.
    pub(crate) fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.to_string()),
            Self::Missing | Self::Null | Self::Object(_) | Self::Other => None,
        }
    }

    /// Returns the members of a member that has to be an object.
    pub(crate) fn object(&self, member: Member) -> Result<&M, Unusable> {
        match self {
            Self::Object(members) => Ok(members),
            Self::Missing => Err(fault(member, Fault::Missing)),
            Self::Null => Err(fault(member, Fault::Null)),
            Self::Text(_) | Self::Other => Err(fault(member, Fault::WrongType)),
        }
    }
}

fn fault(member: Member, fault: Fault) -> Unusable {
    Unusable::Member { member, fault }
}

impl<'de: 'a, 'a, M: Deserialize<'de>> Deserialize<'de> for Value<'a, M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue(PhantomData))
    }
}

/// Takes every type there is.
struct AnyValue<'a, M>(PhantomData<Value<'a, M>>);

impl<'de: 'a, 'a, M: Deserialize<'de>> Visitor<'de> for AnyValue<'a, M> {
    type Value = Value<'a, M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Text::Plain(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Text::Unescaped(Zeroizing::new(
            text.to_owned(),
        ))))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        M::deserialize(MapAccessDeserializer::new(map)).map(Value::Object)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Other)
    }
}
