//! Environment variables that make Codex ignore the auth file.

/// An environment variable that makes Codex use other credentials than the auth file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Its name.
    pub variable: String,
    /// Its effect, to complete "while it is set, Codex …".
    pub effect: &'static str,
    /// Whether it has an effect even without a value.
    pub counts_if_empty: bool,
}

/// Returns what a variable of this name does, if it makes Codex use other credentials than the auth
/// file.
///
/// This crate does not read the environment: the caller refuses or clears these variables.
/// `OPENAI_API_KEY` is not one of them: with a `chatgpt` login, `codex exec` ignores it.
#[must_use]
pub fn override_of(variable: &str) -> Option<Override> {
    let effect = match variable {
        "CODEX_ACCESS_TOKEN" => "runs on that token and ignores the auth file",
        "CODEX_API_KEY" => {
            "calls the model with that key, yet still rotates the login in the auth file"
        }
        _ if is_of_workload_identity(variable) => {
            "signs in by workload identity and ignores the auth file"
        }
        _ => return None,
    };
    Some(Override {
        variable: variable.to_owned(),
        effect,
        counts_if_empty: is_of_workload_identity(variable),
    })
}

/// Each version adds variables of workload identity: 0.171.0 exits with 1 if any one of five is
/// set, even to an empty text. So their prefixes decide.
fn is_of_workload_identity(variable: &str) -> bool {
    const PREFIXES: [&str; 3] = ["OPENAI_FEDERATION_", "OPENAI_IDENTITY_", "OPENAI_SPIFFE_"];
    PREFIXES.iter().any(|prefix| variable.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workload_identity_is_recognized_by_prefix() {
        for name in [
            "CODEX_ACCESS_TOKEN",
            "CODEX_API_KEY",
            "OPENAI_FEDERATION_RULE_ID",
            "OPENAI_IDENTITY_TOKEN_FILE",
            "OPENAI_IDENTITY_TOKEN_SOURCE",
            "OPENAI_SPIFFE_ID",
            "OPENAI_SPIFFE_AUDIENCE",
            "OPENAI_SPIFFE_OF_ANOTHER_VERSION",
        ] {
            let found = override_of(name).expect(name);
            assert_eq!(found.variable, name);
            assert_eq!(found.counts_if_empty, name.starts_with("OPENAI"), "{name}");
        }
        for name in [
            "OPENAI_API_KEY",
            "CODEX_HOME",
            "CODEX_API_KEY_OF_ANOTHER",
            "MY_OPENAI_SPIFFE_ID",
            "PATH",
            "",
        ] {
            assert_eq!(override_of(name), None, "{name}");
        }
    }
}
