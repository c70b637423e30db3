//! Plays a case and judges it.

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

/// Plays the case in a file. With `BLESS=1` what it says becomes what it has to say.
pub(crate) fn file(props: &Props, path: &Path) -> Result<Completion, Failed> {
    let text = fs::read_to_string(path)?;
    let mut case: Case = toml::from_str(&text)?;
    if env::var_os("BLESS").is_some_and(|value| value == "1")
        && let Played::Yes(said, _) = play(props, &case, &case.args)?
    {
        let blessed = bless::rewrite(&text, &case, &said);
        fs::write(path, &blessed)?;
        case = toml::from_str(&blessed)?;
    }
    judge(props, &case)
}

/// Plays a case with everything that can be typed in it.
pub(crate) fn judge(props: &Props, case: &Case) -> Result<Completion, Failed> {
    for arguments in [&case.args].into_iter().chain(&case.also) {
        let (said, problems) = match play(props, case, arguments)? {
            Played::Yes(said, problems) => (said, problems),
            Played::No(reason) => return Ok(Completion::ignored_with(reason)),
        };
        let differences = said.differences(case);
        if !differences.is_empty() || !problems.is_empty() {
            let line = arguments.join(" ");
            let mut text = format!("{}\n$ authferry {line}\n{differences}", case.about);
            for problem in problems {
                // Writing to a string cannot fail.
                writeln!(text, "--- {problem}").ok();
            }
            return Err(text.into());
        }
    }
    Ok(Completion::Completed)
}

/// What a case says, with words for what is different each time.
pub(crate) struct Said {
    /// The exit code, or the number of a signal, negated.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) report: String,
}

impl Said {
    fn differences(&self, case: &Case) -> String {
        let mut text = String::new();
        if self.status != case.status {
            let (expected, status) = (case.status, self.status);
            writeln!(text, "--- status is {status}, not {expected}").ok();
        }
        for (name, expected, said) in [
            ("stdout", &case.stdout, &self.stdout),
            ("stderr", &case.stderr, &self.stderr),
            ("report", &case.report, &self.report),
        ] {
            if !text::matches(expected, said) {
                write!(text, "--- {name} is\n{said}--- not\n{expected}").ok();
            }
        }
        text
    }
}

enum Played {
    Yes(Said, Vec<String>),
    /// This machine cannot play it, and why.
    No(&'static str),
}

/// Plays a case with one thing typed. Fails only if the world cannot be made as it says.
fn play(props: &Props, case: &Case, arguments: &[String]) -> io::Result<Played> {
    let mut stage = Stage::new(props)?;
    for name in &case.scene {
        match scene::play(&mut stage, name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                return Ok(Played::No("needs root, or namespaces for users"));
            }
            Err(error) => return Err(io::Error::other(format!("scene {name:?}: {error}"))),
        }
    }
    for (name, text) in &case.files {
        stage.write(name, stage.fill(text).as_bytes())?;
    }
    stage.write("codex.sh", stage.fill(&case.codex).as_bytes())?;
    stage.hand_over()?;

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
    let said = Said {
        status: status(output.status),
        stdout: stage.show(&output.stdout),
        stderr: stage.show(&output.stderr),
        report: stage.show(&report),
    };
    Ok(Played::Yes(said, problems))
}

fn status(status: ExitStatus) -> i32 {
    let signal = || status.signal().map(|number| -number);
    status.code().or_else(signal).unwrap_or_default()
}
