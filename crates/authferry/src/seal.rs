//! Encryption of rescued logins with age.
//!
//! No message repeats the text of a recipient or an identity: a user may have given a secret key as
//! the recipient.

use std::path::Path;

use authferry_core::Secret;
use authferry_runner::rescue::Seal;

use crate::exit;
use crate::outcome::{Ending, Result};

/// Returns a [`Seal`] that encrypts to the recipients, if there are any.
pub(crate) fn to(recipients: &[String]) -> Result<Option<Box<dyn Seal>>> {
    if recipients.is_empty() {
        return Ok(None);
    }
    implementation::to(recipients).map(Some)
}

/// Decrypts a file with the identities in another file.
pub(crate) fn open(file: &Path, encrypted: &[u8], identity: &Path) -> Result<Secret> {
    implementation::open(file, encrypted, identity)
}

#[cfg(feature = "age")]
mod implementation {
    use std::{
        fs::File,
        io::{self, Read, Write},
        path::Path,
    };

    use age::x25519::Recipient;
    use age::{DecryptError, Decryptor, Encryptor, IdentityFile};
    use authferry_core::Secret;
    use authferry_runner::rescue::Seal;

    use super::{Ending, Result, exit};

    /// Longer than any file of identities, in bytes.
    const IDENTITY_MAX_LEN: u64 = 64 * 1024;

    #[derive(Debug)]
    struct Recipients(Vec<Recipient>);

    impl Seal for Recipients {
        fn seal(&self, plain: &Secret) -> io::Result<Vec<u8>> {
            let recipients = self.0.iter().map(|it| it as &dyn age::Recipient);
            let encryptor = Encryptor::with_recipients(recipients).map_err(io::Error::other)?;
            let mut writer = encryptor.wrap_output(Vec::new())?;
            writer.write_all(plain.expose())?;
            writer.finish()
        }
    }

    pub(super) fn to(recipients: &[String]) -> Result<Box<dyn Seal>> {
        let parsed = recipients.iter().map(|text| {
            let parsed = text.parse();
            parsed.map_err(|_| Box::new(no_recipient(text)))
        });
        let parsed = parsed.collect::<Result<_>>()?;
        Ok(Box::new(Recipients(parsed)))
    }

    fn no_recipient(text: &str) -> Ending {
        let problem = "one of the rescue recipients is not an age recipient";
        let is_key = text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-");
        Ending::refused(exit::FAILED, problem).hint(if is_key {
            "it is a secret key, which does not belong in a job: `age-keygen -y KEY` prints its recipient"
        } else {
            "a recipient begins with `age1`: `age-keygen -o KEY` creates an identity, and prints its recipient"
        })
    }

    pub(super) fn open(file: &Path, encrypted: &[u8], identity: &Path) -> Result<Secret> {
        let failed = |problem: String| Ending::refused(exit::FAILED, problem);
        let (file, key) = (file.display(), identity.display());
        let text = read(identity)
            .map_err(|error| failed(format!("{key} cannot be read")).caused_by(&error))?;
        let no_identity = || {
            failed(format!("{key} holds no usable age identity"))
                .hint("an identity begins with `AGE-SECRET-KEY-1`, and `age-keygen -o KEY` creates one; decrypt a passphrase-protected file first: `age -d`")
        };
        let identities = IdentityFile::from_buffer(text.expose()).map_err(|_| no_identity())?;
        let identities = identities.into_identities().map_err(|_| no_identity())?;
        if identities.is_empty() {
            return Err(no_identity().into());
        }
        let decryptor = Decryptor::new_buffered(encrypted)
            .map_err(|_| failed(format!("{file} is not an age file, or is damaged")))?;
        let identities = identities.iter().map(|it| &**it as &dyn age::Identity);
        let reader = decryptor.decrypt(identities).map_err(|error| {
            let problem = if matches!(error, DecryptError::NoMatchingKeys) {
                format!("{file} was not encrypted to the identity in {key}")
            } else {
                format!("{file} cannot be decrypted: it is damaged")
            };
            failed(problem)
        })?;
        read_to_secret(reader, encrypted.len())
            .map_err(|_| failed(format!("{file} cannot be decrypted: it is damaged")).into())
    }

    fn read(file: &Path) -> io::Result<Secret> {
        let file = File::open(file)?;
        let len = file.metadata()?.len().min(IDENTITY_MAX_LEN);
        let len = usize::try_from(len).unwrap_or_default();
        read_to_secret(file.take(IDENTITY_MAX_LEN), len)
    }

    /// Reads to the end. Up to `len` bytes, the buffer does not grow, so that a reallocation leaves
    /// no secret in memory.
    fn read_to_secret(mut reader: impl Read, len: usize) -> io::Result<Secret> {
        let mut bytes = Vec::with_capacity(len + 1);
        let read = reader.read_to_end(&mut bytes);
        let secret = Secret::new(bytes);
        read.map(|_| secret)
    }
}

#[cfg(not(feature = "age"))]
mod implementation {
    use std::path::Path;

    use authferry_core::Secret;
    use authferry_runner::rescue::Seal;

    use super::{Ending, Result, exit};

    pub(super) fn to(_: &[String]) -> Result<Box<dyn Seal>> {
        Err(not_built().into())
    }

    pub(super) fn open(_: &Path, _: &[u8], _: &Path) -> Result<Secret> {
        Err(not_built().into())
    }

    fn not_built() -> Ending {
        Ending::refused(exit::FAILED, "this authferry was built without age")
            .hint("build it with the feature `age`, or omit recipients and identities")
    }
}

#[cfg(all(test, feature = "age"))]
mod tests {
    use super::*;

    /// A published key pair, from age's tests.
    const KEY: &str = "AGE-SECRET-KEY-1GQ9778VQXMMJVE8SK7J6VT8UJ4HDQAJUVSFCWCM02D8GEWQ72PVQ2Y5J33";
    const RECIPIENT: &str = "age1t7rxyev2z3rw82stdlrrepyc39nvn86l5078zqkf5uasdy86jp6svpy7pa";

    #[test]
    fn a_sealed_secret_opens_with_the_identity() {
        let seal = to(&[RECIPIENT.to_owned()]).expect("a recipient");
        let seal = seal.expect("one recipient");
        let plain = Secret::new(b"made up ".repeat(10_000));
        let encrypted = seal.seal(&plain).expect("encrypted");
        assert!(!encrypted.windows(7).any(|part| part == b"made up"));
        let file = Path::new("a.age");
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("key");
        std::fs::write(&key, format!("# made up\n{KEY}\n")).expect("room");
        let opened = open(file, &encrypted, &key).expect("the right key");
        assert_eq!(opened.expose(), plain.expose());

        let mut damaged = encrypted.clone();
        *damaged.last_mut().expect("bytes") ^= 1;
        open(file, &damaged, &key).expect_err("a damaged file");
        std::fs::write(&key, "AGE-SECRET-KEY-1").expect("room");
        open(file, &encrypted, &key).expect_err("no key");
    }

    #[test]
    fn messages_do_not_repeat_a_recipient() {
        for bad in [KEY, "age1made-up", "", "made-up"] {
            let refused = to(&[RECIPIENT.to_owned(), bad.to_owned()]).expect_err("no recipient");
            let message = format!("{refused:?}");
            assert!(bad.is_empty() || !message.contains(bad), "{message}");
        }
    }
}
