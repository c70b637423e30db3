//! The names that a version of Codex knows: environment variables in its binary, and settings and
//! requests in the schemas that it generates.

use std::{collections::BTreeSet, error::Error, fs, io, process::Command};

use rig::{Codex, Login, Runner, Stub, finish};
use serde_json::Value;

/// With what a variable of interest begins.
const PREFIXES: [&str; 3] = ["OPENAI_", "CODEX_", "SPIFFE_"];

/// The literals of a binary follow each other without a gap. A shorter text is most often the
/// operand of an instruction, which cuts a name after 8 or 16 characters.
const MIN_TEXT: usize = 20;

/// A part of a name about logins.
const ABOUT_LOGINS: [&str; 17] = [
    "account",
    "api_key",
    "apikey",
    "auth",
    "credential",
    "federation",
    "identity",
    "keyring",
    "login",
    "logout",
    "refresh_token",
    "secret",
    "session_store",
    "spiffe",
    "token_url",
    "access_token",
    "workspace",
];

/// The names of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// Variables with one of the prefixes.
    pub(crate) variables: BTreeSet<String>,
    /// Settings, feature flags and requests of the app server that concern logins.
    pub(crate) settings: BTreeSet<String>,
}

/// Whether a name concerns logins.
pub(crate) fn is_about_logins(name: &str) -> bool {
    let name = name.to_lowercase();
    ABOUT_LOGINS.iter().any(|part| name.contains(part))
}

/// Collects the names of a version.
pub(crate) fn of(codex: &Codex) -> Result<Names, Box<dyn Error>> {
    let stub = Stub::start(&Login::fresh());
    let runner = Runner::new(&stub, codex)?;
    let mut settings = BTreeSet::new();
    let features = finish(runner.command("codex").args(["features", "list"]));
    let features = String::from_utf8_lossy(&features.stdout).into_owned();
    let features = features
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    settings.extend(features.map(|name| format!("features.{name}")));

    let folder = runner.root().join("schemas");
    fs::create_dir(&folder)?;
    let generate = ["app-server", "generate-json-schema", "--out"];
    finish(runner.command("codex").args(generate).arg(&folder));
    let schema = fs::read(folder.join("codex_app_server_protocol.schemas.json"));
    let schema: Value = serde_json::from_slice(&schema.unwrap_or_default()).unwrap_or_default();
    collect(&schema, &mut settings);
    settings.retain(|name| is_about_logins(name));
    Ok(Names {
        variables: in_binary(codex)?,
        settings,
    })
}

/// Collects the members of each definition of the configuration, and each request.
fn collect(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                let is_config = name.starts_with("Config") && !name.starts_with("ConfigWarning");
                let properties = value["properties"].as_object();
                let properties = properties.filter(|_| is_config).into_iter().flatten();
                found.extend(properties.map(|(member, _)| member.clone()));
                let methods = value["properties"]["method"]["enum"].as_array();
                let methods = methods.into_iter().flatten().filter_map(Value::as_str);
                found.extend(methods.map(|method| format!("`{method}`")));
                collect(value, found);
            }
        }
        Value::Array(items) => {
            for item in items {
                let methods = item["properties"]["method"]["enum"].as_array();
                let methods = methods.into_iter().flatten().filter_map(Value::as_str);
                found.extend(methods.map(|method| format!("`{method}`")));
                collect(item, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns the variables whose names stand in the binary. `grep` is many times faster than a loop
/// over 300 MB in a build without optimization.
pub(crate) fn in_binary(codex: &Codex) -> io::Result<BTreeSet<String>> {
    let texts = format!("[ -~]*({})[ -~]*", PREFIXES.join("|"));
    let mut grep = Command::new("grep");
    grep.env("LC_ALL", "C").args(["-a", "-o", "-E", &texts]);
    let output = grep.arg(codex.native()).output()?;
    Ok(variables(&output.stdout))
}

/// Returns the variables whose names stand in the texts of a binary.
fn variables(binary: &[u8]) -> BTreeSet<String> {
    let texts = binary.split(|byte| !(b' '..=b'~').contains(byte));
    let mut found = BTreeSet::new();
    for text in texts.filter(|text| text.len() >= MIN_TEXT) {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let mut starts = starts(text);
        starts.push(text.len());
        for pair in starts.windows(2) {
            let name = &text[pair[0]..pair[1]];
            let is_part = |it: char| it.is_ascii_uppercase() || it == '_';
            let name = name.split(|it| !is_part(it)).next().unwrap_or_default();
            found.insert(name.trim_end_matches('_').to_owned());
        }
    }
    // The next literal may begin with a capital: then the name stands alone elsewhere.
    let is_cut = |name: &str| {
        found.iter().any(|other| {
            let rest = name.strip_prefix(other.as_str());
            rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('_'))
        })
    };
    let names = found.iter().filter(|name| !is_cut(name)).cloned();
    names.collect()
}

/// Returns where names begin in a text, in order. `OPENAI_SPIFFE_ID` is one name.
fn starts(text: &str) -> Vec<usize> {
    let starts = PREFIXES.iter().flat_map(|it| text.match_indices(it));
    let starts = starts.map(|(start, _)| start);
    let mut starts: Vec<_> = starts
        .filter(|start| !text[..*start].ends_with('_'))
        .collect();
    starts.sort_unstable();
    starts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_separated_from_their_neighbours() {
        let binary = b"\0\0some text CODEX_HOMECODEX_API_KEYOPENAI_SPIFFE_ID and more\0\
            the value of CODEX_HOMETLS is not set\0CODEX_APH\0\
            is OPENAI_SPIFFE_AUDIENCE set? MY_OTHER_VARIABLE_NAME\0";
        let expected = [
            "CODEX_API_KEY",
            "CODEX_HOME",
            "OPENAI_SPIFFE_AUDIENCE",
            "OPENAI_SPIFFE_ID",
        ];
        let expected: BTreeSet<_> = expected.into_iter().map(str::to_owned).collect();
        assert_eq!(variables(binary), expected);
    }

    #[test]
    fn settings_and_requests_come_from_the_schema() {
        let request = |method: &str| json!({"properties": {"method": {"enum": [method]}}});
        let schema = json!({
            "definitions": {
                "Config": {"properties": {"forced_login_method": {}, "model": {}}},
                "Other": {"properties": {"not_a_setting_of_login": {}}},
                "ClientRequest": {"oneOf": [request("getAuthStatus"), request("thread/start")]},
            }
        });
        let mut found = BTreeSet::new();
        collect(&schema, &mut found);
        found.retain(|name| is_about_logins(name));
        let expected = ["`getAuthStatus`", "forced_login_method"];
        assert_eq!(found, expected.into_iter().map(str::to_owned).collect());
    }
}
