//! The interface between the suite and a store's test.

use async_trait::async_trait;
use authferry_core::{ErrorKind, Guarantees, SecretStore};

/// Opens places of one kind of store, and changes them with the store's own tools.
///
/// A place has a short name of lower-case letters, digits and hyphens. The same name is the same
/// place, and a new name is an empty place. No case reuses a name in one process. If the server
/// outlives the process, the fixture adds a unique prefix.
///
/// A method that fails panics, and the calling case fails.
///
/// # Examples
///
/// ```
/// use async_trait::async_trait;
/// use authferry_conformance::{Fault, Faulty, Fixture, MemoryStore, Refusal, cases};
/// use authferry_core::{ErrorKind, Guarantees, SecretStore};
/// use std::{collections::HashMap, sync::{Arc, Mutex}};
///
/// #[derive(Default)]
/// struct Places(Mutex<HashMap<String, MemoryStore>>);
///
/// impl Places {
///     fn at(&self, place: &str) -> MemoryStore {
///         let mut places = self.0.lock().unwrap();
///         let new = || MemoryStore::new(place);
///         places.entry(place.to_owned()).or_insert_with(new).clone()
///     }
/// }
///
/// #[async_trait]
/// impl Fixture for Places {
///     fn guarantees(&self) -> Guarantees {
///         MemoryStore::new("any").guarantees()
///     }
///     fn leases(&self) -> bool {
///         true
///     }
///     async fn open(&self, place: &str) -> Box<dyn SecretStore> {
///         Box::new(self.at(place))
///     }
///     async fn put_by_hand(&self, place: &str, login: &[u8]) {
///         self.at(place).put_by_hand(login);
///     }
///     async fn put_lease_by_hand(&self, place: &str, text: &[u8]) {
///         self.at(place).put_lease_by_hand(text);
///     }
///     async fn look_by_hand(&self, place: &str) -> Option<Vec<u8>> {
///         let stored = self.at(place).history().pop()?;
///         Some(stored.secret.expose().to_vec())
///     }
///     async fn empty(&self, place: &str) {
///         self.at(place).empty();
///     }
///     async fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
///         let place = self.at("read-only");
///         place.put_by_hand(login);
///         let refuse = std::iter::repeat(Fault::Refused(ErrorKind::PermissionDenied));
///         vec![Refusal {
///             name: "a store without the right to write",
///             place: "read-only".to_owned(),
///             store: Box::new(Faulty::new(Box::new(place), refuse)),
///             on_read: None,
///             on_swap: ErrorKind::PermissionDenied,
///         }]
///     }
/// }
///
/// # #[tokio::main]
/// # async fn main() {
/// let places: Arc<dyn Fixture> = Arc::new(Places::default());
/// for case in cases() {
///     let result = case.run(Arc::clone(&places)).await;
///     assert!(result.is_ok(), "{}: {result:?}", case.name());
/// }
/// # }
/// ```
#[async_trait]
pub trait Fixture: Send + Sync {
    /// Returns the guarantees that the store must declare, as a literal and not from the store.
    fn guarantees(&self) -> Guarantees;

    /// Returns whether the store must offer leases, also as a literal.
    fn leases(&self) -> bool;

    /// Returns whether the store keeps the writer's name in a stamp. If not, a read must return an
    /// empty name.
    fn writers(&self) -> bool {
        true
    }

    /// Opens a new handle on `place`. Handles share only the place.
    async fn open(&self, place: &str) -> Box<dyn SecretStore>;

    /// Writes `login` into `place` with the store's own tools: unconditionally, and without
    /// metadata.
    async fn put_by_hand(&self, place: &str, login: &[u8]);

    /// Writes `text` as the lease record of `place` with the store's own tools: unconditionally,
    /// and without a stamp.
    async fn put_lease_by_hand(&self, place: &str, text: &[u8]);

    /// Reads `place` with the store's own tools; `None` if it is empty.
    async fn look_by_hand(&self, place: &str) -> Option<Vec<u8>>;

    /// Deletes the value in `place` with the store's own tools.
    async fn empty(&self, place: &str);

    /// Returns handles that the store must refuse, one per reason; the suite requires at least one.
    /// Their places hold `login` if possible.
    async fn refusals(&self, login: &[u8]) -> Vec<Refusal>;
}

/// A handle that the store must refuse.
#[derive(Debug)]
pub struct Refusal {
    /// The reason, for the report: `a folder that is missing`.
    pub name: &'static str,
    /// The place, for [`Fixture::look_by_hand`].
    pub place: String,
    /// The handle.
    pub store: Box<dyn SecretStore>,
    /// The error of a read; `None` if reads are allowed.
    pub on_read: Option<ErrorKind>,
    /// The error of a swap, as [`CasError::Refused`](authferry_core::CasError::Refused).
    pub on_swap: ErrorKind,
}
