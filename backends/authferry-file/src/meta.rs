//! The metadata file of a login: for each of two generations, how to recognise its file, and its
//! stamp.

use authferry_core::{Secret, Stamp, UnknownText, Version};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{facts::Facts, file_error::FileError};

/// The format of the metadata file. Format 1 had no family, format 2 did not name the replaced
/// version, and format 3 did not name the replaced bytes.
const FORMAT: u64 = 4;

/// The maximum size of the file, in bytes: far more than two entries need.
pub(crate) const MAX_LEN: usize = 64 * 1024;

/// The content of the metadata file: the replaced generation, if we wrote it, and the generation
/// that replaces it. The login's file shows which of them is current.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    entries: Vec<Entry>,
    /// The login that the last entry replaces; `None` if there was none.
    replaces: Option<Replaced>,
}

/// The login that a swap replaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replaced {
    version: String,
    sha256: String,
}

/// A generation that this store wrote.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "EntryText", into = "EntryText")]
pub(crate) struct Entry {
    pub(crate) version: Version,
    pub(crate) stamp: Stamp,
    sha256: String,
    inode: u64,
    pub(crate) written: (i64, i64),
}

impl Meta {
    /// Returns the metadata during the write of `next`, with the entry of the value that it
    /// overwrites, if that has one.
    pub(crate) fn between(
        current: Option<Entry>,
        replaces: Option<(&Version, &Secret)>,
        next: Entry,
    ) -> Self {
        let replaces = replaces.map(|(version, login)| Replaced {
            version: version.to_string(),
            sha256: digest(login),
        });
        Self {
            entries: current.into_iter().chain([next]).collect(),
            replaces,
        }
    }

    /// Returns the entry of `login` if the login is complete and should replace `current`.
    ///
    /// Compares digests, because inodes and times change when the folder is copied or the login is
    /// touched.
    pub(crate) fn next_after(&self, current: Option<&Secret>, login: &Secret) -> Option<&Entry> {
        let next = self.entries.last()?;
        let replaced = self.replaces.as_ref().map(|replaced| &replaced.sha256);
        let is_next = next.sha256 == digest(login) && replaced == current.map(digest).as_ref();
        is_next.then_some(next)
    }

    /// Returns the entry of exactly this file. A copy, or the same bytes written again by hand, has
    /// none.
    pub(crate) fn entry_of(&self, login: &Secret, facts: &Facts) -> Option<&Entry> {
        let sha256 = digest(login);
        self.entries.iter().find(|entry| {
            entry.inode == facts.inode && entry.written == facts.written && entry.sha256 == sha256
        })
    }

    /// Parses the metadata file; errors contain `name`.
    pub(crate) fn parse(name: &str, text: &[u8]) -> Result<Self, FileError> {
        let corrupt = |error: serde_json::Error| FileError::Corrupt {
            name: name.into(),
            line: error.line(),
            column: error.column(),
        };
        let Format { format } = serde_json::from_slice(text).map_err(corrupt)?;
        if format != FORMAT {
            return Err(FileError::Format {
                name: name.into(),
                format,
            });
        }
        let file: MetaFile = serde_json::from_slice(text).map_err(corrupt)?;
        Ok(Self {
            entries: file.entries,
            replaces: file.replaces,
        })
    }

    /// Returns the content of the metadata file; errors contain `name`.
    pub(crate) fn text(self, name: &str) -> Result<Vec<u8>, FileError> {
        let file = MetaFile {
            format: FORMAT,
            entries: self.entries,
            replaces: self.replaces,
        };
        let text = serde_json::to_vec_pretty(&file).expect("strings and numbers");
        // A longer file could not be read back.
        if text.len() > MAX_LEN {
            return Err(FileError::TooLong {
                name: name.into(),
                len: text.len() as u64,
                max: MAX_LEN,
            });
        }
        Ok(text)
    }
}

impl Entry {
    /// Returns the entry of `login` in a file with these `facts`, with a new random version.
    pub(crate) fn new(
        login: &Secret,
        facts: &Facts,
        stamp: &Stamp,
    ) -> Result<Self, getrandom::Error> {
        Ok(Self {
            version: random_version()?,
            stamp: stamp.clone(),
            sha256: digest(login),
            inode: facts.inode,
            written: facts.written,
        })
    }
}

/// Returns the version of a login put by hand. It identifies the state of the file: only the
/// system sets the change time, so a restored copy gets a new one.
pub(crate) fn version_by_hand(login: &Secret, facts: &Facts) -> Version {
    let (seconds, nanoseconds) = facts.changed;
    let mut hash = Sha256::new();
    hash.update(facts.inode.to_be_bytes());
    hash.update(seconds.to_be_bytes());
    hash.update(nanoseconds.to_be_bytes());
    hash.update(login.expose());
    // Half of the digest: as many bits as a random version.
    Version::new(&format!("hand-{:.32x}", hash.finalize()))
}

/// Returns a random version of 128 bits. A counter would restart when the file is lost, or go back
/// with a backup.
fn random_version() -> Result<Version, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    let name = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok(Version::new(&name))
}

/// Returns the SHA-256 of a login in hexadecimal.
pub(crate) fn digest(login: &Secret) -> String {
    format!("{:x}", Sha256::digest(login.expose()))
}

#[derive(Deserialize)]
struct Format {
    format: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MetaFile {
    format: u64,
    entries: Vec<Entry>,
    replaces: Option<Replaced>,
}

/// The stored form of an entry. The types of `authferry-core` do not define a file format.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryText {
    version: String,
    sha256: String,
    inode: u64,
    written: (i64, i64),
    id: String,
    count: u64,
    origin: String,
    family: String,
    volatile_hints: bool,
    writer: String,
}

impl From<Entry> for EntryText {
    fn from(entry: Entry) -> Self {
        Self {
            version: entry.version.to_string(),
            sha256: entry.sha256,
            inode: entry.inode,
            written: entry.written,
            id: entry.stamp.id.to_string(),
            count: entry.stamp.count,
            origin: entry.stamp.origin.to_string(),
            family: entry.stamp.family.to_string(),
            volatile_hints: entry.stamp.volatile_hints,
            writer: entry.stamp.writer,
        }
    }
}

impl TryFrom<EntryText> for Entry {
    type Error = UnknownText;

    fn try_from(text: EntryText) -> Result<Self, Self::Error> {
        Ok(Self {
            version: Version::new(&text.version),
            stamp: Stamp {
                id: text.id.parse()?,
                count: text.count,
                origin: text.origin.parse()?,
                family: text.family.parse().map_err(|_| UnknownText)?,
                volatile_hints: text.volatile_hints,
                writer: text.writer,
            },
            sha256: text.sha256,
            inode: text.inode,
            written: text.written,
        })
    }
}

#[cfg(test)]
mod tests {
    use authferry_core::{ErrorKind, Family, Fingerprint, Origin, WriteId};

    use super::*;

    const NAME: &str = "login.json.meta";

    fn login() -> Secret {
        Secret::new(b"{\"token\":\"made-up\"}".to_vec())
    }

    fn facts() -> Facts {
        let file = tempfile::tempfile().expect("a file");
        Facts::of(&file.metadata().expect("its metadata"))
    }

    fn stamp(writer: &str) -> Stamp {
        Stamp {
            id: WriteId {
                nonce: 0xfeed,
                number: u64::MAX,
            },
            count: u64::MAX,
            origin: Origin::Rotation,
            family: Family(Fingerprint::new([0xfe; 8])),
            volatile_hints: true,
            writer: writer.into(),
        }
    }

    fn entry(facts: &Facts, writer: &str) -> Entry {
        Entry::new(&login(), facts, &stamp(writer)).expect("random numbers")
    }

    #[test]
    fn an_entry_is_read_back_unchanged() {
        let facts = facts();
        let next = entry(&facts, "job \"7\"\n\u{1b}[31m");
        let base = Version::new("base");
        let meta = Meta::between(
            Some(entry(&facts, "job 6")),
            Some((&base, &login())),
            next.clone(),
        );
        let text = meta.text(NAME).expect("short");
        let read = Meta::parse(NAME, &text).expect("its own text");
        let replaced = read.replaces.as_ref().expect("a replaced login");
        assert_eq!(replaced.version, base.to_string());
        assert_eq!(replaced.sha256, digest(&login()));
        let [current, read] = read.entries.as_slice() else {
            panic!("{read:?}");
        };
        assert_eq!(current.stamp, stamp("job 6"));
        assert_eq!(read.stamp, next.stamp);
        assert_eq!(read.version, next.version);
        assert_ne!(current.version, next.version);
        assert!(!String::from_utf8_lossy(&text).contains("made-up"));
    }

    #[test]
    fn an_entry_matches_bytes_inode_and_time() {
        let facts = facts();
        let meta = Meta::between(None, None, entry(&facts, "job 7"));
        assert!(meta.entry_of(&login(), &facts).is_some());
        let other = Secret::new(b"{\"token\":\"made-over\"}".to_vec());
        assert!(meta.entry_of(&other, &facts).is_none());
        let (mut moved, mut later) = (facts, facts);
        moved.inode += 1;
        later.written.1 += 1;
        for other in [moved, later] {
            assert!(meta.entry_of(&login(), &other).is_none());
        }
    }

    #[test]
    fn only_a_complete_login_over_the_same_base_is_next() {
        let base = (Version::new("base"), Secret::new(b"the base".to_vec()));
        let next = entry(&facts(), "job 7");
        let meta = Meta::between(None, Some((&base.0, &base.1)), next.clone());
        assert!(meta.next_after(Some(&base.1), &login()).is_some());
        assert!(meta.next_after(None, &login()).is_none());
        let other = Secret::new(b"another login".to_vec());
        assert!(meta.next_after(Some(&other), &login()).is_none());
        let half = Secret::new(b"{\"token\":\"ma".to_vec());
        assert!(meta.next_after(Some(&base.1), &half).is_none());
        let first = Meta::between(None, None, next);
        assert!(first.next_after(None, &login()).is_some());
        assert!(first.next_after(Some(&base.1), &login()).is_none());
        assert!(Meta::default().next_after(None, &login()).is_none());
    }

    #[test]
    fn a_version_by_hand_depends_on_bytes_inode_and_change_time() {
        let facts = facts();
        let (mut moved, mut later, mut sooner) = (facts, facts, facts);
        moved.inode += 1;
        later.changed.0 += 1;
        sooner.changed.1 -= 1;
        let other = Secret::new(b"{\"token\":\"made-over\"}".to_vec());
        let versions = [
            version_by_hand(&login(), &facts),
            version_by_hand(&login(), &moved),
            version_by_hand(&login(), &later),
            version_by_hand(&login(), &sooner),
            version_by_hand(&other, &facts),
        ];
        for (index, version) in versions.iter().enumerate() {
            assert!(!versions[..index].contains(version), "{version} twice");
            assert_eq!(version.as_str().len(), "hand-".len() + 32);
        }
        assert_eq!(versions[0], version_by_hand(&login(), &facts));
    }

    #[test]
    fn malformed_metadata_is_refused_and_not_quoted() {
        let meta = Meta::between(None, None, entry(&facts(), "job 7"));
        let good = String::from_utf8(meta.text(NAME).expect("short")).expect("text");
        for bad in [
            String::new(),
            "null".into(),
            "{}".into(),
            "\"made-up-token\"".into(),
            "{\"made-up-token\":1}".into(),
            "{\"format\":\"made-up-token\"}".into(),
            good[..good.len() - 2].into(),
            format!("{good}made-up-token"),
            good.replace("\"format\": 4", "\"format\": 3"),
            good.replace("\"format\": 4", "\"format\": 5"),
            good.replace("\"rotation\"", "\"made-up-token\""),
            good.replace("\"id\": \"", "\"id\": \"made-up-token"),
            good.replace("\"count\"", "\"made-up-token\": 0, \"count\""),
            good.replace("\"inode\"", "\"made-up-token\""),
        ] {
            let cause = Meta::parse(NAME, bad.as_bytes()).expect_err(&bad);
            assert_eq!(cause.kind(), ErrorKind::Malformed, "{bad}");
            let text = format!("{cause} {cause:?}");
            assert!(!text.contains("made-up"), "{text}");
        }
    }

    #[test]
    fn a_stamp_that_is_too_long_to_read_back_is_not_written() {
        let meta = Meta::between(None, None, entry(&facts(), &"x".repeat(MAX_LEN)));
        let cause = meta.text(NAME).expect_err("too long");
        assert_eq!(cause.kind(), ErrorKind::TooLarge);
    }
}
