//! Runs a case and compares the result with its expectation.

use std::{
    env, fmt::Write, fs, io, os::unix::process::ExitStatusExt, path::Path, process::ExitStatus,
};

use libtest_mimic::{Completion, Failed};

use crate::{
    bless,
    case::Case,
    check, scene,
    stage::{Props, Stage},
    text,
};

const REPORT: &str = "[WORK]/report.json";

/// Runs the case in a file. With `BLESS=1`, first updates the expected output in the file.
pub(crate) fn file(props: &Props, path: &Path) -> Result<Completion, Failed> {
    let text = fs::read_to_string(path)?;
    let mut case: Case = toml::from_str(&text)?;
    if env::var_os("BLESS").is_some_and(|value| value == "1")
        && let Played::Yes(actual, _) = play(props, &case, &case.args)?
    {
        let blessed = bless::rewrite(&text, &case, &actual);
        fs::write(path, &blessed)?;
        case = toml::from_str(&blessed)?;
    }
    judge(props, &case)
}

/// Runs a case with each of its command lines.
pub(crate) fn judge(props: &Props, case: &Case) -> Result<Completion, Failed> {
    for arguments in [&case.args].into_iter().chain(&case.also) {
        let (actual, problems) = match play(props, case, arguments)? {
            Played::Yes(actual, problems) => (actual, problems),
            Played::No(reason) => return Ok(Completion::ignored_with(reason)),
        };
        let differences = actual.differences(case);
        if !differences.is_empty() || !problems.is_empty() {
            let line = arguments.join(" ");
            let mut text = format!("{}\n$ authferry {line}\n{differences}", case.about);
            for problem in problems {
                // Writing to a string never fails.
                writeln!(text, "--- {problem}").ok();
            }
            return Err(text.into());
        }
    }
    Ok(Completion::Completed)
}

/// The output of a case, with placeholders for values that differ in each run.
pub(crate) struct CaseOutput {
    /// The exit code, or the number of a signal, negated.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) report: String,
}

impl CaseOutput {
    fn differences(&self, case: &Case) -> String {
        let mut text = String::new();
        if self.status != case.status {
            let (expected, status) = (case.status, self.status);
            writeln!(text, "--- status is {status}, not {expected}").ok();
        }
        for (name, expected, actual) in [
            ("stdout", &case.stdout, &self.stdout),
            ("stderr", &case.stderr, &self.stderr),
            ("report", &case.report, &self.report),
        ] {
            if !text::matches(expected, actual) {
                write!(text, "--- {name} is\n{actual}--- not\n{expected}").ok();
            }
        }
        text
    }
}

enum Played {
    Yes(CaseOutput, Vec<String>),
    /// The reason why this machine cannot run the case.
    No(&'static str),
}

/// Runs a case with one command line. Fails only if the setup fails.
fn play(props: &Props, case: &Case, arguments: &[String]) -> io::Result<Played> {
    let mut stage = Stage::new(props)?;
    for name in &case.scene {
        match scene::play(&mut stage, name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(Played::No("needs root or user namespaces"));
            }
            Err(error) => return Err(io::Error::other(format!("scene {name:?}: {error}"))),
        }
    }
    scene::level_rescue_times(&stage)?;
    for (name, text) in &case.files {
        stage.write(name, stage.fill(text).as_bytes())?;
    }
    stage.write("codex.sh", stage.fill(&case.codex).as_bytes())?;
    stage.set_owner()?;

    let before = stage.world()?;
    let words = case.via.iter().map(String::as_str);
    let words = words.chain(["authferry"]);
    let words = words.chain(arguments.iter().map(String::as_str));
    let line: Vec<_> = words.map(|word| stage.fill(word)).collect();
    let stdin = case
        .stdin
        .as_ref()
        .map(|name| fs::File::open(stage.path(name)));
    let stdin = stdin.transpose()?;
    let output = stage.run(&line, |command| {
        for (name, value) in &case.env {
            if value.is_empty() {
                command.env_remove(name);
            } else {
                command.env(name, stage.fill(value));
            }
        }
        if let Some(stdin) = stdin {
            command.stdin(stdin);
        }
    });
    let after = stage.world()?;

    let report = fs::read(stage.path(REPORT)).unwrap_or_default();
    let mut problems = check::world(&case.after, &before, &after);
    for (name, text) in [
        ("stdout", &output.stdout),
        ("stderr", &output.stderr),
        ("report", &report),
    ] {
        problems.extend(check::leak(name, text));
    }
    let actual = CaseOutput {
        status: status(output.status),
        stdout: stage.show(&output.stdout),
        stderr: stage.show(&output.stderr),
        report: stage.show(&report),
    };
    Ok(Played::Yes(actual, problems))
}

fn status(status: ExitStatus) -> i32 {
    let signal = || status.signal().map(|number| -number);
    status.code().or_else(signal).unwrap_or_default()
}
