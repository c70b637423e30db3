//! The tags of a version: the stamp of its login.

use authferry_core::{Secret, Stamp};
use sha2::{Digest, Sha256};

use crate::{protocol::WriteMark, wire::Tags};

/// The prefix of our tags.
const PREFIX: &str = "authferry-";

const ID: &str = "authferry-id";
const COUNT: &str = "authferry-count";
const ORIGIN: &str = "authferry-origin";
const FAMILY: &str = "authferry-family";
const VOLATILE_HINTS: &str = "authferry-volatile-hints";
const WRITER: &str = "authferry-writer";
const SHA256: &str = "authferry-sha256";
const COORDINATOR: &str = "authferry-coordinator";

/// The limits of Key Vault: tags of a version, and characters of a tag's value.
const MAX_TAGS: usize = 15;
const MAX_VALUE_CHARS: usize = 256;

/// Returns the tags of a write. `previous` are the tags of the version that the write replaces:
/// foreign tags stay, up to the limit.
pub(crate) fn for_write(new: &Secret, stamp: &Stamp, coordinator: &str, previous: &Tags) -> Tags {
    let mut tags = Tags::from([
        (ID.to_owned(), stamp.id.to_string()),
        (COUNT.to_owned(), stamp.count.to_string()),
        (ORIGIN.to_owned(), stamp.origin.to_string()),
        (FAMILY.to_owned(), stamp.family.to_string()),
        (WRITER.to_owned(), truncate(&stamp.writer)),
        (SHA256.to_owned(), digest(new)),
        (COORDINATOR.to_owned(), coordinator.to_owned()),
    ]);
    if stamp.volatile_hints {
        tags.insert(VOLATILE_HINTS.to_owned(), true.to_string());
    }
    let foreign = previous
        .iter()
        .filter(|(name, _)| !name.starts_with(PREFIX));
    for (name, value) in foreign.take(MAX_TAGS - tags.len()) {
        tags.insert(name.clone(), value.clone());
    }
    tags
}

/// Returns the write mark of a version, if it was written under this coordinator.
pub(crate) fn mark(tags: &Tags, coordinator: &str) -> Option<WriteMark> {
    if tags.get(COORDINATOR)? != coordinator {
        return None;
    }
    stamp(tags)?;
    Some(WriteMark {
        id: tags.get(ID)?.clone(),
        sha256: tags.get(SHA256)?.clone(),
    })
}

/// Returns the write mark of a new write.
pub(crate) fn mark_of(new: &Secret, stamp: &Stamp) -> WriteMark {
    WriteMark {
        id: stamp.id.to_string(),
        sha256: digest(new),
    }
}

/// Returns the stamp if it belongs to this value: a person may have copied the tags to another
/// value.
pub(crate) fn stamp_of(value: &Secret, tags: &Tags) -> Option<Stamp> {
    stamp(tags).filter(|_| match_value(value, tags))
}

/// Returns whether the tags belong to this value.
pub(crate) fn match_value(value: &Secret, tags: &Tags) -> bool {
    tags.get(SHA256)
        .is_some_and(|sha256| *sha256 == digest(value))
}

fn stamp(tags: &Tags) -> Option<Stamp> {
    Some(Stamp {
        id: tags.get(ID)?.parse().ok()?,
        count: tags.get(COUNT)?.parse().ok()?,
        origin: tags.get(ORIGIN)?.parse().ok()?,
        family: tags.get(FAMILY)?.parse().ok()?,
        volatile_hints: tags.contains_key(VOLATILE_HINTS),
        writer: tags.get(WRITER)?.clone(),
    })
}

fn digest(value: &Secret) -> String {
    format!("{:x}", Sha256::digest(value.expose()))
}

/// Truncates a text to the limit of a tag.
fn truncate(text: &str) -> String {
    text.chars().take(MAX_VALUE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use authferry_core::{Family, Fingerprint, Origin, WriteId};

    use super::*;

    fn write(login: &str, previous: &Tags) -> (Secret, Stamp, Tags) {
        let secret = Secret::new(login.into());
        let stamp = Stamp {
            id: WriteId {
                nonce: 1,
                number: 2,
            },
            count: 3,
            origin: Origin::Rotation,
            family: Family(Fingerprint::new([5; 8])),
            volatile_hints: true,
            writer: "https://ci.example/1".into(),
        };
        let tags = for_write(&secret, &stamp, "blob://a/b/c", previous);
        (secret, stamp, tags)
    }

    #[test]
    fn a_stamp_is_read_back_only_with_its_value() {
        let (secret, stamp, mut tags) = write("{}", &Tags::new());
        assert_eq!(stamp_of(&secret, &tags), Some(stamp.clone()));
        assert_eq!(stamp_of(&Secret::new(b"[]".to_vec()), &tags), None);
        assert_eq!(mark(&tags, "blob://a/b/c"), Some(mark_of(&secret, &stamp)));
        assert_eq!(mark(&tags, "blob://a/b/d"), None);
        tags.remove(COORDINATOR);
        assert_eq!(mark(&tags, "blob://a/b/c"), None);
    }

    #[test]
    fn foreign_tags_are_preserved_up_to_the_limit() {
        let team = ("team".to_owned(), "identity".to_owned());
        let (.., tags) = write("{}", &Tags::from([team.clone()]));
        assert_eq!(tags.get("team"), Some(&team.1));
        // Our tags of the previous version are replaced.
        let (.., after) = write("[]", &tags);
        assert_ne!(after.get(SHA256), tags.get(SHA256));
        let many = (0..20)
            .map(|n| (format!("tag-{n}"), String::new()))
            .collect();
        assert_eq!(write("{}", &many).2.len(), MAX_TAGS);
    }

    #[test]
    fn a_long_writer_name_is_truncated() {
        assert_eq!(truncate(&"ä".repeat(300)).chars().count(), MAX_VALUE_CHARS);
    }
}
