//! The programs of a scene, and their timeout.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::{
        LazyLock,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use nix::sys::signal::{Signal, kill};

use crate::tracee::processes;

/// The timeout of a job: a longer one counts as hung. The longest wait in a job without a fault
/// takes less than a second.
const JOB_TIMEOUT: Duration = Duration::from_mins(2);

/// Runs `act`, and kills the processes of a scene if it takes too long.
pub(crate) fn limited<T>(root: &Path, act: impl FnOnce() -> T) -> (T, bool) {
    let (done, is_done) = channel::<()>();
    let root = root.to_owned();
    let guard = thread::spawn(move || {
        let hung = is_done.recv_timeout(JOB_TIMEOUT) == Err(RecvTimeoutError::Timeout);
        while hung && is_done.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout)
        {
            for id in processes(&root) {
                kill(id, Signal::SIGKILL).ok();
            }
        }
        hung
    });
    let result = act();
    drop(done);
    (result, guard.join().unwrap_or(true))
}

/// The program under test: the one that cargo built, unless `AUTHFERRY_TEST_PROGRAM` names another.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
        let built = env!("CARGO_BIN_EXE_authferry-under-test");
        let path = env::var_os("AUTHFERRY_TEST_PROGRAM").map_or(built.into(), PathBuf::from);
        path.canonicalize().expect("a program to test")
    });
    &PROGRAM
}

/// The folder in which this program has the name of Codex.
pub(crate) fn tools() -> io::Result<PathBuf> {
    static MADE: LazyLock<io::Result<PathBuf>> = LazyLock::new(|| {
        let this = env::current_exe()?;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sweep/bin");
        fs::create_dir_all(&folder)?;
        let folder = folder.canonicalize()?;
        let new = folder.join(std::process::id().to_string());
        fs::hard_link(&this, &new)?;
        fs::rename(&new, folder.join("codex"))?;
        // If both names are the same file already, rename leaves the new name in place.
        fs::remove_file(&new).ok();
        Ok(folder)
    });
    match &*MADE {
        Ok(folder) => Ok(folder.clone()),
        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
    }
}
