//! Bytes that must never be printed.

use alloc::vec::Vec;
use core::fmt;

use secrecy::{ExposeSecret, SecretSlice};

/// The bytes of one auth file: zeroed on drop, and never printed.
///
/// `Debug` prints the length only. There is no `Display`, no `Clone` and no comparison: callers
/// read or copy the bytes by an explicit call.
pub struct Secret(SecretSlice<u8>);

impl Secret {
    /// Takes ownership of the bytes.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }

    /// Returns the bytes. The caller must not leak them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.expose_secret()
    }

    /// Copies the bytes into another `Secret`.
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
    fn debug_prints_only_the_length() {
        let secret = Secret::new(b"made-up-token".to_vec());
        assert_eq!(format!("{secret:?}"), "Secret(13 bytes)");
    }
}
