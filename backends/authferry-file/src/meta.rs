//! What stands beside the login: for each of two generations, how to recognise its file
//! and what its writer said of it.

use authferry_core::{Secret, Stamp, UnknownText, Version};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{facts::Facts, trouble::Trouble};

/// The format that is written and read. Format 1 had no family, format 2 did not say which version
/// was replaced, and format 3 not which bytes.
const FORMAT: u64 = 4;

/// The most that the file may take: far more than two entries do.
pub(crate) const MAX_LEN: usize = 64 * 1024;

/// The file's contents: the generation that is being replaced, if it is one of ours,
/// and the one that replaces it. Which of them is current the login's file tells.
#[derive(Debug, Default)]
pub(crate) struct Meta {
    entries: Vec<Entry>,
    /// What the last entry replaces; `None` if there was no login.
    replaces: Option<Replaced>,
}

/// The login that was there when the next one was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replaced {
    version: String,
    sha256: String,
}

/// One generation that was written here.
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
    /// Returns the metadata of `next` during its write, with the entry of the value that it
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

    /// Returns the entry of `login` if it is complete and was to take the place of what is there.
    ///
    /// Digests decide, because inodes and times change when the folder is copied or the login is
    /// touched.
    pub(crate) fn next_after(&self, current: Option<&Secret>, login: &Secret) -> Option<&Entry> {
        let next = self.entries.last()?;
        let replaced = self.replaces.as_ref().map(|replaced| &replaced.sha256);
        let is_next = next.sha256 == digest(login) && replaced == current.map(digest).as_ref();
        is_next.then_some(next)
    }

    /// Returns the entry of exactly this file. A copy of it, or the same bytes written
    /// again by hand, has none.
    pub(crate) fn entry_of(&self, login: &Secret, facts: &Facts) -> Option<&Entry> {
        let sha256 = digest(login);
        self.entries.iter().find(|entry| {
            entry.inode == facts.inode && entry.written == facts.written && entry.sha256 == sha256
        })
    }

    /// Reads the file's text. `name` is for the report.
    pub(crate) fn parse(name: &str, text: &[u8]) -> Result<Self, Trouble> {
        let corrupt = |error: serde_json::Error| Trouble::Corrupt {
            name: name.into(),
            line: error.line(),
            column: error.column(),
        };
        let Format { format } = serde_json::from_slice(text).map_err(corrupt)?;
        if format != FORMAT {
            return Err(Trouble::Format {
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

    /// Returns the file's text. `name` is for the report.
    pub(crate) fn text(self, name: &str) -> Result<Vec<u8>, Trouble> {
        let file = MetaFile {
            format: FORMAT,
            entries: self.entries,
            replaces: self.replaces,
        };
        let text = serde_json::to_vec_pretty(&file).expect("texts and numbers alone");
        // What nobody could read back must not be written either.
        if text.len() > MAX_LEN {
            return Err(Trouble::TooLong {
                name: name.into(),
                len: text.len() as u64,
                max: MAX_LEN,
            });
        }
        Ok(text)
    }
}

impl Entry {
    /// Describes `login` as it was just written to a file with `facts`.
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

/// Returns the version of a login that was put there by hand. It names the state of the
/// file: the time of its last change is the system's own and cannot be set back, not
/// even to the time of a copy.
pub(crate) fn version_by_hand(login: &Secret, facts: &Facts) -> Version {
    let (seconds, nanoseconds) = facts.changed;
    let mut hash = Sha256::new();
    hash.update(facts.inode.to_be_bytes());
    hash.update(seconds.to_be_bytes());
    hash.update(nanoseconds.to_be_bytes());
    hash.update(login.expose());
    // Half of the digest: as many bits as the versions that are drawn.
    Version::new(&format!("hand-{:.32x}", hash.finalize()))
}

/// Draws a version. A number that counts up would start again when the file is lost, or
/// go back with a backup; 128 random bits do neither.
fn random_version() -> Result<Version, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    let name = format!("{:032x}", u128::from_be_bytes(bytes));
    Ok(Version::new(&name))
}

/// The SHA-256 of a login, in hexadecimal digits.
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

/// An entry as it is written. The core's own types know nothing of files.
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
                trip: 0xfeed,
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
    fn an_entry_survives_its_own_text() {
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
        let replaced = read.replaces.as_ref().expect("what is replaced");
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
    fn an_entry_is_found_by_bytes_inode_and_time_together() {
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
    fn a_login_is_next_if_it_is_complete_and_nothing_else_came_between() {
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
    fn a_version_by_hand_names_the_bytes_the_inode_and_the_last_change() {
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
    fn what_is_not_understood_is_not_guessed_at_and_not_quoted() {
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
            let trouble = Meta::parse(NAME, bad.as_bytes()).expect_err(&bad);
            assert_eq!(trouble.kind(), ErrorKind::Malformed, "{bad}");
            let told = format!("{trouble} {trouble:?}");
            assert!(!told.contains("made-up"), "{told}");
        }
    }

    #[test]
    fn a_stamp_that_could_not_be_read_back_is_not_written() {
        let meta = Meta::between(None, None, entry(&facts(), &"x".repeat(MAX_LEN)));
        let trouble = meta.text(NAME).expect_err("too long");
        assert_eq!(trouble.kind(), ErrorKind::TooLarge);
    }
}
