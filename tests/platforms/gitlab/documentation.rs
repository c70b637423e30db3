//! The documentation of the component matches the component.

use std::{fs, path::Path};

use rig::{Codex, Login, Runner, Stub, What};

use crate::pipeline::{Machine, configuration, output_text};
use crate::store::{Store, VaultStore, is_live};

#[test]
fn the_readme_pipeline_runs_unchanged() {
    let text = read("README.md");
    let (_, section) = text.split_once("### GitLab\n").expect("a section");
    let (_, block) = section.split_once("```yaml\n").expect("YAML");
    let (yaml, _) = block.split_once("```").expect("an end");
    assert!(yaml.lines().count() < 20, "{yaml}");
    assert!(yaml.contains("vault://"), "{yaml}");

    let login = Login::stale();
    let stub = Stub::start(&login);
    let codex = Codex::install(rig::V0_169).expect("Codex from npm");
    let admin_machine = Runner::new(&stub, &codex).expect("room for a runner");
    let store = VaultStore::new(&admin_machine, &login);
    for job in 1..=2 {
        let machine = store.configure(Machine::new(&stub, &codex, yaml));
        let run = machine.run();
        assert!(run.status.success(), "{}", output_text(&run));
        assert!(is_live(&stub, &store), "{}", output_text(&run));
        assert_eq!(
            stub.count(What::is_model_call),
            job,
            "{}",
            output_text(&run)
        );
    }
    assert_eq!(stub.count(What::is_rotation), 1);
}

#[test]
fn the_pipeline_sets_its_resource_group_timeouts_and_id_tokens() {
    let login = Login::stale();
    let stub = Stub::start(&login);
    let codex = Codex::install(rig::V0_169).expect("Codex from npm");
    let preview = |identity| {
        let inputs = [
            ("run", "true"),
            ("store", "file:///nowhere"),
            ("image", "an-image"),
            ("identity", identity),
            ("audience", "an-audience"),
        ];
        Machine::new(&stub, &codex, &configuration(&inputs, "")).preview()
    };
    let (vault, none) = (preview("vault"), preview("none"));
    assert!(!none.contains("id_tokens"), "{none}");
    for preview in [vault.as_str(), &none] {
        let (_, job) = preview.split_once("\ncodex:\n").expect("a job");
        let (job, keep_alive) = job.split_once("\ncodex-keep-alive:\n").expect("two jobs");
        for part in [job, keep_alive] {
            assert!(part.contains("  resource_group: codex-login\n"), "{part}");
            assert!(part.contains("  interruptible: false\n"), "{part}");
        }
        assert!(job.contains("    AFTER_SCRIPT_IGNORE_ERRORS: 'false'\n"));
        let minutes = |name: &str| {
            let (_, value) = job.split_once(&format!(" {name}: ")).expect(name);
            let value = value.lines().next().expect("a line");
            let (number, unit) = value.split_at(value.len() - 1);
            let number: u32 = number.parse().expect("a number");
            number * if unit == "h" { 60 } else { 1 }
        };
        let scripts = minutes("RUNNER_SCRIPT_TIMEOUT") + minutes("RUNNER_AFTER_SCRIPT_TIMEOUT");
        assert!(
            scripts < minutes("timeout"),
            "the scripts use up the job timeout"
        );
    }
    let expected = "  id_tokens:\n    VAULT_ID_TOKEN:\n      aud: an-audience\n";
    assert_eq!(vault.matches(expected).count(), 2, "{vault}");
}

#[test]
fn the_readme_lists_exactly_the_inputs() {
    let template = read("deploy/gitlab/templates/authferry/template.yml");
    let (inputs, _) = template.split_once("\n---\n").expect("a header");
    let is_name = |line: &&str| line.starts_with("    ") && !line.starts_with("     ");
    let inputs: Vec<_> = inputs
        .lines()
        .filter(is_name)
        .map(|line| line.trim().trim_end_matches(':'))
        .collect();
    assert!(inputs.len() > 10, "{inputs:?}");
    let text = read("deploy/gitlab/README.md");
    let rows = text.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("| `")?.split_once('`')?;
        Some(name)
    });
    assert_eq!(rows.collect::<Vec<_>>(), inputs);
}

#[test]
fn the_component_has_the_license_of_the_repository() {
    assert_eq!(read("deploy/gitlab/LICENSE"), read("LICENSE"));
}

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    fs::read_to_string(root.join(path)).expect("a file that is shipped")
}
