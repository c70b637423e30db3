//! What a store needs to know besides its address.

use std::path::PathBuf;

use authferry_http::{JobToken, Net, Unusable};
use secrecy::SecretString;
use url::Url;

/// What a store needs to know besides its address. `Debug` shows no secret.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The servers' addresses, with commas between them; they are one cluster.
    pub servers: Option<String>,
    /// The namespace in which all happens.
    pub namespace: Option<String>,
    /// How the servers are reached.
    pub net: Net,
    /// A token that somebody else made.
    pub token: Option<SecretString>,
    /// A file with such a token, for want of one.
    pub token_file: Option<PathBuf>,
    /// The role ID of an AppRole.
    pub role_id: Option<SecretString>,
    /// The secret ID of an AppRole.
    pub secret_id: Option<SecretString>,
    /// The job's own token.
    pub job_token: Option<JobToken>,
}

/// Why there can be no store with these settings.
#[derive(Debug, thiserror::Error)]
pub enum Misfit {
    /// Nobody says where the server is.
    #[error("no server is named for the store")]
    NoServer,
    /// Number so and so among the servers is no address. Not repeated: it may hold anything.
    #[error("the server's address makes no sense: {0}")]
    BadServer(&'static str),
    /// It cannot be a header's value.
    #[error("the namespace holds what no namespace can")]
    BadNamespace,
    /// No client for these servers.
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

impl Settings {
    pub(crate) fn servers(&self) -> Result<Vec<Url>, Misfit> {
        let servers = self.servers.as_deref().ok_or(Misfit::NoServer)?;
        servers
            .split(',')
            .map(|server| parse(server.trim()))
            .collect()
    }

    pub(crate) fn namespace(&self) -> Result<Option<String>, Misfit> {
        let is_graphic = |name: &&String| name.bytes().all(|b| b.is_ascii_graphic());
        match &self.namespace {
            Some(name) if !is_graphic(&name) => Err(Misfit::BadNamespace),
            name => Ok(name.clone()),
        }
    }
}

fn parse(server: &str) -> Result<Url, Misfit> {
    let url: Url = server
        .parse()
        .map_err(|_| Misfit::BadServer("it is to read like https://HOST:PORT"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Misfit::BadServer("it is to begin with https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Misfit::BadServer("it is to hold no user and no password"));
    }
    // The library puts the version of the API in front of whatever path there is.
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(Misfit::BadServer(
            "it is to end after the host and the port",
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
    fn servers_are_named_one_after_the_other() {
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
    fn what_is_no_server_is_refused_without_its_text() {
        assert!(matches!(
            Settings::default().servers(),
            Err(Misfit::NoServer)
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
            assert!(matches!(error, Misfit::BadServer(_)), "{error:?}");
            assert!(!format!("{error} {error:?}").contains("made-up"), "{error}");
        }
    }

    #[test]
    fn a_namespace_is_what_a_header_can_hold() {
        let with = |name: &str| Settings {
            namespace: Some(name.to_owned()),
            ..Settings::default()
        };
        let team = with("admin/team").namespace().expect("a namespace");
        assert_eq!(team.as_deref(), Some("admin/team"));
        for bad in ["a b", "a\nb", "ä", "a\u{7f}"] {
            assert!(
                matches!(with(bad).namespace(), Err(Misfit::BadNamespace)),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn no_secret_is_shown() {
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
