//! The time, memory and size that authferry costs, each figure next to its goal.
//!
//! The benchmark measures the release binary, as users get it, with a file store in the system's
//! temporary folder and with servers on this host. `cargo bench -p authferry-tests` measures in
//! full; `cargo test -p authferry-tests --bench cost` makes a few runs, to check that the benchmark
//! works. No figure fails: it depends on the machine as much as on authferry.

#[cfg(feature = "aws")]
mod aws;
#[cfg(feature = "azure-kv")]
mod azure;
mod figures;
mod job;
mod refresh;
mod scene;
#[cfg(feature = "vault")]
mod vault;
mod writers;

use std::{
    array, env, fs, thread,
    time::{Duration, Instant},
};

use rig::{ACCESS_LIFETIME, Codex, Login};
use time::OffsetDateTime;

use crate::{
    figures::Figures,
    job::Job,
    refresh::{Refresh, by_authferry, by_codex},
    scene::Scene,
    writers::{Writer, by_rename, in_place, under_a_lock},
};

/// How often each thing is measured.
struct Effort {
    commands: u32,
    writes: u32,
    refreshes: u32,
    idle_seconds: u32,
}

const FULL: Effort = Effort {
    commands: 100,
    writes: 50,
    refreshes: 20,
    idle_seconds: 15,
};

const QUICK: Effort = Effort {
    commands: 3,
    writes: 3,
    refreshes: 3,
    idle_seconds: 2,
};

/// The timeout of a login's way into the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// The polling interval of the store: shorter ones would take CPU time from authferry.
const POLL_INTERVAL: Duration = Duration::from_micros(200);

/// The pause after a login reached the store, in which authferry finishes.
const SETTLE_TIME: Duration = Duration::from_millis(50);

fn main() {
    // Cargo passes this argument to a benchmark, and not to a test of one.
    let is_full = env::args().any(|argument| argument == "--bench");
    let effort = if is_full { FULL } else { QUICK };
    let scene = Scene::set();
    let mut figures = Figures::default();

    commands(&scene, &effort, &mut figures);
    refreshes(&scene, &effort, &mut figures);
    writes(&scene, &effort, &mut figures);
    let job = Job::start(&scene);
    // Only Linux has /proc.
    if cfg!(target_os = "linux") {
        idle(&job, &effort, &mut figures);
        let memory = vec![job.peak_memory()];
        figures.add("that job's peak memory, MB", memory, "< 15");
    }
    job.finish();
    #[cfg(feature = "aws")]
    aws::round_trips(&scene, &effort, &mut figures);
    #[cfg(feature = "vault")]
    vault::restores(&scene, &effort, &mut figures);
    #[cfg(feature = "azure-kv")]
    azure::restores(&scene, &effort, &mut figures);
    figures.add("size of the program, MB", vec![scene.size()], "< 5");
    let Effort {
        commands,
        writes,
        refreshes,
        idle_seconds,
    } = effort;
    figures.print(&format!(
        "authferry {}: {commands} runs of each command, {writes} writes of each kind, {refreshes} refreshes, {idle_seconds} idle seconds",
        env!("CARGO_PKG_VERSION"),
    ));
}

/// Times whole commands, next to one that does nothing.
///
/// Most of the time of `run` is Linux's: it delays closing the watch on the auth file. Closing any
/// inotify instance took 16 ms on a busy machine with 6.18.
fn commands(scene: &Scene, effort: &Effort, figures: &mut Figures) {
    let commands = [
        scene.command("true"),
        scene.authferry(&["--version"]),
        scene.authferry(&["-q", "run", "--", "true"]),
    ];
    let [nothing, version, run] = in_turns(effort.commands, commands, |command| {
        let began = Instant::now();
        let status = command.status().expect("a program");
        let took = began.elapsed();
        assert!(status.success(), "{command:?} failed");
        took
    });
    let nothing = figures.add("true, ms", nothing, "");
    figures.add_relative(nothing, "authferry --version, ms", version, "< 3");
    figures.add_relative(nothing, "authferry run -- true, ms", run, "");
}

/// Times a whole rotation by Codex, directly and through authferry.
fn refreshes(scene: &Scene, effort: &Effort, figures: &mut Figures) {
    let codex = Codex::install(rig::V0_169).expect("Codex from npm");
    let refreshes: [Refresh; 2] = [by_codex, by_authferry];
    let [bare, ours] = in_turns(effort.refreshes, refreshes, |refresh| {
        refresh(scene, &codex)
    });
    let bare = figures.add("a refresh by codex app-server, ms", bare, "");
    figures.add_relative(bare, "authferry refresh, ms", ours, "< 1.5 x");
}

/// Times a login's way from the auth file into the store, by the way it was written, next to the
/// disk's time for one file.
fn writes(scene: &Scene, effort: &Effort, figures: &mut Figures) {
    let (home, store, elsewhere) = (scene.codex_home(), scene.store(), scene.elsewhere());
    let now = OffsetDateTime::now_utc();
    let mut serial = 1;
    let writers: [Option<Writer>; 4] = [None, Some(in_place), Some(under_a_lock), Some(by_rename)];
    let [disk, in_place, under_a_lock, by_rename] = in_turns(effort.writes, writers, |write| {
        serial += 1;
        let login = Login::new("account-1", serial, now, ACCESS_LIFETIME).auth_json();
        let Some(write) = write else {
            let began = Instant::now();
            by_rename(&elsewhere, login.as_bytes()).expect("room");
            return began.elapsed();
        };
        // One job per login: three logins within a minute count as a loop, and wait.
        let job = Job::start(scene);
        let written = write(&home, login.as_bytes()).expect("room");
        while !fs::read(&store).is_ok_and(|held| held == login.as_bytes()) {
            assert!(written.elapsed() < STORE_TIMEOUT, "a login never arrived");
            thread::sleep(POLL_INTERVAL);
        }
        let took = written.elapsed();
        thread::sleep(SETTLE_TIME);
        job.finish();
        took
    });
    let disk = figures.add("a file written, synced and renamed, ms", disk, "");
    figures.add_relative(
        disk,
        "login written in place, to store, ms",
        in_place,
        "< 50",
    );
    figures.add_relative(
        disk,
        "the same under a lock, to store, ms",
        under_a_lock,
        "< 50",
    );
    figures.add_relative(disk, "renamed into place, to store, ms", by_rename, "< 50");
}

/// Counts a job's cost while nothing happens.
fn idle(job: &Job, effort: &Effort, figures: &mut Figures) {
    let mut ticks = Vec::new();
    let mut wakes = Vec::new();
    for _ in 0..effort.idle_seconds {
        let before = job.activity();
        thread::sleep(Duration::from_secs(1));
        let after = job.activity();
        ticks.push(after.ticks_since(&before));
        wakes.push(after.wakes_since(&before));
    }
    figures.add("CPU of an idle second, ticks of 10 ms", ticks, "0");
    figures.add("wake-ups in an idle second", wakes, "0");
}

/// Measures things in turns, so that a slow phase of the machine affects all of them. Returns
/// milliseconds. A first round warms up and does not count.
fn in_turns<T, const N: usize>(
    rounds: u32,
    mut things: [T; N],
    mut measure: impl FnMut(&mut T) -> Duration,
) -> [Vec<f64>; N] {
    let mut times = array::from_fn(|_| Vec::new());
    for round in 0..=rounds {
        for (thing, times) in things.iter_mut().zip(&mut times) {
            let took = measure(thing);
            if round > 0 {
                times.push(took.as_secs_f64() * 1000.0);
            }
        }
    }
    times
}
