//! What became of a login, as facts: how it is told is the command's affair.

use std::{io, time::SystemTime};

use authferry_codex::{Unfit, Unusable};
use authferry_core::{Base, Fingerprint, Outcome, StoreError, Version};

use crate::rescue::Location;
use crate::{Refreshed, User};

/// Everything that is known at the end of a trip. Holds no secret.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one fact of the end")]
pub struct Report {
    /// How the trip ended.
    pub outcome: Outcome,
    /// How the command ended, if the trip came to that.
    pub command: Option<CommandEnd>,
    /// What became of the refresh, if that was the command.
    pub refreshed: Option<Refreshed>,
    /// The number of the first signal that asked the job to end.
    pub signal: Option<i32>,
    /// How the file came to carry the login.
    pub placement: Option<Placement>,
    /// The generation that the job began with, if that is known.
    pub began: Option<Fingerprint>,
    /// What the store holds, as far as this trip knows.
    pub base: Option<Base>,
    /// What a watch left in the file for others to persist.
    pub left_due: Option<Fingerprint>,
    /// What this trip wrote to the store, in order.
    pub writes: Vec<Written>,
    /// Where something was kept that the store does not hold as current.
    pub rescued: Vec<Location>,
    /// Why the second store did not take a copy, so that it went to the rescue folder.
    pub not_in_second_store: Option<String>,
    /// The usable copies of a login that can be seen, where the store holds none.
    pub copies: Vec<Location>,
    /// The copy that was, or was about to be, put into the store before the command, if it was
    /// not the auth file.
    pub adopted_from: Option<Location>,
    /// Whether a receipt spoke of an auth file that held no login any more: what the store holds
    /// may be spent.
    pub may_be_spent: bool,
    /// Whether an earlier rotation of this login on this machine was killed, or ended without an
    /// answer: it may be spent.
    pub rotation_without_end: bool,
    /// Why something could not be kept.
    pub rescue_error: Option<io::Error>,
    /// The last thing that the store complained of.
    pub store_error: Option<StoreError>,
    /// What is wrong with the value in the store.
    pub stored_unusable: Option<Unusable>,
    /// What is wrong with the auth file's content.
    pub file_unusable: Option<Unusable>,
    /// What is wrong with the auth file or the home itself.
    pub unfit: Option<Unfit>,
    /// Why there is no receipt, or an old one.
    pub receipt_error: Option<io::Error>,
    /// How many processes that the command left behind had to be ended.
    pub ended: usize,
    /// How many processes that the command left behind could not be ended.
    pub left: usize,
    /// How many processes that may have spent the refresh token are still running: their timeout is
    /// over, or the job was cancelled.
    pub left_running: usize,
    /// The login whose refresh token a Codex may have spent when a signal reached it.
    pub interrupted: Option<Fingerprint>,
    /// How many rotations the job saw, if they followed each other too fast: the access token
    /// ends as soon as it is there, by the clock of this machine.
    pub rotations_in_a_loop: Option<usize>,
    /// Whether a swap was sent and never answered, so that the store may have changed.
    pub doubtful: bool,
    /// Whether the auth file was left behind because somebody else was just writing it.
    pub busy: bool,
    /// Who uses the home, so that the login was left there.
    pub in_use: Option<InUse>,
    /// Whether the login was left in the home because the processes that use it are not visible.
    pub unseen: bool,
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
    /// With this code; 128 + n for signal n.
    Exited(u8),
    /// It could not be started.
    NotStarted(io::Error),
    /// It runs on.
    Running,
    /// A signal came before it was started.
    Cancelled,
}

/// How the auth file came to carry the login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// It was written from the store.
    Placed,
    /// It carried the store's generation already.
    Kept,
    /// It was newer than the store, which took it over.
    Adopted,
}

/// One write that landed.
#[derive(Clone, Debug)]
pub struct Written {
    /// The store's name for it.
    pub version: Version,
    /// The generation.
    pub fingerprint: Fingerprint,
    /// When its landing was known.
    pub at: SystemTime,
}

impl Report {
    /// Whether what the command wrote is in the auth file and nowhere else.
    pub(crate) fn is_only_copy(&self) -> bool {
        match &self.outcome {
            Outcome::Superseded { rescued, .. } | Outcome::Stranded { rescued, .. } => !rescued,
            // It may be written any moment.
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
            placement: None,
            began: None,
            base: None,
            left_due: None,
            writes: Vec::new(),
            rescued: Vec::new(),
            not_in_second_store: None,
            copies: Vec::new(),
            adopted_from: None,
            may_be_spent: false,
            rotation_without_end: false,
            rescue_error: None,
            store_error: None,
            stored_unusable: None,
            file_unusable: None,
            unfit: None,
            receipt_error: None,
            ended: 0,
            left: 0,
            left_running: 0,
            interrupted: None,
            rotations_in_a_loop: None,
            doubtful: false,
            busy: false,
            in_use: None,
            unseen: false,
            nested: false,
            job_is_over: false,
        }
    }
}
