//! A job, and what an eye on it saw.

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use rig::{Event, Outcome, Stub, What};
use time::OffsetDateTime;

use crate::Told;

/// How often to look.
const PACE: Duration = Duration::from_millis(1);

/// How long a job may take before it is killed.
const PATIENCE: Duration = Duration::from_mins(1);

/// What became of a job.
pub(crate) struct Job {
    /// The exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// All that it printed.
    pub(crate) said: String,
    /// From its start to its end.
    pub(crate) took: Duration,
    /// When it ended.
    pub(crate) over: OffsetDateTime,
    /// What it asked of the provider.
    pub(crate) asked: Vec<Event>,
    /// When a new login was first seen in the home.
    pub(crate) in_home: Option<OffsetDateTime>,
    /// When a new login was first seen in the store.
    pub(crate) in_store: Option<OffsetDateTime>,
}

impl Job {
    /// Runs a command to its end, and looks meanwhile for a login newer than `old`.
    ///
    /// What it prints goes to `log`.
    pub(crate) fn watch(
        command: &mut Command,
        log: &Path,
        stub: &Stub,
        old: &[u8],
        [home, store]: [&Path; 2],
    ) -> io::Result<Self> {
        let [mut in_home, mut in_store] = [None, None];
        let look = |file: &Path, seen: &mut Option<OffsetDateTime>| {
            let new = |bytes: Vec<u8>| bytes != old && stub.is_live(&bytes);
            if seen.is_none() && fs::read(file).is_ok_and(new) {
                *seen = Some(OffsetDateTime::now_utc());
            }
        };
        let output = File::create(log)?;
        let before = stub.events().len();
        let began = Instant::now();
        let mut child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if began.elapsed() > PATIENCE {
                child.kill()?;
            }
            look(home, &mut in_home);
            look(store, &mut in_store);
            thread::sleep(PACE);
        };
        Ok(Self {
            took: began.elapsed(),
            over: OffsetDateTime::now_utc(),
            code: status.code(),
            said: fs::read_to_string(log)?,
            asked: stub.events().split_off(before),
            in_home,
            in_store,
        })
    }

    /// Returns when the login was rotated, and the serial of the one that was given for it.
    ///
    /// Fails unless that happened just once.
    pub(crate) fn rotation(&self) -> Told<(OffsetDateTime, u32)> {
        let rotations = self.refreshes().filter_map(|(at, outcome)| match outcome {
            Outcome::Rotated(serial) => Some((at, serial)),
            Outcome::Reused | Outcome::Revoked | Outcome::Unknown | Outcome::Failed(_) => None,
        });
        match rotations.collect::<Vec<_>>()[..] {
            [only] => Ok(only),
            [] => Err("the login was not rotated".into()),
            [_, _, ..] => Err("the login was rotated more than once".into()),
        }
    }

    /// Returns whether the provider refused a refresh token because it was spent.
    pub(crate) fn was_refused(&self) -> bool {
        let mut refreshes = self.refreshes();
        refreshes.any(|(_, outcome)| outcome == Outcome::Reused)
    }

    /// Returns whether the job asked for something.
    pub(crate) fn did(&self, wanted: impl Fn(&What) -> bool) -> bool {
        self.asked.iter().any(|event| wanted(&event.what))
    }

    fn refreshes(&self) -> impl Iterator<Item = (OffsetDateTime, Outcome)> {
        self.asked.iter().filter_map(|event| match event.what {
            What::Refresh { outcome, .. } => Some((event.at, outcome)),
            What::Revoke { .. }
            | What::Model { .. }
            | What::Printed { .. }
            | What::Other { .. } => None,
        })
    }
}
