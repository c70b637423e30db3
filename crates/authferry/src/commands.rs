//! The commands: one function each.

mod doctor;
mod open_home;
mod refresh;
mod rescue;
mod rotate_first;
mod round_trips;
mod seed;
mod status;
mod supervise;
mod watch;

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::channel,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use authferry_runner::rescue::Rescue;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use crate::args::{Command, Global};
use crate::exit;
use crate::messages;
use crate::outcome::{Ending, Result};
use crate::plan::Plan;

/// Executes a command.
pub(crate) fn run(command: Command, global: &Global) -> Result<Ending> {
    match command {
        Command::Run(args) => round_trips::run(&args, global),
        Command::Restore(args) => round_trips::restore(&args, global),
        Command::Watch(args) => watch::watch(&args, global),
        Command::Persist(args) => round_trips::persist(&args, global),
        Command::Refresh(args) => refresh::refresh(&args, global),
        Command::Seed(args) => seed::seed(&args, global),
        Command::Supervise(args) => supervise::supervise(&args, global),
        Command::Rescue(args) => rescue::rescue(&args, global),
        Command::Status(args) => status::status(&args, global),
        Command::Doctor(args) => doctor::doctor(&args, global),
    }
}

/// The timeout to close a store, after its other timeouts: a cancelled job has no more time.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Runs a future on this thread, and closes the stores. Does not wait for a thread that hangs in a
/// file system.
fn block_on<T>(plan: &Plan, future: impl Future<Output = T>) -> Result<T> {
    let runtime = runtime()?;
    start_blocking_threads(&runtime)?;
    let value = runtime.block_on(async {
        authferry_runner::survive_file_size_limit();
        let value = future.await;
        close(plan).await;
        value
    });
    runtime.shutdown_background();
    Ok(value)
}

/// Runs a future on this thread, for a request that concerns no store.
#[cfg(feature = "ping")]
pub(crate) fn run_alone<T>(future: impl Future<Output = T>) -> Result<T> {
    let runtime = runtime()?;
    start_blocking_threads(&runtime)?;
    let value = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(value)
}

/// Releases what opening the stores acquired. Does not wait for a server that does not answer: what
/// is not released expires.
async fn close(plan: &Plan) {
    let _in_time = timeout(CLOSE_TIMEOUT, plan.store.close()).await;
    if let Some(second) = &plan.second_store {
        let _in_time = timeout(CLOSE_TIMEOUT, second.close()).await;
    }
}

/// Reads the second store before a token is spent: it may hold a later login.
async fn read_second_store(rescue: &Rescue, limit: Duration) -> Result<()> {
    let loaded = rescue.load_second_store(limit).await;
    Ok(loaded.map_err(|error| messages::second_store(&error))?)
}

/// Builds the runtime of this thread.
fn runtime() -> Result<Runtime> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build();
    Ok(runtime.map_err(|error| {
        Ending::refused(exit::FAILED, "the system provides no event queue").caused_by(&error)
    })?)
}

/// Longer than any job: the runtime never ends a thread for blocking calls.
const THREAD_KEEP_ALIVE: Duration = Duration::from_hours(24 * 365);

/// The number of threads for blocking calls: the second works while a call hangs in the first.
const BLOCKING_THREADS: usize = 2;

/// Starts the threads for blocking calls (disk, name resolution) before anything is touched: the
/// command may use up the system's threads. A call then waits for an existing thread. Without one,
/// the runtime would panic.
fn start_blocking_threads(runtime: &Runtime) -> Result<()> {
    let refused = || {
        Ending::refused(exit::FAILED, "the system cannot create a thread").hint(
            "raise the process limit (`ulimit -u`, or that of the container), and run the command \
             again",
        )
    };
    // The runtime panics if it gets no thread.
    let spare = thread::Builder::new().spawn(|| ());
    let spare = spare.map_err(|error| refused().caused_by(&error))?;
    spare.join().ok();
    let mut busy = Vec::new();
    for _ in 0..BLOCKING_THREADS {
        let (hold, released) = channel::<()>();
        let started = catch_unwind(AssertUnwindSafe(|| {
            // Each thread stays busy until all have started: an idle one would be reused.
            drop(runtime.spawn_blocking(move || released.recv().ok()));
        }));
        if started.is_err() {
            return Err(refused().into());
        }
        busy.push(hold);
    }
    Ok(())
}

/// The time after `span` from now, in Unix seconds.
pub(crate) fn from_now(span: Duration) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.saturating_add(span).as_secs()).unwrap_or(i64::MAX)
}
