//! Kill -9 at any instruction.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use authferry_core::Version;

use crate::rig::{self, Login};

/// The number of kills, if enough of them hit a write.
const KILLS: u64 = 120;

/// The most kills: on a busy machine few of them hit.
pub(crate) const KILLS_AT_MOST: u64 = 3000;

/// Long enough for a kill to fall into the writing.
const LEN: usize = 64 * 1024;

/// Writes one login after another until it is killed.
pub(crate) fn writer(login: &Login) {
    loop {
        let (number, version) = login.look().expect("a place").expect("a login");
        rig::say(&format!("sends {}", number + 1));
        let version = login
            .swap(Some(&version), 1, number + 1, LEN)
            .expect("the only writer");
        rig::say(&format!("wrote {} {version}", number + 1));
    }
}

pub(crate) fn a_writer_killed_at_any_instruction_loses_nothing() {
    let folder = rig::folder();
    let path = folder.path().join("login.json");
    let login = Login::at(&path);
    let mut versions = HashMap::new();
    let mut number = 0;
    let start = Instant::now();
    let first = login.swap(None, 2, number, LEN).expect("an empty place");
    let mut write_time = start.elapsed();
    note(&mut versions, &first, number);
    let mut random = 7_u64;
    let (mut unanswered, mut left) = (0, 0);

    for kill in 0..KILLS_AT_MOST {
        // Otherwise the kills fell where nothing could go wrong.
        if kill >= KILLS && unanswered > 0 && left > 0 {
            break;
        }
        // A write takes as long as the machine lets it: the kill falls into two of them.
        let time = 2 * write_time.mul_f64(fraction(&mut random));
        let said = run_and_kill("writer", &path, time);
        let mut sent = number;
        for line in said.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("sends"), Some(next), None) => sent = next.parse().expect("a number"),
                (Some("wrote"), Some(next), Some(version)) => {
                    number = next.parse().expect("a number");
                    note(&mut versions, &Version::new(version), number);
                }
                _ => {}
            }
        }
        left += u32::from(!rig::leftovers(folder.path()).is_empty());
        let (there, version) = login.look().expect("a place").expect("a login");
        assert!(
            there == number || there == sent,
            "kill {kill}: {there} is there, {number} was answered, {sent} was sent"
        );
        unanswered += u32::from(sent != number);
        note(&mut versions, &version, there);

        let start = Instant::now();
        number = there + 1;
        // A lock that is not free is an error after the store's own time limit.
        let version = login
            .swap(Some(&version), 2, number, LEN)
            .expect("nobody else is there");
        write_time = start.elapsed();
        note(&mut versions, &version, number);
        assert!(rig::leftovers(folder.path()).is_empty(), "kill {kill}");
    }
    assert!(unanswered > 0 && left > 0, "{unanswered} {left}");
}

/// Lets somebody play `part` for this long after the first word, and returns what was said.
pub(crate) fn run_and_kill(part: &str, path: &Path, time: Duration) -> String {
    let mut writer = rig::command(&[], part, path).spawn().expect("a process");
    let mut listening = BufReader::new(writer.stdout.take().expect("a pipe"));
    let mut said = String::new();
    while !said.contains("sends") {
        let heard = listening.read_line(&mut said).expect("text");
        assert!(heard > 0, "the writer gave up: {said}");
    }
    thread::sleep(time);
    writer.kill().expect("a child of ours");
    writer.wait().expect("a child of ours");
    listening.read_to_string(&mut said).expect("text");
    said
}

/// Draws a number from 0 to 1, the same ones in each run.
pub(crate) fn fraction(random: &mut u64) -> f64 {
    // Knuth's multiplier; the upper bits are the random ones.
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    let upper = u32::try_from(*random >> 32).expect("half of the bits");
    f64::from(upper) / f64::from(u32::MAX)
}

/// Notes that `version` stands for the login `number`, now and ever.
fn note(versions: &mut HashMap<Version, u64>, version: &Version, number: u64) {
    let before = versions.insert(version.clone(), number);
    assert!(
        before.is_none_or(|before| before == number),
        "{version} stands for {before:?} and for {number}"
    );
}
