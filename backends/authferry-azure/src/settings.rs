//! What is known of the servers and of ourselves, beside the address.

use std::fmt;

use authferry_http::{JobToken, Net, Unusable};
use secrecy::SecretString;
use url::Url;

/// How the cloud is reached, and as whom. `Debug` shows no secret.
#[derive(Debug)]
pub struct Settings {
    /// How servers are reached.
    pub net: Net,
    /// Who gives out tokens, if not the one of the public cloud: `AZURE_AUTHORITY_HOST`.
    pub authority: Option<String>,
    /// As whom to log in.
    pub login: Login,
}

/// How to log in.
pub enum Login {
    /// With the job's own token, as an application that trusts it.
    Workload {
        /// Which application: `AZURE_TENANT_ID` and `AZURE_CLIENT_ID`.
        application: Application,
        /// The job's own token.
        token: JobToken,
    },
    /// As the identity of the machine.
    Managed {
        /// Which one, if it has several: `AZURE_CLIENT_ID`.
        client: Option<String>,
        /// Where it is asked for, if not at the usual address: `IDENTITY_ENDPOINT`.
        endpoint: Option<String>,
    },
    /// With a secret of an application.
    Secret {
        /// Which application.
        application: Application,
        /// The secret: `AZURE_CLIENT_SECRET`.
        secret: Option<SecretString>,
    },
    /// As whoever is logged in to `az`.
    Cli {
        /// In which tenant, if not in the usual one: `AZURE_TENANT_ID`.
        tenant: Option<String>,
    },
}

/// An application of a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Application {
    /// The tenant.
    pub tenant: Option<String>,
    /// The application's own number.
    pub client: Option<String>,
}

impl fmt::Debug for Login {
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

/// Who gives out tokens in the public cloud.
const AUTHORITY: &str = "https://login.microsoftonline.com";

impl Settings {
    /// Returns who gives out tokens.
    pub(crate) fn authority(&self) -> Result<Url, Misfit> {
        let text = self.authority.as_deref().unwrap_or(AUTHORITY);
        // The other tools take a host alone as well.
        let url = if text.contains("://") {
            Url::parse(text)
        } else {
            Url::parse(&format!("https://{text}"))
        };
        let url = url.map_err(|_| Misfit::BadAuthority)?;
        let is_plain = url.scheme() == "https"
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none();
        if is_plain {
            Ok(url)
        } else {
            Err(Misfit::BadAuthority)
        }
    }
}

/// Why the settings lead to no store.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// What gives out tokens has no usable address.
    #[error("the address of the authority makes no sense: it is to read like https://HOST")]
    BadAuthority,
    /// Neither a GUID nor a domain.
    #[error("the tenant or the client is none: each is a GUID, or a domain")]
    BadApplication,
    /// One part of a credential is missing.
    #[error("there is no {0} to log in with")]
    Lacking(&'static str),
    /// What offers the machine's identity has no usable address.
    #[error("IDENTITY_ENDPOINT is no address")]
    BadEndpoint,
    /// No client can be made.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_a_host_that_is_spoken_to_by_tls() {
        let with = |text: &str| Settings {
            net: Net::default(),
            authority: Some(text.to_owned()),
            login: Login::Cli { tenant: None },
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
    fn no_secret_is_shown() {
        let logins = [
            Login::Secret {
                application: Application::default(),
                secret: Some("made-up-secret".into()),
            },
            Login::Workload {
                application: Application::default(),
                token: JobToken::Variable {
                    name: "CI_TOKEN".into(),
                    value: Some("made-up.job.token".into()),
                },
            },
        ];
        let text = format!("{logins:#?}");
        assert!(
            text.contains("CI_TOKEN") && !text.contains("made-up"),
            "{text}"
        );
    }
}
