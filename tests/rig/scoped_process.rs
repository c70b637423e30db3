//! Server processes that never outlive their test.

use std::{
    fs::{self, File},
    io::{self, Write},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use tempfile::TempDir;

/// A folder, and at most one process that works in it.
///
/// Dropping this ends the process and removes the folder. So does the end of the test's process: a
/// static is never dropped, and a killed test run drops nothing.
#[derive(Debug)]
pub(crate) struct ScopedProcess {
    folder: PathBuf,
    process: Option<Child>,
    keeper: Child,
    keeper_input: Option<ChildStdin>,
}

/// The script of the keeper: when its input ends, it kills the last process whose id it read, and
/// removes the folder. The input ends when our process ends, for any reason.
const KEEPER: &str = r#"
while read -r line; do pid=$line; done
[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
rm -rf "$1"
"#;

impl ScopedProcess {
    /// Creates the folder.
    pub(crate) fn new(prefix: &str) -> io::Result<Self> {
        let folder = TempDir::with_prefix(prefix)?.keep();
        let mut keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            // An interrupt of the test must not end the keeper before it has cleaned up.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            folder,
            process: None,
            keeper_input: keeper.stdin.take(),
            keeper,
        })
    }

    /// Returns the folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the process with its output in a file of the folder.
    pub(crate) fn start(&mut self, command: &mut Command) -> io::Result<()> {
        self.kill();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("log"))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()?;
        self.send_to_keeper(&child.id().to_string());
        self.process = Some(child);
        Ok(())
    }

    /// Returns the id of the process, if one was started.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Returns whether the process still runs.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Kills the process with SIGKILL, as a machine that crashes.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            // It may have ended already.
            drop(child.kill());
            drop(child.wait());
            self.send_to_keeper("");
        }
    }

    /// Returns the end of the process's output.
    pub(crate) fn output_tail(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn send_to_keeper(&mut self, line: &str) {
        if let Some(input) = &mut self.keeper_input {
            // Writing fails if the keeper was killed.
            drop(writeln!(input, "{line}"));
        }
    }
}

impl Drop for ScopedProcess {
    fn drop(&mut self) {
        self.kill();
        drop(self.keeper_input.take());
        drop(self.keeper.wait());
    }
}

/// Returns a free loopback port whose successor is free too.
///
/// It lies below the range for outgoing connections, so that no connection takes it while a server
/// is briefly down.
pub(crate) fn free_ports() -> u16 {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut seed = std::process::id() ^ now.map_or(0, |now| now.subsec_nanos());
    loop {
        // The golden ratio spreads consecutive numbers.
        seed = seed.wrapping_add(DRAWN.fetch_add(1, Ordering::Relaxed) + 1);
        let spread = seed.wrapping_mul(0x9e37_79b9) >> 16;
        let port = 12_000 + u16::try_from(spread % 10_000).expect("less than that") * 2;
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + 1) {
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    fn exists(pid: u32) -> bool {
        Command::new("/bin/kill")
            .args(["-0", &pid.to_string()])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|it| it.success())
    }

    #[test]
    fn drop_ends_the_process_and_removes_the_folder() {
        let mut process = ScopedProcess::new("scoped-").expect("a folder");
        process
            .start(Command::new("sleep").arg("600"))
            .expect("a process");
        let (pid, folder) = (process.pid().expect("started"), process.folder().to_owned());
        assert!(process.is_alive() && exists(pid) && folder.exists());
        drop(process);
        assert!(!exists(pid) && !folder.exists());
    }

    #[test]
    fn the_keeper_cleans_up_without_a_drop() {
        let mut process = ScopedProcess::new("scoped-").expect("a folder");
        process
            .start(Command::new("sleep").arg("600"))
            .expect("a process");
        let folder = process.folder().to_owned();
        // The end of our process closes the keeper's input in the same way.
        drop(process.keeper_input.take());
        assert!(process.keeper.wait().expect("our child").success());
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.is_alive() {
            assert!(Instant::now() < deadline, "the process was left behind");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!folder.exists());
    }
}
