//! The settings in the command line of a job.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use toml::Value;

use super::{
    Setting, SettingPlace,
    file::{ConfigFile, workspaces},
};

/// The options of a command that calls Codex. Without such a call, there are none: what a script
/// passes to Codex is not visible.
#[derive(Clone, Debug, Default)]
pub(super) struct CommandOptions {
    /// `-p NAME`
    pub(super) profile: Option<String>,
    /// `-C DIR`
    pub(super) folder: Option<PathBuf>,
    /// Each `-c KEY=VALUE`
    pub(super) overrides: Vec<String>,
}

impl CommandOptions {
    pub(super) fn of(command: &[OsString]) -> Self {
        let mut options = Self::default();
        let mut words = command.iter().map(|word| word.to_string_lossy());
        let Some(codex) = words.find(|word| is_codex(word)) else {
            return options;
        };
        // npm ends its own options with `--` after the name of the package.
        let mut is_after_package = is_package(&codex);
        while let Some(word) = words.next() {
            if word == "--" {
                if is_after_package {
                    is_after_package = false;
                    continue;
                }
                break;
            }
            let Some((option, value)) = split(&word) else {
                continue;
            };
            let value = match value {
                Some(value) => value.to_owned(),
                None => words.next().unwrap_or_default().into_owned(),
            };
            match option {
                ShortOption::Config => options.overrides.push(value),
                ShortOption::Profile => options.profile = Some(value),
                ShortOption::Folder => options.folder = Some(value.into()),
            }
        }
        options
    }

    pub(super) fn of_refresh() -> Self {
        Self {
            overrides: vec![r#"cli_auth_credentials_store="file""#.to_owned()],
            ..Self::default()
        }
    }

    /// Returns the settings of `-c`. A later one has precedence.
    pub(super) fn settings(&self) -> ConfigFile {
        let mut settings = ConfigFile::default();
        for (key, value) in self.overrides.iter().filter_map(|it| it.split_once('=')) {
            let value = parse(value);
            let text = value.as_str().map(|value| Setting {
                value: value.to_owned(),
                place: SettingPlace::CommandLine,
            });
            match key.trim() {
                "cli_auth_credentials_store" => settings.credentials_store = text,
                "forced_login_method" => settings.login_method = text,
                "forced_chatgpt_workspace_id" => {
                    settings.workspaces = workspaces(value).map(|value| Setting {
                        value,
                        place: SettingPlace::CommandLine,
                    });
                }
                _ => {}
            }
        }
        settings
    }
}

/// Whether a word of a command is Codex: the program, or its package for `npx`.
fn is_codex(word: &str) -> bool {
    let name = Path::new(word).file_name().and_then(OsStr::to_str);
    matches!(name, Some("codex" | "codex.js")) || is_package(word)
}

fn is_package(word: &str) -> bool {
    word == "@openai/codex" || word.starts_with("@openai/codex@")
}

#[derive(Clone, Copy)]
enum ShortOption {
    Config,
    Profile,
    Folder,
}

/// Splits a word into an option and its value, if both are in one word.
fn split(word: &str) -> Option<(ShortOption, Option<&str>)> {
    const OPTIONS: [(&str, &str, ShortOption); 3] = [
        ("-c", "--config", ShortOption::Config),
        ("-p", "--profile", ShortOption::Profile),
        ("-C", "--cd", ShortOption::Folder),
    ];
    OPTIONS.into_iter().find_map(|(short, long, option)| {
        if let Some(rest) = word.strip_prefix(long) {
            return match rest.strip_prefix('=') {
                Some(value) => Some((option, Some(value))),
                None => rest.is_empty().then_some((option, None)),
            };
        }
        let rest = word.strip_prefix(short)?;
        let value = rest.strip_prefix('=').unwrap_or(rest);
        Some((option, (!rest.is_empty()).then_some(value)))
    })
}

/// Parses a value as Codex does: as TOML, else as a text.
fn parse(value: &str) -> Value {
    let parsed: Option<toml::Table> = toml::from_str(&format!("value = {value}")).ok();
    let parsed = parsed.and_then(|mut table| table.remove("value"));
    let text = || value.trim().trim_matches(['"', '\'']).to_owned();
    parsed.unwrap_or_else(|| Value::String(text()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &[&str]) -> CommandOptions {
        let words: Vec<_> = line.iter().map(OsString::from).collect();
        CommandOptions::of(&words)
    }

    #[test]
    fn only_options_of_codex_count() {
        for line in [
            &["codex", "-c", "a=1", "exec", "-p", "ci", "-C", "sub", "hi"][..],
            &[
                "/opt/codex",
                "exec",
                "--config=a=1",
                "--profile=ci",
                "--cd=sub",
            ],
            &[
                "npx",
                "-y",
                "@openai/codex@0.171.0",
                "-ca=1",
                "-pci",
                "-C=sub",
            ],
            &[
                "npm",
                "exec",
                "@openai/codex",
                "--",
                "-c",
                "a=1",
                "-p",
                "ci",
                "-C",
                "sub",
            ],
            &[
                "npx",
                "-y",
                "-p",
                "@openai/codex",
                "--",
                "codex",
                "-ca=1",
                "-pci",
                "-Csub",
            ],
            &["node", "/opt/codex.js", "-c", "a=1", "-p=ci", "--cd", "sub"],
            &[
                "env",
                "codex",
                "--config",
                "a=1",
                "--profile",
                "ci",
                "--cd",
                "sub",
            ],
        ] {
            let found = options(line);
            assert_eq!(found.overrides, ["a=1"], "{line:?}");
            assert_eq!(found.profile.as_deref(), Some("ci"), "{line:?}");
            assert_eq!(found.folder.as_deref(), Some(Path::new("sub")), "{line:?}");
        }
        for line in [
            &["sh", "-c", "codex -c a=1"][..],
            &["codex", "exec", "--", "-c", "a=1"],
            &["npx", "@openai/codex", "--", "exec", "--", "-c", "a=1"],
            &["codex-like", "-c", "a=1"],
            &["codex", "--color", "never", "-"],
            &[],
        ] {
            let found = options(line);
            assert_eq!(
                (found.overrides.len(), found.profile),
                (0, None),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_value_is_toml_or_a_text() {
        for text in [
            "cli_auth_credentials_store=keyring",
            "cli_auth_credentials_store = \"keyring\"",
            "cli_auth_credentials_store='keyring'",
        ] {
            let found = options(&["codex", "-c", text]).settings();
            let found = found.credentials_store.expect(text);
            assert_eq!(
                (found.value.as_str(), found.place),
                ("keyring", SettingPlace::CommandLine)
            );
        }
        let found = options(&["codex", "-c", "forced_chatgpt_workspace_id=[\"a\",\"b\"]"]);
        let found = found.settings().workspaces.expect("a list");
        assert_eq!(found.value, ["a", "b"]);
        let twice = [
            "codex",
            "-c",
            "forced_login_method=api",
            "-c",
            "forced_login_method=chatgpt",
        ];
        let found = options(&twice).settings().login_method.expect("a text");
        assert_eq!(found.value, "chatgpt");
    }
}
