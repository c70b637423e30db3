//! One function a command.

mod seed;
mod status;
mod trips;

use std::future::Future;

use crate::args::{Command, Global};
use crate::ending::{Ending, Result};
use crate::exit;

/// Carries a command out.
pub(crate) fn run(command: Command, global: &Global) -> Result<Ending> {
    match command {
        Command::Run(args) => trips::run(&args, global),
        Command::Restore(args) => trips::restore(&args, global),
        Command::Persist(args) => trips::persist(&args, global),
        Command::Seed(args) => seed::seed(&args, global),
        Command::Status(args) => status::status(&args, global),
    }
}

/// Awaits on this one thread. A thread that hangs in a file system is left behind.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| {
        Ending::refused(exit::FAILED, "the system gives no event queue").because(&error)
    })?;
    let value = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(value)
}
