//! What restore leaves for persist.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use authferry_codex::Home;
use authferry_core::{Account, Base, Fingerprint, Generation, Issued, NotAFingerprint, Version};
use serde::{Deserialize, Serialize};

const NAME: &str = "authferry-receipt.json";
/// More than any receipt takes, in bytes.
const MAX_LEN: u64 = 64 * 1024;

/// Which generation the auth file descends from. No secret: fingerprints and versions.
///
/// It lies in the home, beside the file it speaks of, from the moment the file is placed
/// until its login is known to be safe, and follows every write that lands. Whoever can
/// change it can change the auth file as well; what it says is checked by the store's swap.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Lines")]
pub struct Receipt {
    /// The store's address.
    pub store: String,
    /// What the next swap is to sit on.
    pub base: Base,
    /// The generation that the job began with, if that is known.
    pub began: Option<Fingerprint>,
    /// Whether there was no auth file before: then persist removes it again.
    pub placed: bool,
    /// Whether the file has no refresh token: then there is nothing to persist.
    pub access_only: bool,
    /// When this was written, in Unix seconds.
    pub time: u64,
}

impl Receipt {
    pub(crate) fn new(
        store: String,
        base: Base,
        began: Fingerprint,
        placed: bool,
        access_only: bool,
    ) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            store,
            base,
            began: Some(began),
            placed,
            access_only,
            time: now.as_secs(),
        }
    }

    /// Reads the receipt that a home holds; `None` if it holds none. `InvalidData` when it
    /// is not one that was written here.
    pub fn read(home: &Home) -> io::Result<Option<Self>> {
        let path = path(home);
        match path.symlink_metadata() {
            Ok(found) if found.is_file() && found.len() <= MAX_LEN => {
                Ok(Some(serde_json::from_slice(&fs::read(path)?)?))
            }
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write(&self, home: &Home) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".authferry-receipt-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(home.dir())?;
        serde_json::to_writer(&mut file, &Lines::from(self))?;
        file.persist(path(home))?;
        Ok(())
    }

    pub(crate) fn remove(home: &Home) -> io::Result<()> {
        match fs::remove_file(path(home)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// A receipt as it is written down.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Lines {
    store: String,
    version: String,
    fingerprint: String,
    account: String,
    /// The access token's, in Unix seconds.
    iat: Option<i64>,
    /// The access token's, in Unix seconds.
    exp: Option<i64>,
    /// In Unix nanoseconds.
    last_refresh: Option<i128>,
    count: u64,
    #[serde(default)]
    began: Option<String>,
    placed: bool,
    #[serde(default)]
    access_only: bool,
    time: u64,
}

impl From<&Receipt> for Lines {
    fn from(receipt: &Receipt) -> Self {
        let Base {
            version,
            generation,
            count,
        } = &receipt.base;
        Self {
            store: receipt.store.clone(),
            version: version.to_string(),
            fingerprint: generation.fingerprint.to_string(),
            account: generation.account.to_string(),
            iat: generation.issued.iat,
            exp: generation.issued.exp,
            last_refresh: generation.issued.last_refresh,
            count: *count,
            began: receipt.began.map(|began| began.to_string()),
            placed: receipt.placed,
            access_only: receipt.access_only,
            time: receipt.time,
        }
    }
}

impl TryFrom<Lines> for Receipt {
    type Error = NotAFingerprint;

    fn try_from(lines: Lines) -> Result<Self, Self::Error> {
        let Lines {
            iat,
            exp,
            last_refresh,
            ..
        } = lines;
        let generation = Generation {
            fingerprint: lines.fingerprint.parse()?,
            account: Account::new(&lines.account),
            issued: Issued {
                iat,
                exp,
                last_refresh,
            },
        };
        let version = Version::new(&lines.version);
        let base = Base {
            version,
            generation,
            count: lines.count,
        };
        Ok(Self {
            store: lines.store,
            base,
            began: lines.began.map(|began| began.parse()).transpose()?,
            placed: lines.placed,
            access_only: lines.access_only,
            time: lines.time,
        })
    }
}

fn path(home: &Home) -> PathBuf {
    home.dir().join(NAME)
}
