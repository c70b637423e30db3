//! SIGKILL at any instruction of a writer.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use authferry_core::Version;

use crate::rig::{self, Login};

/// The minimum number of kills.
const KILLS: u64 = 120;

/// The maximum number of kills: on a busy machine few kills hit a write.
pub(crate) const MAX_KILLS: u64 = 3000;

/// The size of a login, in bytes: large enough that a kill can hit the write.
const LEN: usize = 64 * 1024;

/// Writes one login after another until it is killed.
pub(crate) fn writer(login: &Login) {
    loop {
        let (number, version) = login.look().expect("a place").expect("a login");
        rig::print_line(&format!("sends {}", number + 1));
        let version = login
            .swap(Some(&version), 1, number + 1, LEN)
            .expect("the only writer");
        rig::print_line(&format!("wrote {} {version}", number + 1));
    }
}

pub(crate) fn a_writer_killed_at_any_instruction_loses_no_login() {
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
    let (mut unconfirmed, mut left) = (0, 0);

    for kill in 0..MAX_KILLS {
        // Go on until some kills have hit a write.
        if kill >= KILLS && unconfirmed > 0 && left > 0 {
            break;
        }
        // Scale with the measured write time: the kill falls into the first two writes.
        let time = 2 * write_time.mul_f64(fraction(&mut random));
        let output = run_and_kill("writer", &path, time);
        let mut sent = number;
        for line in output.lines() {
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
        let (stored, version) = login.look().expect("a place").expect("a login");
        assert!(
            stored == number || stored == sent,
            "kill {kill}: {stored} is stored, {number} was confirmed, {sent} was sent"
        );
        unconfirmed += u32::from(sent != number);
        note(&mut versions, &version, stored);

        let start = Instant::now();
        number = stored + 1;
        // If the lock is not free, the swap fails after the lock timeout.
        let version = login
            .swap(Some(&version), 2, number, LEN)
            .expect("the only writer");
        write_time = start.elapsed();
        note(&mut versions, &version, number);
        assert!(rig::leftovers(folder.path()).is_empty(), "kill {kill}");
    }
    assert!(unconfirmed > 0 && left > 0, "{unconfirmed} {left}");
}

/// Runs `role` in a process, kills it after this time from its first output, and returns the output.
pub(crate) fn run_and_kill(role: &str, path: &Path, time: Duration) -> String {
    let mut writer = rig::command(&[], role, path).spawn().expect("a process");
    let mut stdout = BufReader::new(writer.stdout.take().expect("a pipe"));
    let mut output = String::new();
    while !output.contains("sends") {
        let len = stdout.read_line(&mut output).expect("text");
        assert!(len > 0, "the writer exited: {output}");
    }
    thread::sleep(time);
    writer.kill().expect("a child of ours");
    writer.wait().expect("a child of ours");
    stdout.read_to_string(&mut output).expect("text");
    output
}

/// Returns the next pseudorandom number from 0 to 1; the sequence is the same in each run.
pub(crate) fn fraction(random: &mut u64) -> f64 {
    // Knuth's multiplier; the upper bits are the most random.
    *random = random
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1);
    let upper = u32::try_from(*random >> 32).expect("half of the bits");
    f64::from(upper) / f64::from(u32::MAX)
}

/// Records that `version` names the login `number`, and checks that it named no other before.
fn note(versions: &mut HashMap<Version, u64>, version: &Version, number: u64) {
    let before = versions.insert(version.clone(), number);
    assert!(
        before.is_none_or(|before| before == number),
        "{version} names {before:?} and {number}"
    );
}
