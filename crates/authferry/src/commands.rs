//! One function a command.

mod ahead;
mod apart;
mod doctor;
mod refresh;
mod rescue;
mod seed;
mod status;
mod trips;
mod watch;

use std::{
    future::Future,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use authferry_core::SecretStore;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use crate::args::{Command, Global};
use crate::ending::{Ending, Result};
use crate::exit;

/// Carries a command out.
pub(crate) fn run(command: Command, global: &Global) -> Result<Ending> {
    match command {
        Command::Run(args) => trips::run(&args, global),
        Command::Restore(args) => trips::restore(&args, global),
        Command::Watch(args) => watch::watch(&args, global),
        Command::Persist(args) => trips::persist(&args, global),
        Command::Refresh(args) => refresh::refresh(&args, global),
        Command::Seed(args) => seed::seed(&args, global),
        Command::Apart(args) => apart::apart(&args),
        Command::Rescue(args) => rescue::rescue(&args, global),
        Command::Status(args) => status::status(&args, global),
        Command::Doctor(args) => doctor::doctor(&args, global),
    }
}

/// How long a store may take to end what was begun to reach it, on top of its own time: a job that
/// is cancelled has no more.
const FAREWELL: Duration = Duration::from_secs(1);

/// Awaits what works with `store` on this one thread, and closes the store. A thread that
/// hangs in a file system is left behind.
fn block_on<T>(store: &dyn SecretStore, future: impl Future<Output = T>) -> Result<T> {
    let runtime = runtime()?;
    let value = runtime.block_on(async {
        authferry_runner::survive_file_size_limit();
        let value = future.await;
        // Nobody waits for a server that is gone: what is not ended here expires.
        let _in_time = timeout(FAREWELL, store.close()).await;
        value
    });
    runtime.shutdown_background();
    Ok(value)
}

/// What awaits, on this one thread.
fn runtime() -> Result<Runtime> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.map_err(|error| {
        Ending::refused(exit::FAILED, "the system gives no event queue").caused_by(&error)
    })?)
}

/// The Unix second that is so far away.
pub(crate) fn from_now(span: Duration) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.saturating_add(span).as_secs()).unwrap_or(i64::MAX)
}
