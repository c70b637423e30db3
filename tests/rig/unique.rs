//! Unique names for the tests.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// Returns `prefix` with a suffix that is unique across calls and processes: scenes that share a
/// server must not share a name. It adds letters, digits and hyphens.
#[must_use]
pub fn unique(prefix: &str) -> String {
    /// The random keys of a new hasher: std has no other source of random numbers.
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{:08x}-{number}", *PROCESS >> 32)
}
