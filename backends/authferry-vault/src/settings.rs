//! The settings of a store that its address does not contain.

use std::path::PathBuf;

use authferry_http::{JobToken, Net, NetConfigError};
use secrecy::SecretString;
use url::Url;

/// The settings of a store that its address does not contain. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The URLs of the servers of one cluster, separated by commas.
    pub servers: Option<String>,
    /// The namespace of every request.
    pub namespace: Option<String>,
    /// TLS and proxy settings.
    pub net: Net,
    /// An existing Vault token.
    pub token: Option<SecretString>,
    /// The file to read the token from if `token` is `None`.
    pub token_file: Option<PathBuf>,
    /// The role ID of an AppRole.
    pub role_id: Option<SecretString>,
    /// The secret ID of an AppRole.
    pub secret_id: Option<SecretString>,
    /// The source of the job's OIDC token.
    pub job_token: Option<JobToken>,
}

/// Why these settings cannot open a store.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No server URL.
    #[error("no Vault server is configured")]
    NoServer,
    /// An invalid server URL. The message does not repeat it: it may contain a secret.
    #[error("invalid URL of the Vault server: {0}")]
    BadServer(&'static str),
    /// Not a valid header value.
    #[error("the namespace contains characters other than printable ASCII")]
    BadNamespace,
    /// No HTTP client for these servers.
    #[error(transparent)]
    Net(#[from] NetConfigError),
}

impl Settings {
    pub(crate) fn servers(&self) -> Result<Vec<Url>, ConfigError> {
        let servers = self.servers.as_deref().ok_or(ConfigError::NoServer)?;
        servers
            .split(',')
            .map(|server| parse(server.trim()))
            .collect()
    }

    pub(crate) fn namespace(&self) -> Result<Option<String>, ConfigError> {
        let is_graphic = |name: &&String| name.bytes().all(|b| b.is_ascii_graphic());
        match &self.namespace {
            Some(name) if !is_graphic(&name) => Err(ConfigError::BadNamespace),
            name => Ok(name.clone()),
        }
    }
}

fn parse(server: &str) -> Result<Url, ConfigError> {
    let url: Url = server
        .parse()
        .map_err(|_| ConfigError::BadServer("expected https://HOST:PORT"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(ConfigError::BadServer("it must begin with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::BadServer(
            "it must not contain a user or a password",
        ));
    }
    // The library puts the API version in front of any path.
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(ConfigError::BadServer(
            "it must end after the host and the port",
        ));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers(text: &str) -> Settings {
        Settings {
            servers: Some(text.to_owned()),
            ..Settings::default()
        }
    }

    #[test]
    fn server_urls_are_separated_by_commas() {
        let three = servers("https://a.example:8200, https://b.example,http://127.0.0.1:1/");
        let three = three.servers().expect("three addresses");
        let three: Vec<_> = three.iter().map(Url::as_str).collect();
        assert_eq!(
            three,
            [
                "https://a.example:8200/",
                "https://b.example/",
                "http://127.0.0.1:1/"
            ]
        );
    }

    #[test]
    fn an_invalid_server_url_is_rejected_and_not_repeated() {
        assert!(matches!(
            Settings::default().servers(),
            Err(ConfigError::NoServer)
        ));
        for text in [
            "",
            "made-up.example",
            "https://a.example,",
            "made-up.example:8200",
            "unix:///made-up",
            "https://made-up@a.example",
            "https://:made-up@a.example",
            "https://a.example/made-up",
            "https://a.example/?made-up",
            "https://a.example/#made-up",
        ] {
            let error = servers(text).servers().expect_err(text);
            assert!(matches!(error, ConfigError::BadServer(_)), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("made-up"), "{error}");
        }
    }

    #[test]
    fn a_namespace_must_be_a_valid_header_value() {
        let with = |name: &str| Settings {
            namespace: Some(name.to_owned()),
            ..Settings::default()
        };
        let team = with("admin/team").namespace().expect("a namespace");
        assert_eq!(team.as_deref(), Some("admin/team"));
        for bad in ["a b", "a\nb", "ä", "a\u{7f}"] {
            assert!(
                matches!(with(bad).namespace(), Err(ConfigError::BadNamespace)),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let settings = Settings {
            token: Some("made-up-token".into()),
            role_id: Some("made-up-role".into()),
            secret_id: Some("made-up-secret".into()),
            job_token: Some(JobToken::Variable {
                name: "CI_TOKEN".into(),
                value: Some("made-up.job.token".into()),
            }),
            ..Settings::default()
        };
        let text = format!("{settings:#?}");
        assert!(
            text.contains("CI_TOKEN") && !text.contains("made-up"),
            "{text}"
        );
    }
}
