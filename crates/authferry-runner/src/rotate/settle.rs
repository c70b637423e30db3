//! Settles the copies on this machine before a rotation spends a token.

use std::path::PathBuf;

use authferry_codex::{Home, Look};
use authferry_core::copies::{self, Action, Rules};
use authferry_core::{Base, Fingerprint, Goal, Refusal, RoundTrip, Stored, Terms};

use super::Rotating;
use super::refresh::job_in;
use crate::copies::{Access, FoundCopies, FoundCopy, auth_file, search};
use crate::drive::{self, store_io::held};
use crate::rotations::{HOME, create_private_folder};
use crate::{Job, RefusalNote, Report, Signals, StartError, receipt, terms};

/// Returns the copies on this machine: the auth file of the job that follows, if any, then those
/// of the rescue and of unfinished rotations.
fn all_copies(rotating: &Rotating<'_>, job: Option<&Job<'_>>) -> Result<FoundCopies, StartError> {
    let in_home = job.and_then(|job| {
        // Ignore a file that cannot be opened: the job itself reports it.
        let look = job.home.settled_look().ok()?;
        Some(auth_file(job, &look, receipt(job).as_ref()))
    });
    let store = rotating.store.to_string();
    let (rescue, rotations) = (rotating.rescue, Some(rotating.rotations));
    let mut found = search(&store, rescue, rotations, Access::Job)
        .map_err(|error| StartError::RescueFolder(rescue.folder().to_owned(), error))?;
    found.copies.splice(0..0, in_home);
    Ok(found)
}

/// Returns what the user allowed and the generations that the provider refused. Reads the refused
/// generations only if a copy exists.
pub(super) async fn rules(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
) -> Result<Rules, StartError> {
    let is_login = |found: &FoundCopy| found.fingerprint().is_some();
    let refused = if all_copies(rotating, job)?.copies.iter().any(is_login) {
        RefusalNote::refused_generations(rotating.store).await
    } else {
        Vec::new()
    };
    Ok(Rules {
        replace: job.is_some_and(|job| job.replace),
        refused,
    })
}

/// The store's content compared with the copies on this machine.
pub(super) struct Comparison {
    /// Whether the store's login takes precedence over every copy.
    pub(super) is_settled: bool,
    /// The folder of another rotation that is running.
    pub(super) running_rotation: Option<PathBuf>,
}

pub(super) fn compare(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
    stored: Option<&Stored>,
    rules: &Rules,
) -> Comparison {
    let head = stored.map(|stored| held(stored).0);
    // `settle` reports a folder that cannot be listed.
    let Ok(FoundCopies {
        copies,
        running_rotation,
    }) = all_copies(rotating, job)
    else {
        return Comparison {
            is_settled: false,
            running_rotation: None,
        };
    };
    let all: Vec<_> = copies.into_iter().map(|found| found.copy).collect();
    let is_settled = match copies::settle(head.as_ref(), &all, rules).action {
        // A store without a login has no token to spend; the job reports that, or seeds.
        Action::Keep
        | Action::Place
        | Action::Refuse(Refusal::NothingStored | Refusal::UnusableStored) => true,
        Action::Refuse(_) | Action::Adopt { .. } => false,
    };
    Comparison {
        is_settled,
        running_rotation,
    }
}

/// Removes the private homes of earlier rotations that hold this base or an ancestor of it: those
/// rotations produced no newer login. Returns whether one of them began with the base itself, so
/// that its Codex may have spent the refresh token.
pub(super) fn sweep(rotating: &Rotating<'_>, base: &Base) -> bool {
    let found = all_copies(rotating, None).map_or_else(|_| Vec::new(), |found| found.copies);
    let mut began_with_base = false;
    for copy in found {
        if copy.can_sweep() && copy.is_base_or_ancestor(base) {
            began_with_base |= copy.is_unfinished_rotation_of(&base.generation);
            copy.sweep();
        }
    }
    began_with_base
}

/// Returns the store's login as a base, completed from the receipt or a record on this machine: a
/// login that lost its stamp still belongs to its family.
pub(super) fn base_of(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
    stored: &Stored,
) -> Option<Base> {
    let (head, _) = held(stored);
    let theirs = head.generation.as_ref()?;
    let found = all_copies(rotating, job).map_or_else(|_| Vec::new(), |found| found.copies);
    let mut bases = copies::bases_here(found.iter().map(|it| &it.copy), &head, theirs);
    let known = bases.find(|base| copies::is_family_of(&head, theirs, base));
    Some(Base::of_head(&head, theirs, known))
}

/// Puts the copy that takes precedence into the store, and places nothing.
pub(super) async fn settle(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
    known: Option<Stored>,
    refused: &[Fingerprint],
    signals: &mut Signals,
) -> Result<Report, StartError> {
    let folder = create_private_folder(rotating.rotations)?;
    let home = Home::new(&folder.path().join(HOME))?;
    let copies = all_copies(rotating, job)?.copies;
    let settling = job_in(rotating, &home);
    let terms = Terms {
        refused: refused.to_vec(),
        // `--replace` lifts the refusal of the job's auth file, which is one of the copies.
        replace: job.is_some_and(|job| job.replace),
        ..terms(&settling, Goal::Settle)?
    };
    let step = RoundTrip::start(terms, copies.iter().map(|it| it.copy.clone()).collect());
    let driver = drive::RoundTripDriver::new(&settling, None, Look::Missing, None, true)
        .with_stored(known)
        .with_copies(copies)
        .without_placing();
    Ok(Box::pin(driver.drive(step, signals)).await)
}
