use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::*;

/// A process that waits for the end of its input, ended when dropped.
struct Waits(Child);

impl Waits {
    /// Starts a shell that says when it is ready, and waits until it has.
    fn start(command: &mut Command) -> Self {
        let command = command
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let stdout = child.stdout.take().expect("a pipe");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        Self(child)
    }

    fn id(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a small number")
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.kill().expect("our child");
        self.0.wait().expect("our child");
    }
}

/// A folder with a home, and a shell that is called `codex`.
struct Scene {
    folder: TempDir,
    home: Home,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir_all(folder.path().join(".codex")).expect("room");
        fs::copy("/bin/sh", folder.path().join("codex")).expect("room");
        let home = Home::new(&folder.path().join(".codex")).expect("a home");
        Self { folder, home }
    }

    fn shell(&self, program: &str, script: &str) -> Command {
        let mut command = Command::new(program);
        let script = format!("{script} echo ready; read -r line");
        command.args(["-c", &script]).env("DIR", self.home.dir());
        command.env_remove("CODEX_HOME").env("HOME", "/nowhere");
        command
    }

    fn codex(&self, script: &str) -> Command {
        self.shell(
            &self.folder.path().join("codex").display().to_string(),
            script,
        )
    }

    fn users(&self) -> Vec<i32> {
        let users = of(&self.home).expect("processes can be seen");
        users.iter().map(User::id).collect()
    }

    #[track_caller]
    fn expect(&self, mut command: Command, is_user: bool) {
        let waits = Waits::start(&mut command);
        let expected = if is_user {
            vec![waits.id()]
        } else {
            Vec::new()
        };
        assert_eq!(self.users(), expected, "{command:?}");
    }
}

#[test]
fn a_codex_uses_the_home_that_it_was_started_with() {
    let scene = Scene::new();
    let with = |name: &str, value: &Path| {
        let mut command = scene.codex("");
        command.env(name, value);
        command
    };
    scene.expect(with("CODEX_HOME", scene.home.dir()), true);
    // Its default is in the home of the user; a relative one is in its folder.
    scene.expect(with("HOME", scene.folder.path()), true);
    let relative = scene.home.dir().strip_prefix("/").expect("absolute");
    scene.expect(with("CODEX_HOME", relative), true);
    scene.expect(with("CODEX_HOME", scene.folder.path()), false);
    // An empty one counts as none.
    let mut empty = with("CODEX_HOME", Path::new(""));
    empty.env("HOME", scene.folder.path());
    scene.expect(empty, true);
}

#[test]
fn a_variable_alone_makes_nobody_a_user() {
    let scene = Scene::new();
    let mut daemon = scene.shell("sh", "");
    daemon.env("CODEX_HOME", scene.home.dir());
    scene.expect(daemon, false);
}

#[test]
fn who_writes_a_file_of_the_home_uses_it() {
    let scene = Scene::new();
    fs::write(scene.home.auth_file(), "").expect("room");
    scene.expect(scene.shell("sh", "exec 3>>$DIR/auth.json;"), true);
    scene.expect(scene.shell("sh", "exec 3>$DIR/auth.lock;"), true);
    scene.expect(scene.shell("sh", "exec 3<$DIR/auth.json 4<$DIR;"), false);
}

#[test]
fn neither_this_process_nor_those_above_it_are_others() {
    let scene = Scene::new();
    let _ours = fs::File::create(scene.home.dir().join("log")).expect("room");
    assert_eq!(scene.users(), [0_i32; 0]);
    assert_eq!(above_us(&scene.home), None);
}

#[test]
fn a_user_is_there_until_it_ends() {
    let scene = Scene::new();
    let waits = Waits::start(scene.codex("").env("CODEX_HOME", scene.home.dir()));
    let [user] = &of(&scene.home).expect("visible")[..] else {
        panic!("one user");
    };
    assert!(user.is_codex && user.is_there() && user.uses(&scene.home));
    assert_eq!(user.to_string(), format!("codex (process {})", waits.id()));
    drop(waits);
    assert!(!user.is_there() && !user.uses(&scene.home));
}

#[test]
fn the_holder_of_a_lock_is_found() {
    let scene = Scene::new();
    assert_eq!(lock_holder(&scene.home), None);
    let lock = fs::File::open(scene.home.dir()).expect("a folder");
    lock.lock().expect("nobody else holds it");
    let holder = lock_holder(&scene.home).expect("this process");
    assert_eq!(u32::try_from(holder.id()), Ok(std::process::id()));
    assert!(holder.is_above_us());
}

#[test]
fn a_job_goes_on_as_long_as_its_caller_or_another_process_of_it() {
    let scene = Scene::new();
    let owner = |caller| Owner {
        job: Some(JobIdentity::made_up("CI_JOB_ID=users-1")),
        caller,
    };
    assert_eq!(owner(None).state(), JobState::Over);
    assert_eq!(Owner::default().state(), JobState::Unknown);
    assert_eq!(Owner::ours().state(), JobState::Ours);

    let mut of_the_job = scene.shell("sh", "");
    let waits = Waits::start(
        of_the_job
            .env("CI_JOB_ID", "users-1")
            .env_remove("RUNNER_TRACKING_ID"),
    );
    let JobState::Live(user) = owner(None).state() else {
        panic!("a process of it is there");
    };
    assert_eq!(user.id(), waits.id());
    // As a Codex it would show nothing.
    let process = Process::of(waits.id()).expect("there");
    drop(waits);
    assert_eq!(owner(None).state(), JobState::Over);
    let mut codex = scene.codex("");
    let codex = Waits::start(
        codex
            .env("CI_JOB_ID", "users-1")
            .env_remove("RUNNER_TRACKING_ID"),
    );
    assert_eq!(owner(None).state(), JobState::Over);
    drop(codex);
    // What a Codex has started shows as little.
    let mut codex = scene.codex("sleep 2 &");
    let codex = Waits::start(
        codex
            .env("CI_JOB_ID", "users-2")
            .env_remove("RUNNER_TRACKING_ID"),
    );
    let job = Some(JobIdentity::made_up("CI_JOB_ID=users-2"));
    assert_eq!(Owner { job, caller: None }.state(), JobState::Over);
    drop(codex);

    let mut caller = Caller {
        process: process.id,
        started: process.started,
        boot: job_identity::boot().expect("known"),
    };
    assert_eq!(
        owner(Some(caller.clone())).state(),
        JobState::Over,
        "it has ended"
    );
    let us = processes::ourselves().expect("there");
    (caller.process, caller.started) = (us.id, us.started);
    let JobState::Live(user) = owner(Some(caller.clone())).state() else {
        panic!("the caller is there");
    };
    assert_eq!(user.id(), us.id);
    for other in [
        Caller {
            started: us.started + 1,
            ..caller.clone()
        },
        Caller {
            boot: "another start".to_owned(),
            ..caller
        },
    ] {
        assert_eq!(owner(Some(other)).state(), JobState::Over);
    }
}

fn somebody() -> User {
    User::new(processes::ourselves().expect("there"))
}

#[test]
fn a_job_begins_where_nobody_elses_goes_on() {
    use Admission::{Free, Nested, Refused, TakesOver};
    use JobState::{Live, Ours, Over, Unknown};
    let refused = || Refused(Some(somebody()));
    for (state, [nobody, watch]) in [
        (Unknown, [Free, TakesOver]),
        (Ours, [Free, Nested]),
        (Live(somebody()), [refused(), refused()]),
        (Over, [Free, TakesOver]),
    ] {
        assert_eq!(admit(Holder::Nobody, state.clone()), nobody);
        assert_eq!(admit(Holder::Watch, state.clone()), watch);
        assert_eq!(admit(Holder::Job, state), Refused(None));
    }
}

#[test]
fn a_codex_of_a_job_that_is_over_is_ended_unless_it_may_write() {
    let found = Found {
        is_codex: true,
        job: JobState::Over,
        receipt: JobState::Over,
        has_receipt: true,
        is_due: false,
        idle: Duration::ZERO,
    };
    let decide = |change: fn(&mut Found)| {
        let mut found = found.clone();
        change(&mut found);
        leftover(&found)
    };
    assert_eq!(leftover(&found), Leftover::Ordinary);
    assert_eq!(decide(|it| it.is_due = true), Leftover::MayWrite);
    assert_eq!(
        decide(|it| (it.is_due, it.idle) = (true, SPENT_LIMIT)),
        Leftover::Ordinary
    );
    assert_eq!(decide(|it| it.job = JobState::Ours), Leftover::Ours);
    assert_eq!(decide(|it| it.receipt = JobState::Ours), Leftover::Ours);
    // Somebody's own, which no job of ours has left.
    assert_eq!(decide(|it| it.has_receipt = false), Leftover::Foreign);
    assert_eq!(decide(|it| it.is_codex = false), Leftover::Foreign);
    assert_eq!(
        decide(|it| it.job = JobState::Live(somebody())),
        Leftover::Foreign
    );
}
