//! The conformance suite: the behavior that every store must have.
//!
//! A backend implements [`Fixture`], which opens handles on places of its store, and runs
//! the suite from a test with `harness = false`:
//!
//! ```text
//! fn main() -> ExitCode {
//!     authferry_conformance::main(MyPlaces::new())
//! }
//! ```
//!
//! The output and the command-line filters are those of `cargo test`. The cases adapt to the
//! guarantees that the store declares. The fixture repeats the guarantees, so that a store cannot
//! skip a check by declaring less.
//!
//! [`MemoryStore`] is the reference: the shortest store that passes. [`Faulty`] injects network
//! faults between a caller and any store, before or after a write.

mod cases;
mod faulty;
mod fixture;
mod lease_client;
mod memory;
mod place;
mod times;

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime;

pub use cases::{Case, Failure, cases};
pub use faulty::{Fault, Faulty};
pub use fixture::{Fixture, Refusal};
pub use memory::MemoryStore;
pub use times::timed;

/// Runs every case on `fixture` as a named test; the program's arguments filter the cases.
///
/// Returns the exit code of a test program. All cases share one runtime, so that a fixture can
/// keep connections.
///
/// # Panics
///
/// Panics if the runtime's threads cannot be started.
#[must_use]
pub fn main(fixture: impl Fixture + 'static) -> ExitCode {
    run(
        cases().map(|case| (case.name().to_owned(), case, 0)),
        &[Arc::new(fixture)],
    )
}

/// Like [`main`], on several fixtures. A test's name starts with the name of its fixture.
///
/// # Panics
///
/// Panics if the runtime's threads cannot be started.
#[must_use]
pub fn main_of(fixtures: Vec<(&str, Box<dyn Fixture>)>) -> ExitCode {
    let (names, fixtures): (Vec<_>, Vec<_>) = fixtures
        .into_iter()
        .map(|(name, fixture)| (name, Arc::from(fixture)))
        .unzip();
    let tests = names.iter().enumerate().flat_map(|(number, name)| {
        cases().map(move |case| (format!("{name}::{}", case.name()), case, number))
    });
    run(tests, &fixtures)
}

/// Runs each case as the named test, on the fixture with the given index.
fn run(
    tests: impl Iterator<Item = (String, Case, usize)>,
    fixtures: &[Arc<dyn Fixture>],
) -> ExitCode {
    let runtime = Arc::new(
        runtime::Builder::new_multi_thread()
            // One thread per racer, even on a machine with fewer processors.
            .worker_threads(cases::RACERS)
            .enable_all()
            .build()
            .expect("no threads for the runtime"),
    );
    let trials = tests
        .map(|(name, case, number)| {
            let (fixture, runtime) = (Arc::clone(&fixtures[number]), Arc::clone(&runtime));
            Trial::test(name.clone(), move || {
                timed(&name, || runtime.block_on(case.run(fixture))).map_err(Failed::from)
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
