//! What stands in a secret: the login in one field, what its writer said of it in another,
//! and the fields of others.

use authferry_core::{Secret, Stamp, Stored, UnknownText, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    address::META,
    trouble::Trouble,
    wire::{Found, Point},
};

/// What a secret held when it was looked at.
pub(crate) struct Held {
    /// The current version, if there is one. A deleted one counts.
    pub(crate) at: Option<Point>,
    /// What our field holds.
    pub(crate) stored: Option<Stored>,
    /// The fields of others.
    others: Map<String, Value>,
}

impl Held {
    /// Takes apart what was found. `field` is ours.
    pub(crate) fn new(found: Option<Found>, field: &str) -> Result<Self, Trouble> {
        let Some(Found { at, data }) = found else {
            return Ok(Self {
                at: None,
                stored: None,
                others: Map::new(),
            });
        };
        let mut others = data.unwrap_or_default();
        let meta = others.remove(&format!("{field}{META}"));
        let stored = match others.remove(field) {
            None => None,
            Some(Value::String(text)) => {
                let secret = Secret::new(text.into_bytes());
                let stamp = meta.and_then(|meta| stamp(meta, &secret, at.number));
                Some(Stored {
                    secret,
                    version: version(&at),
                    stamp,
                })
            }
            Some(_) => return Err(Trouble::NotText(field.to_owned())),
        };
        Ok(Self {
            at: Some(at),
            stored,
            others,
        })
    }

    /// Returns the current version's number, zero if there is none.
    pub(crate) fn number(&self) -> u64 {
        self.at.as_ref().map_or(0, |at| at.number)
    }

    pub(crate) fn version(&self) -> Option<&Version> {
        self.stored.as_ref().map(|stored| &stored.version)
    }

    /// Returns the version that came by this very write, if that is what stands there.
    pub(crate) fn written_by(&self, new: &Secret, stamp: &Stamp) -> Option<&Version> {
        let stored = self.stored.as_ref()?;
        let id = stored.stamp.as_ref()?.id;
        (id == stamp.id && stored.secret.expose() == new.expose()).then_some(&stored.version)
    }

    /// Returns what is to stand in the secret next.
    pub(crate) fn next(
        self,
        field: &str,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Map<String, Value>, Trouble> {
        let text = str::from_utf8(new.expose()).map_err(|_| Trouble::NotUtf8)?;
        let meta = Meta {
            format: FORMAT,
            id: stamp.id.to_string(),
            count: stamp.count,
            origin: stamp.origin.to_string(),
            family: stamp.family.to_string(),
            volatile_hints: stamp.volatile_hints,
            writer: stamp.writer.clone(),
            parent: self.version().map(ToString::to_string),
            version: self.number() + 1,
            sha256: digest(new),
        };
        let meta = serde_json::to_value(meta).expect("texts and numbers alone");
        let mut data = self.others;
        data.insert(field.to_owned(), Value::String(text.to_owned()));
        data.insert(format!("{field}{META}"), meta);
        Ok(data)
    }
}

/// Names a version. The number alone would come again when a secret was deleted with all
/// that is known of it.
pub(crate) fn version(at: &Point) -> Version {
    Version::new(&format!("{}@{}", at.number, at.created))
}

/// Returns what a version names, if it is one of ours.
pub(crate) fn point(version: &Version) -> Option<Point> {
    let (number, created) = version.as_str().split_once('@')?;
    Some(Point {
        number: number.parse().ok()?,
        created: created.to_owned(),
    })
}

/// The format of what stands beside a login.
const FORMAT: u64 = 1;

/// What stands beside a login.
#[derive(Serialize, Deserialize)]
struct Meta {
    /// The only format so far is 1.
    format: u64,
    id: String,
    count: u64,
    origin: String,
    family: String,
    volatile_hints: bool,
    writer: String,
    /// For people, who may want to see it.
    parent: Option<String>,
    /// The number of the version that it was written with, and the digest of its login:
    /// `bao kv patch` and `bao kv rollback` leave it beside another one.
    version: u64,
    sha256: String,
}

/// Returns the stamp, if it is of just this login in this version. What a person left there
/// or mangled is none.
fn stamp(meta: Value, secret: &Secret, number: u64) -> Option<Stamp> {
    let meta: Meta = serde_json::from_value(meta).ok()?;
    if meta.format != FORMAT || meta.version != number || meta.sha256 != digest(secret) {
        return None;
    }
    meta.try_into().ok()
}

impl TryFrom<Meta> for Stamp {
    type Error = UnknownText;

    fn try_from(meta: Meta) -> Result<Self, Self::Error> {
        Ok(Self {
            id: meta.id.parse()?,
            count: meta.count,
            origin: meta.origin.parse()?,
            family: meta.family.parse().map_err(|_| UnknownText)?,
            volatile_hints: meta.volatile_hints,
            writer: meta.writer,
        })
    }
}

fn digest(secret: &Secret) -> String {
    format!("{:x}", Sha256::digest(secret.expose()))
}

#[cfg(test)]
mod tests;
