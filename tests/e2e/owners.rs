//! A home has one owner: authferry waits for a running Codex, refuses another job, and keeps the
//! login for later steps of the same job.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use rig::{EXEC, Endpoint, Login, Runner, What, finish};
use rustix::process::{Pid, Signal, kill_process};

use crate::any_store::{AnyStore, on_each_version};
use crate::ferry::{Ferry, assert_code, names, start, wait_until};

on_each_version![V0_145 V0_166 V0_171:
    persist_waits_for_a_running_codex,
    run_in_a_home_with_a_restored_login_loses_nothing,
    restore_and_persist_over_a_restored_login_lose_nothing,
    another_job_is_refused,
    a_nested_run_leaves_the_login_to_its_job,
];

const MINUTE: Duration = Duration::from_mins(1);

/// A script that exits while its Codex still runs.
const LEAVE_CODEX_RUNNING: &str = "restore --no-rotate-first
codex exec --skip-git-repo-check 'Reply OK.' </dev/null >/dev/null 2>&1 &
until [ -e enough ]; do sleep 0.01; done";

fn persist_waits_for_a_running_codex(version: &str) {
    for (with_watch, more) in [(true, &[][..]), (false, &[]), (true, &["--if-restored"])] {
        let scene = Scene::restored(version, with_watch);
        let (codex, reply) = scene.codex_with_pending_refresh();
        let persist = scene.begin(1, &["persist"], more);
        scene.wait_until_locked(with_watch);
        scene.assert_waits_for(codex, reply, persist);
    }
}

fn run_in_a_home_with_a_restored_login_loses_nothing(version: &str) {
    // A step of the same job: the watch is running, so the login stays.
    let scene = Scene::restored(version, true);
    let (codex, reply) = scene.codex_with_pending_refresh();
    let run = scene.authferry(1, &["run", "--", "true"]);
    assert_code(&run, 0);
    assert!(stderr(&run).contains("stays in"), "{}", stderr(&run));
    assert!(
        stderr(&run).contains("not rotated first: codex"),
        "{}",
        stderr(&run)
    );
    drop(reply);
    assert!(wait(codex).success());
    scene.ferry.wait_until_live();
    assert_code(&scene.authferry(1, &["persist"]), 0);
    scene.assert_clean();

    // No process shows that the job still runs: `run` removes the login after Codex has exited.
    let scene = Scene::restored(version, false);
    let (codex, reply) = scene.codex_with_pending_refresh();
    let run = scene.begin(1, &["run"], &["--", "touch", "ran"]);
    wait_until("the command has run", || {
        scene.runner.work().join("ran").exists()
    });
    scene.assert_waits_for(codex, reply, run);
}

fn restore_and_persist_over_a_restored_login_lose_nothing(version: &str) {
    let scene = Scene::restored(version, true);
    let (codex, reply) = scene.codex_with_pending_refresh();
    assert_code(&scene.authferry(1, &["restore"]), 0);
    let persist = scene.begin(1, &["persist"], &[]);
    scene.wait_until_locked(true);
    scene.assert_waits_for(codex, reply, persist);
}

fn another_job_is_refused(version: &str) {
    for with_watch in [true, false] {
        let scene = Scene::new(version);
        let no_watch = if with_watch { "" } else { "--no-watch" };
        // The caller of `restore` exits.
        let restore = format!("restore --no-rotate-first {no_watch}; true");
        assert_code(&finish(&mut scene.job(1, &restore)), 0);
        let step = scene.step(1);
        let (codex, reply) = scene.codex_with_pending_refresh();
        for command in [&["run", "--", "true"][..], &["restore"], &["persist"]] {
            let refused = scene.authferry(2, command);
            assert_code(&refused, 124);
            let by = format!("is in use by sh (process {})", step.id());
            assert!(stderr(&refused).contains(&by), "{}", stderr(&refused));
        }
        let cleanup = scene.authferry(2, &["persist", "--if-restored"]);
        assert_code(&cleanup, 0);
        assert!(
            stderr(&cleanup).contains("nothing is left to do"),
            "{}",
            stderr(&cleanup)
        );
        drop(reply);
        assert!(wait(codex).success());
        drop(step);
        assert_code(&scene.authferry(1, &["persist"]), 0);
        assert!(scene.ferry.is_live());
        scene.assert_clean();
    }
}

fn a_nested_run_leaves_the_login_to_its_job(version: &str) {
    let scene = Scene::restored(version, true);
    assert_code(&finish(&mut scene.codex(1)), 0);
    let mut run = scene.command(1, &["run", "--", "codex"]);
    assert_code(&finish(run.args(EXEC)), 0);
    assert_code(&finish(&mut scene.codex(1)), 0);
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
    assert!(
        scene.watch_marker().exists(),
        "the watch of the job is back"
    );
    assert_code(&scene.authferry(1, &["persist"]), 0);
    assert!(scene.ferry.is_live());
    scene.assert_clean();
}

#[test]
fn a_cancelled_persist_leaves_the_login_to_a_watch() {
    let scene = Scene::restored(rig::V0_171, true);
    let (codex, reply) = scene.codex_with_pending_refresh();
    let persist = scene.begin(1, &["persist"], &[]);
    scene.wait_until_locked(true);
    kill(persist.id(), Signal::TERM);
    let left = persist.wait_with_output().expect("our child");
    assert_code(&left, 119);
    assert!(
        stderr(&left).contains("may be spent: codex (process"),
        "{}",
        stderr(&left)
    );
    assert!(scene.runner.auth_file().exists());
    drop(reply);
    assert!(wait(codex).success());
    scene.ferry.wait_until_live();
    assert_code(&scene.authferry(1, &["persist"]), 0);
    scene.assert_clean();
}

#[test]
fn a_codex_without_a_pending_refresh_gets_only_the_exit_grace() {
    let scene = Scene::restored(rig::V0_171, true);
    let model = scene.ferry.stub.hold(Endpoint::Model);
    let codex = start(&mut scene.codex(1));
    scene.ferry.wait_until_live();
    let left = scene.authferry(1, &["persist", "--exit-grace", "0s"]);
    assert_code(&left, 119);
    assert!(!stderr(&left).contains("may be spent"), "{}", stderr(&left));
    assert!(
        stderr(&left).contains("still uses the home"),
        "{}",
        stderr(&left)
    );
    drop(model);
    assert!(wait(codex).success());
    assert_code(&scene.authferry(1, &["persist"]), 0);
    scene.assert_clean();
}

/// An agent calls `persist` from its own Codex: `persist` neither waits for that Codex nor removes
/// its login.
#[test]
fn persist_does_not_wait_for_the_codex_that_called_it() {
    let scene = Scene::restored(rig::V0_171, true);
    let shell = format!(
        "CI_JOB_ID='{}' AUTHFERRY_STORE={} {} persist --exit-grace 1h >output 2>&1; echo $? >code",
        scene.job_name(1),
        scene.ferry.address(),
        crate::ferry::under_test()
    );
    scene.ferry.stub.rules(|rules| rules.shell = Some(shell));
    let mut codex = scene.codex(1);
    codex.args(["--dangerously-bypass-approvals-and-sandbox"]);
    let done = finish(&mut codex);
    assert_code(&done, 0);
    let code = fs::read_to_string(scene.runner.work().join("code")).expect("an exit code");
    assert_eq!(code.trim(), "119");
    assert!(scene.runner.auth_file().exists());
    assert_code(&scene.authferry(1, &["persist"]), 0);
    assert!(scene.ferry.is_live());
    scene.assert_clean();
}

/// On GitLab, a script may still run when the `after_script` starts.
#[test]
fn persist_leaves_the_login_to_an_active_run_of_the_same_job() {
    let ferry = Ferry::holding(rig::V0_171, &Login::fresh());
    let scene = Scene {
        runner: ferry.runner(),
        ferry,
    };
    let script = "touch ready; until [ -e enough ]; do sleep 0.01; done";
    let run = scene.begin(1, &["run", "--", "sh", "-c", script], &[]);
    let work = scene.runner.work();
    wait_until("ready", || work.join("ready").exists());
    let persist = scene.authferry(1, &["persist", "--exit-grace", "0s"]);
    assert_code(&persist, 119);
    let by = format!("authferry-under (process {})", run.id());
    assert!(stderr(&persist).contains(&by), "{}", stderr(&persist));
    let persist = scene.begin(1, &["persist"], &["--if-restored"]);
    fs::write(work.join("enough"), "").expect("disk space");
    let persisted = persist.wait_with_output().expect("our child");
    assert_code(&persisted, 0);
    assert_code(&run.wait_with_output().expect("our child"), 0);
    scene.assert_clean();
}

#[test]
fn restore_starts_a_watch_unless_no_watch_is_given() {
    let scene = Scene::restored(rig::V0_171, false);
    assert_eq!(scene.runner.processes().expect("Linux"), [0_u32; 0]);
    let restored = scene.authferry(1, &["restore", "--json"]);
    assert_code(&restored, 0);
    let report: serde_json::Value = serde_json::from_slice(&restored.stdout).expect("JSON");
    let [watch] = scene.runner.processes().expect("Linux")[..] else {
        panic!("expected one process");
    };
    assert_eq!(report["watch"], watch);
    assert!(scene.watch_marker().exists());
    assert_code(&scene.authferry(1, &["persist"]), 0);
    scene.assert_clean();
}

#[test]
fn a_watch_exits_when_its_home_is_deleted() {
    let scene = Scene::restored(rig::V0_171, true);
    fs::remove_dir_all(scene.runner.codex_home()).expect("ours");
    wait_until("the watch has exited", || {
        scene.runner.processes().expect("Linux").is_empty()
    });
}

/// The next job on a persistent runner, after a job that failed before `persist`.
#[test]
fn a_failed_script_between_restore_and_persist_does_not_block_the_next_job() {
    let scene = Scene::new(rig::V0_171);
    let job = "restore --no-rotate-first && codex exec --skip-git-repo-check 'Reply OK.' && exit 3";
    assert_code(&finish(&mut scene.job(1, job)), 3);
    scene.assert_next_job_succeeds();
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
}

#[test]
fn a_killed_watch_does_not_block_the_next_job() {
    let scene = Scene::new(rig::V0_171);
    assert_code(
        &finish(&mut scene.job(1, "restore --no-rotate-first; true")),
        0,
    );
    let [watch] = scene.runner.processes().expect("Linux")[..] else {
        panic!("expected one process");
    };
    kill(watch, Signal::KILL);
    assert_code(&finish(&mut scene.codex(1)), 0);
    assert!(
        !scene.ferry.is_live(),
        "only the home has the rotated login"
    );
    scene.assert_next_job_succeeds();
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
}

/// A hung Codex whose login is not due has spent nothing: the next job ends it.
#[test]
fn a_hung_codex_does_not_block_the_next_job() {
    let scene = Scene::new(rig::V0_171);
    let model = scene.ferry.stub.hold(Endpoint::Model);
    let job = scene.job(1, LEAVE_CODEX_RUNNING).spawn().expect("a shell");
    scene.ferry.stub.wait_for(MINUTE, What::is_model_call);
    scene.ferry.wait_until_live();
    fs::write(scene.runner.work().join("enough"), "").expect("disk space");
    wait(job);
    let next = scene.authferry(2, &["run", "--exit-grace", "1s", "--", "true"]);
    assert_code(&next, 0);
    assert!(scene.ferry.is_live());
    scene.assert_clean();
    assert_eq!(scene.runner.processes().expect("Linux"), [0_u32; 0]);
    drop(model);
}

/// A Codex with a pending refresh is not killed: the next job waits, and adopts the login that this
/// Codex writes.
#[test]
fn the_next_job_waits_for_an_earlier_codex_with_a_pending_refresh() {
    let scene = Scene::new(rig::V0_171);
    let reply = scene.ferry.stub.hold(Endpoint::Token);
    let job = scene.job(1, LEAVE_CODEX_RUNNING).spawn().expect("a shell");
    scene.ferry.stub.wait_for(MINUTE, What::is_rotation);
    fs::write(scene.runner.work().join("enough"), "").expect("disk space");
    wait(job);
    let held = scene.authferry(
        2,
        &[
            "run",
            "--exit-grace",
            "0s",
            "--lease-timeout",
            "1s",
            "--",
            "true",
        ],
    );
    assert_code(&held, 123);
    assert!(
        stderr(&held).contains("may be writing the next login"),
        "{}",
        stderr(&held)
    );
    let next = scene.begin(2, &["run", "--", "true"], &[]);
    drop(reply);
    let next = next.wait_with_output().expect("our child");
    assert_code(&next, 0);
    assert!(scene.ferry.is_live(), "{next:?}");
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
    scene.assert_clean();
}

/// The receipt names a caller and processes from before the reboot.
#[test]
fn a_rebooted_machine_does_not_block_the_next_job() {
    let scene = Scene::restored(rig::V0_171, true);
    let model = scene.ferry.stub.hold(Endpoint::Model);
    let mut codex = start(&mut scene.codex(1));
    scene.ferry.stub.wait_for(MINUTE, What::is_rotation);
    scene.ferry.wait_until_live();
    wait_until("the watch has written its receipt", || {
        let names = names(&scene.runner.codex_home());
        !names.iter().any(|name| name.starts_with(".authferry-"))
    });
    for process in scene.runner.processes().expect("Linux") {
        kill(process, Signal::KILL);
    }
    codex.wait().expect("our child");
    drop(model);
    let receipt = scene.runner.codex_home().join("authferry-receipt.json");
    let text = fs::read_to_string(&receipt).expect("a receipt");
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux");
    assert!(text.contains(boot.trim()), "{text}");
    fs::write(&receipt, text.replace(boot.trim(), "another boot")).expect("ours");
    scene.assert_next_job_succeeds();
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
}

/// A persistent runner, and its jobs, identified by `CI_JOB_ID` as on GitLab.
struct Scene {
    ferry: Ferry,
    runner: Runner,
}

impl Scene {
    /// A store with a due login.
    fn new(version: &str) -> Self {
        let ferry = Ferry::holding(version, &Login::stale());
        Self {
            runner: ferry.runner(),
            ferry,
        }
    }

    /// Job 1 has restored the login. This process is the caller, so the job counts as running.
    fn restored(version: &str, with_watch: bool) -> Self {
        let scene = Self::new(version);
        let no_watch: &[&str] = if with_watch { &[] } else { &["--no-watch"] };
        let mut restore = scene.command(1, &["restore", "--no-rotate-first"]);
        assert_code(&finish(restore.args(no_watch)), 0);
        scene
    }

    fn command(&self, job: u32, arguments: &[&str]) -> Command {
        let mut command = self.ferry.authferry(&self.runner, arguments);
        self.set_job(&mut command, job);
        command
    }

    /// Other tests run jobs at the same time, so the ID contains the runner's path.
    fn set_job(&self, command: &mut Command, job: u32) {
        command.env("CI_JOB_ID", self.job_name(job));
    }

    fn job_name(&self, job: u32) -> String {
        format!("{job} of {}", self.runner.root().display())
    }

    fn authferry(&self, job: u32, arguments: &[&str]) -> Output {
        finish(&mut self.command(job, arguments))
    }

    /// Like `authferry`, without waiting for its exit.
    fn begin(&self, job: u32, arguments: &[&str], more: &[&str]) -> Child {
        let mut command = self.command(job, arguments);
        let command = command
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().expect("a program to start")
    }

    fn codex(&self, job: u32) -> Command {
        let mut codex = self.runner.exec();
        self.set_job(&mut codex, job);
        codex
    }

    /// A job whose script starts with a subcommand of authferry.
    fn job(&self, job: u32, script: &str) -> Command {
        self.shell(job, &format!("{} {script}", crate::ferry::under_test()))
    }

    fn shell(&self, job: u32, script: &str) -> Command {
        let mut shell = self.ferry.command(&self.runner, "sh");
        self.set_job(&mut shell, job);
        shell.args(["-c", script]);
        shell
    }

    /// A process of a job that runs until it is dropped.
    fn step(&self, job: u32) -> Step {
        let mut shell = self.shell(job, "read -r line; :");
        Step(shell.stdin(Stdio::piped()).spawn().expect("a shell"))
    }

    /// A Codex of job 1 that has spent the token and waits for the reply.
    fn codex_with_pending_refresh(&self) -> (Child, rig::Hold) {
        let reply = self.ferry.stub.hold(Endpoint::Token);
        let codex = start(&mut self.codex(1));
        self.ferry.stub.wait_for(MINUTE, What::is_rotation);
        (codex, reply)
    }

    /// Waits until `persist` has locked the home and the watch has handed over.
    fn wait_until_locked(&self, with_watch: bool) {
        wait_until("persist has locked the home", || {
            let home = fs::File::open(self.runner.codex_home()).expect("a home");
            let is_watched = with_watch && self.watch_marker().exists();
            !is_watched && home.try_lock().is_err()
        });
    }

    fn watch_marker(&self) -> PathBuf {
        self.runner.codex_home().join("authferry-watch")
    }

    /// Releases the reply: both processes succeed, and the store gets the login that Codex wrote.
    #[track_caller]
    fn assert_waits_for(&self, codex: Child, reply: rig::Hold, authferry: Child) {
        drop(reply);
        assert!(wait(codex).success());
        let ended = authferry.wait_with_output().expect("our child");
        assert_code(&ended, 0);
        assert!(self.ferry.is_live(), "{ended:?}");
        self.assert_clean();
    }

    #[track_caller]
    fn assert_next_job_succeeds(&self) {
        let mut next = self.command(2, &["run", "--", "codex"]);
        let next = finish(next.args(EXEC));
        assert_code(&next, 0);
        assert!(self.ferry.is_live(), "{next:?}");
        self.assert_clean();
        wait_until("all processes have exited", || {
            self.runner.processes().expect("Linux").is_empty()
        });
    }

    #[track_caller]
    fn assert_clean(&self) {
        let left = names(&self.runner.codex_home());
        let ours = |name: &&String| *name == "auth.json" || name.contains("authferry");
        assert_eq!(left.iter().filter(ours).count(), 0, "{left:?}");
    }
}

/// A step of a job, which ends when dropped.
struct Step(Child);

impl Step {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        self.0.wait().expect("our child");
    }
}

fn wait(mut child: Child) -> std::process::ExitStatus {
    child.wait().expect("our child")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn kill(process: u32, signal: Signal) {
    let raw = i32::try_from(process).expect("a small number");
    kill_process(Pid::from_raw(raw).expect("not zero"), signal).expect("a running process");
}
