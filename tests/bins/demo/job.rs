//! Runs a job and observes it.

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

use crate::DemoResult;

/// How often the home and the store are read.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A job that takes longer is killed.
const JOB_TIMEOUT: Duration = Duration::from_mins(3);

/// The result of a job.
pub(crate) struct Job {
    /// The exit code, unless a signal ended it.
    pub(crate) code: Option<i32>,
    /// The whole output.
    pub(crate) output: String,
    /// From its start to its end.
    pub(crate) took: Duration,
    /// When it ended.
    pub(crate) ended: OffsetDateTime,
    /// The requests to the provider.
    pub(crate) requests: Vec<Event>,
    /// When a new login was first seen in the home.
    pub(crate) in_home: Option<OffsetDateTime>,
    /// When a new login was first seen in the store.
    pub(crate) in_store: Option<OffsetDateTime>,
}

impl Job {
    /// Runs a command to its end, and polls for a login newer than `old` meanwhile.
    ///
    /// The output goes to `log`.
    pub(crate) fn watch(
        command: &mut Command,
        log: &Path,
        stub: &Stub,
        old: &[u8],
        [home, store]: [&Path; 2],
    ) -> io::Result<Self> {
        let [mut in_home, mut in_store] = [None, None];
        let poll = |file: &Path, seen: &mut Option<OffsetDateTime>| {
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
            if began.elapsed() > JOB_TIMEOUT {
                child.kill()?;
            }
            poll(home, &mut in_home);
            poll(store, &mut in_store);
            thread::sleep(POLL_INTERVAL);
        };
        Ok(Self {
            took: began.elapsed(),
            ended: OffsetDateTime::now_utc(),
            code: status.code(),
            output: fs::read_to_string(log)?,
            requests: stub.events().split_off(before),
            in_home,
            in_store,
        })
    }

    /// Returns when the login was rotated, and the serial of the new login.
    ///
    /// Fails unless it was rotated exactly once.
    pub(crate) fn rotation(&self) -> DemoResult<(OffsetDateTime, u32)> {
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

    /// Returns whether the job sent a matching request.
    pub(crate) fn sent(&self, wanted: impl Fn(&What) -> bool) -> bool {
        self.requests.iter().any(|event| wanted(&event.what))
    }

    fn refreshes(&self) -> impl Iterator<Item = (OffsetDateTime, Outcome)> {
        self.requests.iter().filter_map(|event| match event.what {
            What::Refresh { outcome, .. } => Some((event.at, outcome)),
            What::Revoke { .. }
            | What::Model { .. }
            | What::Printed { .. }
            | What::Other { .. } => None,
        })
    }
}
