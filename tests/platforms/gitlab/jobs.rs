//! What the component's jobs do to a login.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rig::{Codex, Endpoint, Login, Runner, Stub, What};

use crate::pipeline::{AUTHFERRY, Machine, configuration, files, holding, said, shows};
use crate::store::{FileStore, Store, VaultStore, is_live};

const CODEX: &str = r#"codex exec --skip-git-repo-check --json "Reply OK.""#;

/// The same in a shell of its own, in which the wrapper is ended first, as by a machine that
/// is out of memory: Codex then rotates with nobody beside it. The script is over when it has
/// ended too, since it has its output open.
const ALONE: &str =
    r#"sh -c 'kill -KILL $PPID; codex exec --skip-git-repo-check --json "Reply OK."'"#;

/// Leaves a trace on the machine: the work tree is emptied before an `after_script` here.
const TRACE: &str = r#"sh -c 'touch "$HOME/ran"'"#;

/// Everything there is goes into the artifacts and into the cache, whatever becomes of the job.
const KEEP_ALL: &str = r#"
codex:
  artifacts: { when: always, untracked: true, paths: ["**/*", ".*"] }
  cache: { key: everything, when: always, paths: ["**/*", ".*"] }
"#;

/// The same while the work tree is as the script has left it.
fn keep_all_at_once() -> String {
    format!("{KEEP_ALL}  after_script: []\n")
}

/// The provider, a Codex, and a login that has to be rotated.
struct Scene {
    login: Login,
    stub: Stub,
    codex: Codex,
}

impl Scene {
    fn new() -> Self {
        let login = Login::stale();
        Self {
            stub: Stub::start(&login),
            codex: Codex::install(rig::V0_169).expect("Codex from npm"),
            login,
        }
    }

    /// A machine of the person who seeds.
    fn desk(&self) -> Runner {
        Runner::new(&self.stub, &self.codex).expect("room for a runner")
    }

    fn file(&self) -> FileStore {
        FileStore::new(&self.desk(), &self.login)
    }

    /// A fresh machine, with a project that runs something with the login of a store.
    fn machine(
        &self,
        store: &dyn Store,
        run: &str,
        inputs: &[(&str, &str)],
        more: &str,
    ) -> Machine {
        let named = store.inputs();
        let mut all = vec![("image", "an-image"), ("run", run)];
        all.extend(named.iter().map(|(name, value)| (*name, value.as_str())));
        all.extend(inputs);
        let machine = Machine::new(&self.stub, &self.codex, &configuration(&all, more));
        store.let_in(machine)
    }
}

#[test]
fn three_jobs_go_on_with_one_rotation_by_a_file() {
    let scene = Scene::new();
    three_jobs(&scene, &scene.file());
}

#[test]
fn three_jobs_go_on_with_one_rotation_by_vault_and_their_own_identity() {
    let scene = Scene::new();
    let store = VaultStore::new(&scene.desk(), &scene.login);
    three_jobs(&scene, &store);
    let written = "the seed, the proof that it can be written, and the rotation";
    assert_eq!(store.versions(), 3, "{written}");
    assert_eq!(store.tokens(), 0, "a job's token outlived it");
}

fn three_jobs(scene: &Scene, store: &dyn Store) {
    for (job, more) in [(1, KEEP_ALL), (2, &keep_all_at_once()), (3, KEEP_ALL)] {
        let machine = scene.machine(store, CODEX, &[], more);
        let run = machine.run();
        assert_passed(&run);
        assert!(is_live(&scene.stub, store), "{}", said(&run));
        assert_eq!(scene.stub.count(What::is_model_call), job, "{}", said(&run));
        assert_clean(&machine, &run, store);
    }
    assert_eq!(scene.stub.count(What::is_rotation), 1);
}

#[test]
fn a_script_that_fails_fails_the_job_and_loses_nothing() {
    let scene = Scene::new();
    let store = scene.file();
    let run = format!("sh -c '{CODEX}; exit 7'");
    let machine = scene.machine(
        &store,
        &run,
        &[("options", "--no-rotate-first")],
        &keep_all_at_once(),
    );
    let run = machine.run();
    assert!(!run.status.success());
    assert!(said(&run).contains("FAIL 7"), "{}", said(&run));
    assert_eq!(scene.stub.count(What::is_rotation), 1);
    assert!(is_live(&scene.stub, &store));
    assert_clean(&machine, &run, &store);
}

#[test]
fn the_after_script_makes_up_for_a_wrapper_that_is_gone() {
    let scene = Scene::new();
    let store = scene.file();
    let machine = scene.machine(&store, ALONE, &[("options", "--no-rotate-first")], KEEP_ALL);
    let run = machine.run();
    assert!(!run.status.success(), "{}", said(&run));
    assert_eq!(scene.stub.count(What::is_rotation), 1);
    assert!(is_live(&scene.stub, &store), "{}", said(&run));
    assert_clean(&machine, &run, &store);
}

/// The proof that the test before could notice.
#[test]
fn without_an_after_script_such_a_login_is_left_on_the_machine() {
    let scene = Scene::new();
    let store = scene.file();
    let options = [("options", "--no-rotate-first")];
    let machine = scene.machine(&store, ALONE, &options, "codex: { after_script: [] }\n");
    let run = machine.run();
    assert_eq!(scene.stub.count(What::is_rotation), 1);
    assert!(!is_live(&scene.stub, &store), "{}", said(&run));
    let left = fs::read(machine.job_folder().join("home/auth.json"));
    assert!(scene.stub.is_live(&left.expect("the login")));
}

#[test]
fn a_machine_that_is_lost_without_an_after_script_takes_no_login_with_it() {
    let scene = Scene::new();
    let store = scene.file();
    let options = [("options", "--no-rotate-first")];
    let machine = scene.machine(&store, CODEX, &options, "codex: { after_script: [] }\n");
    let answer = scene.stub.hold(Endpoint::Model);
    let mut pipeline = machine.pipeline();
    let mut pipeline = pipeline
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a program to start");
    let deadline = Instant::now() + Duration::from_mins(2);
    while !is_live(&scene.stub, &store) || scene.stub.count(What::is_rotation) == 0 {
        assert!(Instant::now() < deadline, "it was never written through");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(pipeline.try_wait().expect("our child").is_none());
    machine.die();
    pipeline.wait().expect("our child");
    drop(answer);

    let next = scene.machine(&store, CODEX, &[], "");
    assert_passed(&next.run());
    assert_eq!(scene.stub.count(What::is_rotation), 1);
}

#[test]
fn a_public_project_and_a_change_from_a_fork_are_refused() {
    let scene = Scene::new();
    let store = scene.file();
    let before = store.stored();
    let public = [("CI_PROJECT_VISIBILITY", "public")];
    let fork = [
        ("CI_PROJECT_ID", "1"),
        ("CI_MERGE_REQUEST_SOURCE_PROJECT_ID", "2"),
    ];
    for (variables, why) in [
        (public.as_slice(), "the project is public"),
        (&fork, "the merge request comes from a fork"),
    ] {
        let machine = scene.machine(&store, TRACE, &[], "");
        let add = |machine: Machine, (name, value): &(&str, &str)| machine.with(name, *value);
        let machine = variables.iter().fold(machine, add);
        let run = machine.run();
        let said = said(&run);
        assert!(said.contains("FAIL 124"), "{said}");
        for part in [why, "use an API key in such a job", "--allow-untrusted"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!has_run(&machine), "{said}");
    }
    assert_eq!(store.stored(), before);
    assert_eq!(scene.stub.events(), []);
}

#[test]
fn what_is_under_review_is_not_run() {
    let scene = Scene::new();
    let store = scene.file();
    let machine = scene.machine(&store, TRACE, &[], "");
    assert_passed(&machine.run());
    assert!(has_run(&machine), "it runs otherwise");
    let machine = scene.machine(&store, TRACE, &[], "");
    let machine = machine.with("CI_PIPELINE_SOURCE", "merge_request_event");
    machine.run();
    assert!(!has_run(&machine));
}

#[test]
fn a_schedule_keeps_the_login_alive_and_runs_nothing_else() {
    let scene = Scene::new();
    let store = scene.file();
    let machine = scene
        .machine(&store, TRACE, &[], KEEP_ALL)
        .with("CI_PIPELINE_SOURCE", "schedule")
        .with("AUTHFERRY_KEEP_ALIVE", "yes");
    let run = machine.run();
    assert_passed(&run);
    assert_eq!(scene.stub.count(What::is_rotation), 1, "{}", said(&run));
    assert!(is_live(&scene.stub, &store));
    assert_eq!(scene.stub.count(What::is_model_call), 0);
    assert!(!has_run(&machine));
    assert_clean(&machine, &run, &store);
}

#[test]
fn what_is_downloaded_runs_if_it_is_what_was_meant() {
    let scene = Scene::new();
    let store = scene.file();
    let (url, sha256) = (format!("file://{AUTHFERRY}"), digest(Path::new(AUTHFERRY)));
    let machine = scene.machine(&store, CODEX, &[("url", &url), ("sha256", &sha256)], "");
    fs::remove_file(machine.runner.root().join("bin/authferry")).expect("the image's own");
    let run = machine.run();
    assert_passed(&run);
    assert!(is_live(&scene.stub, &store));
    assert_clean(&machine, &run, &store);
}

#[test]
fn what_is_downloaded_does_not_run_if_it_is_something_else_or_nobody_says_what() {
    let scene = Scene::new();
    let store = scene.file();
    let url = format!("file://{AUTHFERRY}");
    for sha256 in ["0".repeat(64), String::new()] {
        let inputs = [("url", url.as_str()), ("sha256", &sha256)];
        let machine = scene.machine(&store, TRACE, &inputs, "");
        let run = machine.run();
        let said = said(&run);
        assert!(said.contains("FAIL 125"), "{said}");
        assert!(said.contains("has another SHA-256"), "{said}");
        assert!(!has_run(&machine), "{said}");
    }
}

#[test]
fn the_after_script_does_not_run_what_the_command_has_put_in_its_place() {
    let scene = Scene::new();
    let store = scene.file();
    let (url, sha256) = (format!("file://{AUTHFERRY}"), digest(Path::new(AUTHFERRY)));
    let inputs = [("url", url.as_str()), ("sha256", &sha256)];
    let run = r#"sh -c 'kill -KILL $PPID; rm $AUTHFERRY_DIR/bin/authferry; echo "touch $HOME/ran" >$AUTHFERRY_DIR/bin/authferry; chmod +x $AUTHFERRY_DIR/bin/authferry; touch $HOME/done'"#;
    let machine = scene.machine(&store, run, &inputs, "");
    let run = machine.run();
    let said = said(&run);
    assert!(
        said.contains("has changed since it was downloaded"),
        "{said}"
    );
    assert!(machine.runner.root().join("home/done").exists(), "{said}");
    assert!(!has_run(&machine), "{said}");
}

/// The proof that the search for tokens, which most tests end with, could find one.
#[test]
fn a_token_that_a_job_leaves_somewhere_is_found() {
    let scene = Scene::new();
    let store = scene.file();
    let run = r#"sh -c 'cp "$CODEX_HOME/auth.json" left; cp left "$HOME"; cat left'"#;
    let machine = scene.machine(&store, run, &[], &keep_all_at_once());
    let run = machine.run();
    assert_passed(&run);
    assert!(shows(said(&run).as_bytes(), &[]));
    let found = holding(machine.runner.root(), &[]);
    for part in ["home", "builds", "artifacts", "cache", "output"] {
        let somewhere = |path: &Path| path.display().to_string().contains(part);
        assert!(
            found.iter().any(|path| somewhere(path)),
            "{part}: {found:?}"
        );
    }
}

/// Whether the machine has the trace of a command that has run.
fn has_run(machine: &Machine) -> bool {
    machine.runner.root().join("home/ran").exists()
}

fn digest(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output();
    let output = output.expect("sha256sum").stdout;
    let text = String::from_utf8(output).expect("a line");
    text.split(' ').next().expect("a digest").to_owned()
}

#[track_caller]
fn assert_passed(run: &Output) {
    assert!(run.status.success(), "{}", said(run));
}

/// Fails if the output, or anything that the pipeline left on the machine, shows a token, or
/// if the artifacts or the cache hold a receipt.
#[track_caller]
fn assert_clean(machine: &Machine, run: &Output, store: &dyn Store) {
    let secrets = store.secrets();
    let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
    assert!(!shows(said(run).as_bytes(), &secrets), "{}", said(run));
    let root = machine.runner.root();
    assert_eq!(holding(root, &secrets), Vec::<std::path::PathBuf>::new());
    let receipts = files(root).into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("authferry-receipt")
    });
    assert_eq!(
        receipts.collect::<Vec<_>>(),
        Vec::<std::path::PathBuf>::new()
    );
}
