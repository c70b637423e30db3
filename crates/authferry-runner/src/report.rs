//! The result of a round trip, as facts: the command line program turns them into messages.

use std::{io, time::SystemTime};

use authferry_codex::{AuthFileError, HomeError};
use authferry_core::{Base, Fingerprint, Outcome, StoreError, Version};

use crate::rescue::Location;
use crate::{Refreshed, User};

/// All facts at the end of a round trip, without any secret.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact")]
pub struct Report {
    /// How the round trip ended.
    pub outcome: Outcome,
    /// How the command ended, if the round trip ran it.
    pub command: Option<CommandEnd>,
    /// The result of the refresh, if Codex refreshed instead of a command.
    pub refreshed: Option<Refreshed>,
    /// The number of the first signal that asked the job to end.
    pub signal: Option<i32>,
    /// The number of the first signal that asked the job to end while the command was running. Not a
    /// key of a terminal: it means what the command makes of it.
    pub ended_by: Option<i32>,
    /// How the auth file got the login.
    pub placement: Option<Placement>,
    /// The generation that the job began with, if it is known.
    pub began: Option<Fingerprint>,
    /// The head of the store, as far as this round trip knows.
    pub base: Option<Base>,
    /// The generation in the file that a watch has not persisted.
    pub unpersisted: Option<Fingerprint>,
    /// The writes to the store that landed, in order.
    pub writes: Vec<Written>,
    /// Where logins were rescued that are not the store's head.
    pub rescued: Vec<Location>,
    /// Why the second store did not accept a copy, so that it went to the rescue folder.
    pub not_in_second_store: Option<String>,
    /// After [`Refusal::OnlyCopies`](authferry_core::Refusal::OnlyCopies), the copies that are
    /// logins. After [`Refusal::CopyElsewhere`](authferry_core::Refusal::CopyElsewhere), the copies
    /// of another store address that block the job.
    pub copies: Vec<Location>,
    /// The copy that was, or was about to be, adopted into the store before the command, if it was
    /// not the auth file.
    pub adopted_from: Option<Location>,
    /// Whether a receipt described an auth file that no longer held a login: the store's login may
    /// be spent.
    pub may_be_spent: bool,
    /// Whether an earlier rotation of this login on this machine was killed, or ended without an
    /// answer: the login may be spent.
    pub unfinished_rotation: bool,
    /// Why a login could not be rescued.
    pub rescue_error: Option<io::Error>,
    /// The last error of the store.
    pub store_error: Option<StoreError>,
    /// Why the value in the store is unusable.
    pub stored_unusable: Option<AuthFileError>,
    /// Why the content of the auth file is unusable.
    pub file_unusable: Option<AuthFileError>,
    /// What is wrong with the auth file or the home itself.
    pub home_error: Option<HomeError>,
    /// Why the receipt is missing or outdated.
    pub receipt_error: Option<io::Error>,
    /// How many leftover processes of the command were terminated.
    pub terminated: usize,
    /// How many leftover processes of the command could not be killed.
    pub unkillable: usize,
    /// How many processes that may have spent the refresh token are still running: their timeout is
    /// over, or the job was cancelled.
    pub left_running: usize,
    /// The login whose refresh token a Codex may have spent when a signal reached it.
    pub interrupted: Option<Fingerprint>,
    /// The number of rotations that the job saw, if they were a loop: by the clock of this machine
    /// each new access token has already expired.
    pub rotations_in_a_loop: Option<usize>,
    /// Whether a swap was sent and never answered, so that the store may have changed.
    pub doubtful: bool,
    /// Whether the auth file was left in the home because another process was writing it.
    pub busy: bool,
    /// The process that uses the home, so that the login was left there.
    pub in_use: Option<InUse>,
    /// Whether the login was left in the home because the processes that use it are not visible.
    pub usage_unknown: bool,
    /// Whether the login stays in the home for the rest of the same job.
    pub nested: bool,
    /// Whether the watch ended because its job is over.
    pub job_is_over: bool,
}

/// A process that uses the home at the end of a job.
#[derive(Clone, Debug)]
pub struct InUse {
    /// The process.
    pub by: User,
    /// Whether the login was due, so that a Codex there may have spent it.
    pub may_be_spent: bool,
}

/// How a command ended.
#[derive(Debug)]
pub enum CommandEnd {
    /// With this exit code; 128 + n for signal n.
    Exited(u8),
    /// It could not be started.
    NotStarted(io::Error),
    /// It is still running.
    Running,
    /// A signal arrived before the command was started.
    Cancelled,
}

/// How the auth file got the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It was written from the store.
    Placed,
    /// It already held the store's generation.
    Kept,
    /// It held a newer login than the store, and the runner wrote that login to the store.
    Adopted,
}

/// A write to the store that landed.
#[derive(Clone, Debug)]
pub struct Written {
    /// The version that the store gave it.
    pub version: Version,
    /// The generation.
    pub fingerprint: Fingerprint,
    /// When the store confirmed the write.
    pub at: SystemTime,
}

impl Report {
    /// Whether what the command wrote is in the auth file and nowhere else.
    pub(crate) fn is_only_copy(&self) -> bool {
        match &self.outcome {
            Outcome::Superseded { rescued, .. } | Outcome::NotPersisted { rescued, .. } => !rescued,
            // A Codex that is still running may write the next login at any moment.
            Outcome::Unsettled => true,
            Outcome::Refused(_)
            | Outcome::Restored
            | Outcome::Unchanged
            | Outcome::Persisted { .. } => false,
        }
    }

    pub(crate) fn new() -> Self {
        Self {
            outcome: Outcome::Unchanged,
            command: None,
            refreshed: None,
            signal: None,
            ended_by: None,
            placement: None,
            began: None,
            base: None,
            unpersisted: None,
            writes: Vec::new(),
            rescued: Vec::new(),
            not_in_second_store: None,
            copies: Vec::new(),
            adopted_from: None,
            may_be_spent: false,
            unfinished_rotation: false,
            rescue_error: None,
            store_error: None,
            stored_unusable: None,
            file_unusable: None,
            home_error: None,
            receipt_error: None,
            terminated: 0,
            unkillable: 0,
            left_running: 0,
            interrupted: None,
            rotations_in_a_loop: None,
            doubtful: false,
            busy: false,
            in_use: None,
            usage_unknown: false,
            nested: false,
            job_is_over: false,
        }
    }
}
