//! `status`, `doctor` and `rescue list` show the same copies with the same verdicts, as text and as
//! JSON.

use serde_json::Value;

use super::*;

/// The commands that list copies.
const COMMANDS: [&[&str]; 3] = [&["status"], &["doctor"], &["rescue", "list"]];

#[test]
fn status_doctor_and_rescue_list_show_the_same_copies() {
    let first = Login::fresh();
    let ferry = Ferry::holding(rig::V0_171, &first);
    let runner = ferry.runner();
    assert_eq!(shown(&ferry, &runner), [""; 0]);

    // A starting job sets an older file aside.
    runner.place(&first.auth_json()).expect("disk space");
    assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[1])), 0);
    let older = generation(&first, 8, Duration::days(-9));
    runner.place(&older.auth_json()).expect("disk space");
    assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[1])), 0);
    assert_eq!(shown(&ferry, &runner), ["earlier"]);

    // After a reseed, the rescued copy belongs to another family.
    let reseed = first.logged_in_again(100, first.issued + Duration::minutes(10));
    assert_code(&ferry.put(&reseed, &["--replace"]), 0);
    assert_eq!(shown(&ferry, &runner), ["other-family"]);

    // The store is unreachable for a rotation, and reachable later.
    assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[0])), 0);
    let next = generation(&reseed, 106, Duration::minutes(30));
    runner.place(&next.auth_json()).expect("disk space");
    assert_code(&persist_without_store(&ferry, &runner), 120);
    assert_eq!(shown(&ferry, &runner), ["later", "other-family"]);
    assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[0])), 0);
    assert_eq!(shown(&ferry, &runner), ["is-stored", "other-family"]);

    // A file of unknown order and the login in the store are both kept.
    let undated = with_opaque_token(&generation(&reseed, 104, Duration::days(-2)));
    runner.place(&undated).expect("disk space");
    assert_code(&finish(&mut ferry.authferry(&runner, START_COMMANDS[1])), 0);
    let kept = shown(&ferry, &runner);
    assert_eq!(kept, ["other-family", "unclear"]);

    // The store is emptied.
    fs::remove_file(ferry.store_file()).expect("seeded");
    let alone = shown(&ferry, &runner);
    assert_eq!(alone, ["only-copy", "only-copy"]);
}

/// Returns the sorted verdicts that all three commands show. Panics if they differ.
#[track_caller]
fn shown(ferry: &Ferry, runner: &Runner) -> Vec<String> {
    let run_all = |more: &[&str]| {
        let run = |show: &&[&str]| {
            // `doctor` fails on an empty store, so ignore its exit code.
            finish(ferry.authferry(runner, show).args(more))
        };
        COMMANDS.iter().map(run).collect::<Vec<_>>()
    };
    let documents = run_all(&["--json"]).into_iter().map(|output| {
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        document["copies"].clone()
    });
    let documents: Vec<Value> = documents.collect();
    for (show, copies) in COMMANDS.iter().zip(&documents) {
        assert_eq!(copies, &documents[0], "{show:?}");
    }

    let copies = documents[0].as_array().expect("a list");
    let words = run_all(&[]).into_iter();
    let words: Vec<_> = words
        .map(|it| text(&[it.stdout, it.stderr].concat()))
        .collect();
    for copy in copies {
        let file = copy["file"].as_str().expect("a file");
        for (show, output) in COMMANDS.iter().zip(&words) {
            assert!(
                output.contains(file),
                "{show:?} does not show {file}: {output}"
            );
        }
    }
    let list = words.last().expect("three").lines();
    // In `rescue list`, each copy starts a paragraph.
    let list = list.filter(|line| !line.starts_with(' '));
    let list: Vec<_> = list.filter_map(|line| line.split_once("  ")).collect();
    assert_eq!(list.len(), copies.len());
    if ferry.store_file().exists() {
        for (login, verdict_text) in list {
            let line = format!("{login}, {verdict_text}: ");
            for (show, output) in COMMANDS.iter().zip(&words).take(2) {
                assert!(output.contains(&line), "{show:?} has no {line:?}: {output}");
            }
        }
    }

    let verdict = |copy: &Value| copy["verdict"].as_str().expect("a verdict").to_owned();
    let mut verdicts: Vec<_> = copies.iter().map(verdict).collect();
    verdicts.sort();
    verdicts
}
