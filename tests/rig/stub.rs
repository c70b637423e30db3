//! The service as Codex sees it, on a loopback port: token, revoke and model endpoint.

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

/// How the stub behaves. Change it at any time with [`Stub::rules`].
#[derive(Debug)]
pub struct Rules {
    /// How long a new access token lives. Under five minutes sends Codex into a loop.
    pub access_lifetime: time::Duration,
    /// The time that the stub takes for now, if not the real one.
    ///
    /// With a fixed one the tokens of a whole test are the same at every run.
    pub clock: Option<OffsetDateTime>,
    /// The status of the answer to a spent refresh token.
    pub reused_status: u16,
    /// What becomes of the next refreshes, one each; none left: they succeed.
    pub refresh_faults: VecDeque<Fault>,
    /// Which bearers the model endpoint takes.
    pub bearer: Bearer,
    /// The status with which every model call fails, if they are to fail.
    pub model_failure: Option<u16>,
    /// A line of shell that the model wants Codex to run before it answers, as one does that
    /// fell for a prompt injection. What it prints is a [`What::Printed`].
    pub shell: Option<String>,
    /// How long a refresh is on its way, each way.
    pub latency: Duration,
    /// Whether each refresh changes the session marks of the access token. A provider that does
    /// so is not known, and would make them worthless.
    pub changes_session: bool,
}

/// What goes wrong with one refresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers 500; the refresh token stays live.
    ServerError,
    /// Drops the connection; the refresh token stays live.
    RequestLost,
    /// Drops the connection when the refresh token is already spent.
    ReplyLost,
    /// Answers with new tokens but for the refresh token, which stays live.
    RefreshTokenOmitted,
}

/// Which access tokens the model endpoint takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bearer {
    /// Only the one of the newest generation of its login, and only until it ends.
    Newest,
    /// Each one that has been issued, until it ends.
    Unexpired,
}

/// An endpoint whose replies can be held back.
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

/// Holds back the replies of one endpoint until dropped.
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

    /// Adds one more login: another account, or a reseed of the same one.
    pub fn sign_in(&self, login: &Login) {
        self.shared.lock().ledger.sign_in(login.clone());
    }

    /// Changes how the stub behaves from now on.
    pub fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.lock().rules);
    }

    /// Holds back every reply of an endpoint until the returned guard is dropped.
    pub fn hold(&self, endpoint: Endpoint) -> Hold {
        let gate = self.shared.gate(endpoint).clone();
        gate.send_modify(|holds| *holds += 1);
        Hold(gate)
    }

    /// Returns the generation that was issued last of those whose refresh token is live.
    #[must_use]
    pub fn live(&self) -> Option<Login> {
        self.shared.lock().ledger.live().cloned()
    }

    /// Returns whether an auth file carries a live refresh token, which is to say whether
    /// somebody who has nothing but this file still has the login.
    #[must_use]
    pub fn is_live(&self, auth_json: &[u8]) -> bool {
        let file: Value = serde_json::from_slice(auth_json).unwrap_or_default();
        let token = file["tokens"]["refresh_token"].as_str().unwrap_or_default();
        let found = self.shared.lock().ledger.find(token);
        found.is_some_and(|(_, _, state)| state == State::Live)
    }

    /// Returns everything that has happened, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.shared.lock().events.clone()
    }

    /// Returns how many of the events so far are wanted.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&What) -> bool) -> usize {
        let state = self.shared.lock();
        state.events.iter().filter(|e| wanted(&e.what)).count()
    }

    /// Waits until a wanted event has happened and returns the first one.
    ///
    /// Events are recorded before the reply is sent, or held.
    ///
    /// # Panics
    ///
    /// If there is none within the time limit.
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
        // Waited for, so that the port is closed when the test goes on.
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
        // A test that panics in a closure of its own shall not hide that panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gate(&self, endpoint: Endpoint) -> &watch::Sender<usize> {
        match endpoint {
            Endpoint::Token => &self.token,
            Endpoint::Model => &self.model,
        }
    }
}
