//! The settings of a Vault store from the environment.

use std::time::Duration;

use authferry_core::BoxError;
use authferry_http::{JobToken, Net, Roots};
use authferry_vault::{Address, Auth, IdToken, Settings};

use super::Opened;
use crate::env::{self, Env};

/// The variables with credentials of Vault or OpenBao.
const CREDENTIALS: [&str; 6] = [
    "BAO_TOKEN",
    "VAULT_TOKEN",
    "BAO_ROLE_ID",
    "VAULT_ROLE_ID",
    "BAO_SECRET_ID",
    "VAULT_SECRET_ID",
];

/// The variables of the job's OIDC token, which authenticate as the job.
const ID_TOKENS: [&str; 4] = [
    "BAO_ID_TOKEN",
    "VAULT_ID_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
];

const BAD_TIMEOUT: &str = "BAO_CLIENT_TIMEOUT or VAULT_CLIENT_TIMEOUT is not a duration";

pub(super) fn open(address: &str, env: &Env) -> Result<Opened, BoxError> {
    let address: Address = address.parse()?;
    let mut credentials: Vec<_> = CREDENTIALS.map(str::to_owned).into();
    let mut job_token = None;
    if let Auth::Jwt { from, .. } = address.auth() {
        credentials.extend(ID_TOKENS.map(str::to_owned));
        if let IdToken::Variable(name) = from {
            credentials.push(name.clone());
        }
        job_token = Some(self::job_token(from, env));
    }
    let vault = &env.vault;
    let mut net = Net {
        roots: Roots {
            file: vault.cacert.clone(),
            directory: vault.capath.clone(),
        },
        ..Net::default()
    };
    if let Some(timeout) = &vault.client_timeout {
        net.request_timeout = duration(timeout).ok_or(BAD_TIMEOUT)?;
    }
    let settings = Settings {
        servers: vault.addr.clone(),
        namespace: vault.namespace.clone(),
        net,
        token: vault.token.clone(),
        token_file: env.home.as_ref().map(|home| home.join(".vault-token")),
        role_id: vault.role_id.clone(),
        secret_id: vault.secret_id.clone(),
        job_token,
    };
    Ok(Opened {
        store: Box::new(authferry_vault::open(address, settings)?),
        credentials,
    })
}

fn job_token(from: &IdToken, env: &Env) -> JobToken {
    match from {
        IdToken::File(path) => JobToken::File(path.clone()),
        IdToken::Variable(name) => JobToken::Variable {
            value: env::user_variable(name)
                .map(|value| value.to_string_lossy().into_owned().into()),
            name: name.clone(),
        },
        IdToken::Platform => match (&env.id_token_url, &env.id_token_token) {
            (Some(url), Some(token)) => JobToken::GitHub {
                url: url.clone(),
                token: token.clone(),
            },
            // GitHub sets its two variables only for jobs with `id-token: write`.
            _ if env.vault.id_token.is_none() && env.job.contains_key("GITHUB_ACTIONS") => {
                JobToken::NotPermitted
            }
            _ => JobToken::Variable {
                name: "VAULT_ID_TOKEN".to_owned(),
                value: env.vault.id_token.clone(),
            },
        },
    }
}

/// Parses a duration as Vault's CLI does: a number of seconds, or a number with a unit.
fn duration(text: &str) -> Option<Duration> {
    let seconds = text.parse().map(Duration::from_secs).ok();
    let time = seconds.or_else(|| humantime::parse_duration(text).ok())?;
    (!time.is_zero()).then_some(time)
}
