//! The README's workflow and the examples, run unchanged.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::Duration,
};

use rig::{Login, Node24, What, finish_within};
use serde_json::{Value, json};

use crate::job::{Ended, Job, deployed};
use crate::jobs::assert_clean_end;
use crate::program::publish;
use crate::scene::Scene;

#[test]
fn the_readme_workflow_runs_unchanged() {
    let readme = fs::read_to_string(deployed().join("../../README.md")).expect("a text");
    let (_, section) = readme
        .split_once("### GitHub Actions\n")
        .expect("a section");
    let (_, block) = section.split_once("```yaml\n").expect("YAML");
    let (yaml, _) = block.split_once("```").expect("an end");
    assert!(yaml.lines().count() < 20, "{yaml}");
    let scene = Scene::on_vault(&Login::stale());
    let workflow = Workflow::new(yaml);
    for number in 1..=3 {
        workflow.runs(&scene);
        assert_eq!(scene.stub().count(What::is_model_call), number);
    }
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

#[test]
fn the_run_example_runs_unchanged() {
    let scene = Scene::on_vault(&Login::stale());
    example("run.yml").runs(&scene);
    assert_eq!(scene.stub().count(What::is_model_call), 1);
    assert!(scene.is_live());
}

#[test]
fn the_steps_example_runs_unchanged() {
    let scene = Scene::on_vault(&Login::stale());
    example("steps.yml").runs(&scene);
    assert_eq!(scene.stub().count(What::is_model_call), 2);
    assert!(scene.is_live());
}

#[test]
fn the_matrix_example_runs_unchanged() {
    let scene = Scene::on_vault(&Login::stale());
    example("matrix.yml").runs(&scene);
    assert_eq!(scene.stub().count(What::is_model_call), 3);
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

#[test]
fn the_keep_alive_example_runs_unchanged() {
    let scene = Scene::on_vault(&Login::stale());
    example("keep-alive.yml").runs(&scene);
    assert_eq!(scene.stub().count(What::is_model_call), 0);
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

#[test]
fn the_monitor_example_opens_one_issue() {
    let workflow = example("monitor.yml");
    let check = &workflow.0["jobs"]["check"];
    assert_eq!(check["permissions"], json!({"id-token": "write"}));
    // Its access token has ended.
    for (login, code) in [(Login::fresh(), 0), (Login::stale(), 1)] {
        let scene = Scene::on_vault(&login);
        let before = scene.stored();
        let ended = workflow.first_step(&scene, check);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(scene.stored(), before);
        assert_eq!(scene.stub().count(|_| true), 0);
    }

    let report = &workflow.0["jobs"]["report"];
    assert_eq!(report["permissions"], json!({"issues": "write"}));
    assert_eq!(report["needs"], "check");
    assert_eq!(report["if"], "${{ failure() }}");
    let known = BTreeMap::from(
        [
            ("github.token", "made-up"),
            ("github.repository", "acme/app"),
            ("github.server_url", "https://github.example"),
            ("github.run_id", "7"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let step = report["steps"][0]["run"].as_str().expect("a script");
    let folder = tempfile::tempdir().expect("a folder");
    let gh = folder.path().join("gh");
    fs::write(&gh, GH).expect("disk space");
    fs::set_permissions(&gh, fs::Permissions::from_mode(0o700)).expect("our file");
    for _ in 0..2 {
        let mut bash = Command::new("bash");
        bash.args(["-e", "-c", step])
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
            .env("ISSUES", folder.path());
        for (name, value) in entries(&report["env"]) {
            bash.env(name, evaluate(&value, &known));
        }
        let output = finish_within(Duration::from_mins(1), &mut bash);
        assert!(output.status.success(), "{output:?}");
    }
    let issues = fs::read_to_string(folder.path().join("issues")).expect("an issue");
    assert_eq!(
        issues,
        "acme/app: The Codex login needs attention: What is wrong and which commands mend it: \
         https://github.example/acme/app/actions/runs/7\n"
    );
}

/// A `gh` that keeps its issues in a file. Its `--jq` counts them all.
const GH: &str = r#"#!/bin/sh
case "$1 $2" in
"issue list") if [ -e "$ISSUES/issues" ]; then wc -l <"$ISSUES/issues"; else echo 0; fi ;;
"issue create") echo "$GH_REPO: $4: $6" >>"$ISSUES/issues" ;;
*) exit 1 ;;
esac
"#;

#[test]
fn the_self_hosted_example_runs_unchanged() {
    let scene = Scene::on_a_file(&Login::stale());
    let Scene::File(ferry, _) = &scene else {
        panic!("expected a file store");
    };
    fs::remove_file(ferry.store_file()).expect("a seeded store");
    let workflow = example("self-hosted.yml");
    workflow.runs(&scene);
    // The secret still exists, and its login is spent.
    workflow.runs(&scene);
    assert_eq!(scene.stub().count(What::is_rotation), 1);
    assert!(scene.is_live());
}

#[test]
fn every_example_is_listed_and_queues_its_jobs() {
    let readme = fs::read_to_string(deployed().join("README.md")).expect("a text");
    for entry in fs::read_dir(deployed().join("examples")).expect("a folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_str().expect("a name");
        assert!(readme.contains(&format!("](examples/{name})")), "{name}");
        let workflow = example(name).0;
        let job = workflow["jobs"].as_object().expect("jobs").values();
        for scope in job
            .chain([&workflow])
            .filter_map(|it| it.get("concurrency"))
        {
            assert_eq!(scope["queue"], "max", "{name}");
            assert_eq!(scope["cancel-in-progress"], false, "{name}");
        }
        assert!(workflow.to_string().contains("\"concurrency\""), "{name}");
    }
}

#[test]
fn every_input_and_output_is_in_the_readme_with_its_default() {
    let readme = fs::read_to_string(deployed().join("README.md")).expect("a text");
    let action = yaml(&fs::read_to_string(deployed().join("action.yml")).expect("a text"));
    let names = |kind: &str| -> Vec<String> {
        let all = action[kind].as_object().expect(kind).keys().cloned();
        all.collect()
    };
    for name in names("inputs") {
        let row = readme
            .lines()
            .find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("no row for {name}"));
        if let Some(default) = action["inputs"][&name]["default"].as_str() {
            assert!(row.ends_with(&format!("| `{default}` |")), "{row}");
        }
    }
    for name in names("outputs") {
        assert!(readme.contains(&format!("| `{name}` |")), "{name}");
    }
    assert_eq!(
        action["inputs"]["version"]["default"],
        env!("CARGO_PKG_VERSION")
    );
}

/// A parsed workflow.
struct Workflow(Value);

fn example(name: &str) -> Workflow {
    let file = deployed().join("examples").join(name);
    Workflow::new(&fs::read_to_string(file).expect("an example"))
}

fn yaml(text: &str) -> Value {
    Node24::install().expect("Node from npm").yaml(text)
}

impl Workflow {
    fn new(text: &str) -> Self {
        Self(yaml(text))
    }

    /// Runs every job, each on a fresh machine.
    fn runs(&self, scene: &Scene) {
        for job in self.0["jobs"].as_object().expect("jobs").values() {
            for matrix in combinations(job) {
                self.job_runs(scene, job, &matrix);
            }
        }
    }

    fn job_runs(&self, scene: &Scene, job: &Value, matrix: &[(String, String)]) {
        let mut known = known(scene);
        known.extend(matrix.iter().cloned());
        let mut machine = self.machine(scene, job, &known);
        for step in job["steps"].as_array().expect("steps") {
            step_runs(&mut machine, step, &mut known);
        }
        assert_clean_end(scene, &mut machine);
    }

    /// A fresh machine for a job.
    fn machine(&self, scene: &Scene, job: &Value, known: &BTreeMap<String, String>) -> Job {
        let mut variables = scene.variables();
        let permissions = job.get("permissions").unwrap_or(&self.0["permissions"]);
        let may_identify = permissions["id-token"] == "write";
        variables.retain(|name, _| may_identify || !name.starts_with("ACTIONS_ID_TOKEN_"));
        // Only the workflow may set it.
        variables.remove("VAULT_ADDR");
        for (name, value) in entries(&job["env"]) {
            variables.insert(name, evaluate(&value, known));
        }
        let mut machine = Job::new(scene.runner(), variables);
        publish(&mut machine, "0.1.0");
        machine
    }

    /// Runs the first step of a job, which uses the action, and returns how it ended.
    fn first_step(&self, scene: &Scene, job: &Value) -> Ended {
        let known = known(scene);
        let mut machine = self.machine(scene, job, &known);
        uses(&mut machine, &job["steps"][0], &known)
    }
}

fn step_runs(machine: &mut Job, step: &Value, known: &mut BTreeMap<String, String>) {
    let ended = match (step["uses"].as_str(), step["run"].as_str()) {
        // The folder exists already.
        (Some(uses), None) if uses.starts_with("actions/checkout@") => return,
        (Some(_), None) => uses(machine, step, known),
        (None, Some(run)) if run.starts_with("npm install") => {
            npm(machine, run);
            return;
        }
        (None, Some(run)) => machine.run(&evaluate(run, known)),
        (Some(_), Some(_)) | (None, None) => panic!("a step has either `uses` or `run`: {step}"),
    };
    assert_eq!(ended.code, Some(0), "{step}\n{}", machine.log());
    if let Some(id) = step["id"].as_str() {
        let outputs = ended.outputs.into_iter();
        known.extend(outputs.map(|(name, value)| (format!("steps.{id}.outputs.{name}"), value)));
    }
}

/// Runs a step with the action.
fn uses(machine: &mut Job, step: &Value, known: &BTreeMap<String, String>) -> Ended {
    let uses = step["uses"].as_str().expect("an action");
    assert!(uses.starts_with("acme/authferry/deploy/github@"), "{uses}");
    let with: Vec<_> = entries(&step["with"])
        .map(|(name, value)| (name, evaluate(&value, known)))
        .collect();
    let with: Vec<_> = with.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let step = machine.start_action(&with, &[]);
    machine.finish(step)
}

/// Runs an `npm install` step outside of the job, whose machine has no network. The result is cached
/// under the build directory.
fn npm(machine: &Job, run: &str) {
    let words: String = run
        .chars()
        .map(|c| if c.is_alphanumeric() { c } else { '-' })
        .collect();
    let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/node24");
    let cache = cache.canonicalize().expect("Node");
    let lock = File::create(cache.join(format!("{words}.lock"))).expect("disk space");
    lock.lock().expect("a lock");
    let [home, partial] = [words.clone(), format!("{words}.partial")].map(|name| cache.join(name));
    if !home.exists() {
        if partial.exists() {
            fs::remove_dir_all(&partial).expect("ours");
        }
        let mut bash = Command::new("bash");
        bash.args(["-e", "-c", run])
            .env("npm_config_prefix", &partial)
            .env("npm_config_ignore_scripts", "true");
        let output = finish_within(Duration::from_mins(5), &mut bash);
        assert!(output.status.success(), "{output:?}");
        fs::rename(&partial, &home).expect("one folder");
    }
    let codex = home.join("bin/codex");
    machine.runner.link("codex", &codex).expect("disk space");
}

/// The variables and secrets of the repository.
fn known(scene: &Scene) -> BTreeMap<String, String> {
    let mut known = BTreeMap::from([("vars.AUTHFERRY_STORE".to_owned(), scene.address())]);
    if let Some(address) = scene.variables().remove("VAULT_ADDR") {
        known.insert("vars.VAULT_ADDR".to_owned(), address);
    }
    if let Scene::File(ferry, login) = scene {
        let folder = ferry.store_file().with_file_name("rescue");
        known.insert(
            "vars.AUTHFERRY_RESCUE".to_owned(),
            folder.display().to_string(),
        );
        known.insert("secrets.CODEX_AUTH_JSON".to_owned(), login.auth_json());
    }
    known
}

fn combinations(job: &Value) -> Vec<Vec<(String, String)>> {
    let mut all = vec![Vec::new()];
    let matrix = job["strategy"]["matrix"].as_object();
    for (name, values) in matrix.into_iter().flatten() {
        let values = values.as_array().expect("a list");
        all = all
            .iter()
            .flat_map(|one: &Vec<_>| {
                values.iter().map(move |value| {
                    let value = value.as_str().expect("a text").to_owned();
                    let mut one = one.clone();
                    one.push((format!("matrix.{name}"), value));
                    one
                })
            })
            .collect();
    }
    all
}

fn entries(map: &Value) -> impl Iterator<Item = (String, String)> {
    map.as_object().into_iter().flatten().map(|(name, value)| {
        let value = value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), value)
    })
}

/// Evaluates the expressions in a text.
fn evaluate(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut parts = text.split("${{");
    let mut evaluated = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = part.split_once("}}").expect("an end");
        let value = known.get(name.trim());
        evaluated.push_str(value.unwrap_or_else(|| panic!("{name} is not set")));
        evaluated.push_str(rest);
    }
    evaluated
}
