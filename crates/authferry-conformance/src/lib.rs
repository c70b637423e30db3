//! What every store must do.
//!
//! A backend writes a [`Fixture`], which opens handles on places of its store, and
//! runs the suite on it from a test with `harness = false`:
//!
//! ```text
//! fn main() -> ExitCode {
//!     authferry_conformance::main(MyPlaces::new())
//! }
//! ```
//!
//! The output is the usual test summary, and the usual arguments choose a subset.
//! Which cases apply follows from what the store declares, and the fixture pins the
//! declaration: promising less skips nothing in silence.
//!
//! [`MemoryStore`] is the reference: the shortest store that passes. [`Faulty`] breaks
//! the wire between a caller and any store, before a write or after it.

mod bidder;
mod cases;
mod faulty;
mod fixture;
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

/// Runs every case on `fixture` as a named test, chosen by the program's arguments.
///
/// The exit code is that of any test program. All cases share one runtime, so that a
/// fixture may keep connections.
///
/// # Panics
///
/// Panics if the system gives no threads to run on.
#[must_use]
pub fn main(fixture: impl Fixture + 'static) -> ExitCode {
    run(
        cases().map(|case| (case.name().to_owned(), case, 0)),
        &[Arc::new(fixture)],
    )
}

/// Does so on each of several fixtures, whose names come first in the names of the tests.
///
/// # Panics
///
/// Panics if the system gives no threads to run on.
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

/// Runs cases under a name each, each on the fixture of a number.
fn run(
    tests: impl Iterator<Item = (String, Case, usize)>,
    fixtures: &[Arc<dyn Fixture>],
) -> ExitCode {
    let runtime = Arc::new(
        runtime::Builder::new_multi_thread()
            // As many as race, however few processors there are.
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
