//! The claim to rotate the login: how it stands, and whether this job may take it.

use std::time::Duration;

use authferry_core::{ClaimError, Standing};
use authferry_runner::{LeaseDefect, Mark, try_claim};
use tokio::time::timeout;

use super::check::{Check, State, at};
use crate::args::Doctor;
use crate::commands::{from_now, trips};
use crate::ending::Ending;
use crate::plan::Plan;
use crate::telling;
use crate::telling::time::text;

/// How the claim was found.
pub(super) enum Claim {
    /// The store has none.
    Missing,
    /// Nobody has asked.
    Untold,
    /// As a look at it told; nobody has tried to take it.
    Standing(Option<Standing>),
    /// It was taken and given back, or was not; and how it stood before.
    Tried(Option<Standing>, Result<(), ClaimError>),
    /// The store did not tell.
    Failed(Box<Ending>),
}

impl Claim {
    /// Which login an earlier rotation has found dead.
    pub(super) fn mark(&self) -> Option<Mark> {
        match self {
            Self::Standing(standing) | Self::Tried(standing, _) => {
                Mark::in_note(standing.as_ref()?.note.as_ref()?)
            }
            Self::Missing | Self::Untold | Self::Failed(_) => None,
        }
    }

    /// Looks at it, and tries to take it if that is wanted.
    pub(super) async fn ask(plan: &Plan, args: &Doctor) -> Self {
        let Some(claims) = plan.store.claims() else {
            return Self::Missing;
        };
        let late = |_| Box::new(telling::out_of_time(&plan.store));
        let patience = args.common.patience;
        let standing = match timeout(patience, claims.look()).await.map_err(late) {
            Ok(Ok(standing)) => standing,
            Ok(Err(error)) => return Self::Tried(None, Err(error)),
            Err(ending) => return Self::Failed(ending),
        };
        if !args.probe {
            return Self::Standing(standing);
        }
        let defect = standing.as_ref().and_then(LeaseDefect::of);
        let takes_over = defect.is_some() && patience > LeaseDefect::WAIT;
        let tried = timeout(patience, try_claim(claims, &plan.writer, takes_over)).await;
        match tried.map_err(late).and_then(trips::begun) {
            Ok(tried) => Self::Tried(standing, tried),
            Err(ending) => Self::Failed(ending),
        }
    }

    /// What is told of it.
    pub(super) fn check(self, plan: &Plan) -> Option<Check> {
        const NAME: &str = "claim";
        let held = |owner: String, until| {
            let until = at(i64::try_from(until).ok()).map_or_else(|| "some time".to_owned(), text);
            let message = format!("{owner} holds it until {until}, or longer");
            Check::new(NAME, State::Warning, message).hint("ask again when it is given back")
        };
        let now = u64::try_from(from_now(Duration::ZERO)).unwrap_or_default();
        let standing = match &self {
            Self::Standing(standing) | Self::Tried(standing, Err(ClaimError::Held { .. })) => {
                standing.as_ref()
            }
            Self::Missing | Self::Untold | Self::Tried(..) | Self::Failed(_) => None,
        };
        if let Some(defect) = standing.and_then(LeaseDefect::of) {
            let message = telling::lease_defect(defect);
            let check = Check::new(NAME, State::Warning, message);
            return Some(check.hint(telling::take_over(&plan.store)));
        }
        Some(match self {
            Self::Untold => return None,
            Self::Missing => {
                let message = format!(
                    "{} has none: see that no other job rotates the login at the same moment",
                    plan.store
                );
                Check::new(NAME, State::Warning, message)
            }
            Self::Standing(Some(Standing {
                owner,
                until: Some(until),
                ..
            })) if until > now => held(owner, until),
            Self::Standing(_) => {
                let message = "nobody holds it; whether this job may take it is not known";
                Check::new(NAME, State::NotTried, message).hint(
                    "add `--probe`: it takes the claim to rotate the login, and gives it back",
                )
            }
            Self::Tried(_, Ok(())) => {
                let message = "was taken and given back, as a rotation begins";
                Check::new(NAME, State::Ok, message)
            }
            Self::Tried(_, Err(ClaimError::Held { owner, until, .. })) => held(owner, until),
            Self::Tried(_, Err(ClaimError::Lost)) => {
                let message = "somebody else took it away at the same moment";
                Check::new(NAME, State::Warning, message).hint("ask again")
            }
            Self::Tried(_, Err(ClaimError::Store(error))) => {
                Check::failed(NAME, telling::claim(&error))
            }
            Self::Failed(ending) => Check::failed(NAME, *ending),
        })
    }
}
