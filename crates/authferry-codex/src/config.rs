//! Settings and environment variables that make Codex ignore the auth file.

use std::{fs, io, path::Path};

use serde::Deserialize;

use crate::HomeError;

/// An environment variable that makes Codex use other credentials than the auth file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Override {
    /// Its name.
    pub variable: &'static str,
    /// Its effect, to complete "while it is set, Codex …".
    pub effect: &'static str,
}

/// The environment variables that make Codex 0.169.0 use other credentials than the auth file.
///
/// This crate does not read the environment: the caller refuses or clears these variables.
/// `OPENAI_API_KEY` is not in the list: with a `chatgpt` login, `codex exec` ignores it.
pub const OVERRIDES: &[Override] = &[
    Override {
        variable: "CODEX_ACCESS_TOKEN",
        effect: "runs on that token and ignores the auth file",
    },
    Override {
        variable: "CODEX_API_KEY",
        effect: "calls the model with that key, yet still rotates the login in the auth file",
    },
    Override {
        variable: "OPENAI_FEDERATION_RULE_ID",
        effect: "signs in by workload identity and ignores the auth file",
    },
    Override {
        variable: "OPENAI_IDENTITY_TOKEN_FILE",
        effect: "signs in by workload identity and ignores the auth file",
    },
];

/// The settings that affect the auth file.
#[derive(Deserialize)]
struct ConfigSettings {
    cli_auth_credentials_store: Option<String>,
    forced_login_method: Option<String>,
}

/// Refuses a `config.toml` that makes Codex ignore or delete the auth file. A missing file is fine.
pub(crate) fn check(path: &Path) -> Result<(), HomeError> {
    // Reading a pipe would block.
    if fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return Err(HomeError::NotARegularFile { path: path.into() });
    }
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(HomeError::io("read", path, error)),
    };
    // Drop the error: it quotes the line, and users keep keys in this file.
    let settings: ConfigSettings =
        toml::from_str(&text).map_err(|error| HomeError::ConfigMalformed {
            path: path.into(),
            line: error.span().map(|span| line_at(&text, span.start)),
        })?;
    if let Some(store) = settings.cli_auth_credentials_store
        && store != "file"
    {
        return Err(HomeError::CredentialsStore {
            path: path.into(),
            store,
        });
    }
    if settings.forced_login_method.as_deref() == Some("api") {
        return Err(HomeError::ForcedApiLogin { path: path.into() });
    }
    Ok(())
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(config: &str) -> Option<String> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config.toml");
        fs::write(&path, config).expect("a file");
        let text = check(&path).err()?.to_string();
        Some(text.replace(path.to_str().expect("a text"), "FILE"))
    }

    #[test]
    fn settings_that_keep_the_auth_file_in_use_pass() {
        let missing = Path::new("/nowhere/config.toml");
        check(missing).expect("no configuration");
        for fine in [
            "",
            "model = \"m\"\n[model_providers.a]\nname = \"a\"\n",
            "cli_auth_credentials_store = \"file\"",
            "forced_login_method = \"chatgpt\"",
            // A setting of the same name in another table.
            "[other]\ncli_auth_credentials_store = \"keyring\"",
        ] {
            assert_eq!(outcome(fine), None, "{fine}");
        }
    }

    #[test]
    fn every_other_credentials_store_is_refused() {
        for store in ["keyring", "auto", "ephemeral", "elsewhere", ""] {
            assert_eq!(
                outcome(&format!("cli_auth_credentials_store = '{store}'")),
                Some(format!(
                    "FILE sets cli_auth_credentials_store to {store:?}, must be \"file\""
                ))
            );
        }
        assert_eq!(
            outcome("forced_login_method = \"api\""),
            Some("FILE sets forced_login_method to \"api\", which deletes a ChatGPT login".into())
        );
    }

    #[test]
    fn a_malformed_configuration_is_not_quoted() {
        for config in [
            "a = 1\nkey = \"MADEUP\" MADEUP\n",
            "\ncli_auth_credentials_store = [\"MADEUP\"]",
            "\nforced_login_method = { MADEUP = \"MADEUP\" }",
        ] {
            assert_eq!(
                outcome(config),
                Some("FILE is malformed (line 2)".into()),
                "{config}"
            );
        }
    }

    #[test]
    fn an_unreadable_configuration_is_an_error() {
        let dir = tempfile::tempdir().expect("a folder");
        let found = check(dir.path()).expect_err("a folder");
        assert!(
            matches!(found, HomeError::Io { action: "read", .. }),
            "{found}"
        );
    }
}
