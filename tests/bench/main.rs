//! What authferry costs in time, memory and size, each figure beside its goal.
//!
//! Measured is the release binary, as users get it, with a file store in the system's
//! folder for temporary files, and with servers on this host. `cargo bench -p
//! authferry-tests` does so in earnest, and `cargo test -p authferry-tests --bench cost` in
//! a few runs, to see that it still can be done. No figure fails: it is the machine's as much as authferry's.

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

/// How often things are measured.
struct Effort {
    commands: u32,
    writes: u32,
    refreshes: u32,
    idle_seconds: u32,
}

const IN_EARNEST: Effort = Effort {
    commands: 100,
    writes: 50,
    refreshes: 20,
    idle_seconds: 15,
};

const IN_SHORT: Effort = Effort {
    commands: 3,
    writes: 3,
    refreshes: 3,
    idle_seconds: 2,
};

/// How long a login may take to the store before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often the store is looked at: more often would take time from authferry.
const PACE: Duration = Duration::from_micros(200);

/// After a login was seen in the store, until authferry is done with it.
const REST: Duration = Duration::from_millis(50);

fn main() {
    // By this argument Cargo tells a benchmark from a test of one.
    let in_earnest = env::args().any(|argument| argument == "--bench");
    let effort = if in_earnest { IN_EARNEST } else { IN_SHORT };
    let scene = Scene::set();
    let mut figures = Figures::default();

    commands(&scene, &effort, &mut figures);
    refreshes(&scene, &effort, &mut figures);
    writes(&scene, &effort, &mut figures);
    let job = Job::start(&scene);
    // Elsewhere there is no /proc to ask.
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

/// Times whole commands, beside one that does nothing.
///
/// Most of what `run` takes goes to Linux, which closes the watch on the auth file at its
/// leisure: closing any inotify instance took 16 ms by itself on a busy machine with 6.18.
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
    figures.add_beside(nothing, "authferry --version, ms", version, "< 3");
    figures.add_beside(nothing, "authferry run -- true, ms", run, "");
}

/// Times a rotation by Codex, from its start to its end, bare and by authferry.
fn refreshes(scene: &Scene, effort: &Effort, figures: &mut Figures) {
    let codex = Codex::install(rig::V0_169).expect("Codex from npm");
    let ways: [Refresh; 2] = [by_codex, by_authferry];
    let [bare, ours] = in_turns(effort.refreshes, ways, |refresh| refresh(scene, &codex));
    let bare = figures.add("a refresh by codex app-server, ms", bare, "");
    figures.add_beside(bare, "authferry refresh, ms", ours, "< 1.5 x");
}

/// Times a login's way from the auth file into the store, by how it was written, beside the
/// time that the disk takes for one file.
fn writes(scene: &Scene, effort: &Effort, figures: &mut Figures) {
    let (home, store, elsewhere) = (scene.codex_home(), scene.store(), scene.elsewhere());
    let now = OffsetDateTime::now_utc();
    let mut serial = 1;
    let ways: [Option<Writer>; 4] = [None, Some(in_place), Some(under_a_lock), Some(by_rename)];
    let [disk, in_place, under_a_lock, by_rename] = in_turns(effort.writes, ways, |write| {
        serial += 1;
        let login = Login::new("account-1", serial, now, ACCESS_LIFETIME).auth_json();
        let Some(write) = write else {
            let began = Instant::now();
            by_rename(&elsewhere, login.as_bytes()).expect("room");
            return began.elapsed();
        };
        // A separate job for each login: three logins within a minute count as a loop, and wait.
        let job = Job::start(scene);
        let written = write(&home, login.as_bytes()).expect("room");
        while !fs::read(&store).is_ok_and(|held| held == login.as_bytes()) {
            assert!(written.elapsed() < PATIENCE, "a login never arrived");
            thread::sleep(PACE);
        }
        let took = written.elapsed();
        thread::sleep(REST);
        job.finish();
        took
    });
    let disk = figures.add("a file written, synced and renamed, ms", disk, "");
    figures.add_beside(
        disk,
        "login written in place, to store, ms",
        in_place,
        "< 50",
    );
    figures.add_beside(
        disk,
        "the same under a lock, to store, ms",
        under_a_lock,
        "< 50",
    );
    figures.add_beside(disk, "renamed into place, to store, ms", by_rename, "< 50");
}

/// Counts what a job costs while nothing happens.
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

/// Measures things one after the other, again and again: what slows the machine down for a
/// while slows all of them. Returns milliseconds. A first round warms up and does not count.
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
