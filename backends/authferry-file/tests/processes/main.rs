//! Several processes at one place, some of which are killed, and disks that are full.
//!
//! This program plays the other processes as well, which is why it has a `main`.

mod claim;
mod crash;
mod full;
mod race;
mod rig;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if rig::play() {
        return ExitCode::SUCCESS;
    }
    let test = |name: &str, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok(())
        })
    };
    let trials = vec![
        test(
            "a_writer_killed_at_any_instruction_loses_nothing",
            crash::a_writer_killed_at_any_instruction_loses_nothing,
        ),
        test(
            "a_claimer_killed_at_any_instruction_leaves_a_claim_that_ends",
            claim::a_claimer_killed_at_any_instruction_leaves_a_claim_that_ends,
        ),
        test(
            "a_limit_on_the_size_of_files_is_told_as_full",
            full::a_limit_on_the_size_of_files_is_told_as_full,
        ),
        test(
            "a_full_disk_is_told_as_full",
            full::a_full_disk_is_told_as_full,
        ),
        test(
            "racing_processes_lose_no_write",
            race::racing_processes_lose_no_write,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
