//! A home that other users can read, as Codex and `mkdir` create it: a job closes it.

use std::cell::Cell;

use authferry_codex::Home;

use crate::outcome::{Ending, Result};
use crate::plan::Plan;
use crate::{exit, messages};

/// Closes a home that other users can read, and remembers the mode that it had.
pub(super) fn close_home(plan: &Plan, home: &Home, open_mode: &Cell<Option<u32>>) -> Result<()> {
    let is_open = home.open_mode().is_ok_and(|mode| mode.is_some());
    let folder = home.dir().canonicalize().ok();
    let user = plan.env.home.as_ref().and_then(|it| it.canonicalize().ok());
    // Others may have to enter such a folder, for example sshd for its keys.
    let is_shared = folder.is_some_and(|it| it.parent().is_none() || Some(it) == user);
    if is_open && is_shared {
        let home = home.dir().display();
        let problem = format!("{home} is open to other users, and holds more than Codex's files");
        let ending = Ending::refused(exit::REFUSED, problem);
        return Err(ending
            .hint("use a folder of Codex alone with `--codex-home DIR`")
            .into());
    }
    let closed = home.close().map_err(|error| messages::home_error(&error))?;
    open_mode.set(open_mode.get().or(closed));
    Ok(())
}

/// The note about a home that was closed.
pub(super) fn closed(home: &Home, open_mode: Option<u32>) -> Option<String> {
    let home = home.dir().display();
    open_mode.map(|mode| format!("{home} is now closed to other users: mode 0700, was {mode:04o}"))
}
