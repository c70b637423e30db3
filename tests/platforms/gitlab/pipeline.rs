//! Pipelines that run the component as it is shipped, each on a machine of its own.

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    time::Duration,
};

use rig::{Codex, GitlabCiLocal, MARKERS, Runner, Stub, finish, finish_within};

pub(crate) const AUTHFERRY: &str = env!("CARGO_BIN_EXE_authferry-under-test");

/// The project that a pipeline is of.
const PROJECT: &str = "https://gitlab.example.com/acme/app.git";

/// Where the component is published, as the README has it.
const COMPONENT: &str = "https://gitlab.example.com/acme/authferry.git";

/// The version that the README asks for.
const TAG: &str = env!("CARGO_PKG_VERSION");

/// A job brings up half a dozen processes and copies the project several times.
const PATIENCE: Duration = Duration::from_mins(3);

/// A machine on which one pipeline of a project is run, and what the project's settings say.
pub(crate) struct Machine {
    pub(crate) runner: Runner,
    variables: Vec<(String, String)>,
}

impl Machine {
    /// Sets up a machine with a clone of a project that has this configuration.
    pub(crate) fn new(stub: &Stub, codex: &Codex, configuration: &str) -> Self {
        static PROGRAM: LazyLock<GitlabCiLocal> =
            LazyLock::new(|| GitlabCiLocal::install().expect("gitlab-ci-local from npm"));
        let runner = Runner::new(stub, codex).expect("room for a runner");
        runner.link("rsync", PROGRAM.rsync()).expect("room");
        runner.link("node-24", &PROGRAM.node()).expect("room");
        runner
            .link("gitlab-ci-local", PROGRAM.script())
            .expect("room");
        runner
            .link("authferry", Path::new(AUTHFERRY))
            .expect("room");
        let machine = Self {
            runner,
            variables: Vec::new(),
        };
        machine.publish();
        machine.check_out(configuration);
        machine
    }

    /// Adds a variable, as the project's settings or its schedule do.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The command that runs the pipeline.
    ///
    /// A job finds the machine's own configuration of Codex in its home.
    pub(crate) fn pipeline(&self) -> Command {
        let home = self.job_folder().join("home");
        if !home.exists() {
            let mut folders = fs::DirBuilder::new();
            folders.recursive(true).mode(0o700);
            folders.create(&home).expect("room");
            let own = self.runner.codex_home().join("config.toml");
            fs::copy(own, home.join("config.toml")).expect("room");
        }
        let mut command = self.runner.command("node-24");
        command
            .arg(self.runner.root().join("bin/gitlab-ci-local"))
            .args(["--force-shell-executor", "--shell-isolation"])
            .args(["--state-dir", "../state"])
            .args(["--ignore-predefined-vars", "CI_PROJECT_DIR"])
            .current_dir(self.project());
        // It runs the job of an image in a shell here, and yet says where in a container that
        // would be.
        let build = self.state().join("builds/codex");
        command
            .arg("--variable")
            .arg(format!("CI_PROJECT_DIR={}", build.display()));
        for (name, value) in &self.variables {
            command.arg("--variable").arg(format!("{name}={value}"));
        }
        command
    }

    /// Runs the pipeline to its end.
    #[track_caller]
    pub(crate) fn run(&self) -> Output {
        finish_within(PATIENCE, &mut self.pipeline())
    }

    /// What the pipeline comes to when everything that the platform adds is put in.
    #[track_caller]
    pub(crate) fn preview(&self) -> String {
        let preview = finish_within(PATIENCE, self.pipeline().arg("--preview"));
        assert!(preview.status.success(), "{}", said(&preview));
        String::from_utf8(preview.stdout).expect("YAML")
    }

    /// Ends every process at once, as a machine does that dies.
    pub(crate) fn die(&self) {
        for process in self.runner.processes().expect("a list") {
            let mut kill = Command::new("/bin/kill");
            kill.args(["-KILL", &process.to_string()]);
            // Some end with those that were killed before them.
            drop(kill.stderr(Stdio::null()).status());
        }
    }

    /// What the component keeps of a job beside its work tree.
    pub(crate) fn job_folder(&self) -> PathBuf {
        self.state().join("builds/codex.tmp/authferry")
    }

    /// Where the builds, the artifacts, the cache and the logs are.
    pub(crate) fn state(&self) -> PathBuf {
        self.runner.root().join("state")
    }

    /// The project's work tree.
    pub(crate) fn project(&self) -> PathBuf {
        self.runner.work()
    }

    /// Publishes the component with the tag of this version, where git will look for it.
    fn publish(&self) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/gitlab");
        let published = self.runner.root().join("published");
        copy(&shipped, &published);
        self.commit(&published);
        self.git(&published, &["tag", TAG]);
        let instead = format!("url.file://{}.insteadOf", published.display());
        let anywhere = self.runner.root().to_owned();
        self.git(&anywhere, &["config", "--global", &instead, COMPONENT]);
    }

    fn check_out(&self, configuration: &str) {
        let project = self.project();
        fs::write(project.join(".gitlab-ci.yml"), configuration).expect("room");
        self.commit(&project);
        self.git(&project, &["remote", "add", "origin", PROJECT]);
    }

    fn commit(&self, folder: &Path) {
        self.git(folder, &["init", "--quiet", "--initial-branch=main"]);
        self.git(folder, &["add", "--all"]);
        let somebody = [
            "-c",
            "user.name=somebody",
            "-c",
            "user.email=nobody@example.com",
        ];
        let commit = ["commit", "--quiet", "--message=As it is"];
        self.git(folder, &[somebody.as_slice(), &commit].concat());
    }

    fn git(&self, folder: &Path, arguments: &[&str]) {
        let mut git = self.runner.command("git");
        let output = finish(git.args(arguments).current_dir(folder));
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A test that fails in the middle leaves a pipeline behind.
        self.die();
    }
}

/// A configuration that uses the component, with some of its inputs and with more of YAML.
pub(crate) fn configuration(inputs: &[(&str, &str)], more: &str) -> String {
    let inputs = inputs.iter().map(|(name, value)| {
        // JSON is YAML.
        let value = serde_json::to_string(value).expect("a text");
        format!("      {name}: {value}\n")
    });
    let inputs: String = inputs.collect();
    let component = format!("$CI_SERVER_FQDN/acme/authferry/authferry@{TAG}");
    format!("include:\n  - component: {component}\n    inputs:\n{inputs}{more}")
}

/// Everything that a pipeline printed.
pub(crate) fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The paths of what holds one of the made-up tokens, or one of some other secrets.
pub(crate) fn holding(folder: &Path, secrets: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in files(folder) {
        let bytes = fs::read(&path).expect("a file");
        if shows(&bytes, secrets) {
            found.push(path);
        }
    }
    found
}

/// Whether a text shows one of the made-up tokens, or one of some other secrets.
pub(crate) fn shows(text: &[u8], secrets: &[&str]) -> bool {
    let wanted = MARKERS.iter().chain(secrets);
    wanted.into_iter().any(|secret| {
        text.windows(secret.len())
            .any(|part| part == secret.as_bytes())
    })
}

/// Every file in a folder, however deep.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.is_file() {
            found.push(path);
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("room");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("room");
        }
    }
}
