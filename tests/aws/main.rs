//! The store in AWS Secrets Manager, on third-party servers: moto and ministack.
//!
//! moto is patched where it deviates from AWS's documentation, and passes everything. ministack is
//! unmodified: its known deviations are listed by name, so that every other one fails.
//!
//! The SDK reads the environment, which must be set before a process starts. So this program starts
//! itself again for each server.

mod aws_specific;
mod faults;
mod fixture;
mod policies;

use std::{
    env,
    process::{ExitCode, Stdio},
    sync::Arc,
};

use authferry_conformance::{Case, Fixture, cases, timed};
use libtest_mimic::{Arguments, Failed, Trial};
use rig::Aws;
use tokio::runtime::{self, Runtime};

use crate::fixture::{Secrets, Server};

/// The deviations of ministack 1.5.33, with the cases that fail because of them.
const DEVIATIONS: &[(&str, &[&str])] = &[
    (
        "a repeated put removes the labels of its version, so that no version has AWSCURRENT",
        &[
            "swap::a_cancelled_swap_leaves_the_old_or_the_new_value",
            "idempotency::a_duplicate_writes_once",
            "leases::a_repeated_renewal_succeeds",
        ],
    ),
    (
        "a put of another value with the same token overwrites the value of that version",
        &["idempotency::a_reused_write_id_with_other_bytes_fails"],
    ),
];

/// The cases that may also pass: how far a swap gets before it is abandoned after some milliseconds
/// is chance.
const FLAKY: &[&str] = &["swap::a_cancelled_swap_leaves_the_old_or_the_new_value"];

/// The variable that names the server to its child process.
const SERVER: &str = "SERVER_OF_THE_TEST";

fn main() -> ExitCode {
    match env::var(SERVER).as_deref() {
        Ok("moto") => run(Server::Moto),
        Ok("ministack") => run(Server::Ministack),
        Ok("policies") => run(Server::Policies),
        _ => start(),
    }
}

/// Starts each server, and this program again for it.
fn start() -> ExitCode {
    let servers: [Start; 3] = [
        || (Server::Moto, Aws::moto()),
        || (Server::Policies, Aws::moto().enforcing_policies()),
        || (Server::Ministack, Aws::ministack()),
    ];
    let all_pass = servers.map(|start| {
        let (name, server) = start();
        let program = env::current_exe().expect("this program");
        let mut again = server.command(program);
        again
            .env(SERVER, name.name())
            .args(env::args_os().skip(1))
            .stdin(Stdio::null());
        again.status().expect("this program").success()
    });
    ExitCode::from(u8::from(!all_pass.iter().all(|passes| *passes)))
}

type Start = fn() -> (Server, Aws);

fn run(server: Server) -> ExitCode {
    let fixture = Arc::new(Secrets::new(server));
    let runtime = Arc::new(
        runtime::Builder::new_multi_thread()
            .worker_threads(8)
            .enable_all()
            .build()
            .expect("no threads for the runtime"),
    );
    let suite = cases().map(|case| trial(&runtime, &fixture, case, server));
    let (mut trials, more): (Vec<_>, Vec<_>) = match server {
        Server::Moto => (
            suite.collect(),
            [faults::TRIALS, aws_specific::TRIALS].concat(),
        ),
        Server::Policies => (Vec::new(), policies::TRIALS.to_vec()),
        Server::Ministack => (suite.collect(), Vec::new()),
    };
    for (name, run) in more {
        let (runtime, fixture) = (Arc::clone(&runtime), Arc::clone(&fixture));
        let name = format!("{}::{name}", server.name());
        trials.push(Trial::test(name.clone(), move || {
            timed(&name, || runtime.block_on(run(fixture)));
            Ok(())
        }));
    }
    let mut arguments = Arguments::from_args();
    // Some tests mostly wait.
    arguments.test_threads.get_or_insert(6);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A case of the suite. With a deviation, the test passes if the case fails.
fn trial(runtime: &Arc<Runtime>, fixture: &Arc<Secrets>, case: Case, server: Server) -> Trial {
    let (runtime, fixture) = (Arc::clone(runtime), Arc::clone(fixture));
    let deviation = DEVIATIONS
        .iter()
        .find(|(_, cases)| server == Server::Ministack && cases.contains(&case.name()));
    let is_flaky = FLAKY.contains(&case.name());
    let name = format!("{}::{}", server.name(), case.name());
    Trial::test(name.clone(), move || {
        let fixture: Arc<dyn Fixture> = fixture;
        let run = async { tokio::spawn(async move { case.run(fixture).await }).await };
        let result = timed(&name, || runtime.block_on(run));
        match (deviation, result) {
            (None, Ok(Ok(()))) | (Some(_), Ok(Err(_)) | Err(_)) => Ok(()),
            (Some(_), Ok(Ok(()))) if is_flaky => Ok(()),
            (None, Ok(Err(failure))) => Err(Failed::from(failure)),
            (None, Err(panic)) => Err(Failed::from(panic)),
            (Some((what, _)), Ok(Ok(()))) => {
                Err(format!("the deviation is fixed, remove it from the list: {what}").into())
            }
        }
    })
}
