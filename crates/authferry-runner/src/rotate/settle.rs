//! What has to be settled before a rotation may spend a token: the copies on this machine.

use std::path::PathBuf;

use authferry_codex::{Home, Look};
use authferry_core::copies::{self, Action, Rules};
use authferry_core::{Base, Fingerprint, Goal, Refusal, Stored, Terms, Trip};

use super::Rotating;
use super::turn::job_in;
use crate::copies::{Access, Found, FoundCopy, auth_file, search};
use crate::drive::{self, ask::held};
use crate::rotations::{HOME, private};
use crate::{Job, Mark, NotBegun, Report, Signals, receipt, terms};

/// Returns the copies that this machine can see: the auth file of the job that is to follow,
/// if there is one, then those of the rescue folder and of unfinished rotations.
fn all_copies(rotating: &Rotating<'_>, job: Option<&Job<'_>>) -> Result<Found, NotBegun> {
    let in_home = job.and_then(|job| {
        // A file that may not be opened keeps the job out by itself.
        let look = job.home.settled_look().ok()?;
        Some(auth_file(job, &look, receipt(job).as_ref()))
    });
    let store = rotating.store.to_string();
    let (rescue, rotations) = (rotating.rescue, Some(rotating.rotations));
    let mut found = search(&store, rescue, rotations, Access::Job)
        .map_err(|error| NotBegun::NoRescue(rescue.folder().to_owned(), error))?;
    found.copies.splice(0..0, in_home);
    Ok(found)
}

/// What a person allowed, and what the provider refused before: that is looked up only if
/// there is a copy.
pub(super) async fn rules(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
) -> Result<Rules, NotBegun> {
    let is_login = |found: &FoundCopy| found.fingerprint().is_some();
    let refused = if all_copies(rotating, job)?.copies.iter().any(is_login) {
        Mark::refused(rotating.store).await
    } else {
        Vec::new()
    };
    Ok(Rules {
        replace: job.is_some_and(|job| job.replace),
        refused,
    })
}

/// What the store holds, compared with what is on this machine.
pub(super) struct Compared {
    /// Whether what the store holds counts more than every copy.
    pub(super) is_settled: bool,
    /// The home of another rotation that is under way.
    pub(super) at_work: Option<PathBuf>,
}

pub(super) fn compare(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
    stored: Option<&Stored>,
    rules: &Rules,
) -> Compared {
    let head = stored.map(|stored| held(stored).0);
    // A folder that cannot be listed any more is reported when the copies are settled.
    let Ok(Found { copies, at_work }) = all_copies(rotating, job) else {
        return Compared {
            is_settled: false,
            at_work: None,
        };
    };
    let all: Vec<_> = copies.into_iter().map(|found| found.copy).collect();
    let is_settled = match copies::settle(head.as_ref(), &all, rules).action {
        // Of a store without a login there is nothing that could be spent; the job itself
        // tells so, or seeds.
        Action::Keep
        | Action::Place
        | Action::Refuse(Refusal::NothingStored | Refusal::UnusableStored) => true,
        Action::Refuse(_) | Action::Adopt { .. } => false,
    };
    Compared {
        is_settled,
        at_work,
    }
}

/// Removes the private homes of earlier rotations that hold an ancestor of this base, or the base
/// itself: nothing came of those.
pub(super) fn sweep(rotating: &Rotating<'_>, base: &Base) {
    let found = all_copies(rotating, None).map_or_else(|_| Vec::new(), |found| found.copies);
    for copy in found {
        if copy.is_to_be_swept() && copy.is_in_line(base) {
            copy.sweep();
        }
    }
}

/// What the store holds as a base, with what the receipt or a record on this machine knows of it:
/// a login that lost its stamp still is of its family.
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

/// Puts the copy that counts into the store, and places nothing.
pub(super) async fn settle(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
    known: Option<Stored>,
    refused: &[Fingerprint],
    signals: &mut Signals,
) -> Result<Report, NotBegun> {
    let folder = private(rotating.rotations)?;
    let home = Home::new(&folder.path().join(HOME))?;
    let copies = all_copies(rotating, job)?.copies;
    let settling = job_in(rotating, &home);
    let terms = Terms {
        refused: refused.to_vec(),
        // What a person allowed for the job's home is allowed here: that home is among the copies.
        replace: job.is_some_and(|job| job.replace),
        ..terms(&settling, Goal::Settle)?
    };
    let step = Trip::start(terms, copies.iter().map(|it| it.copy.clone()).collect());
    let driver = drive::Driver::new(&settling, None, Look::Missing, None, true)
        .knowing(known)
        .with_copies(copies)
        .settling();
    Ok(Box::pin(driver.drive(step, signals)).await)
}
