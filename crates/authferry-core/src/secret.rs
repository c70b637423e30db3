//! Bytes that must never be printed.

use alloc::vec::Vec;
use core::fmt;

use secrecy::{ExposeSecret, SecretSlice};

/// The exact bytes of one auth file: zeroed when dropped, and never shown.
///
/// `Debug` gives the length alone, and there is no `Display`, no `Clone` and no
/// comparison: a copy or a look has to be asked for by name.
pub struct Secret(SecretSlice<u8>);

impl Secret {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes. Whoever calls this answers for where they go.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// Returns a second copy of the bytes, just as guarded as this one.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self::new(self.expose().to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.expose().len())
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn debug_shows_the_length_alone() {
        let secret = Secret::new(b"made-up-token".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(13 bytes)");
    }
}
