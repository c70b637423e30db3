//! The stores that jobs share, and the settings to reach them.

use std::collections::BTreeMap;

use rig::{Login, Runner, Stub};

use crate::any_store::AnyStore;
use crate::ferry::{Ferry, wait_until};
use crate::job::Job;
use crate::site::{Identity::GitHub, Site, assert_no_token};

/// A store with a login, and the provider's stub.
pub(crate) enum Scene {
    File(Box<Ferry>, Box<Login>),
    Vault(Box<Site>),
}

impl Scene {
    pub(crate) fn on_a_file(login: &Login) -> Self {
        let ferry = Ferry::holding(rig::V0_169, login);
        Self::File(Box::new(ferry), Box::new(login.clone()))
    }

    /// A Vault store, with the job's ID token from GitHub as the only credential.
    pub(crate) fn on_vault(login: &Login) -> Self {
        Self::Vault(Box::new(Site::new(rig::V0_169, login).seeded(login)))
    }

    /// Starts a job on a fresh machine.
    pub(crate) fn job(&self) -> Job {
        self.job_on(self.runner())
    }

    pub(crate) fn job_on(&self, runner: Runner) -> Job {
        Job::new(runner, self.variables())
    }

    pub(crate) fn runner(&self) -> Runner {
        match self {
            Self::File(ferry, _) => ferry.runner(),
            Self::Vault(site) => site.runner(),
        }
    }

    pub(crate) fn stub(&self) -> &Stub {
        match self {
            Self::File(ferry, _) => &ferry.stub,
            Self::Vault(site) => &site.stub,
        }
    }

    pub(crate) fn address(&self) -> String {
        match self {
            Self::File(ferry, _) => ferry.address(),
            Self::Vault(site) => site.address(GitHub),
        }
    }

    pub(crate) fn stored(&self) -> Vec<u8> {
        match self {
            Self::File(ferry, _) => ferry.stored(),
            Self::Vault(site) => site.stored(),
        }
    }

    /// Whether the store holds the live generation of the login.
    pub(crate) fn is_live(&self) -> bool {
        self.stub().is_live(&self.stored())
    }

    #[track_caller]
    pub(crate) fn wait_until_live(&self) {
        wait_until("the live generation is in the store", || self.is_live());
    }

    /// Fails if a file or the log of a job contains a part of any token.
    #[track_caller]
    pub(crate) fn assert_no_token_left(&self, job: &Job) {
        assert_eq!(job.traces(), Vec::<String>::new());
        if let Self::Vault(site) = self {
            assert_no_token(site, "the log", job.log().as_bytes());
            for (place, bytes) in crate::ferry::files(job.runner.root()) {
                // Skip binary files: the program, and Codex's database.
                if !bytes.contains(&0) {
                    assert_no_token(site, &place, &bytes);
                }
            }
        }
    }

    /// The variables of a job, from the `env` of its workflow or from the runner.
    pub(crate) fn variables(&self) -> BTreeMap<String, String> {
        let Self::Vault(site) = self else {
            return BTreeMap::new();
        };
        let mut variables =
            BTreeMap::from([("VAULT_ADDR".to_owned(), site.server.addresses().join(","))]);
        if let Some(file) = site.server.authority() {
            variables.insert("VAULT_CACERT".to_owned(), file.display().to_string());
        }
        let endpoint = site.issuer.allow_fetch(Site::claims(GitHub));
        variables.extend(endpoint.map(|(name, value)| (name.to_owned(), value)));
        variables
    }
}
