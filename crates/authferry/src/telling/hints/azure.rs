//! The next step that works, for each way in which Azure says no.

use std::error::Error;

use authferry_azure::{BadAddress, Misfit, NewCoordinator, Rejection, Trouble};
use authferry_http::{NoJobToken, Silence, Unusable};

/// Why no store could be opened.
pub(super) fn for_opening(error: &(dyn Error + 'static)) -> Vec<String> {
    if let Some(BadAddress::Coordinator(new)) = error.downcast_ref() {
        return for_coordinator(new).into();
    }
    error
        .downcast_ref()
        .and_then(for_settings)
        .into_iter()
        .collect()
}

/// The commands that create a coordinator, and how the address names it.
fn for_coordinator(new: &NewCoordinator) -> [String; 3] {
    let group = new.vault.as_ref().map_or_else(
        || "RESOURCE_GROUP".to_owned(),
        |vault| {
            format!("\"$(az keyvault show --name {vault} --query resourceGroup --output tsv)\"")
        },
    );
    let account = new.account.as_deref().unwrap_or("ACCOUNT");
    let dot = if new.domain.is_some() { "." } else { "" };
    let (domain, blob) = (new.domain.unwrap_or_default(), &new.blob);
    [
        format!(
            "create the storage account: `az storage account create --resource-group {group} \
             --name {account} --allow-shared-key-access false`"
        ),
        format!(
            "create its container: `az storage container create --account-name {account} --name \
             logins --auth-mode login`"
        ),
        format!("set `coordinator=blob://{account}{dot}{domain}/logins/{blob}` in the address"),
    ]
}

fn for_settings(misfit: &Misfit) -> Option<String> {
    let hint = match misfit {
        Misfit::BadAuthority => "mend AZURE_AUTHORITY_HOST",
        Misfit::BadApplication => "mend AZURE_TENANT_ID or AZURE_CLIENT_ID",
        Misfit::Lacking(_) => {
            "set AZURE_TENANT_ID and AZURE_CLIENT_ID of the application, and AZURE_CLIENT_SECRET \
             with `auth=secret`"
        }
        Misfit::BadEndpoint => "mend IDENTITY_ENDPOINT, or take it away",
        Misfit::Unusable(unusable) => match unusable {
            Unusable::Plain(_) => return None,
            Unusable::Unreadable(_) | Unusable::Empty(_) | Unusable::Malformed(_) => {
                "name the file with the CA certificates in SSL_CERT_FILE, as PEM"
            }
            Unusable::Library(_) => "see whether HTTPS_PROXY and its like hold an address",
        },
    };
    Some(hint.to_owned())
}

/// Why a store did not do as asked.
pub(super) fn for_store(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref::<Trouble>()? {
        Trouble::Silent(silence) => return for_silence(silence, "the address"),
        Trouble::SilentAuthority(silence) => return for_silence(silence, "AZURE_AUTHORITY_HOST"),
        Trouble::NoJobToken(missing) => return for_job_token(missing),
        Trouble::Login(why) => return for_login(why),
        Trouble::Cli(_) => {
            "`az login`, or let the job log in by itself with `auth=workload` in the address"
        }
        Trouble::BadToken => "see whether AZURE_TENANT_ID is the tenant of the vault",
        Trouble::Impostor => {
            "see whether the address names the vault itself: nothing was sent to that server"
        }
        Trouble::Forbidden(_) => {
            "assign the roles to it that deploy/policies/azure names; that takes some minutes to \
             be known everywhere"
        }
        Trouble::Firewalled(_) => {
            "let the runners' network in, or run the job inside, at a private endpoint"
        }
        Trouble::Disabled => {
            "enable it with `az keyvault secret set-attributes --enabled true`, or seed the store \
             again"
        }
        Trouble::Deleted => {
            "`az keyvault secret recover`, or `az keyvault secret purge` and seed the store again"
        }
        Trouble::NoContainer => "make it with `az storage container create`",
        Trouble::BadBlob => {
            "name a blob in the address that is used for nothing else, or delete what is there: \
             the newest version counts then"
        }
        Trouble::Settling
        | Trouble::Busy
        | Trouble::Behind
        | Trouble::NotUtf8
        | Trouble::TooLong { .. }
        | Trouble::Answer { .. }
        | Trouble::Unintelligible => return None,
    };
    Some(hint.to_owned())
}

fn for_silence(silence: &Silence, named_by: &str) -> Option<String> {
    let hint = match silence {
        Silence::Unreached(why) if why.contains("invalid peer certificate") => {
            "name the file with the CA of the server in SSL_CERT_FILE, as PEM".to_owned()
        }
        Silence::Unreached(_) => {
            format!("see whether {named_by} is right, or give it longer with `--patience TIME`")
        }
        Silence::Elsewhere(_)
        | Silence::Unmade(_)
        | Silence::Late
        | Silence::Broken(_)
        | Silence::TooLong(_) => return None,
    };
    Some(hint)
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
            "declare it in the job: `id_tokens: {{ {name}: {{ aud: api://AzureADTokenExchange }} }}` \
             on GitLab, or name another variable with `id_token=NAME` in the address"
        ),
        NoJobToken::Unreadable { .. } => {
            "name the file that the platform writes in AZURE_FEDERATED_TOKEN_FILE, or with \
             `id_token_file=PATH` in the address"
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

fn for_login(why: &Rejection) -> Option<String> {
    let hint = match why {
        Rejection::Federation(_) => {
            "compare the application's federated credentials with the job: the issuer, the \
             subject, letter by letter, and the audience api://AzureADTokenExchange"
        }
        Rejection::Secret => "take a new secret, or let the job log in with `auth=workload`",
        Rejection::Application => "see whether AZURE_CLIENT_ID is an application of the tenant",
        Rejection::Tenant => "mend AZURE_TENANT_ID",
        Rejection::Other { .. } => return None,
    };
    Some(hint.to_owned())
}
