//! The store in AWS Secrets Manager, on servers that nobody here wrote.
//!
//! moto is held to AWS's documents where it departs from them, and does all of it. ministack
//! is as it is: what it does in another way than AWS documents is listed by name, so that
//! nothing else goes unnoticed.
//!
//! The SDK reads the environment, and that is set for a process before it begins: so this
//! program starts itself once more for each server.

mod alone;
mod fixture;
mod policies;
mod trouble;

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

/// What ministack 1.5.33 does in another way, and what cannot pass for that.
const DEPARTURES: &[(&str, &[&str])] = &[
    (
        "a put that comes again takes its version's labels off, and AWSCURRENT is nowhere",
        &[
            "swap::a_swap_given_up_leaves_one_of_the_two",
            "identity::a_duplicate_is_one_write",
            "claims::a_renewal_asked_again_lasts",
        ],
    ),
    (
        "a put of another value under the same token replaces the value of that version",
        &["identity::an_id_does_not_stand_for_other_bytes"],
    ),
];

/// Which of these cases may pass all the same: how far a swap is that is given up after some
/// milliseconds is chance.
const BY_CHANCE: &[&str] = &["swap::a_swap_given_up_leaves_one_of_the_two"];

/// Names the server to the process that is started for it.
const SERVER: &str = "SERVER_OF_THE_TEST";

fn main() -> ExitCode {
    match env::var(SERVER).as_deref() {
        Ok("moto") => run(Server::Moto),
        Ok("ministack") => run(Server::Ministack),
        Ok("policies") => run(Server::Policies),
        _ => start(),
    }
}

/// Starts each server, and this program for it.
fn start() -> ExitCode {
    let servers: [Start; 3] = [
        || (Server::Moto, Aws::moto()),
        || (Server::Policies, Aws::moto().going_by_policies()),
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
    let of_the_suite = cases().map(|case| trial(&runtime, &fixture, case, server));
    let (mut trials, more): (Vec<_>, Vec<_>) = match server {
        Server::Moto => (
            of_the_suite.collect(),
            [trouble::TRIALS, alone::TRIALS].concat(),
        ),
        Server::Policies => (Vec::new(), policies::TRIALS.to_vec()),
        Server::Ministack => (of_the_suite.collect(), Vec::new()),
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
    // Some of them do nothing but wait.
    arguments.test_threads.get_or_insert(6);
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A case of the suite; a departure passes if the case fails.
fn trial(runtime: &Arc<Runtime>, fixture: &Arc<Secrets>, case: Case, server: Server) -> Trial {
    let (runtime, fixture) = (Arc::clone(runtime), Arc::clone(fixture));
    let departure = DEPARTURES
        .iter()
        .find(|(_, cases)| server == Server::Ministack && cases.contains(&case.name()));
    let by_chance = BY_CHANCE.contains(&case.name());
    let name = format!("{}::{}", server.name(), case.name());
    Trial::test(name.clone(), move || {
        let fixture: Arc<dyn Fixture> = fixture;
        let run = async { tokio::spawn(async move { case.run(fixture).await }).await };
        let answer = timed(&name, || runtime.block_on(run));
        match (departure, answer) {
            (None, Ok(Ok(()))) | (Some(_), Ok(Err(_)) | Err(_)) => Ok(()),
            (Some(_), Ok(Ok(()))) if by_chance => Ok(()),
            (None, Ok(Err(failure))) => Err(Failed::from(failure)),
            (None, Err(panic)) => Err(Failed::from(panic)),
            (Some((what, _)), Ok(Ok(()))) => Err(format!("it does as AWS does now: {what}").into()),
        }
    })
}
