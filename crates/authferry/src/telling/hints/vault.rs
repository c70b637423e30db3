//! The next step that works, for each way in which Vault or OpenBao says no.

use std::error::Error;

use authferry_http::{NoJobToken, Silence, Unusable};
use authferry_vault::{Misfit, Rejection, Trouble};

/// Why no store could be opened.
pub(super) fn for_opening(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref::<Misfit>()? {
        Misfit::NoServer => "set BAO_ADDR or VAULT_ADDR, for example to https://vault.example:8200",
        Misfit::BadServer(_) => "mend BAO_ADDR or VAULT_ADDR",
        Misfit::BadNamespace => "mend BAO_NAMESPACE or VAULT_NAMESPACE",
        Misfit::Unusable(unusable) => match unusable {
            Unusable::Plain(_) => "let BAO_ADDR or VAULT_ADDR begin with https://",
            Unusable::Unreadable(_) | Unusable::Empty(_) | Unusable::Malformed(_) => {
                "name the file with the CA of the server in BAO_CACERT or VAULT_CACERT, as PEM"
            }
            Unusable::Library(_) => "see whether HTTPS_PROXY and its like hold an address",
        },
    };
    Some(hint.to_owned())
}

/// Why a store did not do as asked.
pub(super) fn for_store(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref::<Trouble>()? {
        Trouble::Silent(silence) => return for_silence(silence),
        Trouble::Sealed => "unseal it, or give it longer with `--patience TIME`".to_owned(),
        Trouble::Forbidden(path) => format!(
            "its policy has to say: path \"{path}\" {{ capabilities = [\"read\", \"create\", \"update\"] }}; \
             and the mount has to be there, for a missing one looks the same"
        ),
        Trouble::BadToken => {
            "take a new token, or let the job log in by itself with `auth=jwt` in the address"
                .to_owned()
        }
        Trouble::NoToken => "set BAO_TOKEN or VAULT_TOKEN, or let the job log in by itself with \
            `auth=jwt&role=ROLE` in the address"
            .to_owned(),
        Trouble::NotAToken | Trouble::UnreadableToken { .. } => {
            "put a token into BAO_TOKEN or VAULT_TOKEN".to_owned()
        }
        Trouble::NoCredential(_) => {
            "set BAO_ROLE_ID and BAO_SECRET_ID, or VAULT_ROLE_ID and VAULT_SECRET_ID".to_owned()
        }
        Trouble::NoJobToken(missing) => return for_job_token(missing),
        Trouble::Login { mount, why } => return for_login(mount, why),
        Trouble::NoMount(_) | Trouble::AnotherEngine(_) => "an address is vault://MOUNT/PATH, \
            without `data/` in between; `bao secrets list` or `vault secrets list` names the mounts"
            .to_owned(),
        Trouble::OldMount(mount) => {
            format!("`bao kv enable-versioning {mount}` or `vault kv enable-versioning {mount}`")
        }
        Trouble::NoNamespace => "mend BAO_NAMESPACE or VAULT_NAMESPACE".to_owned(),
        Trouble::NotText(field) => format!(
            "put the file itself there: `bao kv patch MOUNT/PATH {field}=@auth.json`, or the same \
             with vault"
        ),
        Trouble::NotUtf8
        | Trouble::TooLong { .. }
        | Trouble::Answer { .. }
        | Trouble::Behind
        | Trouble::Unintelligible => return None,
    };
    Some(hint)
}

fn for_silence(silence: &Silence) -> Option<String> {
    let hint = match silence {
        Silence::Unreached(why) if why.contains("invalid peer certificate") => {
            "name the file with the CA of the server in BAO_CACERT or VAULT_CACERT, as PEM"
        }
        Silence::Unreached(_) => {
            "see whether BAO_ADDR or VAULT_ADDR is right, or give it longer with `--patience TIME`"
        }
        Silence::Elsewhere(_) => {
            "name every server of the cluster in BAO_ADDR or VAULT_ADDR, with commas between them"
        }
        Silence::Unmade(_) | Silence::Late | Silence::Broken(_) | Silence::TooLong(_) => {
            return None;
        }
    };
    Some(hint.to_owned())
}

fn for_job_token(missing: &NoJobToken) -> Option<String> {
    let hint = match missing {
        NoJobToken::NotPermitted => {
            "add `id-token: write` to the `permissions` of the job in the workflow".to_owned()
        }
        NoJobToken::NotAToken(_) => {
            "it is to hold the token itself, as what `id_tokens` declares on GitLab does".to_owned()
        }
        NoJobToken::Unset(name) => format!(
            "declare it in the job: `id_tokens: {{ {name}: {{ aud: AUDIENCE }} }}` on GitLab, or \
             name another variable with `id_token=NAME` in the address"
        ),
        NoJobToken::Unreadable { .. } => {
            "name the file that the platform writes with `id_token_file=PATH` in the address"
                .to_owned()
        }
        NoJobToken::BadAddress
        | NoJobToken::NoClient(_)
        | NoJobToken::Refused(_)
        | NoJobToken::Silent(_)
        | NoJobToken::Unintelligible => return None,
    };
    Some(hint)
}

fn for_login(mount: &str, why: &Rejection) -> Option<String> {
    let hint = match why {
        Rejection::NoMethod => {
            "see that the auth method is enabled and configured, or name its path with \
             `auth_mount=PATH` in the address"
                .to_owned()
        }
        Rejection::Audience => {
            "let `bound_audiences` of the role name the same as `audience=…` in \
            the address on GitHub, or `aud` of the `id_tokens` on GitLab"
                .to_owned()
        }
        Rejection::Claim(_) => format!(
            "see whom the role is for: `bound_claims` and `bound_subject` in `bao read \
             auth/{mount}/role/ROLE`"
        ),
        Rejection::Time(_) => {
            "compare the clocks, and see that the token lives as long as the job: \
            on GitLab that is the job's `timeout`"
                .to_owned()
        }
        Rejection::Issuer | Rejection::Signature => format!(
            "see whose tokens the auth method takes: `oidc_discovery_url` and `bound_issuer` in \
             `bao read auth/{mount}/config`"
        ),
        Rejection::NoRole => "name one with `role=ROLE` in the address".to_owned(),
        Rejection::UnknownRole => format!("see which there are: `bao list auth/{mount}/role`"),
        Rejection::Credentials => {
            "make a new secret ID: each can have a number of uses and an end".to_owned()
        }
        Rejection::Other { .. } => return None,
    };
    Some(hint)
}
