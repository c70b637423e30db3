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

use std::{process::ExitCode, sync::Arc};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime;

pub use cases::{Case, Failure, cases};
pub use faulty::{Fault, Faulty};
pub use fixture::{Fixture, Refusal};
pub use memory::MemoryStore;

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
    let fixture: Arc<dyn Fixture> = Arc::new(fixture);
    let runtime = Arc::new(
        runtime::Builder::new_multi_thread()
            // As many as race, however few processors there are.
            .worker_threads(cases::RACERS)
            .enable_all()
            .build()
            .expect("no threads for the runtime"),
    );
    let trials = cases()
        .map(|case| {
            let (fixture, runtime) = (Arc::clone(&fixture), Arc::clone(&runtime));
            Trial::test(case.name(), move || {
                runtime.block_on(case.run(fixture)).map_err(Failed::from)
            })
        })
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
