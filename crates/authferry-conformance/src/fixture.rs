//! What the suite asks of whoever runs it on a store.

use async_trait::async_trait;
use authferry_core::{ErrorKind, Guarantees, SecretStore};

/// Opens places of one kind of store, and does by hand what people do to them.
///
/// A place is named by a short text of lower-case letters, digits and hyphens; the same
/// name is the same place, and a name not seen before is an empty place. No name comes
/// twice in one process. A fixture on a server that outlives the process puts something
/// of its own in front.
///
/// A method that cannot do as asked panics: the case that called it then fails.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Returns what the store must declare, written out here rather than asked of it.
    fn guarantees(&self) -> Guarantees;

    /// Returns whether the store must offer claims, written out here as well.
    fn claims(&self) -> bool;

    /// Returns whether the writer's name comes back with a stamp. Where there is no room for
    /// it, it must come back empty.
    fn writers(&self) -> bool {
        true
    }

    /// Opens one more handle on `place`, sharing with the others only the place itself.
    async fn open(&self, place: &str) -> Box<dyn SecretStore>;

    /// Puts `login` into `place` as a person would, with the store's own tools: over
    /// what is there, and without metadata.
    async fn put_by_hand(&self, place: &str, login: &[u8]);

    /// Puts `text` where the record of the claim of `place` is, with the store's own tools:
    /// over what is there, and without a stamp.
    async fn put_claim_by_hand(&self, place: &str, text: &[u8]);

    /// Returns what the store's own tools show in `place`; `None` for nothing.
    async fn look_by_hand(&self, place: &str) -> Option<Vec<u8>>;

    /// Empties `place` as a person would, with the store's own tools.
    async fn empty(&self, place: &str);

    /// Returns handles that must be turned away, one for each way there is; the suite
    /// asks for at least one. Their places hold `login` if they can hold anything.
    async fn refusals(&self, login: &[u8]) -> Vec<Refusal>;
}

/// A handle that must be turned away.
#[derive(Debug)]
pub struct Refusal {
    /// Why, for the report: `a folder that is missing`.
    pub name: &'static str,
    /// The place, for [`Fixture::look_by_hand`].
    pub place: String,
    /// The handle.
    pub store: Box<dyn SecretStore>,
    /// What reading is told; `None` when reading is allowed.
    pub on_read: Option<ErrorKind>,
    /// What a swap is told, as [`CasError::Refused`](authferry_core::CasError::Refused).
    pub on_swap: ErrorKind,
}
