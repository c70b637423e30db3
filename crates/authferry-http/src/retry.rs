//! Retries of idempotent requests.

use std::time::Duration;

use tokio::time::sleep;

/// The delays before each retry.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(300), Duration::from_millis(1500)];

/// Sends an idempotent request, and sends it again after a transient failure.
pub(crate) async fn with_retries<T, E, F: Future<Output = Result<T, E>>>(
    request: impl Fn() -> F,
    is_transient: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let mut delays = RETRY_DELAYS.iter();
    loop {
        match request().await {
            Err(error) if is_transient(&error) => match delays.next() {
                Some(delay) => sleep(*delay).await,
                None => return Err(error),
            },
            result => return result,
        }
    }
}
