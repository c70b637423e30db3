//! One server process.

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
    START_TIMEOUT,
    admin::{Admin, AdminEndpoint},
    health,
};
use crate::{
    pki::Pki,
    scoped_process::{ScopedProcess, free_ports},
};

/// How many pairs of ports to try when another program takes the chosen ones.
const ATTEMPTS: u32 = 5;

/// The kind of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Dev,
    Raft,
}

/// A server's process, its folder and its ports.
pub(super) struct Node {
    program: PathBuf,
    mode: Mode,
    process: Mutex<ScopedProcess>,
    folder: PathBuf,
    port: u16,
    pki: Option<Pki>,
    /// The arguments of the first start, for a restart.
    arguments: Vec<std::ffi::OsString>,
}

impl Node {
    pub(super) fn new(program: &Path, mode: Mode) -> io::Result<Self> {
        let process = ScopedProcess::new("openbao-")?;
        Ok(Self {
            program: program.to_owned(),
            mode,
            folder: process.folder().to_owned(),
            process: Mutex::new(process),
            port: 0,
            pki: None,
            arguments: Vec::new(),
        })
    }

    /// Starts the server for the first time, on free ports.
    pub(super) fn launch(&mut self, command: &dyn Fn(&Self) -> Command) {
        for _ in 0..ATTEMPTS {
            self.port = free_ports();
            let mut command = command(self);
            self.arguments = command.get_args().map(ToOwned::to_owned).collect();
            self.process().start(&mut command).expect("a program");
            if self.wait_until_ready() {
                return;
            }
        }
        panic!("OpenBao does not start:\n{}", self.output_tail());
    }

    /// Starts the server again with the same arguments.
    pub(super) fn restart_process(&self) {
        assert_eq!(self.mode, Mode::Raft, "nothing would be left of it");
        let mut command = self.bao();
        command.args(&self.arguments);
        self.process().start(&mut command).expect("a program");
        assert!(
            self.wait_until_ready(),
            "OpenBao does not start again:\n{}",
            self.output_tail()
        );
    }

    pub(super) fn kill(&self) {
        self.process().kill();
    }

    pub(super) fn signal(&self, name: &str) {
        let pid = self.process().pid().expect("it was started").to_string();
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

    pub(super) fn endpoint(&self) -> AdminEndpoint {
        match self.mode {
            Mode::Dev => AdminEndpoint::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))),
            Mode::Raft => AdminEndpoint::Unix(self.socket()),
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

    /// The `bao` command with an otherwise empty environment.
    pub(super) fn bao(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.folder())
            .current_dir(self.folder());
        command
    }

    pub(super) fn output_tail(&self) -> String {
        self.process().output_tail()
    }

    fn process(&self) -> MutexGuard<'_, ScopedProcess> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the server answers; `false` if its process ends first.
    fn wait_until_ready(&self) -> bool {
        let admin = Admin::new(self.endpoint(), "");
        let deadline = Instant::now() + START_TIMEOUT;
        while Instant::now() < deadline {
            // Check the process first: another program may have taken the port and answer.
            if !self.process().is_alive() {
                return false;
            }
            if health(&admin).is_some() {
                return self.process().is_alive();
            }
            thread::sleep(Duration::from_millis(10));
        }
        false
    }
}
