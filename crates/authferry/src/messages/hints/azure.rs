//! The hint for each error of Azure.

use std::error::Error;

use authferry_azure::{AzureError, BadAddress, ConfigError, NewCoordinator, Rejection};
use authferry_http::{HttpError, JobTokenError, NetConfigError};

/// The hints for a store that cannot be opened.
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

fn for_settings(error: &ConfigError) -> Option<String> {
    let hint = match error {
        ConfigError::BadAuthority => "correct AZURE_AUTHORITY_HOST",
        ConfigError::BadApplication => "correct AZURE_TENANT_ID or AZURE_CLIENT_ID",
        ConfigError::MissingVariable(_) => {
            "set AZURE_TENANT_ID and AZURE_CLIENT_ID of the application, and AZURE_CLIENT_SECRET \
             with `auth=secret`"
        }
        ConfigError::BadEndpoint => "correct IDENTITY_ENDPOINT, or unset it",
        ConfigError::Net(unusable) => match unusable {
            NetConfigError::Plain(_) => return None,
            NetConfigError::Unreadable(_)
            | NetConfigError::Empty(_)
            | NetConfigError::Malformed(_) => {
                "set SSL_CERT_FILE to a PEM file with the CA certificates"
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
    let hint = match error.downcast_ref::<AzureError>()? {
        AzureError::Silent(silence) => return for_silence(silence, "the address"),
        AzureError::SilentAuthority(silence) => {
            return for_silence(silence, "AZURE_AUTHORITY_HOST");
        }
        AzureError::NoJobToken(missing) => return for_job_token(missing),
        AzureError::AuthRefused(why) => return for_login(why),
        AzureError::Cli(_) => {
            "run `az login`, or let the job log in with `auth=workload` in the address"
        }
        AzureError::BadToken => "check that AZURE_TENANT_ID is the tenant of the vault",
        AzureError::Impostor => {
            "check that the address names the vault itself: nothing was sent to that server"
        }
        AzureError::Forbidden(_) => {
            "assign it the roles in deploy/policies/azure; Azure takes some minutes to apply them \
             everywhere"
        }
        AzureError::Firewalled(_) => {
            "allow the network of the runners, or run the job at a private endpoint"
        }
        AzureError::Disabled => {
            "enable it with `az keyvault secret set-attributes --enabled true`, or seed the store \
             again"
        }
        AzureError::Deleted => {
            "recover it with `az keyvault secret recover`, or run `az keyvault secret purge` and seed the store again"
        }
        AzureError::NoContainer => "create it with `az storage container create`",
        AzureError::BadBlob => {
            "use a blob in the address that only authferry uses, or delete this blob: the newest \
             version of the secret counts then"
        }
        AzureError::InTransition
        | AzureError::Busy
        | AzureError::StaleRead
        | AzureError::NotUtf8
        | AzureError::TooLong { .. }
        | AzureError::ErrorResponse { .. }
        | AzureError::Unintelligible => return None,
    };
    Some(hint.to_owned())
}

fn for_silence(silence: &HttpError, named_by: &str) -> Option<String> {
    let hint = match silence {
        HttpError::ConnectFailed(why) if why.contains("invalid peer certificate") => {
            "set SSL_CERT_FILE to a PEM file with the CA of the server".to_owned()
        }
        HttpError::ConnectFailed(_) => {
            format!(
                "check that {named_by} is right, or increase the timeout with `--store-timeout TIME`"
            )
        }
        HttpError::ForeignRedirect(_)
        | HttpError::InvalidRequest(_)
        | HttpError::Timeout
        | HttpError::ConnectionLost(_)
        | HttpError::TooLong(_) => return None,
    };
    Some(hint)
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
            "declare it in the job: `id_tokens: {{ {name}: {{ aud: api://AzureADTokenExchange }} }}` \
             on GitLab, or use another variable with `id_token=NAME` in the address"
        ),
        JobTokenError::Unreadable { .. } => {
            "set AZURE_FEDERATED_TOKEN_FILE, or `id_token_file=PATH` in the address, to the file \
             that the platform writes"
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

fn for_login(why: &Rejection) -> Option<String> {
    let hint = match why {
        Rejection::Federation(_) => {
            "compare the application's federated credentials with the job: the issuer, the \
             subject (case-sensitive), and the audience api://AzureADTokenExchange"
        }
        Rejection::Secret => "create a new secret, or let the job log in with `auth=workload`",
        Rejection::Application => "check that AZURE_CLIENT_ID is an application of the tenant",
        Rejection::Tenant => "correct AZURE_TENANT_ID",
        Rejection::Other { .. } => return None,
    };
    Some(hint.to_owned())
}
