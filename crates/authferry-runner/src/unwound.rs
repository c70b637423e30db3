//! Catches panics of a store's library or of authferry itself.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use authferry_core::{ErrorKind, SecretStore, StoreError};

/// A panic; its message is on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("internal error: authferry panicked, see the message above")]
pub struct Panicked;

impl Panicked {
    /// The store error for a panic in this operation.
    pub(crate) fn at(self, store: &dyn SecretStore, operation: &'static str) -> StoreError {
        StoreError {
            kind: ErrorKind::Unexpected,
            operation,
            store: store.to_string(),
            source: Some(Box::new(self)),
        }
    }
}

/// Awaits a future that may panic. After a panic, the state that the future used must not be used
/// again.
pub(crate) async fn guarded<T>(future: impl Future<Output = T>) -> Result<T, Panicked> {
    let mut future = Box::pin(future);
    poll_fn(|context| {
        let poll = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match poll {
            Ok(poll) => poll.map(Ok),
            Err(_) => Poll::Ready(Err(Panicked)),
        }
    })
    .await
}
