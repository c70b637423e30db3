//! The interface of a store under test, so that one test runs on every store.

use std::{
    fs::File,
    process::{Command, Output},
    time::SystemTime,
};

use rig::{Codex, Login, Runner, Stub, finish};
use serde_json::Value;

use crate::ferry::under_test;

/// A store that holds a login, the provider's stub, and a Codex to run.
pub(crate) trait AnyStore: Sized + Sync {
    /// Signs `login` in and seeds it.
    fn with(codex: Codex, login: &Login) -> Self;

    fn stub(&self) -> &Stub;

    fn codex(&self) -> &Codex;

    /// Runs any program on a runner, in a job with access to this store.
    fn command(&self, runner: &Runner, program: &str) -> Command;

    /// The bytes in the store.
    fn stored(&self) -> Vec<u8>;

    /// When the stored bytes were written.
    fn written(&self) -> SystemTime;

    /// Everything that a write would change: state of the login and of the lease.
    fn traces(&self) -> String;

    /// Runs `authferry seed` with the rights of a person.
    fn put(&self, login: &Login, more: &[&str]) -> Output;

    /// Makes the store unreachable for a command until the returned guard is dropped.
    fn cut_off(&self, command: &mut Command) -> Option<File>;

    /// Whether the store keeps overwritten values.
    fn has_history(&self) -> bool {
        true
    }

    /// Signs `login` in and seeds it, for a version of Codex.
    fn holding(version: &str, login: &Login) -> Self {
        Self::with(Codex::install(version).expect("Codex from npm"), login)
    }

    /// A fresh runner without a login.
    fn runner(&self) -> Runner {
        Runner::new(self.stub(), self.codex()).expect("room for a runner")
    }

    /// `authferry` in a job on a runner.
    fn authferry(&self, runner: &Runner, arguments: &[&str]) -> Command {
        let mut command = self.command(runner, under_test());
        command.args(arguments);
        command
    }

    /// Whether the store holds the live generation of the login.
    fn is_live(&self) -> bool {
        self.stub().is_live(&self.stored())
    }

    /// `authferry status --json`.
    fn status(&self) -> Value {
        let output = finish(&mut self.authferry(&self.runner(), &["status", "--json"]));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }
}

/// Generates a test of each scenario on each store with one version of Codex per rotation rule, so
/// that the name of a failed test has both.
///
/// `one:` for scenarios without Codex: one version is enough.
///
/// `slow:` for scenarios of a minute and more: a store cannot tell versions of Codex apart, so the
/// older versions run on the file store only.
macro_rules! in_each_store {
    (slow: $($scenario:ident),+ $(,)?) => {
        in_each_store!(@ file, crate::ferry::Ferry, V0_101 V0_130 V0_169 => ($($scenario),+));
        in_each_store!(@ V0_169 => ($($scenario),+));
    };
    (one: $($scenario:ident),+ $(,)?) => {
        in_each_store!(@ file, crate::ferry::Ferry, V0_169 => ($($scenario),+));
        in_each_store!(@ V0_169 => ($($scenario),+));
    };
    ($($scenario:ident),+ $(,)?) => {
        in_each_store!(@ file, crate::ferry::Ferry, V0_101 V0_130 V0_169 => ($($scenario),+));
        in_each_store!(@ V0_101 V0_130 V0_169 => ($($scenario),+));
    };
    (@ $($version:ident)+ => $scenarios:tt) => {
        #[cfg(feature = "aws")]
        in_each_store!(@ aws, crate::aws::site::Site, $($version)+ => $scenarios);
        #[cfg(feature = "azure-kv")]
        in_each_store!(@ azure, crate::azure::site::Site, $($version)+ => $scenarios);
        #[cfg(feature = "vault")]
        in_each_store!(@ vault, crate::vault::site::Site, $($version)+ => $scenarios);
    };
    (@ $store:ident, $scene:ty, $($version:ident)+ => $scenarios:tt) => {
        mod $store {
            $(crate::any_store::in_each_store!(@@ $version, $scene, $scenarios);)+
        }
    };
    (@@ $version:ident, $scene:ty, ($($scenario:ident),+)) => {
        #[expect(non_snake_case, reason = "named like the version")]
        mod $version {
            $(
                #[test]
                fn $scenario() {
                    super::super::$scenario::<$scene>(rig::$version);
                }
            )+
        }
    };
}

pub(crate) use in_each_store;

/// Generates a test of each scenario with each version of Codex, so that the name of a failed test
/// has both: with the given versions, or with one version per rotation rule. Each of 0.145.0, 0.166.0
/// and 0.171.0 writes the auth file differently: in place, in place under a lock, by a rename.
macro_rules! on_each_version {
    ($($version:ident)+: $($scenario:ident),+ $(,)?) => {
        on_each_version!(@@ ($($version)+) ($($scenario),+));
    };
    ($($scenario:ident),+ $(,)?) => {
        on_each_version!(@@ (V0_145 V0_166 V0_169) ($($scenario),+));
    };
    (@@ ($($version:ident)+) $scenarios:tt) => {
        $(on_each_version!(@ $version $scenarios);)+
    };
    (@ $version:ident ($($scenario:ident),+)) => {
        #[expect(non_snake_case, reason = "named like the version")]
        mod $version {
            $(
                #[test]
                fn $scenario() {
                    super::$scenario(rig::$version);
                }
            )+
        }
    };
}

pub(crate) use on_each_version;
