//! What a case's file says.

use std::collections::BTreeMap;

use serde::Deserialize;

/// One case. Everything but `about` and `args` can be left out.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    /// What the case shows, for readers.
    pub(crate) about: String,
    /// How the world comes to be as it is before: see [`SCENES`](crate::scene::SCENES).
    #[serde(default)]
    pub(crate) scene: Vec<String>,
    /// Files that are there as well, mode 0600; in the work folder unless the name says
    /// otherwise.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, String>,
    /// What the program `codex` does: a shell script.
    #[serde(default)]
    pub(crate) codex: String,
    /// Variables beyond the usual ones; an empty text takes one away.
    #[serde(default)]
    pub(crate) env: BTreeMap<String, String>,
    /// The file that is standard input.
    pub(crate) stdin: Option<String>,
    /// A program that starts authferry, with its arguments.
    #[serde(default)]
    pub(crate) via: Vec<String>,
    /// What is typed after `authferry`.
    pub(crate) args: Vec<String>,
    /// Other things to type of which all the rest is true as well.
    #[serde(default)]
    pub(crate) also: Vec<Vec<String>>,
    /// What the world is like afterwards; without it, nothing was touched.
    #[serde(default)]
    pub(crate) after: After,
    #[serde(default)]
    pub(crate) status: i32,
    #[serde(default)]
    pub(crate) stdout: String,
    #[serde(default)]
    pub(crate) stderr: String,
    /// What is written to `[WORK]/report.json`.
    #[serde(default)]
    pub(crate) report: String,
}

/// What the world is like after a case.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct After {
    /// What the store holds.
    pub(crate) store: Place,
    /// What lies in the auth file's place.
    pub(crate) auth_file: Place,
    /// What lies in the receipt's place; any receipt that `authferry` wrote is `written`.
    pub(crate) receipt: Place,
    /// What the record of the claim says; nothing if there is none, or the one of before.
    pub(crate) claim: String,
    /// The logins that were written to the rescue folder, each with its record.
    pub(crate) rescued: Vec<String>,
    /// The logins that were removed from the rescue folder, each with its record if it had one.
    pub(crate) dropped: Vec<String>,
    /// The fingerprints of the logins that were written to the rescue folder encrypted: each file
    /// has nothing beside it.
    pub(crate) encrypted: Vec<String>,
    /// The fingerprints of the logins whose encrypted files were removed from the rescue folder.
    pub(crate) decrypted: Vec<String>,
    /// The logins in the second store, in order; nothing was written there without it.
    pub(crate) second: Option<Vec<String>>,
    /// What became of the private home of an unfinished rotation: `same` or `absent`.
    pub(crate) rotation: Place,
}

/// What became of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(crate) enum Place {
    /// It is the very file that was there before.
    #[default]
    Same,
    /// It is gone.
    Absent,
    /// It was written anew.
    Written,
    /// It has this content: see [`logins::content`](crate::logins::content).
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
