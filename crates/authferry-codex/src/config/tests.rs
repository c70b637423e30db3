//! Tests of the settings, with a system folder in place of `/etc/codex`.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::made_up::secret;

/// A machine with a home and a project `work/sub` in a git work tree.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        let machine = Self(TempDir::new().expect("a folder"));
        for folder in ["etc", "home", "work/.git", "work/sub"] {
            fs::create_dir_all(machine.at(folder)).expect("a folder");
        }
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().canonicalize().expect("a folder").join(path)
    }

    fn with(self, path: &str, text: &str) -> Self {
        let path = self.at(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(
            path,
            text.replace("WORK", &self.at("work").display().to_string()),
        )
        .expect("a file");
        self
    }

    fn read(&self, command: &[&str]) -> Result<EffectiveSettings, HomeError> {
        let home = Home::new(&self.at("home")).expect("a home");
        let command: Vec<_> = command.iter().map(OsString::from).collect();
        let sources = SettingSources {
            system: self.at("etc"),
            ..SettingSources::of_job(&home, Some(&self.at("work/sub")), &command)
        };
        sources.read()
    }

    /// Returns the error, with the folder of the machine removed.
    fn outcome(&self, command: &[&str]) -> Option<String> {
        let error = self.read(command).and_then(|it| it.check()).err()?;
        Some(
            error
                .to_string()
                .replace(&format!("{}/", self.at("").display()), ""),
        )
        .map(|text| text.replace(&self.at("").display().to_string(), ""))
    }
}

const KEYRING: &str = "cli_auth_credentials_store = \"keyring\"";
const FILE: &str = "cli_auth_credentials_store = \"file\"";
const TRUSTED: &str = "[projects.\"WORK\"]\ntrust_level = \"trusted\"\n";
const CODEX: &[&str] = &["codex", "exec"];

#[test]
fn settings_that_keep_the_auth_file_in_use_pass() {
    assert_eq!(Machine::new().outcome(CODEX), None);
    for fine in [
        "",
        "model = \"m\"\n[model_providers.a]\nname = \"a\"\n",
        FILE,
        "forced_login_method = \"chatgpt\"",
        "forced_chatgpt_workspace_id = \"\"",
        // Only requirements.toml may hold these.
        "allowed_login_methods = [\"api\"]",
        // A setting of the same name in another table.
        "[other]\ncli_auth_credentials_store = \"keyring\"",
        "profile = \"a\"\n[profiles.a]\ncli_auth_credentials_store = \"keyring\"",
    ] {
        let machine = Machine::new().with("home/config.toml", fine);
        assert_eq!(machine.outcome(CODEX), None, "{fine}");
    }
}

#[test]
fn every_other_value_is_refused_with_its_line() {
    for store in ["keyring", "auto", "ephemeral", "elsewhere", ""] {
        let text = format!("# a comment\n\ncli_auth_credentials_store = '{store}'");
        let machine = Machine::new().with("home/config.toml", &text);
        assert_eq!(
            machine.outcome(CODEX),
            Some(format!(
                "home/config.toml (line 3) sets cli_auth_credentials_store to {store:?}, must be \"file\""
            ))
        );
    }
    let machine = Machine::new().with("home/config.toml", "forced_login_method = \"api\"");
    assert_eq!(
        machine.outcome(CODEX).as_deref(),
        Some(
            "home/config.toml (line 1) sets forced_login_method to \"api\", which deletes a ChatGPT login"
        )
    );
}

#[test]
fn every_source_is_read() {
    let ci = ["codex", "exec", "-p", "ci"];
    for (path, command) in [
        ("etc/config.toml", CODEX),
        ("etc/managed_config.toml", CODEX),
        ("etc/requirements.toml", CODEX),
        ("home/config.toml", CODEX),
        ("home/ci.config.toml", &ci),
        ("work/.codex/config.toml", CODEX),
        ("work/sub/.codex/config.toml", CODEX),
    ] {
        let machine = Machine::new().with("home/config.toml", TRUSTED);
        let text = format!("{KEYRING}\n{TRUSTED}");
        let machine = machine.with(path, &text);
        let error = machine.outcome(command).expect(path);
        assert!(
            error.starts_with(&format!("{path} (line 1) sets")),
            "{error}"
        );
    }
    let option = ["codex", "-c", "cli_auth_credentials_store=keyring", "exec"];
    let error = Machine::new().outcome(&option).expect("a refusal");
    assert!(error.starts_with("`-c` of the command sets"), "{error}");
}

/// Each of these wins over all before it.
#[test]
fn a_source_of_higher_precedence_wins() {
    let option = ["codex", "-p", "ci", "-c", "cli_auth_credentials_store=file"];
    let profile = ["codex", "-p", "ci"];
    let sources = [
        ("etc/config.toml", &profile[..]),
        ("home/config.toml", &profile),
        ("home/ci.config.toml", &profile),
        ("work/.codex/config.toml", &profile),
        ("work/sub/.codex/config.toml", &profile),
        ("", &option),
        ("etc/managed_config.toml", &profile),
        ("etc/requirements.toml", &profile),
    ];
    for (number, (winner, command)) in sources.iter().enumerate() {
        let mut machine = Machine::new().with("home/config.toml", TRUSTED);
        for (path, _) in sources[..number].iter().filter(|it| !it.0.is_empty()) {
            machine = machine.with(path, &format!("{KEYRING}\n{TRUSTED}"));
        }
        assert_eq!(machine.outcome(&profile).is_some(), number > 0, "{winner}");
        if !winner.is_empty() {
            machine = machine.with(winner, &format!("{FILE}\n{TRUSTED}"));
        }
        assert_eq!(machine.outcome(command), None, "{winner}");
    }
}

#[test]
fn only_a_trusted_project_counts() {
    let own = "[projects.\"WORK/sub\"]\ntrust_level = \"untrusted\"\n";
    let sub = "work/sub/.codex/config.toml";
    for (trust, is_trusted) in [
        (TRUSTED.to_owned(), true),
        (TRUSTED.replace("trusted\"\n", "untrusted\"\n"), false),
        (String::new(), false),
        (format!("{TRUSTED}{own}"), false),
        (own.replace("untrusted", "trusted"), true),
    ] {
        let machine = Machine::new().with("home/config.toml", &trust);
        let machine = machine.with(sub, KEYRING);
        assert_eq!(machine.outcome(CODEX).is_some(), is_trusted, "{trust}");
    }
    // The trust of a subfolder is not that of the root.
    let machine = Machine::new().with("home/config.toml", &own.replace("untrusted", "trusted"));
    let machine = machine.with("work/.codex/config.toml", KEYRING);
    assert_eq!(machine.outcome(CODEX), None);
    // Without a work tree, the folders above do not count.
    let machine = Machine::new().with("home/config.toml", TRUSTED);
    let machine = machine.with("work/.codex/config.toml", KEYRING);
    fs::remove_dir(machine.at("work/.git")).expect("a folder");
    assert_eq!(machine.outcome(CODEX), None);
    // `-C` chooses the project.
    let option = ["codex", "exec", "-C", "..", "hi"];
    assert!(machine.outcome(&option).is_some());
}

#[test]
fn requirements_allow_methods_and_workspaces() {
    let with = |text: &str| Machine::new().with("etc/requirements.toml", text);
    for (text, refused) in [
        ("allowed_login_methods = [\"api\"]", true),
        ("allowed_login_methods = []", true),
        ("allowed_login_methods = [\"api\", \"chatgpt\"]", false),
        ("forced_login_method = \"api\"", false),
    ] {
        assert_eq!(with(text).outcome(CODEX).is_some(), refused, "{text}");
    }
    // What requirements.toml forces has no effect.
    let forced = with("forced_chatgpt_workspace_id = \"another\"");
    assert!(!forced.read(CODEX).expect("TOML").restricts_workspaces());
}

#[test]
fn another_workspace_is_refused() {
    let login = crate::parse(&secret(1)).expect("a login");
    let own = format!("{}-account", crate::made_up::MARKER);
    let forced = "forced_chatgpt_workspace_id";
    let allowed = "allowed_chatgpt_workspaces";
    for (path, text, refused) in [
        ("home/config.toml", format!("{forced} = \"{own}\""), false),
        (
            "home/config.toml",
            format!("{forced} = [\"a\", \"{own}\"]"),
            false,
        ),
        ("home/config.toml", format!("{forced} = \"a\""), true),
        (
            "home/config.toml",
            format!("{forced} = [\"a\", \"b\"]"),
            true,
        ),
        ("home/config.toml", format!("{forced} = []"), false),
        (
            "etc/requirements.toml",
            format!("{allowed} = [\"a\", \"{own}\"]"),
            false,
        ),
        (
            "etc/requirements.toml",
            format!("{allowed} = [\"a\"]"),
            true,
        ),
        ("etc/requirements.toml", format!("{allowed} = []"), true),
    ] {
        let machine = Machine::new().with(path, &text);
        let settings = machine.read(CODEX).expect("TOML");
        let checked = settings.check_workspace(&login.identity);
        assert_eq!(checked.is_err(), refused, "{text}");
        let message = checked.map_or_else(|error| error.to_string(), |()| String::new());
        assert!(!message.contains(&own), "{message}");
    }
    let machine = Machine::new().with("home/config.toml", "\nforced_chatgpt_workspace_id = 3");
    let error = machine.outcome(CODEX).expect("an error");
    assert_eq!(error, "home/config.toml is malformed (line 2)");
}

#[test]
fn a_malformed_configuration_is_not_quoted() {
    for config in [
        "a = 1\nkey = \"MADEUP\" MADEUP\n",
        "\ncli_auth_credentials_store = [\"MADEUP\"]",
        "\nforced_login_method = { MADEUP = \"MADEUP\" }",
    ] {
        let machine = Machine::new().with("home/config.toml", config);
        let error = machine.outcome(CODEX).expect("an error");
        assert_eq!(error, "home/config.toml is malformed (line 2)", "{config}");
    }
}

#[test]
fn an_unreadable_configuration_is_an_error() {
    let machine = Machine::new();
    let file = machine.at("home/config.toml");
    fs::write(&file, b"model = \"\xff\"").expect("room");
    let found = machine.read(CODEX).expect_err("no text");
    assert!(
        matches!(found, HomeError::ConfigMalformed { line: None, .. }),
        "{found}"
    );
    fs::remove_file(&file).expect("our file");
    fs::create_dir(&file).expect("a folder");
    let found = machine.read(CODEX).expect_err("a folder");
    assert!(
        matches!(found, HomeError::NotARegularFile { .. }),
        "{found}"
    );
}

#[test]
fn a_refresh_obeys_the_machine_alone() {
    let refresh = |machine: &Machine| {
        let sources = SettingSources {
            system: machine.at("etc"),
            ..SettingSources::of_refresh()
        };
        sources.read().and_then(|it| it.check()).is_err()
    };
    let machine = Machine::new().with("etc/config.toml", KEYRING);
    assert!(!refresh(&machine), "`-c` wins");
    let machine = Machine::new().with("etc/managed_config.toml", KEYRING);
    assert!(refresh(&machine));
}
