//! The settings of a Key Vault store from the environment.

use authferry_azure::{Address, Application, Auth, Credential, IdToken, Settings};
use authferry_core::BoxError;
use authferry_http::{JobToken, Net};

use super::Opened;
use crate::env::{self, Env};

/// The variables with credentials of Azure.
const CREDENTIALS: [&str; 8] = [
    "AZURE_CLIENT_SECRET",
    "AZURE_CLIENT_CERTIFICATE_PATH",
    "AZURE_CLIENT_CERTIFICATE_PASSWORD",
    "AZURE_PASSWORD",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "MSI_ENDPOINT",
    "MSI_SECRET",
];

/// The variables of the job's OIDC token, which authenticate as the job.
const ID_TOKENS: [&str; 4] = [
    "AZURE_FEDERATED_TOKEN_FILE",
    "GITLAB_OIDC_TOKEN",
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
];

/// The variable of the OIDC token in GitLab's documentation for Azure.
const GITLAB_ID_TOKEN: &str = "GITLAB_OIDC_TOKEN";

pub(super) fn open(address: &str, env: &Env) -> Result<Opened, BoxError> {
    let address: Address = address.parse()?;
    let auth = address.auth().cloned().unwrap_or_else(|| default_auth(env));
    let mut credentials: Vec<_> = CREDENTIALS.map(str::to_owned).into();
    if let Auth::Workload(from) = &auth {
        credentials.extend(ID_TOKENS.map(str::to_owned));
        if let IdToken::Variable(name) = from {
            credentials.push(name.clone());
        }
    }
    let azure = &env.azure;
    let application = || Application {
        tenant: azure.tenant.clone(),
        client: azure.client.clone(),
    };
    let credential = match auth {
        Auth::Workload(from) => Credential::Workload {
            application: application(),
            token: job_token(from, env),
        },
        Auth::Secret => Credential::Secret {
            application: application(),
            secret: azure.client_secret.clone(),
        },
        Auth::Managed => Credential::Managed {
            client: azure.client.clone(),
            endpoint: azure.identity_endpoint.clone(),
        },
        Auth::Cli => Credential::Cli {
            tenant: azure.tenant.clone(),
        },
    };
    let settings = Settings {
        net: Net::default(),
        authority: azure.authority.clone(),
        credential,
    };
    Ok(Opened {
        store: Box::new(authferry_azure::open(address, settings)?),
        credentials,
    })
}

/// How to log in without `auth=` in the address: by the variables that are set, as Azure's
/// libraries do. No request is made: the identity endpoint of a machine without an identity answers
/// only after a while.
fn default_auth(env: &Env) -> Auth {
    let azure = &env.azure;
    let is_application = azure.tenant.is_some() && azure.client.is_some();
    let is_job = env.job.contains_key("GITHUB_ACTIONS") || azure.id_token.is_some();
    if azure.client_secret.is_some() {
        Auth::Secret
    } else if azure.token_file.is_some() || is_application && is_job {
        Auth::Workload(IdToken::Platform)
    } else if azure.identity_endpoint.is_some() {
        Auth::Managed
    } else {
        Auth::Cli
    }
}

fn job_token(from: IdToken, env: &Env) -> JobToken {
    match from {
        IdToken::File(path) => JobToken::File(path),
        IdToken::Variable(name) => JobToken::Variable {
            value: env::user_variable(&name)
                .map(|value| value.to_string_lossy().into_owned().into()),
            name,
        },
        IdToken::Platform => {
            if let Some(file) = &env.azure.token_file {
                return JobToken::File(file.clone());
            }
            match (&env.id_token_url, &env.id_token_token) {
                (Some(url), Some(token)) => JobToken::GitHub {
                    url: url.clone(),
                    token: token.clone(),
                },
                // GitHub sets its two variables only for jobs with `id-token: write`.
                _ if env.azure.id_token.is_none() && env.job.contains_key("GITHUB_ACTIONS") => {
                    JobToken::NotPermitted
                }
                _ => JobToken::Variable {
                    name: GITLAB_ID_TOKEN.to_owned(),
                    value: env.azure.id_token.clone(),
                },
            }
        }
    }
}
