//! The format of a case's file.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One case. All fields except `about` and `args` are optional.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What the case shows, for readers.
    pub(crate) about: String,
    /// The setup steps: see [`SCENES`](crate::scene::SCENES).
    #[serde(default)]
    pub(crate) scene: Vec<String>,
    /// Additional files of mode 0600, relative to the work folder.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// The shell script that acts as `codex`.
    #[serde(default)]
    pub(crate) codex: String,
    /// Additional environment variables; an empty value removes a variable.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// The file for standard input.
    pub(crate) stdin: Option<String>,
    /// A program that starts authferry, with its arguments.
    #[serde(default)]
    pub(crate) via: Vec<String>,
    /// The arguments of `authferry`.
    pub(crate) args: Vec<String>,
    /// Alternative arguments with the same result.
    #[serde(default)]
    pub(crate) also: Vec<Vec<String>>,
    /// The expected changes; by default, nothing changes.
    #[serde(default)]
    pub(crate) after: After,
    #[serde(default)]
    pub(crate) status: i32,
    #[serde(default)]
    pub(crate) stdout: String,
    #[serde(default)]
    pub(crate) stderr: String,
    /// The expected content of `[WORK]/report.json`.
    #[serde(default)]
    pub(crate) report: String,
}

/// The expected state after a case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct After {
    /// The store's login.
    pub(crate) store: Place,
    /// The auth file.
    pub(crate) auth_file: Place,
    /// The receipt; `written` matches every receipt that `authferry` wrote.
    pub(crate) receipt: Place,
    /// The text of the lease record; empty if it is missing or unchanged.
    pub(crate) lease: String,
    /// The logins that were written to the rescue folder, each with its record.
    pub(crate) rescued: Vec<String>,
    /// The logins that were removed from the rescue folder, each with its record if it had one.
    pub(crate) dropped: Vec<String>,
    /// The fingerprints of the logins that were written to the rescue folder encrypted, without
    /// records.
    pub(crate) encrypted: Vec<String>,
    /// The fingerprints of the logins whose encrypted files were removed from the rescue folder.
    pub(crate) decrypted: Vec<String>,
    /// The logins in the second store, in order; `None` if nothing was written there.
    pub(crate) second: Option<Vec<String>>,
    /// The private home of an unfinished rotation: `same` or `absent`.
    pub(crate) rotation: Place,
    /// Whether the home got mode 0700.
    pub(crate) closed: bool,
}

/// The expected state of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) enum Place {
    /// The same file as before.
    #[default]
    Same,
    /// The file does not exist.
    Absent,
    /// The file was written.
    Written,
    /// The file has this content: see [`logins::content`](crate::logins::content).
    Holds(String),
}

impl From<String> for Place {
    fn from(text: String) -> Self {
        match &*text {
            "same" => Self::Same,
            "absent" => Self::Absent,
            "written" => Self::Written,
            _ => Self::Holds(text),
        }
    }
}
