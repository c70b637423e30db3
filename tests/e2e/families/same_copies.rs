//! `status`, `doctor` and `rescue list` show the same copies with the same verdict, in words and in
//! JSON.

use serde_json::Value;

use super::*;

/// What each of the commands says.
const SHOW: [&[&str]; 3] = [&["status"], &["doctor"], &["rescue", "list"]];

#[test]
fn status_doctor_and_the_list_show_the_same() {
    let first = Login::fresh();
    let ferry = Ferry::holding(rig::V0_171, &first);
    let runner = ferry.runner();
    assert_eq!(shown(&ferry, &runner), [""; 0]);

    // An older file is set aside.
    runner.place(&first.auth_json()).expect("room");
    assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[1])), 0);
    let older = generation(&first, 8, Duration::days(-9));
    runner.place(&older.auth_json()).expect("room");
    assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[1])), 0);
    assert_eq!(shown(&ferry, &runner), ["earlier"]);

    // A person reseeds: what is kept is of another family then.
    let reseed = first.afresh(100, first.issued + Duration::minutes(10));
    assert_code(&ferry.put(&reseed, &["--replace"]), 0);
    assert_eq!(shown(&ferry, &runner), ["other-family"]);

    // The store does not take a rotation, and then it does.
    assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[0])), 0);
    let next = generation(&reseed, 106, Duration::minutes(30));
    runner.place(&next.auth_json()).expect("room");
    assert_code(&persist_in_vain(&ferry, &runner), 120);
    assert_eq!(shown(&ferry, &runner), ["later", "other-family"]);
    assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[0])), 0);
    assert_eq!(shown(&ferry, &runner), ["is-stored", "other-family"]);

    // Of an unclear file and the login in the store, both are kept.
    let unclear = opaque(&generation(&reseed, 104, Duration::days(-2)));
    runner.place(&unclear).expect("room");
    assert_code(&finish(&mut ferry.authferry(&runner, BEGINS[1])), 0);
    let kept = shown(&ferry, &runner);
    assert_eq!(kept, ["other-family", "unclear"]);

    // Somebody empties the store.
    fs::remove_file(ferry.store_file()).expect("seeded");
    let alone = shown(&ferry, &runner);
    assert_eq!(alone, ["only-copy", "only-copy"]);
}

/// The verdicts that all three show, sorted; panics if they differ.
#[track_caller]
fn shown(ferry: &Ferry, runner: &Runner) -> Vec<String> {
    let asked = |more: &[&str]| {
        let command = |show: &&[&str]| {
            // Doctor finds fault with an empty store; what it shows counts here.
            finish(ferry.authferry(runner, show).args(more))
        };
        SHOW.iter().map(command).collect::<Vec<_>>()
    };
    let documents = asked(&["--json"]).into_iter().map(|output| {
        let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        document["copies"].clone()
    });
    let documents: Vec<Value> = documents.collect();
    for (show, copies) in SHOW.iter().zip(&documents) {
        assert_eq!(copies, &documents[0], "{show:?}");
    }

    let copies = documents[0].as_array().expect("a list");
    let words = asked(&[]).into_iter();
    let words: Vec<_> = words
        .map(|it| text(&[it.stdout, it.stderr].concat()))
        .collect();
    for copy in copies {
        let file = copy["file"].as_str().expect("a file");
        for (show, said) in SHOW.iter().zip(&words) {
            assert!(said.contains(file), "{show:?} does not show {file}: {said}");
        }
    }
    let list = words.last().expect("three").lines();
    // Each copy begins a paragraph there.
    let list = list.filter(|line| !line.starts_with(' '));
    let list: Vec<_> = list.filter_map(|line| line.split_once("  ")).collect();
    assert_eq!(list.len(), copies.len());
    if ferry.store_file().exists() {
        for (login, worth) in list {
            let line = format!("{login}, {worth}: ");
            for (show, said) in SHOW.iter().zip(&words).take(2) {
                assert!(said.contains(&line), "{show:?} has no {line:?}: {said}");
            }
        }
    }

    let verdict = |copy: &Value| copy["verdict"].as_str().expect("a verdict").to_owned();
    let mut verdicts: Vec<_> = copies.iter().map(verdict).collect();
    verdicts.sort();
    verdicts
}
