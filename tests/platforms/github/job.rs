//! One job on an ephemeral machine, with the parts of the runner that an action can observe.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rig::{MARKERS, Node24, Runner};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::console::{CommandParser, Console};
use crate::ferry::files;
use crate::ferry::under_test;

/// From `workflow-cancellation` of GitHub's documentation.
const BEFORE_TERM: Duration = Duration::from_millis(7500);
const BEFORE_KILL: Duration = Duration::from_millis(2500);

/// A step that takes longer counts as hung.
const STEP_TIMEOUT: Duration = Duration::from_mins(3);

/// A running job.
pub(crate) struct Job {
    pub(crate) runner: Runner,
    node: Node24,
    /// The action, checked out for this job.
    pub(crate) action: PathBuf,
    /// The parsed `action.yml`.
    manifest: Value,
    /// The job's environment, which steps can extend.
    pub(crate) env: BTreeMap<String, String>,
    console: Arc<Mutex<Console>>,
    /// The post steps, in the order of their main steps.
    posts: Vec<Post>,
}

/// What the runner keeps of a step for its post step.
struct Post {
    inputs: Vec<(String, String)>,
    env: Vec<(String, String)>,
    state: BTreeMap<String, String>,
}

/// A running step.
pub(crate) struct Step {
    child: Child,
    files: [PathBuf; 5],
    lines: Receiver<()>,
    inputs: Option<Vec<(String, String)>>,
}

/// The result of a step.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) summary: String,
}

/// The file commands of a step.
const FILES: [&str; 5] = [
    "GITHUB_STATE",
    "GITHUB_OUTPUT",
    "GITHUB_ENV",
    "GITHUB_PATH",
    "GITHUB_STEP_SUMMARY",
];

impl Job {
    /// Starts a job in a private repository.
    pub(crate) fn new(runner: Runner, env: BTreeMap<String, String>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let node = Node24::install().expect("Node from npm");
        let root = runner.root().to_owned();
        let at = |path: &str| root.join(path).display().to_string();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let action = root.join("actions/authferry");
        for folder in ["temp", "temp/_runner_file_commands", "actions/authferry"] {
            fs::create_dir_all(root.join(folder)).expect("disk space");
        }
        for file in fs::read_dir(deployed()).expect("the action") {
            let file = file.expect("an entry").path();
            if file.is_file() {
                let name = file.file_name().expect("a name");
                fs::copy(&file, action.join(name)).expect("disk space");
            }
        }
        let manifest = fs::read_to_string(action.join("action.yml")).expect("the action");
        let manifest = node.yaml(&manifest);
        assert_eq!(manifest["runs"]["using"], "node24");
        let mut all = BTreeMap::from(
            [
                ("CI", "true".to_owned()),
                ("GITHUB_ACTIONS", "true".to_owned()),
                ("GITHUB_SERVER_URL", "https://github.example".to_owned()),
                ("GITHUB_REPOSITORY", "acme/app".to_owned()),
                ("GITHUB_ACTION_REPOSITORY", "acme/authferry".to_owned()),
                ("GITHUB_RUN_ID", number.to_string()),
                ("GITHUB_RUN_ATTEMPT", "1".to_owned()),
                ("GITHUB_WORKSPACE", at("work")),
                ("GITHUB_EVENT_PATH", at("temp/event.json")),
                ("RUNNER_TEMP", at("temp")),
                (
                    "RUNNER_TRACKING_ID",
                    format!("github_{}_{number}", std::process::id()),
                ),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        all.extend(env);
        let job = Self {
            runner,
            node,
            action,
            manifest,
            env: all,
            console: Arc::default(),
            posts: Vec::new(),
        };
        job.event(&json!({"repository": {
            "full_name": "acme/app", "private": true, "visibility": "private"
        }}));
        job
    }

    /// Sets the event that triggered the job.
    pub(crate) fn event(&self, event: &Value) {
        fs::write(self.temp().join("event.json"), event.to_string()).expect("disk space");
    }

    /// The temporary folder of the job.
    pub(crate) fn temp(&self) -> PathBuf {
        self.runner.root().join("temp")
    }

    /// Runs a step that uses the action, with the program under test.
    pub(crate) fn uses(&mut self, with: &[(&str, &str)]) -> Ended {
        let step = self.start_uses(with);
        self.finish(step)
    }

    /// Starts a step that uses the action, with the program under test.
    pub(crate) fn start_uses(&mut self, with: &[(&str, &str)]) -> Step {
        let mut with = with.to_vec();
        if !with.iter().any(|(name, _)| *name == "version") {
            with.push(("path", under_test()));
        }
        self.start_action(&with, &[])
    }

    /// Starts a step that uses the action with exactly these inputs, and the step's own variables.
    pub(crate) fn start_action(&mut self, with: &[(&str, &str)], env: &[(String, String)]) -> Step {
        let known = self.manifest["inputs"].as_object().expect("inputs");
        for (name, _) in with {
            assert!(known.contains_key(*name), "there is no input {name}");
        }
        // The runner sets each input without a value and a default to the empty string.
        let inputs = known.iter().map(|(name, input)| {
            let given = with.iter().find(|(given, _)| given == name);
            let default = || input["default"].as_str().unwrap_or_default().to_owned();
            let value = given.map_or_else(default, |(_, value)| (*value).to_owned());
            (format!("INPUT_{}", name.to_uppercase()), value)
        });
        let inputs: Vec<_> = inputs.collect();
        // Register the post step first: it must run even if the main step fails.
        self.posts.push(Post {
            inputs: inputs.clone(),
            env: env.to_vec(),
            state: BTreeMap::new(),
        });
        let main = self.script("main");
        let mut step = self.start(self.node.program().as_os_str(), |command| {
            command
                .arg(main)
                .envs(inputs.clone())
                .envs(env.iter().cloned())
                .envs(ACTION_VARIABLES);
        });
        step.inputs = Some(inputs);
        step
    }

    /// Runs a step with `run`.
    pub(crate) fn run(&mut self, script: &str) -> Ended {
        let step = self.start_run(script);
        self.finish(step)
    }

    /// Starts a step with `run`.
    pub(crate) fn start_run(&mut self, script: &str) -> Step {
        self.start("bash".as_ref(), |command| {
            command.args(["-eo", "pipefail", "-c", script]);
        })
    }

    /// Waits until a step has exited and no process holds its streams.
    #[track_caller]
    pub(crate) fn finish(&mut self, mut step: Step) -> Ended {
        let deadline = Instant::now() + STEP_TIMEOUT;
        let code = loop {
            if let Some(status) = step.child.try_wait().expect("our child") {
                break status.code();
            }
            assert!(Instant::now() < deadline, "the step hangs: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        };
        self.end(step, code)
    }

    /// Cancels the job during a step. The exit code is `None` if the step had to be killed.
    pub(crate) fn cancel(&mut self, mut step: Step) -> Ended {
        let pid = i32::try_from(step.child.id()).expect("a small number");
        let pid = Pid::from_raw(pid).expect("not zero");
        for (signal, time) in [(Signal::INT, BEFORE_TERM), (Signal::TERM, BEFORE_KILL)] {
            kill_process(pid, signal).expect("our child");
            let until = Instant::now() + time;
            while Instant::now() < until {
                if let Some(status) = step.child.try_wait().expect("our child") {
                    return self.end(step, status.code());
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        for below in descendants(pid) {
            kill_process(below, Signal::KILL).ok();
        }
        step.child.kill().expect("our child");
        step.child.wait().expect("our child");
        self.end(step, None)
    }

    /// Ends the job: runs the post steps, last first, then kills the remaining processes.
    pub(crate) fn end_of_job(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        while let Some(post) = self.posts.pop() {
            let script = self.script("post");
            let state = post.state.into_iter();
            let state = state.map(|(name, value)| (format!("STATE_{name}"), value));
            let step = self.start(self.node.program().as_os_str(), |command| {
                command
                    .arg(script)
                    .envs(post.inputs)
                    .envs(post.env)
                    .envs(state)
                    .envs(ACTION_VARIABLES);
            });
            ended.push(self.finish(step));
        }
        self.kill_orphans();
        ended
    }

    /// Kills the machine with all its processes, without post steps.
    pub(crate) fn kill_machine(mut self, step: Option<Step>) {
        self.kill_orphans();
        if let Some(mut step) = step {
            step.child.wait().expect("our child");
        }
        self.posts.clear();
    }

    /// The running processes of the job.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let marker = format!("RUNNER_TRACKING_ID={}", self.env["RUNNER_TRACKING_ID"]);
        let is_of_job = |process: &u32| {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|it| it == marker.as_bytes())
        };
        let all = self.runner.processes().expect("/proc");
        all.into_iter().filter(is_of_job).collect()
    }

    pub(crate) fn log(&self) -> String {
        self.with_console(|console| console.log().to_owned())
    }

    pub(crate) fn with_console<T>(&self, look: impl FnOnce(&mut Console) -> T) -> T {
        look(&mut self.console.lock().expect("no panic"))
    }

    /// The files on this machine, and the log, that contain a part of a token.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut left = files(self.runner.root());
        left.push(("the log".to_owned(), self.log().into_bytes()));
        let shows = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            MARKERS.iter().any(|marker| text.contains(marker))
        };
        let found = left.into_iter().filter(|(_, bytes)| shows(bytes));
        found.map(|(place, _)| place).collect()
    }

    fn script(&self, which: &str) -> PathBuf {
        let name = self.manifest["runs"][which].as_str().expect("a file");
        self.action.join(name)
    }

    fn kill_orphans(&self) {
        while let Some(process) = self.processes().first() {
            let pid = i32::try_from(*process).expect("a small number");
            // The process may have exited.
            kill_process(Pid::from_raw(pid).expect("not zero"), Signal::KILL).ok();
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn start(&self, program: &std::ffi::OsStr, with: impl FnOnce(&mut Command)) -> Step {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = self.temp().join("_runner_file_commands");
        let files = FILES.map(|name| folder.join(format!("{}_{number}", name.to_lowercase())));
        let mut command = self.runner.command(program);
        command
            .envs(&self.env)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, file) in FILES.iter().zip(&files) {
            fs::write(file, "").expect("disk space");
            command.env(name, file);
        }
        with(&mut command);
        let mut child = command.spawn().expect("a program to start");
        let (closed, lines) = channel();
        let parser = Arc::new(Mutex::new(CommandParser::default()));
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("a pipe"));
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("a pipe"));
        for stream in [stdout, stderr] {
            let (console, parser, closed) = (self.console.clone(), parser.clone(), closed.clone());
            thread::spawn(move || {
                let mut lines = BufReader::new(stream);
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    let text = String::from_utf8_lossy(&line);
                    let mut console = console.lock().expect("no panic");
                    let mut parser = parser.lock().expect("no panic");
                    console.process_line(&mut parser, text.trim_end_matches(['\n', '\r']));
                    line.clear();
                }
                drop(closed);
            });
        }
        Step {
            child,
            files,
            lines,
            inputs: None,
        }
    }

    #[track_caller]
    fn end(&mut self, step: Step, code: Option<i32>) -> Ended {
        // A step ends when no process holds its streams: the runner would wait 5 seconds, and then
        // kill the holders.
        let held = step.lines.recv_timeout(STEP_TIMEOUT);
        assert_eq!(
            held,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected),
            "a process holds the step's streams"
        );
        let [state, outputs, env, _, summary] = step.files;
        if let (Some(_), Some(post)) = (step.inputs, self.posts.last_mut()) {
            post.state = pairs(&state);
        }
        self.env.extend(pairs(&env));
        Ended {
            code,
            outputs: pairs(&outputs),
            summary: fs::read_to_string(summary).expect("a file"),
        }
    }
}

/// The variables that the runner sets for actions, but not for `run` steps.
const ACTION_VARIABLES: [(&str, &str); 2] = [
    ("ACTIONS_RUNTIME_TOKEN", "made-up-runtime-token"),
    ("ACTIONS_RUNTIME_URL", "https://runtime.example/"),
];

/// The folder of the action.
pub(crate) fn deployed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/github")
}

/// Reads a file command in its `NAME=VALUE` form.
fn pairs(file: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(file).expect("a file");
    text.lines()
        .map(|line| {
            let (name, value) = line.split_once('=').expect("a name and a value");
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

fn descendants(pid: Pid) -> Vec<Pid> {
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        let raw = pid.as_raw_nonzero();
        let list = fs::read_to_string(format!("/proc/{raw}/task/{raw}/children"));
        let below = list.unwrap_or_default();
        let below = below.split_whitespace().filter_map(|id| id.parse().ok());
        all.extend(below.filter_map(Pid::from_raw));
        next += 1;
    }
    all
}
