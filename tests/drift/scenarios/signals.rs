//! Signals: the command ends, the login is persisted.

use std::{error::Error, fs, process::Child};

use rig::{Endpoint, Login, Runner, What};
use rustix::process::{Pid, Signal, kill_process};

use super::{Scenario, jobs::NOT_FIRST, scenario, seen};
use crate::{
    bench::{Act, Bench, Scene, Seen, wait_until},
    checks::Checks,
};

pub(super) const SCENARIOS: &[Scenario] = &[
    scenario("SIGTERM to `run` after the rotation", terminated),
    scenario("SIGTERM to `run`, with npm's launcher", terminated_launcher),
    scenario(
        "SIGKILL of npm's launcher during the rotation",
        killed_launcher,
    ),
];

fn terminated(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::stale())?;
    let runner = scene.runner()?;
    is_persisted(&scene, &runner, checks)
}

/// The launcher up to 0.163.0 exits with 0 then.
fn terminated_launcher(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::stale())?;
    let runner = scene.runner()?;
    runner.link("codex", bench.codex.launcher())?;
    is_persisted(&scene, &runner, checks)
}

fn is_persisted(scene: &Scene, runner: &Runner, checks: &mut Checks) -> Seen {
    let hold = scene.stub.hold(Endpoint::Model);
    let run = scene.start_job(runner, NOT_FIRST)?;
    wait_until("a rotation", || scene.stub.count(What::is_rotation) > 0)?;
    wait_until("a model call", || scene.stub.count(What::is_model_call) > 0)?;
    kill_process(Pid::from_child(&run), Signal::TERM)?;
    let act = end(scene, runner, run)?;
    drop(hold);
    checks.ended(&act, 143, "persisted");
    checks.equal("refreshes", scene.refreshes(), 1);
    checks.holds("the store holds the live login", scene.is_live());
    checks.holds("the home holds no login", !runner.auth_file().exists());
    seen(&act.outcome)
}

/// The native Codex goes on without its launcher, and writes the login.
fn killed_launcher(bench: &Bench, checks: &mut Checks) -> Seen {
    let scene = Scene::holding(bench, &Login::stale())?;
    let runner = scene.runner()?;
    runner.link("codex", bench.codex.launcher())?;
    let hold = scene.stub.hold(Endpoint::Token);
    let run = scene.start_job(&runner, NOT_FIRST)?;
    wait_until("a rotation", || scene.stub.count(What::is_rotation) > 0)?;
    let launcher = runner.processes()?.into_iter().find(|id| is_node(*id));
    let launcher = launcher.ok_or("no launcher is running")?;
    let launcher = i32::try_from(launcher).ok().and_then(Pid::from_raw);
    kill_process(launcher.ok_or("no process id")?, Signal::KILL)?;
    drop(hold);
    let act = end(&scene, &runner, run)?;
    checks.ended(&act, 137, "persisted");
    checks.equal("refreshes", scene.refreshes(), 1);
    checks.holds("the store holds the live login", scene.is_live());
    checks.holds("the home holds no login", !runner.auth_file().exists());
    seen(&act.outcome)
}

fn is_node(id: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
    let mut words = name.split('\0');
    let program = words.next().unwrap_or_default();
    program == "node" || program.ends_with("/node")
}

/// Waits for the end of `authferry`.
fn end(scene: &Scene, runner: &Runner, mut run: Child) -> Result<Act, Box<dyn Error>> {
    let mut status = None;
    wait_until("the end of authferry", || {
        status = run.try_wait().ok().flatten();
        status.is_some()
    })?;
    let output = std::process::Output {
        status: status.ok_or("authferry did not end")?,
        stdout: Vec::new(),
        stderr: Vec::new(),
    };
    Ok(scene.result(runner, &output))
}
