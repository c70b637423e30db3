//! Builds the Azure token credential.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use authferry_http::{JobToken, Net};
use azure_core::{
    cloud::{CloudConfiguration, CustomConfiguration},
    credentials::{Secret, TokenCredential},
    error::ErrorKind,
    http::{ClientMethodOptions, ClientOptions, Transport},
};
use azure_identity::{
    AzureCliCredential, AzureCliCredentialOptions, ClientAssertion, ClientAssertionCredential,
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};
use secrecy::ExposeSecret;
use url::Url;

use crate::{
    settings::{Application, ConfigError, Credential},
    wire::{client_options, transport},
};

/// The audience of the job's OIDC token.
const AUDIENCE: &str = "api://AzureADTokenExchange";

/// Builds the token credential. `shared` is the transport to the authority.
pub(crate) fn build(
    credential: Credential,
    authority: &Url,
    shared: &Transport,
    net: &Net,
) -> Result<Arc<dyn TokenCredential>, ConfigError> {
    let mut cloud = CustomConfiguration::default();
    authority.as_str().clone_into(&mut cloud.authority_host);
    let options = || ClientOptions {
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud.clone()))),
        ..client_options(shared)
    };
    let invalid = |_: azure_core::Error| ConfigError::BadApplication;
    let credential: Arc<dyn TokenCredential> = match credential {
        Credential::Workload { application, token } => {
            let (tenant, client) = require_ids(application)?;
            let options = ClientAssertionCredentialOptions {
                client_options: options(),
            };
            let assertion = Assertion(token);
            ClientAssertionCredential::new(tenant, client, assertion, Some(options))
                .map_err(invalid)?
        }
        Credential::Secret {
            application,
            secret,
        } => {
            let (tenant, client) = require_ids(application)?;
            let secret = secret.ok_or(ConfigError::MissingVariable("AZURE_CLIENT_SECRET"))?;
            let secret = Secret::new(secret.expose_secret().to_owned());
            let options = ClientSecretCredentialOptions {
                client_options: options(),
            };
            ClientSecretCredential::new(&tenant, client, secret, Some(options)).map_err(invalid)?
        }
        Credential::Managed { client, endpoint } => {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: client.map(UserAssignedId::ClientId),
                client_options: client_options(&identity_transport(endpoint.as_deref(), net)?),
            };
            ManagedIdentityCredential::new(Some(options)).map_err(invalid)?
        }
        Credential::Cli { tenant } => {
            let options = AzureCliCredentialOptions {
                tenant_id: tenant,
                ..AzureCliCredentialOptions::default()
            };
            AzureCliCredential::new(Some(options)).map_err(invalid)?
        }
    };
    Ok(credential)
}

fn require_ids(application: Application) -> Result<(String, String), ConfigError> {
    let tenant = application
        .tenant
        .ok_or(ConfigError::MissingVariable("AZURE_TENANT_ID"))?;
    let client = application
        .client
        .ok_or(ConfigError::MissingVariable("AZURE_CLIENT_ID"))?;
    Ok((tenant, client))
}

/// Returns the transport to the managed identity endpoint. It is local to the machine, so requests
/// use no TLS and no proxy.
fn identity_transport(endpoint: Option<&str>, net: &Net) -> Result<Transport, ConfigError> {
    const DEFAULT_ENDPOINT: &str = "http://169.254.169.254";
    let endpoint =
        Url::parse(endpoint.unwrap_or(DEFAULT_ENDPOINT)).map_err(|_| ConfigError::BadEndpoint)?;
    let with_tls: Vec<_> = Some(&endpoint)
        .filter(|endpoint| endpoint.scheme() == "https")
        .cloned()
        .into_iter()
        .collect();
    let client = net.client(&with_tls)?;
    Ok(transport(client, &[endpoint]))
}

/// The job's OIDC token as a client assertion.
struct Assertion(JobToken);

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ClientAssertion for Assertion {
    async fn secret(&self, _: Option<ClientMethodOptions<'_>>) -> azure_core::Result<String> {
        let token = self.0.fetch(Some(AUDIENCE)).await;
        let token = token.map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))?;
        Ok(token.expose_secret().to_owned())
    }
}
