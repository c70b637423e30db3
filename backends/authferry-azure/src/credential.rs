//! How a token is come by.

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
    settings::{Application, Login, Misfit},
    wire::{client_options, transport},
};

/// Whom a job's token has to be for.
const AUDIENCE: &str = "api://AzureADTokenExchange";

/// Returns the way to a token. `transport` reaches the authority.
pub(crate) fn of(
    login: Login,
    authority: &Url,
    shared: &Transport,
    net: &Net,
) -> Result<Arc<dyn TokenCredential>, Misfit> {
    let mut cloud = CustomConfiguration::default();
    authority.as_str().clone_into(&mut cloud.authority_host);
    let options = || ClientOptions {
        cloud: Some(Arc::new(CloudConfiguration::Custom(cloud.clone()))),
        ..client_options(shared)
    };
    let misfit = |_: azure_core::Error| Misfit::BadApplication;
    let credential: Arc<dyn TokenCredential> = match login {
        Login::Workload { application, token } => {
            let (tenant, client) = known(application)?;
            let options = ClientAssertionCredentialOptions {
                client_options: options(),
            };
            let assertion = Assertion(token);
            ClientAssertionCredential::new(tenant, client, assertion, Some(options))
                .map_err(misfit)?
        }
        Login::Secret {
            application,
            secret,
        } => {
            let (tenant, client) = known(application)?;
            let secret = secret.ok_or(Misfit::Lacking("AZURE_CLIENT_SECRET"))?;
            let secret = Secret::new(secret.expose_secret().to_owned());
            let options = ClientSecretCredentialOptions {
                client_options: options(),
            };
            ClientSecretCredential::new(&tenant, client, secret, Some(options)).map_err(misfit)?
        }
        Login::Managed { client, endpoint } => {
            let options = ManagedIdentityCredentialOptions {
                user_assigned_id: client.map(UserAssignedId::ClientId),
                client_options: client_options(&to_the_machine(endpoint.as_deref(), net)?),
            };
            ManagedIdentityCredential::new(Some(options)).map_err(misfit)?
        }
        Login::Cli { tenant } => {
            let options = AzureCliCredentialOptions {
                tenant_id: tenant,
                ..AzureCliCredentialOptions::default()
            };
            AzureCliCredential::new(Some(options)).map_err(misfit)?
        }
    };
    Ok(credential)
}

fn known(application: Application) -> Result<(String, String), Misfit> {
    let tenant = application
        .tenant
        .ok_or(Misfit::Lacking("AZURE_TENANT_ID"))?;
    let client = application
        .client
        .ok_or(Misfit::Lacking("AZURE_CLIENT_ID"))?;
    Ok((tenant, client))
}

/// What the machine offers lies on the machine itself or beside it, and is asked without TLS
/// and never through a proxy.
fn to_the_machine(endpoint: Option<&str>, net: &Net) -> Result<Transport, Misfit> {
    const USUAL: &str = "http://169.254.169.254";
    let endpoint = Url::parse(endpoint.unwrap_or(USUAL)).map_err(|_| Misfit::BadEndpoint)?;
    let by_tls: Vec<_> = Some(&endpoint)
        .filter(|endpoint| endpoint.scheme() == "https")
        .cloned()
        .into_iter()
        .collect();
    let client = net.client(&by_tls)?;
    Ok(transport(client, &[endpoint]))
}

/// The job's own token, in the place of a certificate.
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
        let token = token.map_err(|why| azure_core::Error::new(ErrorKind::Credential, why))?;
        Ok(token.expose_secret().to_owned())
    }
}
