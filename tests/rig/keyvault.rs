//! A stand-in for Azure Key Vault, and for what is around it: the endpoint that gives out
//! tokens, and the rights of whoever asks.
//!
//! No server of Microsoft's can be run here. What this one does is known from what
//! Microsoft's own clients recorded of the real service, from its documentation, or from
//! what users have published. Where nothing tells, the column says so: what a test shows
//! there is shown of the client alone. Microsoft's Python client is a witness: the tests of
//! this module drive the stand-in by it, and it takes each answer for what it would be.
//!
//! | behaviour | known from |
//! |---|---|
//! | `PUT` adds a version under a random name of 32 hex digits, with its tags and `enabled`, and answers 200 with the value, for a new secret too | recordings |
//! | `created` and `updated` are whole seconds, rounded, so up to half a second ahead of the clock | recordings: `Date`, or one second more |
//! | `GET` without a version gives the one that was written last, even of several in one second | recordings |
//! | the newest one is disabled: 403 `SecretDisabled`, and no older one instead | recordings of the 403; inference that there is no fallback |
//! | a missing secret: 404 `SecretNotFound`; its versions: 200 and none | recordings |
//! | versions are listed by name and not by time, with tags and without values | recordings |
//! | a page has at most 25 rows, of which some are not shown: short and empty pages have a next one; `nextLink` is null at the end, and names the port 443 | recordings |
//! | a next page goes on after a row, whatever was written meanwhile | inference: the token of the real service cannot be read |
//! | a written version is listed late ([`Rules::list_lag`]) | nothing: no promise is documented either way |
//! | `PATCH` changes a version and moves `updated`; tags are replaced as a whole; without a version it is the newest one's | recordings |
//! | 401 tells `authorization` and `resource` only, for a token that is no good too | recordings |
//! | a good token is not known for a moment: 401 `AKV10046` ([`Failure::token_not_known_yet`]) | published by users |
//! | a missing right: 403 `ForbiddenByRbac`, with the action's name | published by users |
//! | overlapping writes to one secret: 409 `Conflict` without an inner code | documentation of the code; the text is published by users; no recording. Which one wins is not known: here it is the first |
//! | a deleted secret: `GET` 404, `PUT` 409 `ObjectIsDeletedButRecoverable`; while it is being deleted `ObjectIsBeingDeleted`, and after a purge for a while too | recordings; `PUT` after a purge is published by users |
//! | a purge or a recovery before the deletion is over: 409 `ObjectIsBeingDeleted` | recordings |
//! | a recovery answers 200 at once; `GET` is 404 until it is over, `PUT` 409 `ObjectIsBeingRecovered` for a little longer | recordings; the `PUT` is published by users |
//! | a deleted secret whose newest version is disabled: 403 `SecretDisabled` | recordings |
//! | too many requests: 429 `Throttled`, with `Retry-After` or without | documentation; the one published reply has none |
//! | more than 25 KB, or more than 15 tags: 400 `BadParameter` | documentation of the limits; inference for code and text |
//! | a token is given for a client secret or for a job's own token; what is wrong has a number, as `AADSTS700213` | documentation of the numbers; texts are published by users. Of 700027 for a bad signature: inference |
//! | a job's token is compared with a federated credential, case by case: issuer, subject, audience; with signature and times | documentation |
//! | blobs: [`Azurite`], Microsoft's own; a missing right is 403 `AuthorizationPermissionMismatch` | recordings for the code; Azurite itself lets everybody do everything |
//!
//! What it does not do: keys, certificates, backup and restore, contacts with the outside.

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

pub(crate) use self::entra::shaped;
pub use self::{
    call::{Call, Op},
    entra::{AUDIENCE as ENTRA_AUDIENCE, Account, Job, Right},
    failure::Failure,
    secrets::Version,
};

/// The tenant that everybody belongs to.
pub const TENANT: &str = "72f988bf-0000-4000-8000-000000000000";

/// The account that may do everything, and the secret by which it signs in.
pub const ADMIN: (&str, &str) = ("00000000-0000-4000-8000-00000000ad01", "made-up-secret");

/// The identity of the machine itself, which is asked for over [`KeyVault::identity`].
pub const IDENTITY: &str = "00000000-0000-4000-8000-00000000a1d1";

const IDENTITY_HEADER: &str = "made-up-identity-header";

/// How the stand-in behaves. Change it at any time with [`KeyVault::rules`].
#[derive(Clone, Debug)]
pub struct Rules {
    /// For what a token has to be, as the challenge tells it.
    pub resource: String,
    /// How long a token lives.
    pub token_lifetime: Duration,
    /// How long a write takes before the service stamps it. A change counts at once.
    pub put_latency: Duration,
    /// How long it takes from there until anybody can see it.
    pub put_stuck: Duration,
    /// Whether a write is refused while another one to the same secret is on its way.
    pub overlap_conflicts: bool,
    /// How long after a write its version is listed.
    pub list_lag: Duration,
    /// How many rows of each list nobody sees, half of them in front.
    pub hidden_rows: usize,
    /// How long a deletion takes, and for how long a purged name cannot be used.
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

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is refused.
    Refused(Failure),
    /// What was asked is done, and the answer says that it was not.
    AppliedThen(Failure),
    /// The connection ends before anything was done.
    RequestLost,
    /// The connection ends when everything is done.
    ReplyLost,
}

/// Where a request is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It has arrived, and nothing is done yet.
    Before,
    /// Everything is done but the answer.
    After,
}

/// A running stand-in; stops when dropped.
///
/// Vault, tokens and blobs are on one port: `https://127.0.0.1:PORT` is the address of each.
pub struct KeyVault {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

/// Holds back certain requests until dropped; what was held goes on then.
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

    /// Starts an empty vault, and leads to the blobs of an Azurite for those who may.
    ///
    /// # Panics
    ///
    /// If the loopback interface cannot be used.
    #[must_use]
    pub fn beside(azurite: &Arc<Azurite>) -> Self {
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

    /// Returns the address, which is also the one of whoever gives out tokens.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Returns the authority that the certificate is from, Azurite's too.
    #[must_use]
    pub fn authority(&self) -> &Path {
        &Pki::shared().authority
    }

    /// Returns the variables by which a program finds the identity of its machine.
    #[must_use]
    pub fn identity(&self) -> [(&'static str, String); 2] {
        [
            ("IDENTITY_ENDPOINT", format!("{}/msi/token", self.url())),
            ("IDENTITY_HEADER", IDENTITY_HEADER.to_owned()),
        ]
    }

    /// Adds an account, or puts another one in its place.
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

    /// Returns every token that was given out.
    #[must_use]
    pub fn tokens(&self) -> Vec<String> {
        self.shared.lock().entra.issued()
    }

    /// Makes every token that was given out useless.
    pub fn revoke_tokens(&self) {
        self.shared.lock().entra.revoke_all();
    }

    /// Changes how the stand-in behaves from now on.
    pub fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.shared.lock().rules);
    }

    /// Lets the next of certain requests go wrong. What lacks a good token, or a right, is
    /// refused before that.
    pub fn fail(&self, wanted: impl Fn(&Call) -> bool + Send + 'static, fault: Fault) {
        let mut inner = self.shared.lock();
        inner.faults.push((Box::new(wanted), fault));
    }

    /// Returns how many faults nobody has met yet.
    #[must_use]
    pub fn faults_left(&self) -> usize {
        self.shared.lock().faults.len()
    }

    /// Holds back certain requests.
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

    /// Returns each request that was answered, oldest first, with the status.
    #[must_use]
    pub fn calls(&self) -> Vec<(Call, u16)> {
        self.shared.lock().calls.clone()
    }

    /// Forgets the requests so far.
    pub fn forget_calls(&self) {
        self.shared.lock().calls.clear();
    }

    /// Returns the versions of a secret, oldest first, with those that nobody can list yet.
    #[must_use]
    pub fn versions(&self, name: &str) -> Vec<Version> {
        self.shared.lock().secrets.all(name)
    }

    /// Returns whether a write to a secret is on its way.
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
        // Waited for, so that the port is closed when the test goes on.
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
    /// Returns how many requests have come here.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.lock().waiting(self.number)
    }

    /// Waits until a request is held.
    ///
    /// # Panics
    ///
    /// If none is within the time limit.
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

    /// Loses what is held: it ends with its connection. What was done already stays done.
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

/// What was held is lost.
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

    /// Takes the fault that a request is to meet.
    fn draw(&self, call: &Call) -> Option<Fault> {
        let mut inner = self.lock();
        let due = inner.faults.iter().position(|(wanted, _)| wanted(call))?;
        let (_, fault) = inner.faults.remove(due);
        Some(fault)
    }

    /// Waits as long as a request is held.
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
