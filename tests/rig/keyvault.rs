//! A stand-in for Azure Key Vault, its token endpoint, and its access rights.
//!
//! No server of Microsoft's can run here. The behaviour of this one is known from what Microsoft's
//! own clients recorded of the real service, from its documentation, or from what users have
//! published. Where no source exists, the second column says so, and a test proves something about
//! the client alone. Microsoft's Python client is a witness: the tests of this module drive the
//! stand-in with this client, which accepts each answer as Key Vault's.
//!
//! | behaviour | known from |
//! |---|---|
//! | `PUT` adds a version under a random name of 32 hex digits, with its tags and `enabled`, and answers 200 with the value, for a new secret too | recordings |
//! | `created` and `updated` are whole seconds, rounded, so up to half a second ahead of the clock | recordings: `Date`, or one second more |
//! | `GET` without a version gives the one that was written last, even of several in one second | recordings |
//! | the newest one is disabled: 403 `SecretDisabled`, and no older one instead | recordings of the 403; inference that there is no fallback |
//! | a missing secret: 404 `SecretNotFound`; its versions: 200 and none | recordings |
//! | versions are listed by name and not by time, with tags and without values | recordings |
//! | a page has at most 25 rows, some of them hidden: short and empty pages have a next one; `nextLink` is null at the end, and names the port 443 | recordings |
//! | a next page continues after a row, regardless of writes in between | inference: the token of the real service cannot be read |
//! | a written version is listed late ([`Rules::list_lag`]) | nothing: no promise is documented either way |
//! | `PATCH` changes a version and its `updated`, and replaces the tags as a whole; without a version it changes the newest one | recordings |
//! | 401 names `authorization` and `resource` only, for an invalid token too | recordings |
//! | a valid token is briefly unknown: 401 `AKV10046` ([`Failure::token_not_known_yet`]) | published by users |
//! | a missing right: 403 `ForbiddenByRbac`, with the action's name | published by users |
//! | overlapping writes to one secret: 409 `Conflict` without an inner code | documentation of the code; the text is published by users; no recording. It is unknown which one wins: here the first |
//! | a deleted secret: `GET` 404, `PUT` 409 `ObjectIsDeletedButRecoverable`; while it is being deleted `ObjectIsBeingDeleted`, and after a purge for a while too | recordings; `PUT` after a purge is published by users |
//! | a purge or a recovery before the deletion is complete: 409 `ObjectIsBeingDeleted` | recordings |
//! | a recovery answers 200 at once; `GET` is 404 until it is complete, `PUT` 409 `ObjectIsBeingRecovered` for a little longer | recordings; the `PUT` is published by users |
//! | a deleted secret whose newest version is disabled: 403 `SecretDisabled` | recordings |
//! | too many requests: 429 `Throttled`, with `Retry-After` or without | documentation; the one published reply has none |
//! | more than 25 KB, or more than 15 tags: 400 `BadParameter` | documentation of the limits; inference for code and text |
//! | a token is issued for a client secret or for a job's own token; each error has a number, such as `AADSTS700213` | documentation of the numbers; texts are published by users. Of 700027 for a bad signature: inference |
//! | a job's token must match a federated credential, case-sensitively: issuer, subject, audience; signature and times are checked | documentation |
//! | blobs: [`Azurite`], Microsoft's own; a missing right is 403 `AuthorizationPermissionMismatch` | recordings for the code; Azurite itself allows everything |
//!
//! It does not implement keys, certificates, backup and restore, or contacts with the outside.

mod blobs;
mod call;
mod entra;
mod failure;
mod secrets;
mod server;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    fmt::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::sync::{oneshot, watch};

use self::{blobs::Blobs, entra::Entra, secrets::Secrets};
use crate::{Azurite, pki::Pki};

pub(crate) use self::entra::entra_token;
pub use self::{
    call::{Call, Op},
    entra::{AUDIENCE as ENTRA_AUDIENCE, Account, Job, Right},
    failure::Failure,
    secrets::Version,
};

/// The tenant of all accounts.
pub const TENANT: &str = "72f988bf-0000-4000-8000-000000000000";

/// The account with all rights, and the secret by which it signs in.
pub const ADMIN: (&str, &str) = ("00000000-0000-4000-8000-00000000ad01", "made-up-secret");

/// The machine's managed identity, which a program requests over [`KeyVault::identity`].
pub const IDENTITY: &str = "00000000-0000-4000-8000-00000000a1d1";

const IDENTITY_HEADER: &str = "made-up-identity-header";

/// The behaviour of the stand-in. Change it at any time with [`KeyVault::rules`].
#[derive(Clone, Debug)]
pub struct Rules {
    /// The audience that a token must have, as the challenge names it.
    pub resource: String,
    /// The lifetime of a token.
    pub token_lifetime: Duration,
    /// How long a write takes before the service stamps it. A change of this value applies at once.
    pub put_latency: Duration,
    /// How long a stamped version takes to become visible.
    pub put_stuck: Duration,
    /// Whether the service refuses a write while another write to the same secret is in progress.
    pub overlap_conflicts: bool,
    /// How long after a write the service lists its version.
    pub list_lag: Duration,
    /// How many rows of each list are hidden, half of them at the front.
    pub hidden_rows: usize,
    /// How long a deletion takes, and how long a purged name stays unusable.
    pub delete_delay: Duration,
    /// How long a recovery takes.
    pub recover_delay: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            resource: "https://vault.azure.net".to_owned(),
            token_lifetime: Duration::from_hours(1),
            put_latency: Duration::ZERO,
            put_stuck: Duration::ZERO,
            overlap_conflicts: true,
            list_lag: Duration::ZERO,
            hidden_rows: 1,
            delete_delay: Duration::from_millis(300),
            recover_delay: Duration::from_millis(300),
        }
    }
}

/// A fault that affects one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The service refuses the request.
    Refused(Failure),
    /// The service applies the request and answers that it did not.
    AppliedThen(Failure),
    /// The connection ends before the service does anything.
    RequestLost,
    /// The connection ends after the service has done everything.
    ReplyLost,
}

/// Where a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The request has arrived and nothing is done.
    Before,
    /// Everything but the answer is done.
    After,
}

/// A running stand-in; stops when dropped.
///
/// Vault, tokens and blobs share one port: `https://127.0.0.1:PORT` is the address of each.
pub struct KeyVault {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

/// Holds matching requests until dropped; then they continue.
#[must_use = "the requests go on as soon as this is dropped"]
pub struct Hold {
    gate: watch::Sender<Gate>,
    shared: Arc<Shared>,
    number: u64,
}

impl KeyVault {
    /// Starts an empty vault without blobs.
    ///
    /// # Panics
    ///
    /// If the loopback interface cannot be used.
    #[must_use]
    pub fn start() -> Self {
        Self::launch(None)
    }

    /// Starts an empty vault that forwards authorized blob requests to an Azurite.
    ///
    /// # Panics
    ///
    /// If the loopback interface cannot be used.
    #[must_use]
    pub fn with_blobs(azurite: &Arc<Azurite>) -> Self {
        Self::launch(Some(Blobs::of(azurite)))
    }

    fn launch(blobs: Option<Blobs>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            blobs,
            state: Mutex::default(),
            happened: Condvar::new(),
        });
        let (stop, stopped) = oneshot::channel();
        let server = thread::spawn({
            let shared = Arc::clone(&shared);
            move || server::serve(listener, Pki::shared(), shared, stopped)
        });
        let vault = Self {
            address,
            shared,
            stop: Some(stop),
            server: Some(server),
        };
        let (admin, secret) = ADMIN;
        let everything = ["Microsoft.KeyVault/*", "Microsoft.Storage/*"].map(Right::to);
        vault.account(
            admin,
            Account {
                secrets: vec![secret.to_owned()],
                rights: everything.into(),
                ..Account::default()
            },
        );
        vault
    }

    /// Returns the host with the port.
    #[must_use]
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// Returns the URL, which is also that of the token endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the certificate authority, which is Azurite's too.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &Pki::shared().authority
    }

    /// Returns the variables that lead a program to the identity of its machine.
    #[must_use]
    pub fn identity(&self) -> [(&'static str, String); 2] {
        [
            ("IDENTITY_ENDPOINT", format!("{}/msi/token", self.url())),
            ("IDENTITY_HEADER", IDENTITY_HEADER.to_owned()),
        ]
    }

    /// Adds an account, or replaces it.
    pub fn account(&self, id: &str, account: Account) {
        let mut inner = self.shared.lock();
        inner.entra.accounts.insert(id.to_owned(), account);
    }

    /// Returns a token of an account for a resource, as `az account get-access-token` does.
    #[must_use]
    pub fn token(&self, account: &str, resource: &str) -> String {
        let mut inner = self.shared.lock();
        let lifetime = inner.rules.token_lifetime;
        inner.entra.issue(account, resource, lifetime)
    }

    /// Returns every token that was issued.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.shared.lock().entra.issued()
    }

    /// Revokes every token that was issued.
    pub fn revoke_tokens(&self) {
        self.shared.lock().entra.revoke_all();
    }

    /// Changes the behaviour from now on.
    pub fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.lock().rules);
    }

    /// Injects a fault into the next matching request. A request without a good token or right is
    /// refused before that.
    pub fn fail(&self, wanted: impl Fn(&Call) -> bool + Send + 'static, fault: Fault) {
        let mut inner = self.shared.lock();
        inner.faults.push((Box::new(wanted), fault));
    }

    /// Returns how many faults have not happened yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.shared.lock().faults.len()
    }

    /// Holds matching requests.
    pub fn hold(&self, moment: Moment, wanted: impl Fn(&Call) -> bool + Send + 'static) -> Hold {
        let (gate, _) = watch::channel(Gate::Closed);
        let mut inner = self.shared.lock();
        inner.drawn += 1;
        let number = inner.drawn;
        inner.holds.push(Held {
            number,
            moment,
            wanted: Box::new(wanted),
            gate: gate.clone(),
            waiting: 0,
        });
        drop(inner);
        Hold {
            gate,
            shared: Arc::clone(&self.shared),
            number,
        }
    }

    /// Returns each answered request with its status, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<(Call, u16)> {
        self.shared.lock().calls.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_calls(&self) {
        self.shared.lock().calls.clear();
    }

    /// Returns the versions of a secret, oldest first, including those that are not listed yet.
    #[must_use]
    pub fn versions(&self, name: &str) -> Vec<Version> {
        self.shared.lock().secrets.all(name)
    }

    /// Returns whether a write to a secret is in progress.
    #[must_use]
    pub fn is_writing(&self, name: &str) -> bool {
        self.shared.lock().secrets.is_busy(name)
    }

    /// Returns the names of all secrets.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.shared.lock().secrets.names()
    }
}

impl Drop for KeyVault {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Wait, so that the port is closed when the test continues.
        if let Some(server) = self.server.take() {
            drop(server.join());
        }
    }
}

impl fmt::Debug for KeyVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyVault({})", self.address)
    }
}

impl Hold {
    /// Returns how many requests have arrived at this hold.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting(self.number)
    }

    /// Waits until a request is held.
    ///
    /// # Panics
    ///
    /// If none is held within the time limit.
    #[track_caller]
    pub fn wait_until_held(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut inner = self.shared.lock();
        while inner.waiting(self.number) == 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nothing was held within {limit:?}");
            (inner, _) = self
                .shared
                .happened
                .wait_timeout(inner, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Drops the held requests with their connections. Effects that were applied stay.
    pub fn lose(self) {
        self.gate.send_replace(Gate::Lost);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.holds.retain(|held| held.number != self.number);
        drop(inner);
        self.gate.send_if_modified(|gate| {
            let was_closed = *gate == Gate::Closed;
            if was_closed {
                *gate = Gate::Open;
            }
            was_closed
        });
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hold({})", self.number)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Closed,
    Open,
    Lost,
}

/// The held request was dropped.
struct Lost;

type Wanted = Box<dyn Fn(&Call) -> bool + Send>;

struct Held {
    number: u64,
    moment: Moment,
    wanted: Wanted,
    gate: watch::Sender<Gate>,
    waiting: usize,
}

struct Shared {
    blobs: Option<Blobs>,
    state: Mutex<Inner>,
    happened: Condvar,
}

#[derive(Default)]
struct Inner {
    rules: Rules,
    secrets: Secrets,
    entra: Entra,
    faults: Vec<(Wanted, Fault)>,
    holds: Vec<Held>,
    drawn: u64,
    calls: Vec<(Call, u16)>,
}

impl Inner {
    fn waiting(&self, number: u64) -> usize {
        let hold = self.holds.iter().find(|held| held.number == number);
        hold.map_or(0, |held| held.waiting)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, call: Call, status: u16) {
        self.lock().calls.push((call, status));
    }

    /// Takes the fault planned for a request.
    fn draw(&self, call: &Call) -> Option<Fault> {
        let mut inner = self.lock();
        let due = inner.faults.iter().position(|(wanted, _)| wanted(call))?;
        let (_, fault) = inner.faults.remove(due);
        Some(fault)
    }

    /// Waits while a request is held.
    async fn held(&self, moment: Moment, call: &Call) -> Result<(), Lost> {
        let mut gate = {
            let mut inner = self.lock();
            let mut holds = inner.holds.iter_mut();
            let Some(held) = holds.find(|held| held.moment == moment && (held.wanted)(call)) else {
                return Ok(());
            };
            held.waiting += 1;
            held.gate.subscribe()
        };
        self.happened.notify_all();
        let fate = gate.wait_for(|gate| *gate != Gate::Closed).await;
        match fate.map(|gate| *gate) {
            Ok(Gate::Lost) => Err(Lost),
            Ok(Gate::Open | Gate::Closed) | Err(_) => Ok(()),
        }
    }
}

fn random_hex(bytes: usize) -> String {
    let mut drawn = vec![0; bytes];
    SystemRandom::new().fill(&mut drawn).expect("random bytes");
    drawn.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes it");
        text
    })
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
