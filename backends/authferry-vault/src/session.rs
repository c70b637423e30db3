//! The Vault token: acquires, renews and revokes it.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Duration,
};

use authferry_http::JobToken;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    address::{Address, Auth},
    classify,
    settings::Settings,
    vault_error::VaultError,
    wire::{TokenGrant, Wire, is_token},
};

/// An authenticated session. All requests share it; the first one that needs a token
/// authenticates.
pub(crate) struct Session {
    wire: Arc<Wire>,
    auth: AuthMethod,
    token: Mutex<Option<SessionToken>>,
}

/// How the session acquires its token.
enum AuthMethod {
    /// Uses an existing token.
    Existing {
        token: Option<SecretString>,
        file: Option<PathBuf>,
    },
    /// Exchanges the job's OIDC token for one.
    Jwt {
        mount: String,
        role: Option<String>,
        audience: Option<String>,
        job_token: Option<JobToken>,
    },
    /// Exchanges a role ID and a secret ID for one.
    AppRole {
        mount: String,
        role_id: Option<SecretString>,
        secret_id: Option<SecretString>,
    },
}

/// The token of a session.
struct SessionToken {
    token: SecretString,
    /// Whether this session created the token and must revoke it.
    is_created: bool,
    /// The expiry, if there is one and it is known.
    expiry: Option<Instant>,
    /// The task that renews the token.
    renewal: Option<JoinHandle<()>>,
}

/// The shortest delay before a renewal, and the shortest remaining life of a token in use.
const RENEWAL_MARGIN: Duration = Duration::from_secs(1);

impl Session {
    pub(crate) fn new(wire: Arc<Wire>, address: &Address, settings: Settings) -> Self {
        let auth = match address.auth() {
            Auth::Token => AuthMethod::Existing {
                token: settings.token,
                file: settings.token_file,
            },
            Auth::Jwt {
                mount,
                role,
                audience,
                from: _,
            } => AuthMethod::Jwt {
                mount: mount.clone(),
                role: role.clone(),
                audience: audience.clone(),
                job_token: settings.job_token,
            },
            Auth::AppRole { mount } => AuthMethod::AppRole {
                mount: mount.clone(),
                role_id: settings.role_id,
                secret_id: settings.secret_id,
            },
        };
        Self {
            wire,
            auth,
            token: Mutex::new(None),
        }
    }

    /// Returns the token. Authenticates if there is none or it has expired.
    pub(crate) async fn token(self: &Arc<Self>) -> Result<SecretString, VaultError> {
        let mut current = self.token.lock().await;
        if let Some(current) = current.as_ref().filter(|token| token.is_valid()) {
            return Ok(current.token.clone());
        }
        let new = match self.authenticate().await? {
            Acquired::Existing(token) => SessionToken {
                token,
                is_created: false,
                expiry: None,
                renewal: None,
            },
            Acquired::Created(grant) => SessionToken {
                expiry: expiry_of(&grant),
                renewal: self.start_renewal(&grant),
                token: grant.token,
                is_created: true,
            },
        };
        let token = new.token.clone();
        *current = Some(new);
        Ok(token)
    }

    /// Discards a token that the server no longer knows. Returns whether the session can get
    /// another one.
    pub(crate) async fn forget(&self, token: &SecretString) -> bool {
        let mut current = self.token.lock().await;
        match current.as_ref() {
            Some(known) if known.token.expose_secret() == token.expose_secret() => {
                let can_authenticate = known.is_created;
                *current = None;
                can_authenticate
            }
            // Another request has already replaced the token.
            Some(_) => true,
            None => false,
        }
    }

    /// Revokes the token if this session created it.
    pub(crate) async fn close(&self) {
        let Some(current) = self.token.lock().await.take() else {
            return;
        };
        if current.is_created {
            // A token that cannot be revoked now expires later.
            self.wire.revoke(&current.token).await.ok();
        }
    }

    async fn authenticate(&self) -> Result<Acquired, VaultError> {
        match &self.auth {
            AuthMethod::Existing {
                token: Some(token), ..
            } => parse_token(token.expose_secret()).map(Acquired::Existing),
            AuthMethod::Existing {
                token: None,
                file: Some(file),
            } => match read_token(file).map(SecretString::from) {
                Ok(token) => parse_token(token.expose_secret()).map(Acquired::Existing),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    Err(VaultError::NoToken)
                }
                Err(source) => Err(VaultError::UnreadableToken {
                    path: file.display().to_string(),
                    source,
                }),
            },
            AuthMethod::Existing {
                token: None,
                file: None,
            } => Err(VaultError::NoToken),
            AuthMethod::Jwt {
                mount,
                role,
                audience,
                job_token,
            } => {
                let job_token = job_token
                    .as_ref()
                    .ok_or(VaultError::NoCredential("OIDC token"))?;
                let jwt = job_token.fetch(audience.as_deref()).await;
                let jwt = jwt.map_err(VaultError::NoJobToken)?;
                let grant = self.wire.log_in_by_jwt(mount, role.as_deref(), &jwt).await;
                grant
                    .map(Acquired::Created)
                    .map_err(|failure| classify::auth_error(failure, mount))
            }
            AuthMethod::AppRole {
                mount,
                role_id,
                secret_id,
            } => {
                let role_id = role_id
                    .as_ref()
                    .ok_or(VaultError::NoCredential("role ID"))?;
                let secret_id = secret_id.as_ref();
                let secret_id = secret_id.ok_or(VaultError::NoCredential("secret ID"))?;
                let grant = self.wire.log_in_by_role(mount, role_id, secret_id).await;
                grant
                    .map(Acquired::Created)
                    .map_err(|failure| classify::auth_error(failure, mount))
            }
        }
    }

    /// Starts the task that renews a token. The task holds the session weakly and ends with it.
    fn start_renewal(self: &Arc<Self>, grant: &TokenGrant) -> Option<JoinHandle<()>> {
        let session = Arc::downgrade(self);
        let expiry = expiry_of(grant).filter(|_| grant.renewable)?;
        let token = grant.token.clone();
        Some(tokio::spawn(renew_until_expiry(session, token, expiry)))
    }
}

/// Renews a token before it expires, up to its maximum TTL. The next request after that
/// authenticates again.
async fn renew_until_expiry(session: Weak<Session>, token: SecretString, mut expiry: Instant) {
    loop {
        // Wait two thirds of the remaining life, also after a failure: the retries become more
        // frequent.
        let left = expiry.saturating_duration_since(Instant::now());
        let delay = left / 3 * 2;
        if delay < RENEWAL_MARGIN {
            return;
        }
        sleep(delay).await;
        let Some(session) = session.upgrade() else {
            return;
        };
        let Ok(grant) = session.wire.renew(&token).await else {
            continue;
        };
        let Some(new_expiry) = expiry_of(&grant) else {
            return;
        };
        let mut current = session.token.lock().await;
        let known = current.as_mut();
        let Some(known) = known.filter(|it| it.token.expose_secret() == token.expose_secret())
        else {
            return;
        };
        known.expiry = Some(new_expiry);
        expiry = new_expiry;
    }
}

enum Acquired {
    Existing(SecretString),
    Created(TokenGrant),
}

impl SessionToken {
    fn is_valid(&self) -> bool {
        // Leave time for the request itself.
        self.expiry
            .is_none_or(|expiry| expiry.saturating_duration_since(Instant::now()) > RENEWAL_MARGIN)
    }
}

impl Drop for SessionToken {
    fn drop(&mut self) {
        if let Some(renewal) = &self.renewal {
            renewal.abort();
        }
    }
}

/// Returns the expiry of a token. One that overflows the clock counts as no expiry.
fn expiry_of(grant: &TokenGrant) -> Option<Instant> {
    let ttl = Some(grant.ttl).filter(|ttl| !ttl.is_zero())?;
    Instant::now().checked_add(ttl)
}

/// Reads a token file, up to a limit no token exceeds.
fn read_token(file: &Path) -> io::Result<String> {
    const MAX: u64 = 64 * 1024;
    let mut text = String::new();
    fs::File::open(file)?.take(MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Validates a token. Trims the newline that files and environment variables end in.
fn parse_token(text: &str) -> Result<SecretString, VaultError> {
    let text = text.trim();
    if text.is_empty() {
        Err(VaultError::NoToken)
    } else if is_token(text) {
        Ok(text.into())
    } else {
        Err(VaultError::NotAToken)
    }
}

#[cfg(test)]
mod tests;
