//! The settings of a store that its address does not contain.

use std::fmt;

use authferry_http::{JobToken, Net, NetConfigError};
use secrecy::SecretString;
use url::Url;

/// How to reach the cloud and authenticate. `Debug` shows no secret.
#[derive(Debug)]
pub struct Settings {
    /// TLS and proxy settings.
    pub net: Net,
    /// The token authority, if not that of the public cloud: `AZURE_AUTHORITY_HOST`.
    pub authority: Option<String>,
    /// How to authenticate.
    pub credential: Credential,
}

/// How to authenticate.
pub enum Credential {
    /// The job's OIDC token, for an application with a federated credential.
    Workload {
        /// The application: `AZURE_TENANT_ID` and `AZURE_CLIENT_ID`.
        application: Application,
        /// The source of the token.
        token: JobToken,
    },
    /// The managed identity of the machine.
    Managed {
        /// The identity, if the machine has several: `AZURE_CLIENT_ID`.
        client: Option<String>,
        /// The endpoint, if not the usual one: `IDENTITY_ENDPOINT`.
        endpoint: Option<String>,
    },
    /// A client secret of an application.
    Secret {
        /// The application.
        application: Application,
        /// The secret: `AZURE_CLIENT_SECRET`.
        secret: Option<SecretString>,
    },
    /// The login of `az`.
    Cli {
        /// The tenant, if not the default one: `AZURE_TENANT_ID`.
        tenant: Option<String>,
    },
}

/// An application of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Application {
    /// The tenant.
    pub tenant: Option<String>,
    /// The client ID of the application.
    pub client: Option<String>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workload { application, token } => {
                write!(f, "Workload({application:?}, {token:?})")
            }
            Self::Managed { client, .. } => write!(f, "Managed({client:?})"),
            Self::Secret { application, .. } => write!(f, "Secret({application:?})"),
            Self::Cli { tenant } => write!(f, "Cli({tenant:?})"),
        }
    }
}

/// The token authority of the public cloud.
const AUTHORITY: &str = "https://login.microsoftonline.com";

impl Settings {
    /// Returns the URL of the token authority.
    pub(crate) fn authority(&self) -> Result<Url, ConfigError> {
        let text = self.authority.as_deref().unwrap_or(AUTHORITY);
        // Azure's tools also accept a host without a scheme.
        let url = if text.contains("://") {
            Url::parse(text)
        } else {
            Url::parse(&format!("https://{text}"))
        };
        let url = url.map_err(|_| ConfigError::BadAuthority)?;
        let is_valid = url.scheme() == "https"
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none();
        if is_valid {
            Ok(url)
        } else {
            Err(ConfigError::BadAuthority)
        }
    }
}

/// Why these settings cannot open a store.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// An invalid URL of the token authority.
    #[error("invalid URL of the token authority: expected https://HOST")]
    BadAuthority,
    /// Neither a GUID nor a domain.
    #[error("invalid tenant or client: each is a GUID or a domain")]
    BadApplication,
    /// One part of a credential is missing.
    #[error("cannot authenticate: {0} is not set")]
    MissingVariable(&'static str),
    /// An invalid URL of the managed identity endpoint.
    #[error("IDENTITY_ENDPOINT is not a URL")]
    BadEndpoint,
    /// No HTTP client for these servers.
    #[error(transparent)]
    Net(#[from] NetConfigError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_with_tls() {
        let with = |text: &str| Settings {
            net: Net::default(),
            authority: Some(text.to_owned()),
            credential: Credential::Cli { tenant: None },
        };
        for good in [
            "https://login.microsoftonline.us",
            "login.chinacloudapi.cn/",
        ] {
            assert!(with(good).authority().is_ok(), "{good}");
        }
        for bad in [
            "",
            "http://made-up.example",
            "https://user@made-up.example",
            "https://",
        ] {
            let error = with(bad).authority().expect_err(bad);
            assert!(!error.to_string().contains("made-up"), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let credentials = [
            Credential::Secret {
                application: Application::default(),
                secret: Some("made-up-secret".into()),
            },
            Credential::Workload {
                application: Application::default(),
                token: JobToken::Variable {
                    name: "CI_TOKEN".into(),
                    value: Some("made-up.job.token".into()),
                },
            },
        ];
        let text = format!("{credentials:#?}");
        assert!(
            text.contains("CI_TOKEN") && !text.contains("made-up"),
            "{text}"
        );
    }
}
