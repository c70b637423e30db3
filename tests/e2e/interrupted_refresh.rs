//! `authferry refresh`, interrupted by a signal at any moment.
//!
//! The store must end up with the token that the provider accepts next. The moments are drawn from a
//! seed: half of them from the whole refresh, half of them from the critical time around the spend.

use std::{
    any::type_name,
    env, fs,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rig::{Codex, Endpoint, Hold, Login, MARKERS, Runner, What, finish_within};
use rustix::process::{Pid, Signal, kill_process_group};
use time::OffsetDateTime;

use crate::any_store::{AnyStore, in_each_store};
use crate::crowds::lock_crowds;
use crate::ferry::{Ferry, start, wait_until};

in_each_store![slow:
    sigterm_at_any_moment_leaves_the_live_login_in_the_store,
    sigkill_at_any_moment_loses_no_login,
];

/// How many refreshes are interrupted, unless `AUTHFERRY_TEST_MOMENTS` sets another number.
const MOMENTS: u64 = 50;

/// The network latency to the provider, each way.
const LATENCY: Duration = Duration::from_millis(20);

/// Timeout of the next refresh: the lease of a killed one expires after 90 seconds.
const NEXT_REFRESH_TIMEOUT: Duration = Duration::from_mins(3);

/// The latest interruption after the spend, for moments that count from the spend.
const MAX_SINCE_SPEND: Duration = Duration::from_millis(60);

fn sigterm_at_any_moment_leaves_the_live_login_in_the_store<S: AnyStore>(version: &str) {
    let _lock = lock_crowds();
    let mut tally = Tally::default();
    let mut ended = Vec::new();
    let codex = Codex::install(version).expect("Codex from npm");
    for (round, moment) in moments::<S>(&codex, 1).enumerate() {
        let mut refresh = Refresh::<S>::start(&codex, CodexInstall::of(round));
        refresh.reach(moment);
        let signalled = OffsetDateTime::now_utc();
        refresh.send(Signal::TERM);
        if refresh.hold.is_some() {
            // Long enough to exit, if authferry reacted to the signal alone.
            thread::sleep(Duration::from_millis(300));
            refresh.hold = None;
        }
        let status = refresh.process.wait().expect("our child");
        let stage = refresh.stage(signalled);
        tally.count(stage);
        let about = format!("round {round}, {moment:?}, {stage:?}, {status}");
        assert!(refresh.scene.is_live(), "the store is behind: {about}");
        assert!(refresh.is_over(), "a process is left: {about}");
        assert_eq!(refresh.left_behind(), [] as [PathBuf; 0], "{about}");
        ended.push(refresh);
    }
    // No process was left that could have spent the token since.
    for refresh in ended {
        assert!(refresh.scene.is_live());
    }
    tally.print::<S>(version, "SIGTERM");
}

/// The signal kills only authferry: Codex and the supervisor keep running.
fn sigkill_at_any_moment_loses_no_login<S: AnyStore>(version: &str) {
    let _lock = lock_crowds();
    let mut tally = Tally::default();
    let codex = Codex::install(version).expect("Codex from npm");
    for (round, moment) in moments::<S>(&codex, 2).enumerate() {
        let mut refresh = Refresh::<S>::start(&codex, CodexInstall::of(round));
        refresh.reach(moment);
        refresh.process.kill().expect("our child");
        let status = refresh.process.wait().expect("our child");
        let killed = OffsetDateTime::now_utc();
        refresh.hold = None;
        wait_until("Codex has exited", || refresh.is_over());
        let stage = refresh.stage(killed);
        tally.count(stage);
        let about = format!("round {round}, {moment:?}, {stage:?}, {status}");
        if !refresh.scene.is_live() {
            // Killed before the supervisor started, or during the swap.
            let mut next = refresh.scene.authferry(&refresh.runner, &["refresh"]);
            let next = finish_within(NEXT_REFRESH_TIMEOUT, &mut next);
            assert!(refresh.scene.is_live(), "{about}: {next:?}");
        }
        let spent = refresh.scene.stub().count(What::is_rotation);
        assert!(spent <= 1, "{about}: spent {spent} times");
    }
    tally.print::<S>(version, "SIGKILL");
}

#[test]
fn a_signalled_refresh_waits_for_the_provider() {
    let codex = Codex::install(rig::V0_169).expect("Codex from npm");
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut refresh = Refresh::<Ferry>::start(&codex, CodexInstall::Binary);
        refresh.reach(Moment::BeforeReply);
        refresh.send(signal);
        // Long enough to exit, if authferry reacted to the signal alone.
        thread::sleep(Duration::from_millis(300));
        refresh.hold = None;
        let status = refresh.process.wait().expect("our child");
        assert!(
            status.code().is_some(),
            "{signal:?} killed authferry: {status}"
        );
        assert!(refresh.scene.is_live(), "{signal:?} lost the login");
        assert!(refresh.is_over(), "{signal:?} left a process behind");
    }
}

/// When a refresh is interrupted.
#[derive(Clone, Copy, Debug)]
enum Moment {
    SinceStart(Duration),
    SinceSpend(Duration),
    /// While the provider's reply is on its way.
    BeforeReply,
}

/// How Codex is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CodexInstall {
    /// The binary itself.
    Binary,
    /// npm's launcher, which starts the binary and can exit before it.
    NpmLauncher,
}

impl CodexInstall {
    /// Alternates after every two rounds, so that each kind of moment meets each install.
    fn of(round: usize) -> Self {
        if (round / 2).is_multiple_of(2) {
            Self::Binary
        } else {
            Self::NpmLauncher
        }
    }
}

/// How far a refresh has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No refresh request was sent.
    Unspent,
    /// A request was sent, and the store does not have the rotated login.
    Spent,
    /// The store has the rotated login.
    Swapped,
}

/// `authferry refresh` of a login that expires in 10 minutes, in a separate store.
struct Refresh<S> {
    scene: S,
    runner: Runner,
    process: Child,
    began: Instant,
    hold: Option<Hold>,
}

impl<S: AnyStore> Refresh<S> {
    fn start(codex: &Codex, install: CodexInstall) -> Self {
        let login = Login::ending_in(time::Duration::minutes(10));
        let scene = S::with(codex.clone(), &login);
        scene.stub().rules(|rules| rules.latency = LATENCY);
        let hold = scene.stub().hold(Endpoint::Token);
        let runner = scene.runner();
        if install == CodexInstall::NpmLauncher {
            runner.link("codex", codex.launcher()).expect("disk space");
        }
        let mut process = scene.authferry(&runner, &["refresh"]);
        let process = start(process.process_group(0));
        Self {
            scene,
            runner,
            process,
            began: Instant::now(),
            hold: Some(hold),
        }
    }

    /// Waits until the moment.
    fn reach(&mut self, moment: Moment) {
        match moment {
            Moment::SinceStart(time) => {
                self.hold = None;
                thread::sleep(time);
            }
            Moment::SinceSpend(time) => {
                self.hold = None;
                self.wait_for_the_spend();
                thread::sleep(time);
            }
            Moment::BeforeReply => self.wait_for_the_spend(),
        }
    }

    /// Sends a signal to the process group, as a platform does when it cancels a job.
    fn send(&self, signal: Signal) {
        let group = i32::try_from(self.process.id()).ok();
        let group = group.and_then(Pid::from_raw).expect("a process id");
        kill_process_group(group, signal).expect("our child");
    }

    fn wait_for_the_spend(&self) {
        let limit = Duration::from_mins(1);
        self.scene.stub().wait_for(limit, What::is_rotation);
    }

    /// Returns how far the refresh had got at a time. Call it after the refresh is over.
    fn stage(&self, at: OffsetDateTime) -> Stage {
        let events = self.scene.stub().events();
        let spend = events.iter().find(|event| event.what.is_rotation());
        if spend.is_none_or(|spend| spend.arrived > at) {
            return Stage::Unspent;
        }
        if self.scene.is_live() && at >= self.scene.written() {
            return Stage::Swapped;
        }
        Stage::Spent
    }

    /// Returns whether no process is left that could spend the token.
    fn is_over(&self) -> bool {
        self.runner.processes().expect("Linux").is_empty()
    }

    /// Returns the files on the machine that contain a part of a login.
    fn left_behind(&self) -> Vec<PathBuf> {
        let mut left = Vec::new();
        let mut folders = vec![self.runner.root().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("our folder") {
                let path = entry.expect("an entry").path();
                if path.is_symlink() {
                    continue;
                }
                if path.is_dir() {
                    folders.push(path);
                } else if holds_a_token(&fs::read(&path).expect("our file")) {
                    left.push(path);
                }
            }
        }
        left
    }
}

/// Draws the moments of a test.
fn moments<S: AnyStore>(codex: &Codex, seed: u64) -> impl Iterator<Item = Moment> + use<S> {
    let mut baseline = Refresh::<S>::start(codex, CodexInstall::Binary);
    baseline.hold = None;
    let status = baseline.process.wait().expect("our child");
    assert!(status.success() && baseline.scene.is_live(), "{status}");
    let usual = baseline.began.elapsed();
    let setting = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    // The gate, `tests/run`, draws new moments in each run, and prints the seed.
    let mut random = Random(seed + 2 * setting("AUTHFERRY_TEST_SEED").unwrap_or(0));
    let rounds = setting("AUTHFERRY_TEST_MOMENTS").unwrap_or(MOMENTS);
    (0..rounds).map(move |round| {
        let part = random.draw();
        match round {
            0 => Moment::BeforeReply,
            _ if round % 2 == 0 => Moment::SinceSpend(MAX_SINCE_SPEND.mul_f64(part)),
            _ => Moment::SinceStart(usual.mul_f64(part)),
        }
    })
}

/// How many moments hit each stage.
#[derive(Default)]
struct Tally {
    unspent: u32,
    spent: u32,
    swapped: u32,
}

impl Tally {
    fn count(&mut self, stage: Stage) {
        match stage {
            Stage::Unspent => self.unspent += 1,
            Stage::Spent => self.spent += 1,
            Stage::Swapped => self.swapped += 1,
        }
    }

    /// Prints the counts, even if the test passes.
    fn print<S>(&self, version: &str, signal: &str) {
        let store = type_name::<S>();
        let Self {
            unspent,
            spent,
            swapped,
        } = self;
        let line = format!(
            "{signal} during a refresh by Codex {version}, {store}: {unspent} before the spend, \
             {spent} between spend and swap, {swapped} after\n"
        );
        io::stderr().write_all(line.as_bytes()).expect("stderr");
    }
}

/// A deterministic pseudo-random generator: `SplitMix64`.
struct Random(u64);

impl Random {
    /// Returns a number from 0 to 1.
    fn draw(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        let upper = u32::try_from(bits >> 32).expect("half of the bits");
        f64::from(upper) / f64::from(u32::MAX)
    }
}

fn holds_a_token(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    MARKERS.iter().any(|marker| text.contains(marker))
}
