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
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::channel,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use authferry_runner::rescue::Rescue;
use tokio::runtime::{self, Runtime};
use tokio::time::timeout;

use crate::args::{Command, Global};
use crate::ending::{Ending, Result};
use crate::exit;
use crate::plan::Plan;
use crate::telling;

/// Carries a command out.
pub(crate) fn run(command: Command, global: &Global) -> Result<Ending> {
    match command {
        Command::Run(args) => trips::run(&args, global),
        Command::Restore(args) => trips::restore(&args, global),
        Command::Watch(args) => watch::watch(&args, global),
        Command::Persist(args) => trips::persist(&args, global),
        Command::Refresh(args) => refresh::refresh(&args, global),
        Command::Seed(args) => seed::seed(&args, global),
        Command::Apart(args) => apart::apart(&args, global),
        Command::Rescue(args) => rescue::rescue(&args, global),
        Command::Status(args) => status::status(&args, global),
        Command::Doctor(args) => doctor::doctor(&args, global),
    }
}

/// How long a store may take to end what was begun to reach it, on top of its own time: a job that
/// is cancelled has no more.
const FAREWELL: Duration = Duration::from_secs(1);

/// Awaits what works with the stores on this one thread, and closes them. A thread that
/// hangs in a file system is left behind.
fn block_on<T>(plan: &Plan, future: impl Future<Output = T>) -> Result<T> {
    let runtime = runtime()?;
    begin_threads(&runtime)?;
    let value = runtime.block_on(async {
        authferry_runner::survive_file_size_limit();
        let value = future.await;
        close(plan).await;
        value
    });
    runtime.shutdown_background();
    Ok(value)
}

/// Releases what opening the stores acquired. It does not wait for a server that does not answer:
/// what is not released expires.
async fn close(plan: &Plan) {
    let _in_time = timeout(FAREWELL, plan.store.close()).await;
    if let Some(second) = &plan.second_store {
        let _in_time = timeout(FAREWELL, second.close()).await;
    }
}

/// Reads the second store before anything may be spent: it may hold a later login.
async fn look_into_second_store(rescue: &Rescue, limit: Duration) -> Result<()> {
    let looked = rescue.look(limit).await;
    Ok(looked.map_err(|error| telling::second_store(&error))?)
}

/// What awaits, on this one thread.
fn runtime() -> Result<Runtime> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(A_JOB)
        .build();
    Ok(runtime.map_err(|error| {
        Ending::refused(exit::FAILED, "the system gives no event queue").caused_by(&error)
    })?)
}

/// Longer than any job: a thread for what blocks is never given back.
const A_JOB: Duration = Duration::from_hours(24 * 365);

/// As many as that: the second is for what hangs in the first.
const THREADS: usize = 2;

/// Begins the threads for what blocks (the disk, the look-up of a name), before anything is touched:
/// the command may use up what the system has. A request then waits for a thread that is there, where
/// the runtime would panic without any.
fn begin_threads(runtime: &Runtime) -> Result<()> {
    let refused = || {
        Ending::refused(exit::FAILED, "the system gives no thread").hint(
            "raise the limit for processes (`ulimit -u`, or that of the container), and run the \
             command again",
        )
    };
    // The runtime does not say that it gets none, but panics.
    let spare = thread::Builder::new().spawn(|| ());
    let spare = spare.map_err(|error| refused().caused_by(&error))?;
    spare.join().ok();
    let mut busy = Vec::new();
    for _ in 0..THREADS {
        let (hold, released) = channel::<()>();
        let begun = catch_unwind(AssertUnwindSafe(|| {
            // Each is busy until all have begun, or one would do the work of two.
            drop(runtime.spawn_blocking(move || released.recv().ok()));
        }));
        if begun.is_err() {
            return Err(refused().into());
        }
        busy.push(hold);
    }
    Ok(())
}

/// The Unix second that is so far away.
pub(crate) fn from_now(span: Duration) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.saturating_add(span).as_secs()).unwrap_or(i64::MAX)
}
