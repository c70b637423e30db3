//! Several processes on one login: kills, races, and full disks.
//!
//! This program has a `main` because it also runs as the other processes.

mod crash;
mod full;
mod lease;
mod race;
mod rig;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if rig::run_role() {
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
            "a_writer_killed_at_any_instruction_loses_no_login",
            crash::a_writer_killed_at_any_instruction_loses_no_login,
        ),
        test(
            "a_lease_client_killed_at_any_instruction_leaves_a_lease_that_expires",
            lease::a_lease_client_killed_at_any_instruction_leaves_a_lease_that_expires,
        ),
        test(
            "a_file_size_limit_is_reported_as_full",
            full::a_file_size_limit_is_reported_as_full,
        ),
        test(
            "a_full_disk_is_reported_as_full",
            full::a_full_disk_is_reported_as_full,
        ),
        test(
            "racing_processes_lose_no_write",
            race::racing_processes_lose_no_write,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
