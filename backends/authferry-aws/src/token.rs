//! What a version's own name says of it.
//!
//! Secrets Manager keeps nothing beside a version but its name and its staging labels. Tags
//! belong to the whole secret, and a label with something to say would have to be taken off
//! again: a secret has room for 20. The name is for the writer to choose, it is set together
//! with the value, and nobody can change it; so it holds the stamp, but for the writer's name.

use authferry_core::{Origin, Stamp, Version, WriteId};

/// Returns the name of the version that a write makes: 52 to 61 characters, where Secrets
/// Manager takes 32 to 64. A count beyond [`MAX_COUNT`] stays there.
pub(crate) fn of(stamp: &Stamp) -> String {
    let origin = match (stamp.origin, stamp.volatile_hints) {
        (Origin::Seed, false) => SEED,
        (Origin::Rotation, false) => ROTATION,
        (Origin::Seed, true) => SEED_WITH_VOLATILE_HINTS,
        (Origin::Rotation, true) => ROTATION_WITH_VOLATILE_HINTS,
    };
    let count = stamp.count.min(MAX_COUNT);
    format!("{}-{origin}{count}-{}", stamp.id, stamp.family)
}

/// Returns what the name of a version says, or `None` if somebody else has chosen it.
pub(crate) fn stamp(version: &Version) -> Option<Stamp> {
    let (id, rest) = version.as_str().split_once('-')?;
    let (origin_and_count, family) = rest.split_once('-')?;
    let mut count = origin_and_count.chars();
    let (origin, volatile_hints) = match count.next()? {
        SEED => (Origin::Seed, false),
        ROTATION => (Origin::Rotation, false),
        SEED_WITH_VOLATILE_HINTS => (Origin::Seed, true),
        ROTATION_WITH_VOLATILE_HINTS => (Origin::Rotation, true),
        _ => return None,
    };
    let stamp = Stamp {
        id: id.parse::<WriteId>().ok()?,
        count: count.as_str().parse().ok()?,
        origin,
        family: family.parse().ok()?,
        volatile_hints,
        writer: String::new(),
    };
    // There is one spelling for each.
    (of(&stamp) == version.as_str()).then_some(stamp)
}

const SEED: char = 's';
const ROTATION: char = 'r';
const SEED_WITH_VOLATILE_HINTS: char = 'S';
const ROTATION_WITH_VOLATILE_HINTS: char = 'R';

/// Ten digits, so that the whole name keeps within 64 characters.
const MAX_COUNT: u64 = 9_999_999_999;

#[cfg(test)]
mod tests {
    use authferry_core::{Family, Fingerprint};

    use super::*;

    #[test]
    fn a_count_that_no_name_has_room_for_stays_at_the_largest() {
        let stamp_of = |count| Stamp {
            id: WriteId { trip: 1, number: 2 },
            count,
            origin: Origin::Rotation,
            family: Family(Fingerprint::new([1; 8])),
            volatile_hints: false,
            writer: String::new(),
        };
        let token = of(&stamp_of(u64::MAX));
        assert_eq!(stamp(&Version::new(&token)), Some(stamp_of(MAX_COUNT)));
    }

    #[test]
    fn a_stamp_survives_as_a_version_but_for_the_writer() {
        for (count, origin, volatile_hints) in [
            (0, Origin::Seed, false),
            (1, Origin::Seed, true),
            (2, Origin::Rotation, false),
            (MAX_COUNT, Origin::Rotation, true),
        ] {
            let stamp_of = |writer: &str| Stamp {
                id: WriteId {
                    trip: 0x0123,
                    number: u64::MAX,
                },
                count,
                origin,
                family: Family(Fingerprint::new([0, 1, 2, 3, 4, 5, 6, 255])),
                volatile_hints,
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
        let family = "00010203040506ff";
        let good = format!("{id}-s1-{family}");
        assert!(stamp(&Version::new(&good)).is_some());
        for name in [
            String::new(),
            "terraform-20260101000000000000000001".to_owned(),
            "6f2c1f9e-0f0e-4f7e-9d4c-3b8f5a1c2d3e".to_owned(),
            id.to_owned(),
            format!("{id}-"),
            format!("{id}-s1"),
            format!("{id}-s-{family}"),
            format!("{id}-x1-{family}"),
            format!("{id}-s01-{family}"),
            format!("{id}-s+1-{family}"),
            format!("{good} "),
            format!("{id}-s1-{}", family.to_uppercase()),
            format!("{id}-s1-{}", &family[1..]),
            format!("{id}-s10000000000-{family}"),
            format!("{id}-s99999999999999999999-{family}"),
            format!("{}-s1-{family}", id.to_uppercase()),
        ] {
            assert_eq!(stamp(&Version::new(&name)), None, "{name}");
        }
    }
}
