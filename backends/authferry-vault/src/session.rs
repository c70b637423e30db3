//! The token: how we come by it, how it is kept alive, and its end.

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
    trouble::Trouble,
    wire::{Grant, Wire, is_token},
};

/// A way into the servers, shared by all who go through it. The first who needs it logs in.
pub(crate) struct Session {
    wire: Arc<Wire>,
    login: Login,
    held: Mutex<Option<Held>>,
}

/// How we come by a token.
enum Login {
    /// Somebody else made it.
    Given {
        token: Option<SecretString>,
        file: Option<PathBuf>,
    },
    /// The job's own token buys one.
    Jwt {
        mount: String,
        role: Option<String>,
        audience: Option<String>,
        job_token: Option<JobToken>,
    },
    /// A role ID and a secret ID buy one.
    AppRole {
        mount: String,
        role_id: Option<SecretString>,
        secret_id: Option<SecretString>,
    },
}

/// The token that we have.
struct Held {
    token: SecretString,
    /// Whether we made it, and are to end it.
    ours: bool,
    /// When it ends, if it does and we know.
    end: Option<Instant>,
    /// What keeps it alive.
    keeper: Option<JoinHandle<()>>,
}

/// The shortest pause before a token is renewed.
const BREATH: Duration = Duration::from_secs(1);

impl Session {
    pub(crate) fn new(wire: Arc<Wire>, address: &Address, settings: Settings) -> Self {
        let login = match address.auth() {
            Auth::Token => Login::Given {
                token: settings.token,
                file: settings.token_file,
            },
            Auth::Jwt {
                mount,
                role,
                audience,
                from: _,
            } => Login::Jwt {
                mount: mount.clone(),
                role: role.clone(),
                audience: audience.clone(),
                job_token: settings.job_token,
            },
            Auth::AppRole { mount } => Login::AppRole {
                mount: mount.clone(),
                role_id: settings.role_id,
                secret_id: settings.secret_id,
            },
        };
        Self {
            wire,
            login,
            held: Mutex::new(None),
        }
    }

    /// Returns the token, and logs in if there is none or it has ended.
    pub(crate) async fn token(self: &Arc<Self>) -> Result<SecretString, Trouble> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.lives()) {
            return Ok(held.token.clone());
        }
        let new = match self.log_in().await? {
            Obtained::Given(token) => Held {
                token,
                ours: false,
                end: None,
                keeper: None,
            },
            Obtained::Made(grant) => Held {
                end: end_of(&grant),
                keeper: self.keeper(&grant),
                token: grant.token,
                ours: true,
            },
        };
        let token = new.token.clone();
        *held = Some(new);
        Ok(token)
    }

    /// Forgets a token that the server no longer knows. Returns whether another one can be
    /// had.
    pub(crate) async fn forget(&self, token: &SecretString) -> bool {
        let mut held = self.held.lock().await;
        match held.as_ref() {
            Some(of_now) if of_now.token.expose_secret() == token.expose_secret() => {
                let again = of_now.ours;
                *held = None;
                again
            }
            // Somebody else has logged in again meanwhile.
            Some(_) => true,
            None => false,
        }
    }

    /// Ends the token, if we made it.
    pub(crate) async fn close(&self) {
        let Some(held) = self.held.lock().await.take() else {
            return;
        };
        if held.ours {
            // What cannot be ended now ends by itself.
            self.wire.revoke(&held.token).await.ok();
        }
    }

    async fn log_in(&self) -> Result<Obtained, Trouble> {
        match &self.login {
            Login::Given {
                token: Some(token), ..
            } => checked(token.expose_secret()).map(Obtained::Given),
            Login::Given {
                token: None,
                file: Some(file),
            } => match read(file).map(SecretString::from) {
                Ok(token) => checked(token.expose_secret()).map(Obtained::Given),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Trouble::NoToken),
                Err(source) => Err(Trouble::UnreadableToken {
                    path: file.display().to_string(),
                    source,
                }),
            },
            Login::Given {
                token: None,
                file: None,
            } => Err(Trouble::NoToken),
            Login::Jwt {
                mount,
                role,
                audience,
                job_token,
            } => {
                let job_token = job_token
                    .as_ref()
                    .ok_or(Trouble::NoCredential("OIDC token"))?;
                let jwt = job_token.fetch(audience.as_deref()).await;
                let jwt = jwt.map_err(Trouble::NoJobToken)?;
                let grant = self.wire.log_in_by_jwt(mount, role.as_deref(), &jwt).await;
                grant
                    .map(Obtained::Made)
                    .map_err(|failure| classify::of_login(failure, mount))
            }
            Login::AppRole {
                mount,
                role_id,
                secret_id,
            } => {
                let role_id = role_id.as_ref().ok_or(Trouble::NoCredential("role ID"))?;
                let secret_id = secret_id.as_ref();
                let secret_id = secret_id.ok_or(Trouble::NoCredential("secret ID"))?;
                let grant = self.wire.log_in_by_role(mount, role_id, secret_id).await;
                grant
                    .map(Obtained::Made)
                    .map_err(|failure| classify::of_login(failure, mount))
            }
        }
    }

    /// Starts what keeps a token alive. It ends with the session, which it does not hold.
    fn keeper(self: &Arc<Self>, grant: &Grant) -> Option<JoinHandle<()>> {
        let session = Arc::downgrade(self);
        let end = end_of(grant).filter(|_| grant.renewable)?;
        let token = grant.token.clone();
        Some(tokio::spawn(keep(session, token, end)))
    }
}

/// Renews a token in time, until it cannot live longer. Whoever needs one then logs in again.
async fn keep(session: Weak<Session>, token: SecretString, mut end: Instant) {
    loop {
        // Two thirds of what is left, and again after a failure: the tries grow denser.
        let left = end.saturating_duration_since(Instant::now());
        let pause = left / 3 * 2;
        if pause < BREATH {
            return;
        }
        sleep(pause).await;
        let Some(session) = session.upgrade() else {
            return;
        };
        let Ok(grant) = session.wire.renew(&token).await else {
            continue;
        };
        let Some(new_end) = end_of(&grant) else {
            return;
        };
        let mut held = session.held.lock().await;
        let of_now = held.as_mut();
        let Some(held) = of_now.filter(|held| held.token.expose_secret() == token.expose_secret())
        else {
            return;
        };
        held.end = Some(new_end);
        end = new_end;
    }
}

enum Obtained {
    Given(SecretString),
    Made(Grant),
}

impl Held {
    fn lives(&self) -> bool {
        // What is asked with it takes its time, too.
        self.end
            .is_none_or(|end| end.saturating_duration_since(Instant::now()) > BREATH)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
    }
}

/// A token whose end no clock can hold has none.
fn end_of(grant: &Grant) -> Option<Instant> {
    let lease = Some(grant.lease).filter(|lease| !lease.is_zero())?;
    Instant::now().checked_add(lease)
}

/// Reads no further than a token can be long.
fn read(file: &Path) -> io::Result<String> {
    const MAX: u64 = 64 * 1024;
    let mut text = String::new();
    fs::File::open(file)?.take(MAX).read_to_string(&mut text)?;
    Ok(text)
}

/// Takes what can be a token, without the line's end that files and variables have.
fn checked(text: &str) -> Result<SecretString, Trouble> {
    let text = text.trim();
    if text.is_empty() {
        Err(Trouble::NoToken)
    } else if is_token(text) {
        Ok(text.into())
    } else {
        Err(Trouble::NotAToken)
    }
}

#[cfg(test)]
mod tests;
