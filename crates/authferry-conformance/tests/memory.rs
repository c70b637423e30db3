//! The reference store passes the suite.

mod places;

use std::process::ExitCode;

fn main() -> ExitCode {
    authferry_conformance::main(places::Places::new(|store, _| store))
}
