//! The document: copies with their records as one JSON text, for a second store or encryption.

use std::io;

use authferry_core::{Base, Secret};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{Reason, Record};
use crate::base_text::BaseText;

/// A copy with its record.
#[derive(Debug)]
pub struct KeptCopy {
    /// The bytes of the copy.
    pub secret: Secret,
    /// Its record.
    pub record: Record,
}

impl KeptCopy {
    /// Parses a decrypted text.
    ///
    /// Fails if the text is not a document with exactly one copy.
    pub fn parse(plain: &Secret) -> Result<Self, NotADocument> {
        let mut copies = parse(plain)?;
        match (copies.pop(), copies.is_empty()) {
            (Some(copy), true) => Ok(copy),
            _ => Err(NotADocument),
        }
    }

    pub(super) fn duplicate(&self) -> Self {
        Self {
            secret: self.secret.duplicate(),
            record: self.record.clone(),
        }
    }
}

/// The text is not a document in a known format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a document of rescued logins in format {FORMAT}")]
pub struct NotADocument;

/// The only format so far, for documents and records.
pub(super) const FORMAT: u64 = 1;

/// Returns the text of a document.
pub(super) fn text(copies: &[KeptCopy]) -> io::Result<Secret> {
    let copies = copies.iter().map(|copy| CopyText {
        record: (&copy.record).into(),
        login: STANDARD.encode(copy.secret.expose()),
    });
    let mut document = DocumentText {
        format: FORMAT,
        copies: copies.collect(),
    };
    let text = serde_json::to_vec(&document).map(Secret::new);
    for copy in &mut document.copies {
        copy.login.zeroize();
    }
    Ok(text?)
}

/// Parses the text of a document.
pub(super) fn parse(text: &Secret) -> Result<Vec<KeptCopy>, NotADocument> {
    let text: DocumentText = serde_json::from_slice(text.expose()).map_err(|_| NotADocument)?;
    if text.format != FORMAT {
        return Err(NotADocument);
    }
    text.copies.into_iter().map(KeptCopy::try_from).collect()
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentText {
    format: u64,
    copies: Vec<CopyText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CopyText {
    record: RecordText,
    /// The bytes of the auth file in base64.
    login: String,
}

impl TryFrom<CopyText> for KeptCopy {
    type Error = NotADocument;

    fn try_from(text: CopyText) -> Result<Self, Self::Error> {
        let CopyText { record, mut login } = text;
        let bytes = STANDARD.decode(&login);
        login.zeroize();
        Ok(Self {
            secret: Secret::new(bytes.map_err(|_| NotADocument)?),
            record: record.try_into()?,
        })
    }
}

/// The serialized form of a record.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RecordText {
    format: u64,
    store: String,
    reason: Reason,
    base: Option<BaseText>,
    seen: u64,
    time: u64,
    job: String,
}

impl From<&Record> for RecordText {
    fn from(record: &Record) -> Self {
        Self {
            format: FORMAT,
            store: record.store.clone(),
            reason: record.reason,
            base: record.base.as_ref().map(BaseText::from),
            seen: record.seen,
            time: record.time,
            job: record.job.clone(),
        }
    }
}

impl TryFrom<RecordText> for Record {
    type Error = NotADocument;

    fn try_from(text: RecordText) -> Result<Self, Self::Error> {
        if text.format != FORMAT {
            return Err(NotADocument);
        }
        let base = text.base.map(Base::try_from).transpose();
        Ok(Self {
            store: text.store,
            reason: text.reason,
            base: base.map_err(|_| NotADocument)?,
            seen: text.seen,
            time: text.time,
            job: text.job,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(bytes: &[u8]) -> KeptCopy {
        KeptCopy {
            secret: Secret::new(bytes.to_vec()),
            record: Record::new("memory:a".into(), Reason::SetAside, None, "a job"),
        }
    }

    #[test]
    fn copies_round_trip_byte_for_byte() {
        let copies = [copy(b"{ \"made\": \"up\" }\n"), copy(&[0, 0xff, b'"'])];
        let text = |copies: &[KeptCopy]| text(copies).expect("JSON");
        let read = parse(&text(&copies)).expect("its own text");
        assert_eq!(read.len(), 2);
        for (read, copy) in read.iter().zip(&copies) {
            assert_eq!(read.secret.expose(), copy.secret.expose());
            assert_eq!(read.record, copy.record);
        }
        let one = KeptCopy::parse(&text(&copies[..1])).expect("one copy");
        assert_eq!(one.secret.expose(), copies[0].secret.expose());
        assert!(KeptCopy::parse(&text(&copies)).is_err(), "two copies");
        assert!(KeptCopy::parse(&text(&[])).is_err(), "no copy");
    }

    #[test]
    fn a_text_of_another_kind_or_format_is_rejected() {
        let good = text(&[copy(b"made up")]).expect("JSON");
        let good = String::from_utf8(good.expose().to_vec()).expect("JSON");
        assert!(parse(&Secret::new(good.clone().into_bytes())).is_ok());
        for bad in [
            "",
            "{}",
            "{\"tokens\":{}}",
            &good.replacen("\"format\":1", "\"format\":2", 1),
            &good.replace("{\"format\":1,\"store\"", "{\"format\":2,\"store\""),
            &good.replace("\"login\":\"", "\"login\":\"!"),
            &good.replace("\"copies\"", "\"more\":1,\"copies\""),
        ] {
            assert!(
                parse(&Secret::new(bad.as_bytes().to_vec())).is_err(),
                "{bad}"
            );
        }
    }
}
