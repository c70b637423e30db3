//! Untrusted jobs are refused.

use rig::Login;
use serde_json::{Value, json};

use crate::jobs::assert_clean_end;
use crate::scene::Scene;

#[test]
fn a_public_repository_is_refused() {
    assert_refused(
        &json!({"repository": {"full_name": "acme/app", "private": false, "visibility": "public"}}),
        "the repository is public",
    );
}

#[test]
fn a_pull_request_from_a_fork_is_refused() {
    assert_refused(
        &json!({
            "repository": {"full_name": "acme/app", "private": true, "visibility": "private"},
            "pull_request": {"head": {"repo": {"full_name": "fork-owner/app"}}},
        }),
        "the pull request comes from a fork",
    );
}

fn assert_refused(event: &Value, why: &str) {
    let scene = Scene::on_a_file(&Login::fresh());
    let address = scene.address();
    let inputs: [&[(&str, &str)]; 2] = [
        &[("store", &address)],
        &[("store", &address), ("run", "touch ran")],
    ];
    for with in inputs {
        let mut job = scene.job();
        job.event(event);
        let step = job.uses(with);
        assert_eq!(step.code, Some(124), "{}", job.log());
        assert!(!job.runner.work().join("ran").exists());
        let annotations = job.with_console(|console| console.annotations.clone());
        let [(level, text)] = &annotations[..] else {
            panic!("one annotation: {annotations:?}");
        };
        assert_eq!(level, "error");
        for words in [why, "next: use an API key", "`allow-untrusted: true`"] {
            assert!(text.contains(words), "{text}");
        }
        assert_clean_end(&scene, &mut job);

        // The hint works.
        let mut job = scene.job();
        job.event(event);
        let with = [with, &[("allow-untrusted", "true")]].concat();
        assert_eq!(job.uses(&with).code, Some(0), "{}", job.log());
        assert_clean_end(&scene, &mut job);
    }
}
