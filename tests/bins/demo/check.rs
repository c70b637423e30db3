//! Checks of the demo: a row is printed only if its statement holds.

use rig::{MARKERS, Runner};

use crate::{DemoResult, job::Job, page::row, stage};

/// Fails unless a condition holds.
pub(crate) fn require(holds: bool, what: &str) -> DemoResult {
    if holds {
        Ok(())
    } else {
        Err(format!("this does not hold: {what}").into())
    }
}

/// Prints the content of a home, which must hold no login.
pub(crate) fn no_login(when: &str, machine: &Runner) -> DemoResult {
    let mut names = stage::names(&machine.codex_home())?;
    let none = !names.iter().any(|name| name == "auth.json");
    require(none, &format!("there is no auth.json {when} the run"))?;
    names.retain(|name| name != "config.toml");
    let others = match names.len() {
        0 => "nothing else".to_owned(),
        count => format!("{count} other files of Codex"),
    };
    row(
        when,
        &format!("config.toml and {others} in the home: no auth.json"),
    );
    Ok(())
}

/// Prints how a job ended. The exit code must match, and its output must contain no token.
pub(crate) fn ended(job: &Job, code: i32) -> DemoResult {
    require(job.code == Some(code), &format!("the exit code is {code}"))?;
    let answered = job.output.lines().any(|line| line == "OK");
    require(
        answered == (code == 0),
        "Codex printed an answer only if it succeeded",
    )?;
    let silent = !MARKERS.iter().any(|marker| job.output.contains(marker));
    require(silent, "no token was printed")?;
    let answer = if answered { "answered OK, " } else { "" };
    row(
        "codex",
        &format!("{answer}exit code {code}, {} ms", job.took.as_millis()),
    );
    Ok(())
}
