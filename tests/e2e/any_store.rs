//! What a test of the whole program needs of a store, whichever that is.

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

    /// Any program on a runner, in a job that may use this store.
    fn command(&self, runner: &Runner, program: &str) -> Command;

    /// The bytes in the store.
    fn stored(&self) -> Vec<u8>;

    /// When they were written.
    fn written(&self) -> SystemTime;

    /// Everything that a write to the store would change, of the login and of the claim.
    fn traces(&self) -> String;

    /// Runs `authferry seed`, as a person who may.
    fn put(&self, login: &Login, more: &[&str]) -> Output;

    /// Keeps a command from reaching the store, for as long as what this returns lives.
    fn cut_off(&self, command: &mut Command) -> Option<File>;

    /// Whether the store keeps what is replaced.
    fn has_history(&self) -> bool {
        true
    }

    /// Signs `login` in and seeds it, for a version of Codex.
    fn holding(version: &str, login: &Login) -> Self {
        Self::with(Codex::install(version).expect("Codex from npm"), login)
    }

    /// A fresh machine without a login.
    fn runner(&self) -> Runner {
        Runner::new(self.stub(), self.codex()).expect("room for a runner")
    }

    /// `authferry` in a job on a runner.
    fn authferry(&self, runner: &Runner, arguments: &[&str]) -> Command {
        let mut command = self.command(runner, under_test());
        command.args(arguments);
        command
    }

    /// Whether the store holds the one generation with which the login goes on.
    fn is_live(&self) -> bool {
        self.stub().is_live(&self.stored())
    }

    /// `authferry status --json`.
    fn status(&self) -> Value {
        let output = finish(&mut self.authferry(&self.runner(), &["status", "--json"]));
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    }
}

/// Makes a test of each story in each store, with a version of Codex of each rule, so that a
/// failure names both.
///
/// `one:` where no Codex runs: one version is enough.
///
/// `slow:` where a story takes a minute and more: a store does not know which Codex it is, so
/// that all versions but the newest play it in the embedded one alone.
macro_rules! in_each_store {
    (slow: $($story:ident),+ $(,)?) => {
        in_each_store!(@ file, crate::ferry::Ferry, V0_101 V0_130 V0_169 => ($($story),+));
        in_each_store!(@ V0_169 => ($($story),+));
    };
    (one: $($story:ident),+ $(,)?) => {
        in_each_store!(@ file, crate::ferry::Ferry, V0_169 => ($($story),+));
        in_each_store!(@ V0_169 => ($($story),+));
    };
    ($($story:ident),+ $(,)?) => {
        in_each_store!(@ file, crate::ferry::Ferry, V0_101 V0_130 V0_169 => ($($story),+));
        in_each_store!(@ V0_101 V0_130 V0_169 => ($($story),+));
    };
    (@ $($version:ident)+ => $stories:tt) => {
        #[cfg(feature = "aws")]
        in_each_store!(@ aws, crate::aws::site::Site, $($version)+ => $stories);
        #[cfg(feature = "azure-kv")]
        in_each_store!(@ azure, crate::azure::site::Site, $($version)+ => $stories);
        #[cfg(feature = "vault")]
        in_each_store!(@ vault, crate::vault::site::Site, $($version)+ => $stories);
    };
    (@ $store:ident, $scene:ty, $($version:ident)+ => $stories:tt) => {
        mod $store {
            $(crate::any_store::in_each_store!(@@ $version, $scene, $stories);)+
        }
    };
    (@@ $version:ident, $scene:ty, ($($story:ident),+)) => {
        #[expect(non_snake_case, reason = "named like the version")]
        mod $version {
            $(
                #[test]
                fn $story() {
                    super::super::$story::<$scene>(rig::$version);
                }
            )+
        }
    };
}

pub(crate) use in_each_store;

/// Makes a test of each story with each version of Codex, so that a failure names both: with the
/// versions that are named, or with one of each rule by which Codex rotates. Of 0.145.0, 0.166.0 and
/// 0.171.0 each writes the auth file in another way: in place, in place under a lock, by a rename.
macro_rules! on_each_version {
    ($($version:ident)+: $($story:ident),+ $(,)?) => {
        on_each_version!(@@ ($($version)+) ($($story),+));
    };
    ($($story:ident),+ $(,)?) => {
        on_each_version!(@@ (V0_145 V0_166 V0_169) ($($story),+));
    };
    (@@ ($($version:ident)+) $stories:tt) => {
        $(on_each_version!(@ $version $stories);)+
    };
    (@ $version:ident ($($story:ident),+)) => {
        #[expect(non_snake_case, reason = "named like the version")]
        mod $version {
            $(
                #[test]
                fn $story() {
                    super::$story(rig::$version);
                }
            )+
        }
    };
}

pub(crate) use on_each_version;
