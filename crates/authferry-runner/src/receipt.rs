//! The receipt: what restore leaves for persist.

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
/// The size limit of a receipt, in bytes: more than any receipt needs.
const MAX_LEN: usize = 64 * 1024;

/// Which generation the auth file descends from. It holds fingerprints and versions, no secret.
///
/// It lies in the home, next to the auth file, from the moment the file is placed for as long as
/// the file stays, and is updated after every write that lands. A process that can change the
/// receipt can change the auth file as well; the store's swap checks what the receipt says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ReceiptText")]
pub struct Receipt {
    /// The store's address.
    pub store: String,
    /// The base of the next swap.
    pub base: Base,
    /// The generation that the job began with, if that is known.
    pub began: Option<Fingerprint>,
    /// Whether there was no auth file before: then persist removes the file.
    pub placed: bool,
    /// Whether the file has no refresh token: then there is nothing to persist.
    pub access_only: bool,
    /// When the receipt was written, in Unix seconds.
    pub time: u64,
    /// The job that owns the login on this machine.
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

    /// Reads the receipt of a home; `None` if there is none. `InvalidData` if the file is not a
    /// receipt of this format.
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
        // Write it at once: serde's writer makes some eighty calls.
        file.write_all(&serde_json::to_vec(&ReceiptText::from(self))?)?;
        // An empty receipt after a power failure would hide the login that it describes.
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

/// The JSON form of a receipt.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptText {
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

impl From<&Receipt> for ReceiptText {
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

impl TryFrom<ReceiptText> for Receipt {
    type Error = NotAReceipt;

    fn try_from(text: ReceiptText) -> Result<Self, Self::Error> {
        if text.format != FORMAT {
            return Err(NotAReceipt);
        }
        let began = text.began.map(|began| began.parse()).transpose();
        Ok(Self {
            store: text.store,
            base: text.base.try_into().map_err(|_| NotAReceipt)?,
            began: began.map_err(|_| NotAReceipt)?,
            placed: text.placed,
            access_only: text.access_only,
            time: text.time,
            owner: text.owner,
        })
    }
}

/// The text is not a receipt of this format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a receipt of format {FORMAT}")]
struct NotAReceipt;

fn path(home: &Home) -> PathBuf {
    home.dir().join(NAME)
}
