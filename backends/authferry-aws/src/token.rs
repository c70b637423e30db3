//! What a version's own name says of it.
//!
//! Secrets Manager keeps nothing beside a version but its name and its staging labels. Tags
//! belong to the whole secret, and a label with something to say would have to be taken off
//! again: a secret has room for 20. The name is for the writer to choose, it is set together
//! with the value, and nobody can change it; so it holds the stamp, but for the writer's name.

use authferry_core::{Origin, Stamp, Version, WriteId};

/// Returns the name of the version that a write makes: 36 to 54 characters, where Secrets
/// Manager takes 32 to 64.
pub(crate) fn of(stamp: &Stamp) -> String {
    let origin = match stamp.origin {
        Origin::Seed => SEED,
        Origin::Rotation => ROTATION,
    };
    format!("{}-{origin}{}", stamp.id, stamp.count)
}

/// Returns what the name of a version says, or `None` if somebody else has chosen it.
pub(crate) fn stamp(version: &Version) -> Option<Stamp> {
    let (id, rest) = version.as_str().split_once('-')?;
    let (origin, count) = match rest.strip_prefix(SEED) {
        Some(count) => (Origin::Seed, count),
        None => (Origin::Rotation, rest.strip_prefix(ROTATION)?),
    };
    let stamp = Stamp {
        id: id.parse::<WriteId>().ok()?,
        count: count.parse().ok()?,
        origin,
        writer: String::new(),
    };
    // There is one spelling for each.
    (of(&stamp) == version.as_str()).then_some(stamp)
}

const SEED: char = 's';
const ROTATION: char = 'r';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_survives_as_a_version_but_for_the_writer() {
        for (count, origin) in [
            (0, Origin::Seed),
            (1, Origin::Seed),
            (u64::MAX, Origin::Rotation),
        ] {
            let stamp_of = |writer: &str| Stamp {
                id: WriteId {
                    trip: 0x0123,
                    number: u64::MAX,
                },
                count,
                origin,
                writer: writer.to_owned(),
            };
            let token = of(&stamp_of("https://ci.example/runs/1"));
            assert!((32..=64).contains(&token.len()), "{token}");
            assert_eq!(stamp(&Version::new(&token)), Some(stamp_of("")));
        }
    }

    #[test]
    fn a_name_that_somebody_else_chose_says_nothing() {
        let id = "0123456789abcdef0123456789abcdef";
        assert!(stamp(&Version::new(&format!("{id}-s1"))).is_some());
        for name in [
            String::new(),
            "terraform-20260101000000000000000001".to_owned(),
            "6f2c1f9e-0f0e-4f7e-9d4c-3b8f5a1c2d3e".to_owned(),
            id.to_owned(),
            format!("{id}-"),
            format!("{id}-s"),
            format!("{id}-x1"),
            format!("{id}-s01"),
            format!("{id}-s+1"),
            format!("{id}-s1 "),
            format!("{id}-s99999999999999999999"),
            format!("{}-s1", id.to_uppercase()),
        ] {
            assert_eq!(stamp(&Version::new(&name)), None, "{name}");
        }
    }
}
