//! A login in the jobs of the component.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rig::{Codex, Endpoint, Login, Runner, Stub, What};

use crate::pipeline::{
    AUTHFERRY, Machine, configuration, contains_token, files, files_containing, output_text,
};
use crate::store::{FileStore, Store, VaultStore, is_live};

const CODEX: &str = r#"codex exec --skip-git-repo-check --json "Reply OK.""#;

/// `CODEX` after its shell has killed the wrapper, as when the machine is out of memory: Codex then
/// rotates without authferry. The script ends after Codex, which holds its output stream.
const CODEX_WITHOUT_WRAPPER: &str =
    r#"sh -c 'kill -KILL $PPID; codex exec --skip-git-repo-check --json "Reply OK."'"#;

/// Leaves a file on the machine: gitlab-ci-local empties the work tree before an `after_script`.
const TRACE: &str = r#"sh -c 'touch "$HOME/ran"'"#;

/// Saves all files as artifacts and cache, even if the job fails.
const KEEP_ALL: &str = r#"
codex:
  artifacts: { when: always, untracked: true, paths: ["**/*", ".*"] }
  cache: { key: everything, when: always, paths: ["**/*", ".*"] }
"#;

/// Like `KEEP_ALL`, without an `after_script` that empties the work tree.
fn keep_all_after_script() -> String {
    format!("{KEEP_ALL}  after_script: []\n")
}

/// The provider, a Codex, and a due login.
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

    /// The machine of the person who seeds.
    fn admin_machine(&self) -> Runner {
        Runner::new(&self.stub, &self.codex).expect("room for a runner")
    }

    fn file(&self) -> FileStore {
        FileStore::new(&self.admin_machine(), &self.login)
    }

    /// A fresh machine, with a project that runs `run` with the login of a store.
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
        store.configure(machine)
    }
}

#[test]
fn three_jobs_share_one_rotation_on_a_file() {
    let scene = Scene::new();
    three_jobs(&scene, &scene.file());
}

#[test]
fn three_jobs_share_one_rotation_on_vault() {
    let scene = Scene::new();
    let store = VaultStore::new(&scene.admin_machine(), &scene.login);
    three_jobs(&scene, &store);
    let written = "the seed, the proof that it can be written, and the rotation";
    assert_eq!(store.versions(), 3, "{written}");
    assert_eq!(store.tokens(), 0, "a token outlived its job");
}

fn three_jobs(scene: &Scene, store: &dyn Store) {
    for (job, more) in [(1, KEEP_ALL), (2, &keep_all_after_script()), (3, KEEP_ALL)] {
        let machine = scene.machine(store, CODEX, &[], more);
        let run = machine.run();
        assert_passed(&run);
        assert!(is_live(&scene.stub, store), "{}", output_text(&run));
        assert_eq!(
            scene.stub.count(What::is_model_call),
            job,
            "{}",
            output_text(&run)
        );
        assert_clean(&machine, &run, store);
    }
    assert_eq!(scene.stub.count(What::is_rotation), 1);
}

#[test]
fn a_failing_script_fails_the_job_and_loses_no_login() {
    let scene = Scene::new();
    let store = scene.file();
    let run = format!("sh -c '{CODEX}; exit 7'");
    let machine = scene.machine(
        &store,
        &run,
        &[("options", "--no-rotate-first")],
        &keep_all_after_script(),
    );
    let run = machine.run();
    assert!(!run.status.success());
    assert!(
        output_text(&run).contains("FAIL 7"),
        "{}",
        output_text(&run)
    );
    assert_eq!(scene.stub.count(What::is_rotation), 1);
    assert!(is_live(&scene.stub, &store));
    assert_clean(&machine, &run, &store);
}

#[test]
fn the_after_script_persists_after_the_wrapper_is_killed() {
    let scene = Scene::new();
    let store = scene.file();
    let machine = scene.machine(
        &store,
        CODEX_WITHOUT_WRAPPER,
        &[("options", "--no-rotate-first")],
        KEEP_ALL,
    );
    let run = machine.run();
    assert!(!run.status.success(), "{}", output_text(&run));
    assert_eq!(scene.stub.count(What::is_rotation), 1);
    assert!(is_live(&scene.stub, &store), "{}", output_text(&run));
    assert_clean(&machine, &run, &store);
}

/// Shows that the previous test can fail.
#[test]
fn without_an_after_script_the_login_stays_on_the_machine() {
    let scene = Scene::new();
    let store = scene.file();
    let options = [("options", "--no-rotate-first")];
    let machine = scene.machine(
        &store,
        CODEX_WITHOUT_WRAPPER,
        &options,
        "codex: { after_script: [] }\n",
    );
    let run = machine.run();
    assert_eq!(scene.stub.count(What::is_rotation), 1);
    assert!(!is_live(&scene.stub, &store), "{}", output_text(&run));
    let left = fs::read(machine.job_folder().join("home/auth.json"));
    assert!(scene.stub.is_live(&left.expect("the login")));
}

#[test]
fn a_machine_lost_before_the_after_script_loses_no_login() {
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
        assert!(
            Instant::now() < deadline,
            "the rotation was not written through"
        );
        thread::sleep(Duration::from_millis(20));
    }
    assert!(pipeline.try_wait().expect("our child").is_none());
    machine.kill();
    pipeline.wait().expect("our child");
    drop(answer);

    let next = scene.machine(&store, CODEX, &[], "");
    assert_passed(&next.run());
    assert_eq!(scene.stub.count(What::is_rotation), 1);
}

#[test]
fn a_public_project_and_a_merge_request_from_a_fork_are_refused() {
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
        let output_text = output_text(&run);
        assert!(output_text.contains("FAIL 124"), "{output_text}");
        for part in [why, "use an API key in such a job", "--allow-untrusted"] {
            assert!(output_text.contains(part), "{output_text}");
        }
        assert!(!has_run(&machine), "{output_text}");
    }
    assert_eq!(store.stored(), before);
    assert_eq!(scene.stub.events(), []);
}

#[test]
fn a_merge_request_pipeline_does_not_run_the_job() {
    let scene = Scene::new();
    let store = scene.file();
    let machine = scene.machine(&store, TRACE, &[], "");
    assert_passed(&machine.run());
    assert!(has_run(&machine), "the job does not run in any pipeline");
    let machine = scene.machine(&store, TRACE, &[], "");
    let machine = machine.with("CI_PIPELINE_SOURCE", "merge_request_event");
    machine.run();
    assert!(!has_run(&machine));
}

#[test]
fn a_scheduled_pipeline_runs_only_the_keep_alive() {
    let scene = Scene::new();
    let store = scene.file();
    let machine = scene
        .machine(&store, TRACE, &[], KEEP_ALL)
        .with("CI_PIPELINE_SOURCE", "schedule")
        .with("AUTHFERRY_KEEP_ALIVE", "yes");
    let run = machine.run();
    assert_passed(&run);
    assert_eq!(
        scene.stub.count(What::is_rotation),
        1,
        "{}",
        output_text(&run)
    );
    assert!(is_live(&scene.stub, &store));
    assert_eq!(scene.stub.count(What::is_model_call), 0);
    assert!(!has_run(&machine));
    assert_clean(&machine, &run, &store);
}

#[test]
fn a_download_with_the_right_digest_runs() {
    let scene = Scene::new();
    let store = scene.file();
    let (url, sha256) = (format!("file://{AUTHFERRY}"), digest(Path::new(AUTHFERRY)));
    let machine = scene.machine(&store, CODEX, &[("url", &url), ("sha256", &sha256)], "");
    fs::remove_file(machine.runner.root().join("bin/authferry")).expect("the program of the image");
    let run = machine.run();
    assert_passed(&run);
    assert!(is_live(&scene.stub, &store));
    assert_clean(&machine, &run, &store);
}

#[test]
fn a_download_with_a_wrong_or_missing_digest_does_not_run() {
    let scene = Scene::new();
    let store = scene.file();
    let url = format!("file://{AUTHFERRY}");
    for sha256 in ["0".repeat(64), String::new()] {
        let inputs = [("url", url.as_str()), ("sha256", &sha256)];
        let machine = scene.machine(&store, TRACE, &inputs, "");
        let run = machine.run();
        let output_text = output_text(&run);
        assert!(output_text.contains("FAIL 125"), "{output_text}");
        assert!(output_text.contains("has another SHA-256"), "{output_text}");
        assert!(!has_run(&machine), "{output_text}");
    }
}

#[test]
fn the_after_script_does_not_run_a_replaced_program() {
    let scene = Scene::new();
    let store = scene.file();
    let (url, sha256) = (format!("file://{AUTHFERRY}"), digest(Path::new(AUTHFERRY)));
    let inputs = [("url", url.as_str()), ("sha256", &sha256)];
    let run = r#"sh -c 'kill -KILL $PPID; rm $AUTHFERRY_DIR/bin/authferry; echo "touch $HOME/ran" >$AUTHFERRY_DIR/bin/authferry; chmod +x $AUTHFERRY_DIR/bin/authferry; touch $HOME/done'"#;
    let machine = scene.machine(&store, run, &inputs, "");
    let run = machine.run();
    let output_text = output_text(&run);
    assert!(
        output_text.contains("has changed since it was downloaded"),
        "{output_text}"
    );
    assert!(
        machine.runner.root().join("home/done").exists(),
        "{output_text}"
    );
    assert!(!has_run(&machine), "{output_text}");
}

/// Shows that the token search of the other tests can find a token.
#[test]
fn the_token_search_finds_a_leaked_token() {
    let scene = Scene::new();
    let store = scene.file();
    let run = r#"sh -c 'cp "$CODEX_HOME/auth.json" left; cp left "$HOME"; cat left'"#;
    let machine = scene.machine(&store, run, &[], &keep_all_after_script());
    let run = machine.run();
    assert_passed(&run);
    assert!(contains_token(output_text(&run).as_bytes(), &[]));
    let found = files_containing(machine.runner.root(), &[]);
    for part in ["home", "builds", "artifacts", "cache", "output"] {
        let is_in_part = |path: &Path| path.display().to_string().contains(part);
        assert!(
            found.iter().any(|path| is_in_part(path)),
            "{part}: {found:?}"
        );
    }
}

/// Whether the machine has the file of `TRACE`.
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
    assert!(run.status.success(), "{}", output_text(run));
}

/// Fails if the output or a file on the machine contains a token, or if the artifacts or the cache
/// contain a receipt.
#[track_caller]
fn assert_clean(machine: &Machine, run: &Output, store: &dyn Store) {
    let secrets = store.secrets();
    let secrets: Vec<_> = secrets.iter().map(String::as_str).collect();
    assert!(
        !contains_token(output_text(run).as_bytes(), &secrets),
        "{}",
        output_text(run)
    );
    let root = machine.runner.root();
    assert_eq!(
        files_containing(root, &secrets),
        Vec::<std::path::PathBuf>::new()
    );
    let receipts = files(root).into_iter().filter(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains("authferry-receipt")
    });
    assert_eq!(
        receipts.collect::<Vec<_>>(),
        Vec::<std::path::PathBuf>::new()
    );
}
