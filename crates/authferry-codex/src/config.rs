//! Settings and environment variables that make Codex ignore or delete the auth file.
//!
//! Codex merges its settings from these sources; a later one has precedence. Measured on versions
//! 0.101.0 to 0.171.0.
//!
//! 1. `/etc/codex/config.toml`
//! 2. `config.toml` of the home
//! 3. `NAME.config.toml` of the home, for a command with `-p NAME`
//! 4. `.codex/config.toml` of each folder from the root of the git work tree to the working
//!    directory, if the project is trusted
//! 5. `-c KEY=VALUE` of the command
//! 6. `/etc/codex/managed_config.toml`
//! 7. `/etc/codex/requirements.toml`, whose `forced_…` settings have no effect
//!
//! Codex also reads environment variables from `.env` in the home.
//!
//! In no version do `[profiles.NAME]` tables affect the auth file.

mod command;
mod env_file;
mod file;
mod overrides;
mod project;

use std::{
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use authferry_core::Identity;

pub use self::overrides::{Override, override_of};
use self::{command::CommandOptions, file::ConfigFile};
use crate::{Home, HomeError, auth_file::account_label};

/// The folder with the settings of a machine.
const SYSTEM_FOLDER: &str = "/etc/codex";

/// The name of Codex's configuration, in the home and in a project.
pub(crate) const CONFIG_FILE: &str = "config.toml";

/// Where the Codex of a job finds its settings.
#[derive(Clone, Debug)]
pub struct SettingSources {
    system: PathBuf,
    home: Option<PathBuf>,
    /// The working directory, if it is known.
    work: Option<PathBuf>,
    options: CommandOptions,
}

impl SettingSources {
    /// Returns the sources for a command that starts in this working directory. Options are known
    /// only if the command calls Codex directly, and not in a script.
    #[must_use]
    pub fn of_job(home: &Home, work: Option<&Path>, command: &[OsString]) -> Self {
        let options = CommandOptions::of(command);
        let work = match (work, &options.folder) {
            (Some(work), Some(folder)) => Some(work.join(folder)),
            (None, Some(folder)) if folder.is_absolute() => Some(folder.clone()),
            (work, _) => work.map(Path::to_owned),
        };
        Self {
            system: SYSTEM_FOLDER.into(),
            home: Some(home.dir().to_owned()),
            work,
            options,
        }
    }

    /// Returns the sources for a refresh in a private home. authferry sets the credentials store
    /// there, and the machine's settings may override it.
    #[must_use]
    pub fn of_refresh() -> Self {
        Self {
            system: SYSTEM_FOLDER.into(),
            home: None,
            work: None,
            options: CommandOptions::of_refresh(),
        }
    }

    /// Returns the home whose settings apply; `None` for a private one.
    #[must_use]
    pub fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// Returns the working directory of Codex, whose project's settings may apply.
    #[must_use]
    pub fn work(&self) -> Option<&Path> {
        self.work.as_deref()
    }

    /// Whether the command selects a profile, whose settings Codex reads for that command alone.
    #[must_use]
    pub fn has_profile(&self) -> bool {
        self.options.profile.is_some()
    }

    /// Returns the arguments of `-c`, in their order.
    pub fn overrides(&self) -> impl Iterator<Item = &str> {
        self.options.overrides.iter().map(String::as_str)
    }

    /// Reads all sources. Fails if a file is malformed: Codex does not start with it either.
    pub fn read(&self) -> Result<EffectiveSettings, HomeError> {
        let mut settings = EffectiveSettings::default();
        let mut projects = project::Trust::default();
        let mut add = |path: PathBuf| -> Result<(), HomeError> {
            let file = ConfigFile::read(&path)?;
            projects.add(&file);
            settings.add(file.of_config());
            Ok(())
        };
        add(self.system.join(CONFIG_FILE))?;
        if let Some(home) = &self.home {
            add(home.join(CONFIG_FILE))?;
            if let Some(profile) = &self.options.profile {
                add(home.join(format!("{profile}.{CONFIG_FILE}")))?;
            }
        }
        let managed = ConfigFile::read(&self.system.join("managed_config.toml"))?;
        projects.add(&managed);
        if let Some(work) = &self.work {
            for path in projects.files(work, self.home.as_deref()) {
                settings.add(ConfigFile::read(&path)?.of_config());
            }
        }
        settings.add(self.options.settings());
        settings.add(managed.of_config());
        let requirements = ConfigFile::read(&self.system.join("requirements.toml"))?;
        settings.add(requirements.of_requirements());
        if let Some(home) = &self.home {
            settings.environment = env_file::read(&home.join(".env"))?;
        }
        Ok(settings)
    }
}

/// The settings that apply, each with its place.
#[derive(Clone, Debug, Default)]
pub struct EffectiveSettings {
    /// A variable in the `.env` of the home.
    environment: Option<Setting<Override>>,
    credentials_store: Option<Setting<String>>,
    login_method: Option<Setting<String>>,
    workspaces: Option<Setting<Vec<String>>>,
    allowed_methods: Option<Setting<Vec<String>>>,
    allowed_workspaces: Option<Setting<Vec<String>>>,
}

impl EffectiveSettings {
    /// Refuses settings with which Codex ignores or deletes the auth file of every `chatgpt` login.
    pub fn check(&self) -> Result<(), HomeError> {
        if let Some(Setting { value, place }) = &self.environment {
            return Err(HomeError::OverrideInFile {
                place: place.clone(),
                variable: value.variable.clone(),
                effect: value.effect,
            });
        }
        if let Some(Setting { value, place }) = &self.credentials_store
            && value != "file"
        {
            return Err(HomeError::CredentialsStore {
                place: place.clone(),
                store: value.clone(),
            });
        }
        if let Some(Setting { value, place }) = &self.login_method
            && value == "api"
        {
            return Err(HomeError::ForcedApiLogin {
                place: place.clone(),
            });
        }
        if let Some(Setting { value, place }) = &self.allowed_methods
            && !value.iter().any(|it| it == "chatgpt")
        {
            return Err(HomeError::LoginMethodNotAllowed {
                place: place.clone(),
            });
        }
        Ok(())
    }

    /// Whether only the logins of some workspaces may be used.
    #[must_use]
    pub fn restricts_workspaces(&self) -> bool {
        self.restrictions().next().is_some()
    }

    /// Refuses settings with which Codex ignores or deletes a login of this workspace.
    pub fn check_workspace(&self, identity: &Identity) -> Result<(), HomeError> {
        let Some(account) = &identity.account else {
            return Ok(());
        };
        for (setting, Setting { value, place }) in self.restrictions() {
            if !value.iter().any(|it| account_label(it) == *account) {
                return Err(HomeError::OtherWorkspace {
                    place: place.clone(),
                    setting,
                });
            }
        }
        Ok(())
    }

    fn restrictions(&self) -> impl Iterator<Item = (&'static str, &Setting<Vec<String>>)> {
        // Codex ignores an empty text or list in `forced_…`, and rejects every login with an empty
        // list in `allowed_…`.
        let forced = self.workspaces.as_ref().filter(|it| !it.value.is_empty());
        let forced = forced.map(|it| ("forced_chatgpt_workspace_id", it));
        let allowed = self.allowed_workspaces.as_ref();
        let allowed = allowed.map(|it| ("allowed_chatgpt_workspaces", it));
        forced.into_iter().chain(allowed)
    }

    /// Adds a source of higher precedence.
    fn add(&mut self, source: ConfigFile) {
        fn replace<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        replace(&mut self.credentials_store, source.credentials_store);
        replace(&mut self.login_method, source.login_method);
        replace(&mut self.workspaces, source.workspaces);
        replace(&mut self.allowed_methods, source.allowed_methods);
        replace(&mut self.allowed_workspaces, source.allowed_workspaces);
    }
}

/// A setting's value and place.
#[derive(Clone, Debug)]
struct Setting<T> {
    value: T,
    place: SettingPlace,
}

/// Where a setting is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingPlace {
    /// In a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// In the command of the job.
    CommandLine,
}

impl fmt::Display for SettingPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{} (line {line})", path.display()),
            Self::CommandLine => f.write_str("`-c` of the command"),
        }
    }
}

#[cfg(test)]
mod tests;
