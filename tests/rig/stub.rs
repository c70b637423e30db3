//! The provider as Codex sees it, on a loopback port: token, revoke and model endpoints.

mod events;
mod ledger;
mod model;
mod server;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    fmt,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::{oneshot, watch};

use self::ledger::{Ledger, State};
use crate::{ACCESS_LIFETIME, Login};

pub use self::events::{Event, Outcome, What};

/// The behaviour of the stub. Change it at any time with [`Stub::rules`].
#[derive(Debug)]
pub struct Rules {
    /// The lifetime of a new access token. Under five minutes sends Codex into a loop.
    pub access_lifetime: time::Duration,
    /// The stub's current time, if not the real one.
    ///
    /// A fixed time makes the tokens of a test equal in every run.
    pub clock: Option<OffsetDateTime>,
    /// The status of the answer to a spent refresh token.
    pub reused_status: u16,
    /// The faults of the next refreshes, one each; when none is left, refreshes succeed.
    pub refresh_faults: VecDeque<Fault>,
    /// Which access tokens the model endpoint accepts.
    pub bearer: Bearer,
    /// The status with which every model call fails, if set.
    pub model_failure: Option<u16>,
    /// A shell command that the model makes Codex run before it answers, as after a prompt
    /// injection. Its output is a [`What::Printed`].
    pub shell: Option<String>,
    /// The latency of a refresh in each direction.
    pub latency: Duration,
    /// Whether each refresh changes the session claims of the access token. No known provider does
    /// so; it would make the claims useless.
    pub changes_session: bool,
}

/// A fault of one refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers 500; the refresh token stays live.
    ServerError,
    /// Drops the connection before the refresh; the refresh token stays live.
    RequestLost,
    /// Drops the connection after the refresh token is spent.
    ReplyLost,
    /// Answers with new tokens except the refresh token, which stays live.
    RefreshTokenOmitted,
    /// Answers with a new access token alone; the refresh token stays live.
    AccessTokenAlone,
    /// Answers with new tokens, of which the id token belongs to another account.
    ForeignIdToken,
    /// Answers with this in place of a decision; the refresh token stays as it is.
    Answer(Answer),
}

/// An answer of the token endpoint that does not depend on the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 401 with the code `refresh_token_reused`.
    Reused,
    /// 401 with the code `refresh_token_expired`.
    Expired,
    /// 401 with the code `refresh_token_invalidated`.
    Invalidated,
    /// 401 without a code, as from a gateway.
    Unnamed,
    /// 400 with OAuth's own `invalid_grant`.
    InvalidGrant,
    /// 400 with the code `invalid_refresh_token_ciphertext_integrity`, as for a damaged token.
    Ciphertext,
    /// 429.
    TooManyRequests,
    /// 200 with a body that is no JSON.
    NoJson,
    /// 200 with an empty JSON object.
    NoTokens,
}

/// Which access tokens the model endpoint accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// Only that of the login's newest generation, until it expires.
    Newest,
    /// Every issued one until it expires.
    Unexpired,
}

/// An endpoint whose replies can be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `POST /oauth/token`. The refresh token is spent before the reply is held.
    Token,
    /// `POST /backend-api/codex/responses`.
    Model,
}

/// A running stub; stops when dropped.
pub struct Stub {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

/// Holds the replies of one endpoint until dropped.
#[must_use = "the replies go out as soon as this is dropped"]
#[derive(Debug)]
pub struct Hold(watch::Sender<usize>);

impl Stub {
    /// Starts a stub that knows one login.
    ///
    /// # Panics
    ///
    /// If the loopback interface cannot be used.
    #[must_use]
    pub fn start(login: &Login) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared::default());
        let (stop, stopped) = oneshot::channel();
        let server = thread::spawn({
            let shared = Arc::clone(&shared);
            move || server::serve(listener, shared, stopped)
        });
        let stub = Self {
            address,
            shared,
            stop: Some(stop),
            server: Some(server),
        };
        stub.sign_in(login);
        stub
    }

    /// Returns the address that the stub listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Adds a login: another account, or a reseed of the same one.
    pub fn sign_in(&self, login: &Login) {
        self.shared.lock().ledger.sign_in(login.clone());
    }

    /// Changes the behaviour from now on.
    pub fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.lock().rules);
    }

    /// Holds every reply of an endpoint until the returned guard is dropped.
    pub fn hold(&self, endpoint: Endpoint) -> Hold {
        let gate = self.shared.gate(endpoint).clone();
        gate.send_modify(|holds| *holds += 1);
        Hold(gate)
    }

    /// Returns the newest generation whose refresh token is live.
    #[must_use]
    pub fn live(&self) -> Option<Login> {
        self.shared.lock().ledger.live().cloned()
    }

    /// Returns whether an auth file contains a live refresh token: then this file alone is enough
    /// to keep the login.
    #[must_use]
    pub fn is_live(&self, auth_json: &[u8]) -> bool {
        let file: Value = serde_json::from_slice(auth_json).unwrap_or_default();
        let token = file["tokens"]["refresh_token"].as_str().unwrap_or_default();
        let found = self.shared.lock().ledger.find(token);
        found.is_some_and(|(_, _, state)| state == State::Live)
    }

    /// Returns every event, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.shared.lock().events.clone()
    }

    /// Returns how many events match.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&What) -> bool) -> usize {
        let state = self.shared.lock();
        state.events.iter().filter(|e| wanted(&e.what)).count()
    }

    /// Waits for a matching event and returns the first one.
    ///
    /// An event is recorded before its reply is sent or held.
    ///
    /// # Panics
    ///
    /// If none happens within the time limit.
    #[track_caller]
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&What) -> bool) -> Event {
        let deadline = Instant::now() + limit;
        let mut state = self.shared.lock();
        loop {
            if let Some(event) = state.events.iter().find(|e| wanted(&e.what)) {
                return event.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "not seen within {limit:?}; seen: {:#?}",
                state.events
            );
            (state, _) = self
                .shared
                .happened
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Wait, so that the port is closed when the test continues.
        if let Some(server) = self.server.take() {
            drop(server.join());
        }
    }
}

impl fmt::Debug for Stub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stub({})", self.address)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.send_modify(|holds| *holds -= 1);
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            access_lifetime: ACCESS_LIFETIME,
            clock: None,
            reused_status: 401,
            refresh_faults: VecDeque::new(),
            bearer: Bearer::Newest,
            model_failure: None,
            shell: None,
            latency: Duration::ZERO,
            changes_session: false,
        }
    }
}

/// What the handle and the server share.
#[derive(Default)]
struct Shared {
    state: Mutex<Inner>,
    happened: Condvar,
    token: watch::Sender<usize>,
    model: watch::Sender<usize>,
}

#[derive(Default)]
struct Inner {
    ledger: Ledger,
    rules: Rules,
    events: Vec<Event>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in a test's closure must stay visible, so ignore the poison.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, endpoint: Endpoint) -> &watch::Sender<usize> {
        match endpoint {
            Endpoint::Token => &self.token,
            Endpoint::Model => &self.model,
        }
    }
}
