//! The fields of a secret: the login, its metadata, and foreign fields.

use authferry_core::{Secret, Stamp, Stored, UnknownText, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{
    address::META,
    vault_error::VaultError,
    wire::{KvSecret, VersionId},
};

/// The fields of a secret, as read.
pub(crate) struct SecretFields {
    /// The current version, if there is one. It may be a deleted one.
    pub(crate) id: Option<VersionId>,
    /// The login in our field.
    pub(crate) stored: Option<Stored>,
    /// The foreign fields.
    others: Map<String, Value>,
}

impl SecretFields {
    /// Parses a secret. `field` is the name of the login's field.
    pub(crate) fn new(found: Option<KvSecret>, field: &str) -> Result<Self, VaultError> {
        let Some(KvSecret { id, data }) = found else {
            return Ok(Self {
                id: None,
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
                let stamp = meta.and_then(|meta| stamp(meta, &secret, id.number));
                Some(Stored {
                    secret,
                    version: version(&id),
                    stamp,
                })
            }
            Some(_) => return Err(VaultError::NotText(field.to_owned())),
        };
        Ok(Self {
            id: Some(id),
            stored,
            others,
        })
    }

    /// Returns the current version's number, zero if there is none.
    pub(crate) fn number(&self) -> u64 {
        self.id.as_ref().map_or(0, |id| id.number)
    }

    pub(crate) fn version(&self) -> Option<&Version> {
        self.stored.as_ref().map(|stored| &stored.version)
    }

    /// Returns the current version if exactly this write created it.
    pub(crate) fn written_by(&self, new: &Secret, stamp: &Stamp) -> Option<&Version> {
        let stored = self.stored.as_ref()?;
        let id = stored.stamp.as_ref()?.id;
        (id == stamp.id && stored.secret.expose() == new.expose()).then_some(&stored.version)
    }

    /// Returns the fields of the next version.
    pub(crate) fn next(
        self,
        field: &str,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Map<String, Value>, VaultError> {
        let text = str::from_utf8(new.expose()).map_err(|_| VaultError::NotUtf8)?;
        let meta = FieldsMeta {
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
        let meta = serde_json::to_value(meta).expect("only strings and numbers");
        let mut data = self.others;
        data.insert(field.to_owned(), Value::String(text.to_owned()));
        data.insert(format!("{field}{META}"), meta);
        Ok(data)
    }
}

/// Names a version. The number alone repeats after a secret was deleted with its metadata.
pub(crate) fn version(id: &VersionId) -> Version {
    Version::new(&format!("{}@{}", id.number, id.created))
}

/// Parses a version, if this store made it.
pub(crate) fn parse_version(version: &Version) -> Option<VersionId> {
    let (number, created) = version.as_str().split_once('@')?;
    Some(VersionId {
        number: number.parse().ok()?,
        created: created.to_owned(),
    })
}

/// The version of the metadata format.
const FORMAT: u64 = 1;

/// The metadata of a login, in its own field.
#[derive(Serialize, Deserialize)]
struct FieldsMeta {
    /// The only format so far is 1.
    format: u64,
    id: String,
    count: u64,
    origin: String,
    family: String,
    volatile_hints: bool,
    writer: String,
    /// For people only: authferry does not read it.
    parent: Option<String>,
    /// The number of the version that this metadata was written with. With the digest it detects
    /// another login: `bao kv patch` and `bao kv rollback` keep the metadata unchanged.
    version: u64,
    sha256: String,
}

/// Returns the stamp if it belongs to exactly this login in this version. Metadata that a person
/// copied or damaged yields none.
fn stamp(meta: Value, secret: &Secret, number: u64) -> Option<Stamp> {
    let meta: FieldsMeta = serde_json::from_value(meta).ok()?;
    if meta.format != FORMAT || meta.version != number || meta.sha256 != digest(secret) {
        return None;
    }
    meta.try_into().ok()
}

impl TryFrom<FieldsMeta> for Stamp {
    type Error = UnknownText;

    fn try_from(meta: FieldsMeta) -> Result<Self, Self::Error> {
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
