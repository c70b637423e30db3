//! The README's way in, as it stands.
