//! The plan of a command, made from arguments and environment with every default applied.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use authferry_codex::{EffectiveSettings, Home, SettingSources};
use authferry_core::{Policy, SecretStore};
use authferry_runner::rescue::{self, Rescue};
use authferry_runner::{Codex, Job, LoginObserver, Supervisor};

use crate::args::{Global, OnConflict, PersistingArgs, RotatingArgs};
use crate::commands::from_now;
use crate::env::{self, Env};
use crate::github::Masks;
use crate::outcome::{Ending, Result};
use crate::stores::{self, NoStore};
use crate::{exit, messages, seal, trust};

/// The default of `--cancel-grace`.
const CANCEL_GRACE: Duration = Duration::from_secs(20);
const GITHUB_CANCEL_GRACE: Duration = Duration::from_secs(3);

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) env: Env,
    pub(crate) store: Box<dyn SecretStore>,
    /// The store for logins that this one does not accept.
    pub(crate) second_store: Option<Arc<dyn SecretStore>>,
    /// The environment variables with the credentials of both stores and of the monitor.
    pub(crate) credentials: Vec<String>,
    pub(crate) writer: String,
    /// The folder for the private homes of rotations.
    pub(crate) rotations: PathBuf,
}

impl Plan {
    /// Opens the stores and sets every default.
    pub(crate) fn new(global: &Global) -> Result<Self> {
        let env = Env::read();
        let address = match global.store.as_ref().or(env.store.as_ref()) {
            Some(address) => address.clone(),
            None => default_store(&state_folder(&env, "--store ADDRESS")?)?,
        };
        let opened = stores::open(&address, &env).map_err(|error| no_store(&address, &error))?;
        let mut credentials = opened.credentials;
        let second_store = match global.rescue_store.as_ref().or(env.rescue_store.as_ref()) {
            None => None,
            Some(address) => {
                let second = stores::open(address, &env);
                let second = second.map_err(|error| no_store(address, &error))?;
                if stores::is_same_place(&*opened.store, &*second.store) {
                    return Err(messages::same_place(&*opened.store).into());
                }
                credentials.extend(second.credentials);
                Some(Arc::from(second.store))
            }
        };
        // A program that has the URL can report a success in our place.
        credentials.push(env::PING_URL.to_owned());
        let writer = env.writer();
        let rotations = rotations(&env);
        Ok(Self {
            env,
            store: opened.store,
            second_store,
            credentials,
            writer,
            rotations,
        })
    }

    /// Returns where to save a login that the store does not accept.
    pub(crate) fn rescue(&self, global: &Global) -> Result<Rescue> {
        let mut rescue = Rescue::new(self.rescue_dir(global)?);
        if let Some(second) = &self.second_store {
            rescue = rescue.with_second_store(Arc::clone(second));
        }
        let recipients = if global.rescue_recipient.is_empty() {
            &self.env.rescue_recipients
        } else {
            &global.rescue_recipient
        };
        match seal::to(recipients)? {
            Some(seal) => Ok(rescue.with_seal(seal)),
            None => Ok(rescue),
        }
    }

    /// Returns the rescue folder.
    fn rescue_dir(&self, global: &Global) -> Result<PathBuf> {
        match global.rescue_dir.as_ref().or(self.env.rescue_dir.as_ref()) {
            Some(directory) => absolute(directory),
            None => Ok(state_folder(&self.env, "--rescue-dir DIR")?.join("rescue")),
        }
    }

    /// Returns where to save a login that the store does not accept, and refuses a folder that
    /// cannot hold one.
    pub(crate) fn usable_rescue(&self, global: &Global) -> Result<Rescue> {
        let rescue = self.rescue(global)?;
        match rescue::check(rescue.folder()) {
            Ok(()) => Ok(rescue),
            Err(error) => Err(messages::rescue_folder(rescue.folder(), &error).into()),
        }
    }

    /// Returns the home of Codex. Refuses a home in which a login would be ignored, lost or
    /// published, and an environment in which Codex does not use the auth file.
    pub(crate) fn home(&self, global: &Global) -> Result<Home> {
        let home = self.home_as_left(global)?;
        self.environment()?;
        home.preflight()
            .map_err(|error| messages::home_error(&error))?;
        Ok(home)
    }

    /// Refuses an environment in which Codex does not use the auth file.
    pub(crate) fn environment(&self) -> Result<()> {
        let Some(set) = self.env.overrides.first() else {
            return Ok(());
        };
        let problem = format!("while {} is set, Codex {}", set.variable, set.effect);
        let hint = format!(
            "unset {} in this job, or run Codex without authferry",
            set.variable
        );
        Err(Ending::refused(exit::REFUSED, problem).hint(hint).into())
    }

    /// Returns the home of Codex without a check: after a job, an unfit home may hold a login to
    /// save.
    pub(crate) fn home_as_left(&self, global: &Global) -> Result<Home> {
        let directory = match (&global.codex_home, &self.env.codex_home, &self.env.home) {
            (Some(directory), _, _) | (None, Some(directory), _) => directory.clone(),
            (None, None, Some(home)) => home.join(".codex"),
            (None, None, None) => {
                let ending = Ending::refused(exit::FAILED, "neither CODEX_HOME nor HOME is set");
                return Err(ending
                    .hint("set the home of Codex with `--codex-home DIR`")
                    .into());
            }
        };
        let home = Home::new(&directory).map_err(|error| no_current_folder(&error))?;
        Ok(home)
    }

    /// The Codex that rotates. It gets neither the credentials of the stores, nor the variable
    /// `withheld`, nor those with which it would not rotate.
    pub(crate) fn codex(&self, global: &Global, withheld: Option<&str>) -> Result<Codex> {
        let program = match &global.codex {
            // The process that starts a bare name looks it up on PATH.
            Some(path) if path.components().count() > 1 => absolute(path)?,
            Some(name) => name.clone(),
            None => PathBuf::from("codex"),
        };
        let credentials = self.credentials.iter().map(String::as_str);
        let overrides = self.env.overrides.iter().map(|it| it.variable.as_str());
        let withheld = credentials.chain(overrides).chain(withheld);
        Ok(Codex {
            program,
            path: self.env.programs.as_deref().and_then(absolute_search_path),
            withheld: withheld.map(OsString::from).collect(),
            supervisor: self.supervisor(global)?,
            is_tracked: self.env.is_tracked,
        })
    }

    /// How to start this program as the supervisor of a rotation: with the same store and rescue
    /// folder, from any working directory.
    fn supervisor(&self, global: &Global) -> Result<Option<Supervisor>> {
        let Some(program) = this_program() else {
            return Ok(None);
        };
        let mut arguments: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: &OsStr| {
            arguments.extend([OsString::from(option), value.to_owned()]);
        };
        if let Some(store) = &global.store {
            add("--store", store.as_ref());
        }
        let rescue_dir = global.rescue_dir.as_ref().or(self.env.rescue_dir.as_ref());
        if let Some(folder) = rescue_dir {
            add("--rescue-dir", absolute(folder)?.as_ref());
        }
        if let Some(store) = &global.rescue_store {
            add("--rescue-store", store.as_ref());
        }
        for recipient in &global.rescue_recipient {
            add("--rescue-recipient", recipient.as_ref());
        }
        Ok(Some(Supervisor { program, arguments }))
    }

    /// How long to hold back the first signal. GitHub sends the next one after 7.5 seconds, and
    /// kills the job 2.5 seconds later.
    pub(crate) fn cancel_grace(&self, given: Option<Duration>) -> Duration {
        let is_github = self.env.job.contains_key("GITHUB_ACTIONS");
        let default = if is_github {
            GITHUB_CANCEL_GRACE
        } else {
            CANCEL_GRACE
        };
        given.unwrap_or(default)
    }

    /// A rotation of a login that Codex would rotate within the given time.
    pub(crate) fn rotating<'a>(
        &'a self,
        codex: &'a Codex,
        rescue: &'a Rescue,
        args: &RotatingArgs,
        within: Duration,
        terms: &JobTerms<'a>,
    ) -> authferry_runner::Rotating<'a> {
        authferry_runner::Rotating {
            store: &*self.store,
            codex,
            rotations: &self.rotations,
            rescue,
            policy: terms.policy,
            settings: terms.settings,
            writer: &self.writer,
            due_by: from_now(within),
            only_after_half_life: false,
            store_timeout: terms.store_timeout,
            lease_timeout: args.lease_timeout,
            cancel_grace: self.cancel_grace(args.cancel_grace),
        }
    }

    /// Refuses a job that may run code of untrusted people.
    pub(crate) fn trust(&self, allow_untrusted: bool, global: &Global) -> Result<()> {
        match trust::distrust_reason(&self.env) {
            Some(reason) if !allow_untrusted => {
                let ending = Ending::refused(exit::REFUSED, reason);
                let ending =
                    ending.hint("use an API key in such a job: a login is only for trusted jobs");
                let option = if global.github {
                    "allow-untrusted: true"
                } else {
                    "--allow-untrusted"
                };
                let hint =
                    format!("if only trusted people can change what this job runs, add `{option}`");
                Err(ending.hint(hint).into())
            }
            _ => Ok(()),
        }
    }

    /// The job of a round trip.
    pub(crate) fn job<'a>(
        &'a self,
        home: &'a Home,
        rescue: &'a Rescue,
        terms: &JobTerms<'a>,
    ) -> Job<'a> {
        Job {
            rotations: Some(&self.rotations),
            policy: terms.policy,
            replace: terms.replace,
            allow_account_change: terms.allow_account_change,
            access_only: terms.access_only,
            observer: terms.masks.map(|masks| masks as &dyn LoginObserver),
            exit_grace: terms.exit_grace,
            cancel_grace: terms.cancel_grace,
            ..Job::new(
                &*self.store,
                home,
                rescue,
                &self.writer,
                terms.store_timeout,
            )
        }
    }
}

/// The arguments that all round trips share.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct JobTerms<'a> {
    pub(crate) policy: Policy,
    pub(crate) replace: bool,
    pub(crate) allow_account_change: bool,
    pub(crate) access_only: bool,
    pub(crate) store_timeout: Duration,
    pub(crate) exit_grace: Duration,
    pub(crate) cancel_grace: Duration,
    pub(crate) masks: Option<&'a Masks>,
    /// The settings under which Codex has to use the login.
    pub(crate) settings: Option<&'a SettingSources>,
}

impl From<&PersistingArgs> for JobTerms<'_> {
    fn from(args: &PersistingArgs) -> Self {
        let policy = policy(args.on_conflict);
        let allow_account_change = args.allow_account_change;
        Self {
            policy,
            allow_account_change,
            store_timeout: args.common.store_timeout,
            ..Self::default()
        }
    }
}

/// Refuses settings with which Codex ignores or deletes every login.
pub(crate) fn settings(sources: &SettingSources) -> Result<EffectiveSettings> {
    let read = sources.read();
    let checked = read.and_then(|settings| settings.check().map(|()| settings));
    Ok(checked.map_err(|error| messages::home_error(&error))?)
}

/// Returns where the Codex of this job finds its settings.
pub(crate) fn setting_sources(home: &Home, command: &[OsString]) -> SettingSources {
    // Without a working directory there is no project.
    let work = std::env::current_dir().ok();
    SettingSources::of_job(home, work.as_deref(), command)
}

/// Makes each part of `PATH` absolute; an empty part is the current folder.
fn absolute_search_path(path: &OsStr) -> Option<OsString> {
    let here = std::env::current_dir().ok()?;
    std::env::join_paths(std::env::split_paths(path).map(|part| here.join(part))).ok()
}

/// The path of this program, even if its file was replaced since the start.
pub(crate) fn this_program() -> Option<PathBuf> {
    let link = Path::new("/proc/self/exe");
    if link.exists() {
        return Some(link.to_owned());
    }
    std::env::current_exe().ok()
}

/// The policy for concurrent writes.
pub(crate) fn policy(on_conflict: OnConflict) -> Policy {
    match on_conflict {
        OnConflict::Newest => Policy::Newest,
        OnConflict::Theirs => Policy::Theirs,
    }
}

/// The state folder. If there is none, the hint names `option`, which replaces the folder.
fn state_folder(env: &Env, option: &str) -> Result<PathBuf> {
    let default = || Some(env.home.as_ref()?.join(".local/state"));
    let state = env.state_home.clone().or_else(default);
    let Some(state) = state.filter(|state| state.is_absolute()) else {
        let ending = Ending::refused(exit::FAILED, "neither XDG_STATE_HOME nor HOME is set");
        return Err(ending.hint(format!("add `{option}`")).into());
    };
    Ok(state.join("authferry"))
}

/// The folder for the private homes of rotations. It is persistent, so that the next job finds what
/// a killed one left there. If the state folder is unusable or inside a git work tree, this is the
/// temporary folder.
fn rotations(env: &Env) -> PathBuf {
    let folder = state_folder(env, "")
        .ok()
        .map(|state| state.join("rotations"));
    let usable = folder.filter(|folder| {
        if folder.ancestors().any(|above| above.join(".git").exists()) {
            return false;
        }
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder);
        made.is_ok() && rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
    });
    usable.unwrap_or_else(|| env.temp.clone())
}

/// The address of the default store. Only this store's folder is created automatically.
fn default_store(state: &Path) -> Result<String> {
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state);
    made.map_err(|error| {
        let problem = format!("cannot create the folder {}: {error}", state.display());
        Ending::refused(exit::FAILED, problem)
    })?;
    Ok(format!("file://{}/login.json", state.display()))
}

fn absolute(directory: &Path) -> Result<PathBuf> {
    std::path::absolute(directory).map_err(|error| no_current_folder(&error).into())
}

fn no_current_folder(error: &io::Error) -> Ending {
    Ending::refused(exit::FAILED, "the current folder is unknown").caused_by(error)
}

/// Explains why an address cannot be opened. Prints only its scheme: the address may hold a
/// password.
fn no_store(address: &str, error: &NoStore) -> Box<Ending> {
    let ending = match error {
        NoStore::UnknownScheme if address.starts_with('/') => {
            Ending::refused(exit::FAILED, "the address of the store has no scheme")
                .hint(format!("for a file, use `file://{address}`"))
        }
        NoStore::UnknownScheme => {
            let problem = match address.split_once(':') {
                Some((scheme, _)) => format!("the scheme `{scheme}:` is unknown"),
                None => "the address of the store has no scheme".to_owned(),
            };
            Ending::refused(exit::FAILED, problem).hint(format!(
                "use an address that begins with one of: {}",
                stores::schemes()
            ))
        }
        NoStore::BadAddress(error) => {
            let mut ending = Ending::refused(exit::FAILED, error).because(&**error);
            ending.hints.extend(messages::for_opening(error));
            ending
        }
    };
    ending.into()
}
