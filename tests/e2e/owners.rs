//! A home has one owner: authferry waits for a running Codex, refuses another job, and keeps the
//! login for the other steps of the same job.

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
    a_persist_waits_for_a_codex_at_work,
    b_run_beside_a_restored_login_loses_nothing,
    b_restore_and_persist_beside_one_lose_nothing,
    b_another_job_is_refused,
    c_a_run_within_a_job_leaves_the_login_to_it,
];

const MINUTE: Duration = Duration::from_mins(1);

/// A job that ends while its Codex still runs.
const LEAVES_A_CODEX: &str = "restore --no-rotate-first
codex exec --skip-git-repo-check 'Reply OK.' </dev/null >/dev/null 2>&1 &
until [ -e enough ]; do sleep 0.01; done";

fn a_persist_waits_for_a_codex_at_work(version: &str) {
    for (with_watch, more) in [(true, &[][..]), (false, &[]), (true, &["--if-restored"])] {
        let scene = Scene::restored(version, with_watch);
        let (codex, answer) = scene.spending_codex();
        let persist = scene.begin(1, &["persist"], more);
        scene.wait_until_locked(with_watch);
        scene.assert_waits_for(codex, answer, persist);
    }
}

fn b_run_beside_a_restored_login_loses_nothing(version: &str) {
    // A step of the same job: its watch is running, so the login stays.
    let scene = Scene::restored(version, true);
    let (codex, answer) = scene.spending_codex();
    let run = scene.authferry(1, &["run", "--", "true"]);
    assert_code(&run, 0);
    assert!(said(&run).contains("stays in"), "{}", said(&run));
    assert!(
        said(&run).contains("not rotated first: codex"),
        "{}",
        said(&run)
    );
    drop(answer);
    assert!(wait(codex).success());
    scene.ferry.wait_until_live();
    assert_code(&scene.authferry(1, &["persist"]), 0);
    scene.assert_clean();

    // No process shows that the job still runs: the login is removed, after the Codex has ended.
    let scene = Scene::restored(version, false);
    let (codex, answer) = scene.spending_codex();
    let run = scene.begin(1, &["run"], &["--", "touch", "ran"]);
    wait_until("the command has run", || {
        scene.runner.work().join("ran").exists()
    });
    scene.assert_waits_for(codex, answer, run);
}

fn b_restore_and_persist_beside_one_lose_nothing(version: &str) {
    let scene = Scene::restored(version, true);
    let (codex, answer) = scene.spending_codex();
    assert_code(&scene.authferry(1, &["restore"]), 0);
    let persist = scene.begin(1, &["persist"], &[]);
    scene.wait_until_locked(true);
    scene.assert_waits_for(codex, answer, persist);
}

fn b_another_job_is_refused(version: &str) {
    for with_watch in [true, false] {
        let scene = Scene::new(version);
        let no_watch = if with_watch { "" } else { "--no-watch" };
        // Its caller has ended.
        let restore = format!("restore --no-rotate-first {no_watch}; true");
        assert_code(&finish(&mut scene.job(1, &restore)), 0);
        let step = scene.step(1);
        let (codex, answer) = scene.spending_codex();
        for command in [&["run", "--", "true"][..], &["restore"], &["persist"]] {
            let refused = scene.authferry(2, command);
            assert_code(&refused, 124);
            let by = format!("is in use by sh (process {})", step.id());
            assert!(said(&refused).contains(&by), "{}", said(&refused));
        }
        let net = scene.authferry(2, &["persist", "--if-restored"]);
        assert_code(&net, 0);
        assert!(
            said(&net).contains("nothing is left to do"),
            "{}",
            said(&net)
        );
        drop(answer);
        assert!(wait(codex).success());
        drop(step);
        assert_code(&scene.authferry(1, &["persist"]), 0);
        assert!(scene.ferry.is_live());
        scene.assert_clean();
    }
}

fn c_a_run_within_a_job_leaves_the_login_to_it(version: &str) {
    let scene = Scene::restored(version, true);
    assert_code(&finish(&mut scene.codex(1)), 0);
    let mut run = scene.command(1, &["run", "--", "codex"]);
    assert_code(&finish(run.args(EXEC)), 0);
    assert_code(&finish(&mut scene.codex(1)), 0);
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
    assert!(scene.sign().exists(), "the watch of the job is there again");
    assert_code(&scene.authferry(1, &["persist"]), 0);
    assert!(scene.ferry.is_live());
    scene.assert_clean();
}

#[test]
fn a_persist_that_is_not_to_wait_any_longer_leaves_the_login_with_a_watch() {
    let scene = Scene::restored(rig::V0_171, true);
    let (codex, answer) = scene.spending_codex();
    let persist = scene.begin(1, &["persist"], &[]);
    scene.wait_until_locked(true);
    kill(persist.id(), Signal::TERM);
    let left = persist.wait_with_output().expect("our child");
    assert_code(&left, 119);
    assert!(
        said(&left).contains("may be spent: codex (process"),
        "{}",
        said(&left)
    );
    assert!(scene.runner.auth_file().exists());
    drop(answer);
    assert!(wait(codex).success());
    scene.ferry.wait_until_live();
    assert_code(&scene.authferry(1, &["persist"]), 0);
    scene.assert_clean();
}

#[test]
fn a_codex_that_only_talks_to_the_model_has_the_time_of_every_leftover() {
    let scene = Scene::restored(rig::V0_171, true);
    let model = scene.ferry.stub.hold(Endpoint::Model);
    let codex = start(&mut scene.codex(1));
    scene.ferry.wait_until_live();
    let left = scene.authferry(1, &["persist", "--linger", "0s"]);
    assert_code(&left, 119);
    assert!(!said(&left).contains("may be spent"), "{}", said(&left));
    assert!(
        said(&left).contains("still uses the home"),
        "{}",
        said(&left)
    );
    drop(model);
    assert!(wait(codex).success());
    assert_code(&scene.authferry(1, &["persist"]), 0);
    scene.assert_clean();
}

/// An agent that ends its own job: its Codex is not waited for, nor is the login taken from it.
#[test]
fn a_persist_does_not_wait_for_the_codex_that_called_it() {
    let scene = Scene::restored(rig::V0_171, true);
    let shell = format!(
        "CI_JOB_ID='{}' AUTHFERRY_STORE={} {} persist --linger 1h >said 2>&1; echo $? >code",
        scene.job_name(1),
        scene.ferry.address(),
        crate::ferry::under_test()
    );
    scene.ferry.stub.rules(|rules| rules.shell = Some(shell));
    let mut codex = scene.codex(1);
    codex.args(["--dangerously-bypass-approvals-and-sandbox"]);
    let done = finish(&mut codex);
    assert_code(&done, 0);
    let code = fs::read_to_string(scene.runner.work().join("code")).expect("it was called");
    assert_eq!(code.trim(), "119");
    assert!(scene.runner.auth_file().exists());
    assert_code(&scene.authferry(1, &["persist"]), 0);
    assert!(scene.ferry.is_live());
    scene.assert_clean();
}

/// On GitLab, a script may still run when its `after_script` begins.
#[test]
fn a_persist_beside_the_run_of_its_own_job_leaves_it_the_login() {
    let ferry = Ferry::holding(rig::V0_171, &Login::fresh());
    let scene = Scene {
        runner: ferry.runner(),
        ferry,
    };
    let script = "touch ready; until [ -e enough ]; do sleep 0.01; done";
    let run = scene.begin(1, &["run", "--", "sh", "-c", script], &[]);
    let work = scene.runner.work();
    wait_until("ready", || work.join("ready").exists());
    let persist = scene.authferry(1, &["persist", "--linger", "0s"]);
    assert_code(&persist, 119);
    let by = format!("authferry-under (process {})", run.id());
    assert!(said(&persist).contains(&by), "{}", said(&persist));
    let persist = scene.begin(1, &["persist"], &["--if-restored"]);
    fs::write(work.join("enough"), "").expect("room");
    let persisted = persist.wait_with_output().expect("our child");
    assert_code(&persisted, 0);
    assert_code(&run.wait_with_output().expect("our child"), 0);
    scene.assert_clean();
}

#[test]
fn a_restore_leaves_a_watch_unless_it_is_told_not_to() {
    let scene = Scene::restored(rig::V0_171, false);
    assert_eq!(scene.runner.processes().expect("Linux"), [0_u32; 0]);
    let restored = scene.authferry(1, &["restore", "--json"]);
    assert_code(&restored, 0);
    let told: serde_json::Value = serde_json::from_slice(&restored.stdout).expect("JSON");
    let [watch] = scene.runner.processes().expect("Linux")[..] else {
        panic!("one process is left");
    };
    assert_eq!(told["watch"], watch);
    assert!(scene.sign().exists());
    assert_code(&scene.authferry(1, &["persist"]), 0);
    scene.assert_clean();
}

#[test]
fn a_watch_ends_when_its_home_is_gone() {
    let scene = Scene::restored(rig::V0_171, true);
    fs::remove_dir_all(scene.runner.codex_home()).expect("ours");
    wait_until("the watch has ended", || {
        scene.runner.processes().expect("Linux").is_empty()
    });
}

/// The next job of a runner that stays, after one that failed half-way.
#[test]
fn a_script_that_fails_between_restore_and_persist_blocks_nobody() {
    let scene = Scene::new(rig::V0_171);
    let job = "restore --no-rotate-first && codex exec --skip-git-repo-check 'Reply OK.' && exit 3";
    assert_code(&finish(&mut scene.job(1, job)), 3);
    scene.assert_next_job_begins();
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
}

#[test]
fn a_watch_that_was_killed_blocks_nobody() {
    let scene = Scene::new(rig::V0_171);
    assert_code(
        &finish(&mut scene.job(1, "restore --no-rotate-first; true")),
        0,
    );
    let [watch] = scene.runner.processes().expect("Linux")[..] else {
        panic!("one process is left");
    };
    kill(watch, Signal::KILL);
    assert_code(&finish(&mut scene.codex(1)), 0);
    assert!(!scene.ferry.is_live(), "it is in the home alone");
    scene.assert_next_job_begins();
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
}

/// A Codex that hangs while its login is not due has spent nothing: the next job ends it.
#[test]
fn a_codex_that_hangs_blocks_nobody() {
    let scene = Scene::new(rig::V0_171);
    let model = scene.ferry.stub.hold(Endpoint::Model);
    let job = scene.job(1, LEAVES_A_CODEX).spawn().expect("a shell");
    scene.ferry.stub.wait_for(MINUTE, What::is_model_call);
    scene.ferry.wait_until_live();
    fs::write(scene.runner.work().join("enough"), "").expect("room");
    wait(job);
    let next = scene.authferry(2, &["run", "--linger", "1s", "--", "true"]);
    assert_code(&next, 0);
    assert!(scene.ferry.is_live());
    scene.assert_clean();
    assert_eq!(scene.runner.processes().expect("Linux"), [0_u32; 0]);
    drop(model);
}

/// One that may have spent its login is waited for, and not ended: what it writes is adopted.
#[test]
fn a_codex_of_an_earlier_job_that_may_write_is_waited_for() {
    let scene = Scene::new(rig::V0_171);
    let answer = scene.ferry.stub.hold(Endpoint::Token);
    let job = scene.job(1, LEAVES_A_CODEX).spawn().expect("a shell");
    scene.ferry.stub.wait_for(MINUTE, What::is_rotation);
    fs::write(scene.runner.work().join("enough"), "").expect("room");
    wait(job);
    let held = scene.authferry(2, &["run", "--linger", "0s", "--wait", "1s", "--", "true"]);
    assert_code(&held, 123);
    assert!(
        said(&held).contains("may be writing the next login"),
        "{}",
        said(&held)
    );
    let next = scene.begin(2, &["run", "--", "true"], &[]);
    drop(answer);
    let next = next.wait_with_output().expect("our child");
    assert_code(&next, 0);
    assert!(scene.ferry.is_live(), "{next:?}");
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
    scene.assert_clean();
}

/// The receipt names a caller and processes that were there before the machine was reset.
#[test]
fn a_machine_that_was_reset_blocks_nobody() {
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
    fs::write(&receipt, text.replace(boot.trim(), "another start")).expect("ours");
    scene.assert_next_job_begins();
    assert_eq!(scene.ferry.stub.count(What::is_rotation), 1);
}

/// A runner that stays, and its jobs, by the variable of GitLab's runner.
struct Scene {
    ferry: Ferry,
    runner: Runner,
}

impl Scene {
    /// The store holds a login that is due.
    fn new(version: &str) -> Self {
        let ferry = Ferry::holding(version, &Login::stale());
        Self {
            runner: ferry.runner(),
            ferry,
        }
    }

    /// Job 1 has restored it. This process is the caller, so the job still runs.
    fn restored(version: &str, with_watch: bool) -> Self {
        let scene = Self::new(version);
        let no_watch: &[&str] = if with_watch { &[] } else { &["--no-watch"] };
        let mut restore = scene.command(1, &["restore", "--no-rotate-first"]);
        assert_code(&finish(restore.args(no_watch)), 0);
        scene
    }

    fn command(&self, job: u32, arguments: &[&str]) -> Command {
        let mut command = self.ferry.authferry(&self.runner, arguments);
        self.in_job(&mut command, job);
        command
    }

    /// Other tests have jobs of their own at the same time.
    fn in_job(&self, command: &mut Command, job: u32) {
        command.env("CI_JOB_ID", self.job_name(job));
    }

    fn job_name(&self, job: u32) -> String {
        format!("{job} of {}", self.runner.root().display())
    }

    fn authferry(&self, job: u32, arguments: &[&str]) -> Output {
        finish(&mut self.command(job, arguments))
    }

    /// The same, without waiting for its end.
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
        self.in_job(&mut codex, job);
        codex
    }

    /// A job whose script begins with this command of authferry.
    fn job(&self, job: u32, script: &str) -> Command {
        self.shell(job, &format!("{} {script}", crate::ferry::under_test()))
    }

    fn shell(&self, job: u32, script: &str) -> Command {
        let mut shell = self.ferry.command(&self.runner, "sh");
        self.in_job(&mut shell, job);
        shell.args(["-c", script]);
        shell
    }

    /// A running process of a job, until it is dropped.
    fn step(&self, job: u32) -> Step {
        let mut shell = self.shell(job, "read -r line; :");
        Step(shell.stdin(Stdio::piped()).spawn().expect("a shell"))
    }

    /// A Codex of job 1 that has spent its login and waits for the answer.
    fn spending_codex(&self) -> (Child, rig::Hold) {
        let answer = self.ferry.stub.hold(Endpoint::Token);
        let codex = start(&mut self.codex(1));
        self.ferry.stub.wait_for(MINUTE, What::is_rotation);
        (codex, answer)
    }

    /// Waits until a persist has the home to itself: the watch has made way.
    fn wait_until_locked(&self, with_watch: bool) {
        wait_until("the persist is at work", || {
            let home = fs::File::open(self.runner.codex_home()).expect("a home");
            let is_watched = with_watch && self.sign().exists();
            !is_watched && home.try_lock().is_err()
        });
    }

    fn sign(&self) -> PathBuf {
        self.runner.codex_home().join("authferry-watch")
    }

    /// The provider answers now: both end well, and the store has what Codex wrote.
    #[track_caller]
    fn assert_waits_for(&self, codex: Child, answer: rig::Hold, authferry: Child) {
        drop(answer);
        assert!(wait(codex).success());
        let ended = authferry.wait_with_output().expect("our child");
        assert_code(&ended, 0);
        assert!(self.ferry.is_live(), "{ended:?}");
        self.assert_clean();
    }

    #[track_caller]
    fn assert_next_job_begins(&self) {
        let mut next = self.command(2, &["run", "--", "codex"]);
        let next = finish(next.args(EXEC));
        assert_code(&next, 0);
        assert!(self.ferry.is_live(), "{next:?}");
        self.assert_clean();
        wait_until("nobody is left", || {
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

/// A step of a job, over when dropped.
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

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn kill(process: u32, signal: Signal) {
    let raw = i32::try_from(process).expect("a small number");
    kill_process(Pid::from_raw(raw).expect("not zero"), signal).expect("there");
}
