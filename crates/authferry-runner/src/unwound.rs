//! What is left to do when something panics: a library with which a store is reached, or we.

use std::{
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
};

use authferry_core::{ErrorKind, SecretStore, StoreError};

/// It panicked; what it says is on standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("authferry failed within, which is a fault of its own: what it said is above")]
pub struct Panicked;

impl Panicked {
    /// The error of a store within which it happened.
    pub(crate) fn at(self, store: &dyn SecretStore, operation: &'static str) -> StoreError {
        StoreError {
            kind: ErrorKind::Unexpected,
            operation,
            store: store.to_string(),
            source: Some(Box::new(self)),
        }
    }
}

/// Awaits something that may panic. What it has left half-done is not to be used any more.
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
