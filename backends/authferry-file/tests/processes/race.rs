//! Several processes that write at the same time.

use std::collections::{BTreeMap, BTreeSet};

use authferry_core::CasError;

use crate::rig::{self, Login};

const RACERS: usize = 4;
const WINS: u64 = 25;

/// Increments the login's number until it has won `WINS` swaps.
pub(crate) fn racer(login: &Login) {
    let me = u64::from(std::process::id());
    let mut wins = 0;
    while wins < WINS {
        let (base, next) = match login.look().expect("a place") {
            Some((number, version)) => (Some(version), number + 1),
            None => (None, 1),
        };
        match login.swap(base.as_ref(), me, next, 2000) {
            Ok(version) => {
                wins += 1;
                rig::print_line(&format!("wrote {next} {version}"));
            }
            Err(CasError::Conflict) => {}
            Err(CasError::Ambiguous(error) | CasError::Refused(error)) => {
                panic!("{error}: {:?}", error.source)
            }
        }
    }
}

pub(crate) fn racing_processes_lose_no_write() {
    let folder = rig::folder();
    let path = folder.path().join("login.json");
    let racers: Vec<_> = (0..RACERS)
        .map(|_| {
            rig::command(&[], "racer", &path)
                .spawn()
                .expect("a process")
        })
        .collect();
    let mut written = BTreeMap::new();
    for racer in racers {
        let output = racer.wait_with_output().expect("a child of ours");
        assert!(output.status.success(), "{}", output.status);
        for line in String::from_utf8(output.stdout).expect("text").lines() {
            if let Some((number, version)) = line
                .strip_prefix("wrote ")
                .and_then(|wrote| wrote.split_once(' '))
            {
                let number: u64 = number.parse().expect("a number");
                let twice = written.insert(number, version.to_owned());
                assert_eq!(twice, None, "two racers won {number}");
            }
        }
    }
    let all = WINS * RACERS as u64;
    assert!(written.keys().copied().eq(1..=all), "{written:?}");
    let versions: BTreeSet<_> = written.values().collect();
    assert_eq!(versions.len(), written.len(), "a version came twice");
    let (number, version) = Login::at(&path).look().expect("a place").expect("a login");
    assert_eq!((number, version.as_str()), (all, written[&all].as_str()));
}
