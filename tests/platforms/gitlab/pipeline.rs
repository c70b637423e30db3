//! Pipelines that run the component unmodified, each on a separate machine.

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

/// The project of a pipeline.
const PROJECT: &str = "https://gitlab.example.com/acme/app.git";

/// The address of the component in the README.
const COMPONENT: &str = "https://gitlab.example.com/acme/authferry.git";

/// The version of the component in the README.
const TAG: &str = env!("CARGO_PKG_VERSION");

/// Timeout of a pipeline: a job starts about six processes and copies the project several times.
const PIPELINE_TIMEOUT: Duration = Duration::from_mins(3);

/// A machine for one pipeline, and the variables of its project.
pub(crate) struct Machine {
    pub(crate) runner: Runner,
    variables: Vec<(String, String)>,
}

impl Machine {
    /// Sets up a machine with a clone of a project with this configuration.
    pub(crate) fn new(stub: &Stub, codex: &Codex, configuration: &str) -> Self {
        static PROGRAM: LazyLock<GitlabCiLocal> =
            LazyLock::new(|| GitlabCiLocal::install().expect("gitlab-ci-local from npm"));
        let runner = Runner::new(stub, codex).expect("room for a runner");
        runner.link("rsync", PROGRAM.rsync()).expect("disk space");
        runner.link("node-24", &PROGRAM.node()).expect("disk space");
        runner
            .link("gitlab-ci-local", PROGRAM.script())
            .expect("disk space");
        runner
            .link("authferry", Path::new(AUTHFERRY))
            .expect("disk space");
        let machine = Self {
            runner,
            variables: Vec::new(),
        };
        machine.publish();
        machine.check_out(configuration);
        machine
    }

    /// Adds a variable of the project's settings or of its schedule.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// The command that runs the pipeline.
    ///
    /// Copies the machine's `config.toml` into the home of the job.
    pub(crate) fn pipeline(&self) -> Command {
        let home = self.job_folder().join("home");
        if !home.exists() {
            let mut folders = fs::DirBuilder::new();
            folders.recursive(true).mode(0o700);
            folders.create(&home).expect("disk space");
            let own = self.runner.codex_home().join("config.toml");
            fs::copy(own, home.join("config.toml")).expect("disk space");
        }
        let mut command = self.runner.command("node-24");
        command
            .arg(self.runner.root().join("bin/gitlab-ci-local"))
            .args(["--force-shell-executor", "--shell-isolation"])
            .args(["--state-dir", "../state"])
            .args(["--ignore-predefined-vars", "CI_PROJECT_DIR"])
            .current_dir(self.project());
        // gitlab-ci-local runs the job in a shell, and would set the path that a container has.
        let build = self.state().join("builds/codex");
        command
            .arg("--variable")
            .arg(format!("CI_PROJECT_DIR={}", build.display()));
        for (name, value) in &self.variables {
            command.arg("--variable").arg(format!("{name}={value}"));
        }
        command
    }

    /// Runs the pipeline until it ends.
    #[track_caller]
    pub(crate) fn run(&self) -> Output {
        finish_within(PIPELINE_TIMEOUT, &mut self.pipeline())
    }

    /// The expanded configuration of the pipeline.
    #[track_caller]
    pub(crate) fn preview(&self) -> String {
        let preview = finish_within(PIPELINE_TIMEOUT, self.pipeline().arg("--preview"));
        assert!(preview.status.success(), "{}", output_text(&preview));
        String::from_utf8(preview.stdout).expect("YAML")
    }

    /// Kills every process, like a machine that dies.
    pub(crate) fn kill(&self) {
        for process in self.runner.processes().expect("a list") {
            let mut kill = Command::new("/bin/kill");
            kill.args(["-KILL", &process.to_string()]);
            // Some processes exit with those that were killed before.
            drop(kill.stderr(Stdio::null()).status());
        }
    }

    /// The component's folder of a job, outside of the work tree.
    pub(crate) fn job_folder(&self) -> PathBuf {
        self.state().join("builds/codex.tmp/authferry")
    }

    /// The folder of builds, artifacts, cache and logs.
    pub(crate) fn state(&self) -> PathBuf {
        self.runner.root().join("state")
    }

    /// The project's work tree.
    pub(crate) fn project(&self) -> PathBuf {
        self.runner.work()
    }

    /// Publishes the component with the tag of this version, and redirects git to it.
    fn publish(&self) {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/gitlab");
        let published = self.runner.root().join("published");
        copy(&shipped, &published);
        self.commit(&published);
        self.git(&published, &["tag", TAG]);
        let instead = format!("url.file://{}.insteadOf", published.display());
        let root = self.runner.root().to_owned();
        self.git(&root, &["config", "--global", &instead, COMPONENT]);
    }

    fn check_out(&self, configuration: &str) {
        let project = self.project();
        fs::write(project.join(".gitlab-ci.yml"), configuration).expect("disk space");
        self.commit(&project);
        self.git(&project, &["remote", "add", "origin", PROJECT]);
    }

    fn commit(&self, folder: &Path) {
        self.git(folder, &["init", "--quiet", "--initial-branch=main"]);
        self.git(folder, &["add", "--all"]);
        let author = [
            "-c",
            "user.name=author",
            "-c",
            "user.email=author@example.com",
        ];
        let commit = ["commit", "--quiet", "--message=Test"];
        self.git(folder, &[author.as_slice(), &commit].concat());
    }

    fn git(&self, folder: &Path, arguments: &[&str]) {
        let mut git = self.runner.command("git");
        let output = finish(git.args(arguments).current_dir(folder));
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // A failed test leaves a pipeline running.
        self.kill();
    }
}

/// A configuration that includes the component with these inputs, followed by more YAML.
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

/// The whole output of a pipeline.
pub(crate) fn output_text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The files that contain a made-up token or one of these secrets.
pub(crate) fn files_containing(folder: &Path, secrets: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in files(folder) {
        let bytes = fs::read(&path).expect("a file");
        if contains_token(&bytes, secrets) {
            found.push(path);
        }
    }
    found
}

/// Whether a text contains a made-up token or one of these secrets.
pub(crate) fn contains_token(text: &[u8], secrets: &[&str]) -> bool {
    let wanted = MARKERS.iter().chain(secrets);
    wanted.into_iter().any(|secret| {
        text.windows(secret.len())
            .any(|part| part == secret.as_bytes())
    })
}

/// Every file below a folder.
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
    fs::create_dir(to).expect("disk space");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("disk space");
        }
    }
}
