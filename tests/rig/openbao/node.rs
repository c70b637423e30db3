//! One process of a server.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    PATIENCE,
    admin::{Admin, Door},
    health,
};
use crate::{
    kept::{Kept, free_ports},
    pki::Pki,
};

/// How often a server is given other ports because somebody else took its own.
const ATTEMPTS: u32 = 5;

/// What a server is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Dev,
    Raft,
}

/// A server's process, its folder and its ports.
pub(super) struct Node {
    program: PathBuf,
    mode: Mode,
    kept: Mutex<Kept>,
    folder: PathBuf,
    port: u16,
    pki: Option<Pki>,
    /// How it was started, to do so again.
    arguments: Vec<std::ffi::OsString>,
}

impl Node {
    pub(super) fn new(program: &Path, mode: Mode) -> io::Result<Self> {
        let kept = Kept::new("openbao-")?;
        Ok(Self {
            program: program.to_owned(),
            mode,
            folder: kept.folder().to_owned(),
            kept: Mutex::new(kept),
            port: 0,
            pki: None,
            arguments: Vec::new(),
        })
    }

    /// Starts it for the first time, on ports that are free.
    pub(super) fn launch(&mut self, command: &dyn Fn(&Self) -> Command) {
        for _ in 0..ATTEMPTS {
            self.port = free_ports();
            let mut command = command(self);
            self.arguments = command.get_args().map(ToOwned::to_owned).collect();
            self.kept().start(&mut command).expect("a program");
            if self.comes_up() {
                return;
            }
        }
        panic!("OpenBao does not start:\n{}", self.last_words());
    }

    /// Starts it once more as it was.
    pub(super) fn start_again(&self) {
        assert_eq!(self.mode, Mode::Raft, "nothing would be left of it");
        let mut command = self.bao();
        command.args(&self.arguments);
        self.kept().start(&mut command).expect("a program");
        assert!(
            self.comes_up(),
            "OpenBao does not start again:\n{}",
            self.last_words()
        );
    }

    pub(super) fn kill(&self) {
        self.kept().kill();
    }

    pub(super) fn signal(&self, name: &str) {
        let pid = self.kept().pid().expect("it was started").to_string();
        let sent = Command::new("/bin/kill")
            .args([&format!("-{name}"), &pid])
            .status();
        assert!(sent.is_ok_and(|it| it.success()), "cannot signal {pid}");
    }

    pub(super) fn url(&self) -> String {
        let scheme = match self.mode {
            Mode::Dev => "http",
            Mode::Raft => "https",
        };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub(super) fn door(&self) -> Door {
        match self.mode {
            Mode::Dev => Door::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))),
            Mode::Raft => Door::Unix(self.socket()),
        }
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.folder().join("admin")
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn pki(&self) -> Option<&Pki> {
        self.pki.as_ref()
    }

    pub(super) fn set_pki(&mut self, pki: Pki) {
        self.pki = Some(pki);
    }

    /// The program, with nothing of the test's environment.
    pub(super) fn bao(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.folder())
            .current_dir(self.folder());
        command
    }

    pub(super) fn last_words(&self) -> String {
        self.kept().last_words()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it answers at all; `false` if it ends instead.
    fn comes_up(&self) -> bool {
        let admin = Admin::new(self.door(), "");
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            // Asked first: what answers may be somebody else's who took the port.
            if !self.kept().is_alive() {
                return false;
            }
            if health(&admin).is_some() {
                return self.kept().is_alive();
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}
