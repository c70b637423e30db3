use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::*;

/// A shell that blocks until its input ends, killed when dropped.
struct BlockedShell(Child);

impl BlockedShell {
    /// Starts the shell, and waits until it says that it is ready.
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

impl Drop for BlockedShell {
    fn drop(&mut self) {
        self.0.kill().expect("our child");
        self.0.wait().expect("our child");
    }
}

/// A folder with a home, and a shell whose program is called `codex`.
struct HomeFixture {
    folder: TempDir,
    home: Home,
}

impl HomeFixture {
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
        let shell = BlockedShell::start(&mut command);
        let expected = if is_user {
            vec![shell.id()]
        } else {
            Vec::new()
        };
        assert_eq!(self.users(), expected, "{command:?}");
    }
}

#[test]
fn a_codex_uses_the_home_that_it_was_started_with() {
    let fixture = HomeFixture::new();
    let with = |name: &str, value: &Path| {
        let mut command = fixture.codex("");
        command.env(name, value);
        command
    };
    fixture.expect(with("CODEX_HOME", fixture.home.dir()), true);
    // The default home is in the user's home; a relative `CODEX_HOME` is in the current folder.
    fixture.expect(with("HOME", fixture.folder.path()), true);
    let relative = fixture.home.dir().strip_prefix("/").expect("absolute");
    fixture.expect(with("CODEX_HOME", relative), true);
    fixture.expect(with("CODEX_HOME", fixture.folder.path()), false);
    // An empty variable counts as unset.
    let mut empty = with("CODEX_HOME", Path::new(""));
    empty.env("HOME", fixture.folder.path());
    fixture.expect(empty, true);
}

#[test]
fn codex_home_alone_makes_no_process_a_user() {
    let fixture = HomeFixture::new();
    let mut daemon = fixture.shell("sh", "");
    daemon.env("CODEX_HOME", fixture.home.dir());
    fixture.expect(daemon, false);
}

#[test]
fn a_process_that_writes_in_the_home_uses_it() {
    let fixture = HomeFixture::new();
    fs::write(fixture.home.auth_file(), "").expect("room");
    fixture.expect(fixture.shell("sh", "exec 3>>$DIR/auth.json;"), true);
    fixture.expect(fixture.shell("sh", "exec 3>$DIR/auth.lock;"), true);
    fixture.expect(fixture.shell("sh", "exec 3<$DIR/auth.json 4<$DIR;"), false);
}

#[test]
fn this_process_and_its_ancestors_are_not_other_users() {
    let fixture = HomeFixture::new();
    let _ours = fs::File::create(fixture.home.dir().join("log")).expect("room");
    assert_eq!(fixture.users(), [0_i32; 0]);
    assert_eq!(above_us(&fixture.home), None);
}

#[test]
fn a_user_exists_until_it_ends() {
    let fixture = HomeFixture::new();
    let shell = BlockedShell::start(fixture.codex("").env("CODEX_HOME", fixture.home.dir()));
    let [user] = &of(&fixture.home).expect("visible")[..] else {
        panic!("one user");
    };
    assert!(user.is_codex && user.is_there() && user.uses(&fixture.home));
    assert_eq!(user.to_string(), format!("codex (process {})", shell.id()));
    drop(shell);
    assert!(!user.is_there() && !user.uses(&fixture.home));
}

#[test]
fn the_holder_of_a_lock_is_found() {
    let fixture = HomeFixture::new();
    assert_eq!(lock_holder(&fixture.home), None);
    let lock = fs::File::open(fixture.home.dir()).expect("a folder");
    lock.lock().expect("a free lock");
    let holder = lock_holder(&fixture.home).expect("this process");
    assert_eq!(u32::try_from(holder.id()), Ok(std::process::id()));
    assert!(holder.is_above_us());
}

#[test]
fn a_job_is_live_while_its_caller_or_another_process_of_it_is() {
    let fixture = HomeFixture::new();
    let owner = |caller| Owner {
        job: Some(JobIdentity::made_up("CI_JOB_ID=users-1")),
        caller,
    };
    assert_eq!(owner(None).state(), JobState::Over);
    assert_eq!(Owner::default().state(), JobState::Unknown);
    assert_eq!(Owner::ours().state(), JobState::Ours);

    let mut of_the_job = fixture.shell("sh", "");
    let shell = BlockedShell::start(
        of_the_job
            .env("CI_JOB_ID", "users-1")
            .env_remove("RUNNER_TRACKING_ID"),
    );
    let JobState::Live(user) = owner(None).state() else {
        panic!("a process of it is there");
    };
    assert_eq!(user.id(), shell.id());
    // A process of a Codex does not show that the job is running.
    let process = Process::of(shell.id()).expect("there");
    drop(shell);
    assert_eq!(owner(None).state(), JobState::Over);
    let mut codex = fixture.codex("");
    let codex = BlockedShell::start(
        codex
            .env("CI_JOB_ID", "users-1")
            .env_remove("RUNNER_TRACKING_ID"),
    );
    assert_eq!(owner(None).state(), JobState::Over);
    drop(codex);
    // Neither does a descendant of a Codex.
    let mut codex = fixture.codex("sleep 2 &");
    let codex = BlockedShell::start(
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

fn this_user() -> User {
    User::new(processes::ourselves().expect("there"))
}

#[test]
fn a_job_is_admitted_unless_another_job_is_live() {
    use Admission::{Free, Nested, Refused, TakesOver};
    use JobState::{Live, Ours, Over, Unknown};
    let refused = || Refused(Some(this_user()));
    for (state, [unlocked, watched]) in [
        (Unknown, [Free, TakesOver]),
        (Ours, [Free, Nested]),
        (Live(this_user()), [refused(), refused()]),
        (Over, [Free, TakesOver]),
    ] {
        assert_eq!(admit(Holder::None, state.clone()), unlocked);
        assert_eq!(admit(Holder::Watch, state.clone()), watched);
        assert_eq!(admit(Holder::Job, state), Refused(None));
    }
}

#[test]
fn a_leftover_codex_is_ended_unless_it_may_write() {
    let found = ObservedProcess {
        is_codex: true,
        job: JobState::Over,
        receipt: JobState::Over,
        has_receipt: true,
        is_due: false,
        idle: Duration::ZERO,
    };
    let decide = |change: fn(&mut ObservedProcess)| {
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
    // No job of ours has left this process.
    assert_eq!(decide(|it| it.has_receipt = false), Leftover::Foreign);
    assert_eq!(decide(|it| it.is_codex = false), Leftover::Foreign);
    assert_eq!(
        decide(|it| it.job = JobState::Live(this_user())),
        Leftover::Foreign
    );
}
