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
/// Both are gone when this is dropped, and also when the test's process ends in another
/// way: a static is never dropped, and nothing is when a test run is killed.
#[derive(Debug)]
pub(crate) struct Kept {
    folder: PathBuf,
    process: Option<Child>,
    keeper: Child,
    tell: Option<ChildStdin>,
}

/// Remembers the last process that it was told of. Its input ends with our process, in
/// whatever way that ends.
const KEEPER: &str = r#"
while read -r told; do pid=$told; done
[ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null
rm -rf "$1"
"#;

impl Kept {
    /// Makes the folder.
    pub(crate) fn new(prefix: &str) -> io::Result<Self> {
        let folder = TempDir::with_prefix(prefix)?.keep();
        let mut keeper = Command::new("/bin/sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&folder)
            .current_dir("/")
            .stdin(Stdio::piped())
            // What interrupts the test must not end this before its work is done.
            .process_group(0)
            .spawn()?;
        Ok(Self {
            folder,
            process: None,
            tell: keeper.stdin.take(),
            keeper,
        })
    }

    /// Returns the folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the process, which says what it has to say to a file in the folder.
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
        self.tell(&child.id().to_string());
        self.process = Some(child);
        Ok(())
    }

    /// Returns the id of the process, if one was started.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Returns whether the process is still there.
    pub(crate) fn is_alive(&mut self) -> bool {
        self.process
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Ends the process at once, as a machine does that dies.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.process.take() {
            // If it has ended already, all the better.
            drop(child.kill());
            drop(child.wait());
            self.tell("");
        }
    }

    /// Returns the end of what the process said.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read(self.folder.join("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn tell(&mut self, line: &str) {
        if let Some(tell) = &mut self.tell {
            // A keeper that somebody has killed cannot be told anything.
            drop(writeln!(tell, "{line}"));
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.kill();
        drop(self.tell.take());
        drop(self.keeper.wait());
    }
}

/// Returns a loopback port that is free, and so is the one above it.
///
/// It lies below those that the system gives to outgoing connections, so that nobody gets it
/// by chance while a server is down for a moment.
pub(crate) fn free_ports() -> u16 {
    static DRAWN: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let mut seed = std::process::id() ^ now.map_or(0, |now| now.subsec_nanos());
    loop {
        // The golden ratio spreads what comes next to each other.
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
    fn the_process_and_the_folder_go_with_it() {
        let mut kept = Kept::new("kept-").expect("a folder");
        kept.start(Command::new("sleep").arg("600"))
            .expect("a process");
        let (pid, folder) = (kept.pid().expect("started"), kept.folder().to_owned());
        assert!(kept.is_alive() && exists(pid) && folder.exists());
        drop(kept);
        assert!(!exists(pid) && !folder.exists());
    }

    #[test]
    fn they_go_too_when_nothing_is_dropped() {
        let mut kept = Kept::new("kept-").expect("a folder");
        kept.start(Command::new("sleep").arg("600"))
            .expect("a process");
        let folder = kept.folder().to_owned();
        // What the end of our process does to the keeper.
        drop(kept.tell.take());
        assert!(kept.keeper.wait().expect("our child").success());
        let deadline = Instant::now() + Duration::from_secs(10);
        while kept.is_alive() {
            assert!(Instant::now() < deadline, "the process was left behind");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!folder.exists());
    }
}
