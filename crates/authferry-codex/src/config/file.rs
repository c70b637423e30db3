//! One file with settings of Codex.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use toml::{Spanned, Value};

use super::{Setting, SettingPlace};
use crate::HomeError;

/// The settings of one source that affect the auth file. Empty for a missing file.
#[derive(Debug, Default)]
pub(super) struct ConfigFile {
    pub(super) credentials_store: Option<Setting<String>>,
    pub(super) login_method: Option<Setting<String>>,
    pub(super) workspaces: Option<Setting<Vec<String>>>,
    pub(super) allowed_methods: Option<Setting<Vec<String>>>,
    pub(super) allowed_workspaces: Option<Setting<Vec<String>>>,
    /// Whether each named project is trusted.
    pub(super) projects: Vec<(PathBuf, bool)>,
}

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self, HomeError> {
        // Reading a pipe would block.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(HomeError::NotARegularFile { path: path.into() });
        }
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(path, &text),
            Err(error) if is_missing(&error) => Ok(Self::default()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(HomeError::ConfigMalformed {
                    path: path.into(),
                    line: None,
                })
            }
            Err(error) => Err(HomeError::io("read", path, error)),
        }
    }

    fn parse(path: &Path, text: &str) -> Result<Self, HomeError> {
        let malformed = |at: Option<usize>| HomeError::ConfigMalformed {
            path: path.into(),
            line: at.map(|at| line_at(text, at)),
        };
        // Drop the error: it quotes the line, and users keep keys in this file.
        let raw: RawConfig =
            toml::from_str(text).map_err(|error| malformed(error.span().map(|span| span.start)))?;
        let place = |at: usize| SettingPlace::File {
            path: path.into(),
            line: line_at(text, at),
        };
        let text_of = |it: Spanned<String>| Setting {
            place: place(it.span().start),
            value: it.into_inner(),
        };
        let list_of = |it: Spanned<Vec<String>>| Setting {
            place: place(it.span().start),
            value: it.into_inner(),
        };
        let workspaces = |it: Spanned<Value>| {
            let at = it.span().start;
            let value = workspaces(it.into_inner()).ok_or_else(|| malformed(Some(at)))?;
            Ok(Setting {
                place: place(at),
                value,
            })
        };
        let projects = raw.projects.into_iter().filter_map(|(path, project)| {
            let level = project.get("trust_level")?.as_str()?;
            Some((PathBuf::from(path), level == "trusted"))
        });
        Ok(Self {
            credentials_store: raw.cli_auth_credentials_store.map(text_of),
            login_method: raw.forced_login_method.map(text_of),
            workspaces: raw
                .forced_chatgpt_workspace_id
                .map(workspaces)
                .transpose()?,
            allowed_methods: raw.allowed_login_methods.map(list_of),
            allowed_workspaces: raw.allowed_chatgpt_workspaces.map(list_of),
            projects: projects.collect(),
        })
    }

    /// Returns what counts of `requirements.toml`.
    pub(super) fn of_requirements(self) -> Self {
        Self {
            credentials_store: self.credentials_store,
            allowed_methods: self.allowed_methods,
            allowed_workspaces: self.allowed_workspaces,
            ..Self::default()
        }
    }

    /// Returns what counts of all other sources.
    pub(super) fn of_config(self) -> Self {
        Self {
            allowed_methods: None,
            allowed_workspaces: None,
            ..self
        }
    }
}

/// The value of `forced_chatgpt_workspace_id`: a text or a list of texts.
pub(super) fn workspaces(value: Value) -> Option<Vec<String>> {
    let list = match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list
            .into_iter()
            .map(|it| it.as_str().map(str::to_owned))
            .collect::<Option<_>>()?,
        Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Table(_) => return None,
    };
    let list = list.into_iter().map(|it| it.trim().to_owned());
    Some(list.filter(|it| !it.is_empty()).collect())
}

#[derive(Deserialize)]
struct RawConfig {
    cli_auth_credentials_store: Option<Spanned<String>>,
    forced_login_method: Option<Spanned<String>>,
    forced_chatgpt_workspace_id: Option<Spanned<Value>>,
    allowed_login_methods: Option<Spanned<Vec<String>>>,
    allowed_chatgpt_workspaces: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    projects: BTreeMap<String, Value>,
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn line_at(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}
