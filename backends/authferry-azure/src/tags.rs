//! What is written beside a value: the tags of its version.

use authferry_core::{Secret, Stamp};
use sha2::{Digest, Sha256};

use crate::{protocol::Mark, wire::Tags};

/// The names begin with this.
const OURS: &str = "authferry-";

const ID: &str = "authferry-id";
const COUNT: &str = "authferry-count";
const ORIGIN: &str = "authferry-origin";
const FAMILY: &str = "authferry-family";
const VOLATILE_HINTS: &str = "authferry-volatile-hints";
const WRITER: &str = "authferry-writer";
const SHA256: &str = "authferry-sha256";
const COORDINATOR: &str = "authferry-coordinator";

/// How many tags a version can have, and how long a value can be.
const MAX_TAGS: usize = 15;
const MAX_VALUE: usize = 256;

/// Returns the tags of a write. `beside` are the tags of the version that it replaces: those of
/// others stay, as far as there is room.
pub(crate) fn of_write(new: &Secret, stamp: &Stamp, coordinator: &str, beside: &Tags) -> Tags {
    let mut tags = Tags::from([
        (ID.to_owned(), stamp.id.to_string()),
        (COUNT.to_owned(), stamp.count.to_string()),
        (ORIGIN.to_owned(), stamp.origin.to_string()),
        (FAMILY.to_owned(), stamp.family.to_string()),
        (WRITER.to_owned(), cut(&stamp.writer)),
        (SHA256.to_owned(), digest(new)),
        (COORDINATOR.to_owned(), coordinator.to_owned()),
    ]);
    if stamp.volatile_hints {
        tags.insert(VOLATILE_HINTS.to_owned(), true.to_string());
    }
    let others = beside.iter().filter(|(name, _)| !name.starts_with(OURS));
    for (name, value) in others.take(MAX_TAGS - tags.len()) {
        tags.insert(name.clone(), value.clone());
    }
    tags
}

/// Returns which write this is, if it is one of ours under this coordinator.
pub(crate) fn mark(tags: &Tags, coordinator: &str) -> Option<Mark> {
    if tags.get(COORDINATOR)? != coordinator {
        return None;
    }
    stamp(tags)?;
    Some(Mark {
        id: tags.get(ID)?.clone(),
        sha256: tags.get(SHA256)?.clone(),
    })
}

/// Returns the mark that a write will have.
pub(crate) fn mark_of(new: &Secret, stamp: &Stamp) -> Mark {
    Mark {
        id: stamp.id.to_string(),
        sha256: digest(new),
    }
}

/// Returns the stamp, if it is of just this value: somebody may have copied the tags to
/// another one.
pub(crate) fn stamp_of(value: &Secret, tags: &Tags) -> Option<Stamp> {
    stamp(tags).filter(|_| is_of(value, tags))
}

/// Whether the tags are of just this value.
pub(crate) fn is_of(value: &Secret, tags: &Tags) -> bool {
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

/// A tag has no room for more, and people see where it ends.
fn cut(text: &str) -> String {
    text.chars().take(MAX_VALUE).collect()
}

#[cfg(test)]
mod tests {
    use authferry_core::{Family, Fingerprint, Origin, WriteId};

    use super::*;

    fn write(login: &str, beside: &Tags) -> (Secret, Stamp, Tags) {
        let secret = Secret::new(login.into());
        let stamp = Stamp {
            id: WriteId { trip: 1, number: 2 },
            count: 3,
            origin: Origin::Rotation,
            family: Family(Fingerprint::new([5; 8])),
            volatile_hints: true,
            writer: "https://ci.example/1".into(),
        };
        let tags = of_write(&secret, &stamp, "blob://a/b/c", beside);
        (secret, stamp, tags)
    }

    #[test]
    fn a_stamp_comes_back_with_its_own_value_alone() {
        let (secret, stamp, mut tags) = write("{}", &Tags::new());
        assert_eq!(stamp_of(&secret, &tags), Some(stamp.clone()));
        assert_eq!(stamp_of(&Secret::new(b"[]".to_vec()), &tags), None);
        assert_eq!(mark(&tags, "blob://a/b/c"), Some(mark_of(&secret, &stamp)));
        assert_eq!(mark(&tags, "blob://a/b/d"), None);
        tags.remove(COORDINATOR);
        assert_eq!(mark(&tags, "blob://a/b/c"), None);
    }

    #[test]
    fn tags_of_others_stay_as_far_as_there_is_room() {
        let team = ("team".to_owned(), "identity".to_owned());
        let (.., tags) = write("{}", &Tags::from([team.clone()]));
        assert_eq!(tags.get("team"), Some(&team.1));
        // Those of the version before are not taken for those of this one.
        let (.., after) = write("[]", &tags);
        assert_ne!(after.get(SHA256), tags.get(SHA256));
        let many = (0..20)
            .map(|n| (format!("tag-{n}"), String::new()))
            .collect();
        assert_eq!(write("{}", &many).2.len(), MAX_TAGS);
    }

    #[test]
    fn a_long_name_of_a_writer_is_cut_where_a_tag_ends() {
        assert_eq!(cut(&"ä".repeat(300)).chars().count(), MAX_VALUE);
    }
}
