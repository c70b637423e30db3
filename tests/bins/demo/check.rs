//! What is told only if it is so.

use rig::{MARKERS, Runner};

use crate::{Told, job::Job, page::row, stage};

/// Goes on only if it is so.
pub(crate) fn claim(so: bool, what: &str) -> Told {
    if so {
        Ok(())
    } else {
        Err(format!("it is not so that {what}").into())
    }
}

/// Tells what is in a home, which must be no login.
pub(crate) fn no_login(when: &str, machine: &Runner) -> Told {
    let mut names = stage::names(&machine.codex_home())?;
    let none = !names.iter().any(|name| name == "auth.json");
    claim(none, &format!("there is no auth.json {when} the run"))?;
    names.retain(|name| name != "config.toml");
    let others = match names.len() {
        0 => "nothing else".to_owned(),
        count => format!("{count} other things of Codex's"),
    };
    row(
        when,
        &format!("config.toml and {others} in the home: no auth.json"),
    );
    Ok(())
}

/// Tells how a job ended, which must be with this code and without a token in what it printed.
pub(crate) fn ended(job: &Job, code: i32) -> Told {
    claim(job.code == Some(code), &format!("the exit code is {code}"))?;
    let answered = job.said.lines().any(|line| line == "OK");
    claim(
        answered == (code == 0),
        "Codex had an answer only if all went well",
    )?;
    let silent = !MARKERS.iter().any(|marker| job.said.contains(marker));
    claim(silent, "no token was printed")?;
    let said = if answered { "said OK, " } else { "" };
    row(
        "codex",
        &format!("{said}exit code {code}, {} ms", job.took.as_millis()),
    );
    Ok(())
}
