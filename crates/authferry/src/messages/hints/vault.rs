//! The hint for each error of Vault or OpenBao.

use std::error::Error;

use authferry_http::{HttpError, JobTokenError, NetConfigError};
use authferry_vault::{ConfigError, Rejection, VaultError};

/// The hint for a store that cannot be opened.
pub(super) fn for_opening(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref::<ConfigError>()? {
        ConfigError::NoServer => {
            "set BAO_ADDR or VAULT_ADDR, for example to https://vault.example:8200"
        }
        ConfigError::BadServer(_) => "correct BAO_ADDR or VAULT_ADDR",
        ConfigError::BadNamespace => "correct BAO_NAMESPACE or VAULT_NAMESPACE",
        ConfigError::Net(unusable) => match unusable {
            NetConfigError::Plain(_) => "use https:// in BAO_ADDR or VAULT_ADDR",
            NetConfigError::Unreadable(_)
            | NetConfigError::Empty(_)
            | NetConfigError::Malformed(_) => {
                "set BAO_CACERT or VAULT_CACERT to a PEM file with the CA of the server"
            }
            NetConfigError::Library(_) => {
                "check that HTTPS_PROXY and the other proxy variables hold an address"
            }
        },
    };
    Some(hint.to_owned())
}

/// The hint for an error of an open store.
pub(super) fn for_store(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref::<VaultError>()? {
        VaultError::Silent(silence) => return for_silence(silence),
        VaultError::Sealed => {
            "unseal it, or increase the timeout with `--store-timeout TIME`".to_owned()
        }
        VaultError::Forbidden(path) => format!(
            "add to its policy: path \"{path}\" {{ capabilities = [\"read\", \"create\", \"update\"] }}; \
             and check that the mount exists: the server returns the same error for a missing one"
        ),
        VaultError::BadToken => {
            "create a new token, or let the job log in with `auth=jwt` in the address".to_owned()
        }
        VaultError::NoToken => "set BAO_TOKEN or VAULT_TOKEN, or let the job log in with \
            `auth=jwt&role=ROLE` in the address"
            .to_owned(),
        VaultError::NotAToken | VaultError::UnreadableToken { .. } => {
            "set BAO_TOKEN or VAULT_TOKEN to a token".to_owned()
        }
        VaultError::NoCredential(_) => {
            "set BAO_ROLE_ID and BAO_SECRET_ID, or VAULT_ROLE_ID and VAULT_SECRET_ID".to_owned()
        }
        VaultError::NoJobToken(missing) => return for_job_token(missing),
        VaultError::AuthRefused { mount, why } => return for_login(mount, why),
        VaultError::NoMount(_) | VaultError::AnotherEngine(_) => {
            "use an address vault://MOUNT/PATH, without `data/` in between; list the mounts with \
            `bao secrets list` or `vault secrets list`"
                .to_owned()
        }
        VaultError::OldMount(mount) => {
            format!(
                "enable versions: `bao kv enable-versioning {mount}` or `vault kv enable-versioning {mount}`"
            )
        }
        VaultError::NoNamespace => "correct BAO_NAMESPACE or VAULT_NAMESPACE".to_owned(),
        VaultError::NotText(field) => format!(
            "write the file itself: `bao kv patch MOUNT/PATH {field}=@auth.json` or `vault kv patch \
             MOUNT/PATH {field}=@auth.json`"
        ),
        VaultError::NotUtf8
        | VaultError::TooLong { .. }
        | VaultError::ErrorResponse { .. }
        | VaultError::StaleRead
        | VaultError::Unintelligible => return None,
    };
    Some(hint)
}

fn for_silence(silence: &HttpError) -> Option<String> {
    let hint = match silence {
        HttpError::ConnectFailed(why) if why.contains("invalid peer certificate") => {
            "set BAO_CACERT or VAULT_CACERT to a PEM file with the CA of the server"
        }
        HttpError::ConnectFailed(_) => {
            "check that BAO_ADDR or VAULT_ADDR is right, or increase the timeout with `--store-timeout TIME`"
        }
        HttpError::ForeignRedirect(_) => {
            "list every server of the cluster in BAO_ADDR or VAULT_ADDR, separated by commas"
        }
        HttpError::InvalidRequest(_)
        | HttpError::Timeout
        | HttpError::ConnectionLost(_)
        | HttpError::TooLong(_) => {
            return None;
        }
    };
    Some(hint.to_owned())
}

fn for_job_token(missing: &JobTokenError) -> Option<String> {
    let hint = match missing {
        JobTokenError::NotPermitted => {
            "add `id-token: write` to the `permissions` of the job in the workflow".to_owned()
        }
        JobTokenError::NotAToken(_) => {
            "set it to the token itself, as `id_tokens` does on GitLab".to_owned()
        }
        JobTokenError::Unset(name) => format!(
            "declare it in the job: `id_tokens: {{ {name}: {{ aud: AUDIENCE }} }}` on GitLab, or \
             use another variable with `id_token=NAME` in the address"
        ),
        JobTokenError::Unreadable { .. } => {
            "set `id_token_file=PATH` in the address to the file that the platform writes"
                .to_owned()
        }
        JobTokenError::InvalidUrl
        | JobTokenError::NoClient(_)
        | JobTokenError::Status(_)
        | JobTokenError::NoResponse(_)
        | JobTokenError::Malformed => return None,
    };
    Some(hint)
}

fn for_login(mount: &str, why: &Rejection) -> Option<String> {
    let hint = match why {
        Rejection::NoMethod => {
            "check that the auth method is enabled and configured, or set its path with \
             `auth_mount=PATH` in the address"
                .to_owned()
        }
        Rejection::Audience => {
            "set `bound_audiences` of the role to the value of `audience=…` in the address on GitHub, \
            or of `aud` in `id_tokens` on GitLab"
                .to_owned()
        }
        Rejection::Claim(_) => format!(
            "compare the job with `bound_claims` and `bound_subject` of the role: `bao read \
             auth/{mount}/role/ROLE`"
        ),
        Rejection::Time(_) => {
            "compare the clocks, and make the token valid as long as the job runs: \
            on GitLab, set the job's `timeout`"
                .to_owned()
        }
        Rejection::Issuer | Rejection::Signature => format!(
            "compare the token's issuer with `oidc_discovery_url` and `bound_issuer` of the auth \
             method: `bao read auth/{mount}/config`"
        ),
        Rejection::NoRole => "set one with `role=ROLE` in the address".to_owned(),
        Rejection::UnknownRole => format!("list the roles: `bao list auth/{mount}/role`"),
        Rejection::Credentials => {
            "create a new secret ID: each can have a limited number of uses and an expiry".to_owned()
        }
        Rejection::Other { .. } => return None,
    };
    Some(hint)
}
