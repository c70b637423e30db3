//! One job on a throw-away machine: the runner, as far as an action can tell.

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

use crate::console::{Console, Ear};
use crate::ferry::files;
use crate::ferry::under_test;

/// As `workflow-cancellation` of GitHub's documentation has it.
const BEFORE_TERM: Duration = Duration::from_millis(7500);
const BEFORE_KILL: Duration = Duration::from_millis(2500);

/// How long a step may take before it counts as hung.
const PATIENCE: Duration = Duration::from_mins(1);

/// A job under way.
pub(crate) struct Job {
    pub(crate) runner: Runner,
    node: Node24,
    /// The action as it was checked out for this job.
    pub(crate) action: PathBuf,
    /// What `action.yml` says.
    manifest: Value,
    /// The job's environment, to which steps can add.
    pub(crate) env: BTreeMap<String, String>,
    console: Arc<Mutex<Console>>,
    /// The steps whose action has something to do at the end of the job.
    posts: Vec<Post>,
}

/// What the runner remembers of a step, for its end.
struct Post {
    inputs: Vec<(String, String)>,
    env: Vec<(String, String)>,
    state: BTreeMap<String, String>,
}

/// A step under way.
pub(crate) struct Step {
    child: Child,
    files: [PathBuf; 5],
    lines: Receiver<()>,
    inputs: Option<Vec<(String, String)>>,
}

/// What became of a step.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) summary: String,
}

/// The files by which a step tells the runner things.
const FILES: [&str; 5] = [
    "GITHUB_STATE",
    "GITHUB_OUTPUT",
    "GITHUB_ENV",
    "GITHUB_PATH",
    "GITHUB_STEP_SUMMARY",
];

impl Job {
    /// Begins a job in a private repository.
    pub(crate) fn new(runner: Runner, env: BTreeMap<String, String>) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let node = Node24::install().expect("Node from npm");
        let root = runner.root().to_owned();
        let at = |path: &str| root.join(path).display().to_string();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let action = root.join("actions/authferry");
        for folder in ["temp", "temp/_runner_file_commands", "actions/authferry"] {
            fs::create_dir_all(root.join(folder)).expect("room");
        }
        for file in fs::read_dir(deployed()).expect("the action") {
            let file = file.expect("an entry").path();
            if file.is_file() {
                let name = file.file_name().expect("a name");
                fs::copy(&file, action.join(name)).expect("room");
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

    /// Sets what the job was set off by.
    pub(crate) fn event(&self, event: &Value) {
        fs::write(self.temp().join("event.json"), event.to_string()).expect("room");
    }

    /// The folder for what a job does not keep.
    pub(crate) fn temp(&self) -> PathBuf {
        self.runner.root().join("temp")
    }

    /// A step that uses the action, with the program of the tests.
    pub(crate) fn uses(&mut self, with: &[(&str, &str)]) -> Ended {
        let step = self.start_uses(with);
        self.finish(step)
    }

    /// The same, without waiting for its end.
    pub(crate) fn start_uses(&mut self, with: &[(&str, &str)]) -> Step {
        let mut with = with.to_vec();
        if !with.iter().any(|(name, _)| *name == "version") {
            with.push(("path", under_test()));
        }
        self.start_action(&with, &[])
    }

    /// The same with these inputs and no others, and variables of the step's own.
    pub(crate) fn start_action(&mut self, with: &[(&str, &str)], env: &[(String, String)]) -> Step {
        let known = self.manifest["inputs"].as_object().expect("inputs");
        for (name, _) in with {
            assert!(known.contains_key(*name), "there is no input {name}");
        }
        // The runner gives each input that has no value and no default the empty text.
        let inputs = known.iter().map(|(name, input)| {
            let given = with.iter().find(|(given, _)| given == name);
            let default = || input["default"].as_str().unwrap_or_default().to_owned();
            let value = given.map_or_else(default, |(_, value)| (*value).to_owned());
            (format!("INPUT_{}", name.to_uppercase()), value)
        });
        let inputs: Vec<_> = inputs.collect();
        // Before it begins: it has to come to its end whatever becomes of the step.
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
                .envs(ACTIONS_ALONE);
        });
        step.inputs = Some(inputs);
        step
    }

    /// A step with `run`.
    pub(crate) fn run(&mut self, script: &str) -> Ended {
        let step = self.start_run(script);
        self.finish(step)
    }

    /// The same, without waiting for its end.
    pub(crate) fn start_run(&mut self, script: &str) -> Step {
        self.start("bash".as_ref(), |command| {
            command.args(["-eo", "pipefail", "-c", script]);
        })
    }

    /// Waits for the end of a step, and of whoever holds its streams.
    #[track_caller]
    pub(crate) fn finish(&mut self, mut step: Step) -> Ended {
        let deadline = Instant::now() + PATIENCE;
        let code = loop {
            if let Some(status) = step.child.try_wait().expect("our child") {
                break status.code();
            }
            assert!(Instant::now() < deadline, "the step hangs: {}", self.log());
            thread::sleep(Duration::from_millis(5));
        };
        self.end(step, code)
    }

    /// Cancels the job while a step is under way. Returns how the step ended: `None` if it
    /// had to be killed.
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

    /// The end of the job: the posts, last first, and then whoever was left behind is killed.
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
                    .envs(ACTIONS_ALONE);
            });
            ended.push(self.finish(step));
        }
        self.kill_orphans();
        ended
    }

    /// The machine is gone, at once and with everybody on it.
    pub(crate) fn lose(mut self, step: Option<Step>) {
        self.kill_orphans();
        if let Some(mut step) = step {
            step.child.wait().expect("our child");
        }
        self.posts.clear();
    }

    /// The processes of the job that are there.
    pub(crate) fn processes(&self) -> Vec<u32> {
        let mark = format!("RUNNER_TRACKING_ID={}", self.env["RUNNER_TRACKING_ID"]);
        let mine = |process: &u32| {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|it| it == mark.as_bytes())
        };
        let all = self.runner.processes().expect("/proc");
        all.into_iter().filter(mine).collect()
    }

    pub(crate) fn log(&self) -> String {
        self.with_console(|console| console.log().to_owned())
    }

    pub(crate) fn with_console<T>(&self, look: impl FnOnce(&mut Console) -> T) -> T {
        look(&mut self.console.lock().expect("nobody panicked"))
    }

    /// Where on this machine, or in its log, something can be read that is part of a token.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mut left = files(self.runner.root());
        left.push(("the log".to_owned(), self.log().into_bytes()));
        let shows = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(bytes);
            MARKERS.iter().any(|mark| text.contains(mark))
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
            // It may be gone by now.
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
            fs::write(file, "").expect("room");
            command.env(name, file);
        }
        with(&mut command);
        let mut child = command.spawn().expect("a program to start");
        let (told, lines) = channel();
        let ear = Arc::new(Mutex::new(Ear::default()));
        let stdout: Box<dyn Read + Send> = Box::new(child.stdout.take().expect("a pipe"));
        let stderr: Box<dyn Read + Send> = Box::new(child.stderr.take().expect("a pipe"));
        for stream in [stdout, stderr] {
            let (console, ear, told) = (self.console.clone(), ear.clone(), told.clone());
            thread::spawn(move || {
                let mut lines = BufReader::new(stream);
                let mut line = Vec::new();
                while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                    let text = String::from_utf8_lossy(&line);
                    let mut console = console.lock().expect("nobody panicked");
                    let mut ear = ear.lock().expect("nobody panicked");
                    console.take(&mut ear, text.trim_end_matches(['\n', '\r']));
                    line.clear();
                }
                drop(told);
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
        // It ends when nobody holds the streams any more: the runner would wait for five
        // seconds, and kill whoever does.
        let held = step.lines.recv_timeout(PATIENCE);
        assert_eq!(
            held,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected),
            "somebody holds the step's streams"
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

/// What the runner gives to actions, and not to a step with `run`.
const ACTIONS_ALONE: [(&str, &str); 2] = [
    ("ACTIONS_RUNTIME_TOKEN", "made-up-runtime-token"),
    ("ACTIONS_RUNTIME_URL", "https://runtime.example/"),
];

/// The action, as it is shipped.
pub(crate) fn deployed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/github")
}

/// What one of the runner's files says, in its shorter form.
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
