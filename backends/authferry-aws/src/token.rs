//! Encodes a stamp in the version ID.
//!
//! Secrets Manager stores only two things with a version: its ID and its staging labels. Tags
//! belong to the whole secret, and a label per version would need cleaning up: a secret has at
//! most 20 labels. The writer chooses the ID together with the value, and the ID is immutable. So
//! the ID contains the stamp, except for the writer's name.

use authferry_core::{Origin, Stamp, Version, WriteId};

/// Returns the ID of the version that a write creates: 52 to 61 characters, where Secrets
/// Manager accepts 32 to 64. A count above [`MAX_COUNT`] is capped.
pub(crate) fn encode(stamp: &Stamp) -> String {
    let origin = match (stamp.origin, stamp.volatile_hints) {
        (Origin::Seed, false) => SEED,
        (Origin::Rotation, false) => ROTATION,
        (Origin::Seed, true) => SEED_WITH_VOLATILE_HINTS,
        (Origin::Rotation, true) => ROTATION_WITH_VOLATILE_HINTS,
    };
    let count = stamp.count.min(MAX_COUNT);
    format!("{}-{origin}{count}-{}", stamp.id, stamp.family)
}

/// Decodes a version ID. `None` if another tool chose it.
pub(crate) fn decode(version: &Version) -> Option<Stamp> {
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
    // Each stamp has one spelling.
    (encode(&stamp) == version.as_str()).then_some(stamp)
}

const SEED: char = 's';
const ROTATION: char = 'r';
const SEED_WITH_VOLATILE_HINTS: char = 'S';
const ROTATION_WITH_VOLATILE_HINTS: char = 'R';

/// Ten digits, so that the ID stays within 64 characters.
const MAX_COUNT: u64 = 9_999_999_999;

#[cfg(test)]
mod tests {
    use authferry_core::{Family, Fingerprint};

    use super::*;

    #[test]
    fn a_count_above_the_maximum_is_capped() {
        let stamp_of = |count| Stamp {
            id: WriteId {
                nonce: 1,
                number: 2,
            },
            count,
            origin: Origin::Rotation,
            family: Family(Fingerprint::new([1; 8])),
            volatile_hints: false,
            writer: String::new(),
        };
        let token = encode(&stamp_of(u64::MAX));
        assert_eq!(decode(&Version::new(&token)), Some(stamp_of(MAX_COUNT)));
    }

    #[test]
    fn a_stamp_round_trips_except_for_the_writer() {
        for (count, origin, volatile_hints) in [
            (0, Origin::Seed, false),
            (1, Origin::Seed, true),
            (2, Origin::Rotation, false),
            (MAX_COUNT, Origin::Rotation, true),
        ] {
            let stamp_of = |writer: &str| Stamp {
                id: WriteId {
                    nonce: 0x0123,
                    number: u64::MAX,
                },
                count,
                origin,
                family: Family(Fingerprint::new([0, 1, 2, 3, 4, 5, 6, 255])),
                volatile_hints,
                writer: writer.to_owned(),
            };
            let token = encode(&stamp_of("https://ci.example/runs/1"));
            assert!((32..=64).contains(&token.len()), "{token}");
            assert_eq!(decode(&Version::new(&token)), Some(stamp_of("")));
        }
    }

    #[test]
    fn a_foreign_version_id_has_no_stamp() {
        let id = "0123456789abcdef0123456789abcdef";
        let family = "00010203040506ff";
        let good = format!("{id}-s1-{family}");
        assert!(decode(&Version::new(&good)).is_some());
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
            assert_eq!(decode(&Version::new(&name)), None, "{name}");
        }
    }
}
