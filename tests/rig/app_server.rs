//! Codex's app-server, which can rotate a login without a model call.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, Write},
    process::{Child, ChildStdin, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::Runner;

/// How long a reply may take before the server counts as hung.
const REPLY_TIMEOUT: Duration = Duration::from_mins(3);

/// A running `codex app-server`. The test talks to it over stdio, as a program that embeds Codex
/// does.
#[derive(Debug)]
pub struct AppServer {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    stderr: File,
    asked: u32,
}

impl AppServer {
    /// Starts the server on a runner and initializes it.
    pub fn start(runner: &Runner) -> io::Result<Self> {
        let stderr = tempfile::tempfile()?;
        let mut child = runner
            .command("codex")
            .arg("app-server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?)
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("no pipes"));
        };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines
                .map_while(|line| sender.send(line).ok())
                .for_each(drop);
        });
        let mut server = Self {
            child,
            input,
            lines,
            stderr,
            asked: 0,
        };
        let client = json!({"clientInfo": {"name": "rig", "title": null, "version": "0"}});
        server.ask("initialize", &client)?;
        server.send(&json!({"method": "initialized"}))?;
        Ok(server)
    }

    /// Asks for the authentication status. Codex may rotate the login before it replies.
    pub fn auth_status(&mut self, refresh_token: bool) -> io::Result<Value> {
        let wish = json!({"includeToken": false, "refreshToken": refresh_token});
        self.ask("getAuthStatus", &wish)
    }

    /// Sends a request and returns the whole reply, which has a `result` or an `error`.
    pub fn ask(&mut self, method: &str, params: &Value) -> io::Result<Value> {
        self.asked += 1;
        let id = self.asked;
        self.send(&json!({"id": id, "method": method, "params": params}))?;
        loop {
            let line = self
                .lines
                .recv_timeout(REPLY_TIMEOUT)
                .map_err(io::Error::other)?;
            let message: Value = serde_json::from_str(&line)?;
            // Every other message is a notification.
            if message["id"] == id {
                return Ok(message);
            }
        }
    }

    /// Closes the input and returns the exit status and the error output.
    pub fn finish(self) -> io::Result<(ExitStatus, String)> {
        let Self {
            mut child,
            input,
            mut stderr,
            ..
        } = self;
        drop(input);
        let status = child.wait()?;
        let mut errors = String::new();
        stderr.rewind()?;
        stderr.read_to_string(&mut errors)?;
        Ok((status, errors))
    }

    fn send(&mut self, message: &Value) -> io::Result<()> {
        writeln!(self.input, "{message}")
    }
}
