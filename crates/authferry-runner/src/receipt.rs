//! What restore leaves for persist.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use authferry_codex::Home;
use authferry_core::{Base, Fingerprint};
use serde::{Deserialize, Serialize};

use crate::{base_text::BaseText, bounded, lease, users::Owner};

const NAME: &str = "authferry-receipt.json";
/// More than any receipt takes, in bytes.
const MAX_LEN: usize = 64 * 1024;

/// Which generation the auth file descends from. No secret: fingerprints and versions.
///
/// It lies in the home, next to the file that it describes, from the moment the file is placed and
/// for as long as the file stays, and follows every write that lands. Whoever can
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
    /// Whose login this is on this machine.
    pub(crate) owner: Owner,
}

impl Receipt {
    pub(crate) fn new(
        store: String,
        base: Base,
        began: Fingerprint,
        placed: bool,
        access_only: bool,
        owner: Owner,
    ) -> Self {
        Self {
            store,
            base,
            began: Some(began),
            placed,
            access_only,
            time: lease::now(),
            owner,
        }
    }

    /// Reads the receipt that a home holds; `None` if it holds none. `InvalidData` when it
    /// is not one that was written here.
    pub fn read(home: &Home) -> io::Result<Option<Self>> {
        match bounded::read(&path(home), MAX_LEN) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn write(&self, home: &Home) -> io::Result<()> {
        let mut file = tempfile::Builder::new()
            .prefix(".authferry-receipt-")
            .permissions(fs::Permissions::from_mode(0o600))
            .tempfile_in(home.dir())?;
        // In one piece: the writer of the library makes some eighty calls.
        file.write_all(&serde_json::to_vec(&Lines::from(self))?)?;
        // An empty receipt after a power cut would hide the login that it speaks of.
        file.as_file().sync_all()?;
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
    format: u64,
    store: String,
    base: BaseText,
    began: Option<String>,
    placed: bool,
    access_only: bool,
    time: u64,
    owner: Owner,
}

/// The format that is written and read. Format 1 had no family, format 2 no owner.
const FORMAT: u64 = 3;

impl From<&Receipt> for Lines {
    fn from(receipt: &Receipt) -> Self {
        Self {
            format: FORMAT,
            store: receipt.store.clone(),
            base: (&receipt.base).into(),
            began: receipt.began.map(|began| began.to_string()),
            placed: receipt.placed,
            access_only: receipt.access_only,
            time: receipt.time,
            owner: receipt.owner.clone(),
        }
    }
}

impl TryFrom<Lines> for Receipt {
    type Error = NotAReceipt;

    fn try_from(lines: Lines) -> Result<Self, Self::Error> {
        if lines.format != FORMAT {
            return Err(NotAReceipt);
        }
        let began = lines.began.map(|began| began.parse()).transpose();
        Ok(Self {
            store: lines.store,
            base: lines.base.try_into().map_err(|_| NotAReceipt)?,
            began: began.map_err(|_| NotAReceipt)?,
            placed: lines.placed,
            access_only: lines.access_only,
            time: lines.time,
            owner: lines.owner,
        })
    }
}

/// The text is no receipt of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a receipt of format {FORMAT}")]
struct NotAReceipt;

fn path(home: &Home) -> PathBuf {
    home.dir().join(NAME)
}
