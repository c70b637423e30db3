//! The conformance suite on real servers, for every store on the network.

mod azure;
mod refusals;
mod vault;

use std::process::ExitCode;

fn main() -> ExitCode {
    authferry_conformance::main_of(vec![
        ("azure", Box::new(azure::Secrets::new())),
        ("openbao_dev", Box::new(vault::Places::on_dev())),
        ("openbao_raft", Box::new(vault::Places::on_raft())),
        ("openbao_raft_strict", Box::new(vault::Places::on_strict())),
    ])
}
