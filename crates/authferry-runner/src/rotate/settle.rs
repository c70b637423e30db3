//! What has to be settled before a rotation may spend a token: the copies on this machine.

use authferry_codex::{Home, Look};
use authferry_core::copies::{self, Action, Rules};
use authferry_core::{Base, Fingerprint, Goal, Refusal, Stored, Terms, Trip};

use super::Rotating;
use super::turn::{job_in, private};
use crate::copies::{FoundCopy, HOME, auth_file, find};
use crate::drive::{self, ask::held};
use crate::{Job, Mark, NotBegun, Report, Signals, receipt, terms};

/// Returns the copies that this machine can see: the auth file of the job that is to follow,
/// if there is one, then those of the rescue folder and of unfinished rotations.
fn all_copies(rotating: &Rotating<'_>, job: Option<&Job<'_>>) -> Result<Vec<FoundCopy>, NotBegun> {
    let in_home = job.and_then(|job| {
        // A file that may not be opened keeps the job out by itself.
        let look = job.home.settled_look().ok()?;
        Some(auth_file(job, &look, receipt(job).as_ref()))
    });
    let store = rotating.store.to_string();
    let others = find(&store, rotating.rescue, Some(rotating.rotations))
        .map_err(|error| NotBegun::NoRescue(rotating.rescue.to_owned(), error))?;
    Ok(in_home.into_iter().chain(others).collect())
}

/// What a person allowed, and what the provider refused before: that is looked up only if
/// there is a copy.
pub(super) async fn rules(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
) -> Result<Rules, NotBegun> {
    let is_login = |found: &FoundCopy| found.fingerprint().is_some();
    let refused = if all_copies(rotating, job)?.iter().any(is_login) {
        Mark::refused(rotating.store).await
    } else {
        Vec::new()
    };
    Ok(Rules {
        replace: job.is_some_and(|job| job.replace),
        refused,
    })
}

/// Whether what the store holds counts more than every copy.
pub(super) fn is_settled(
    rotating: &Rotating<'_>,
    job: Option<&Job<'_>>,
    stored: Option<&Stored>,
    rules: &Rules,
) -> bool {
    let head = stored.map(|stored| held(stored).0);
    // A folder that cannot be listed any more is met by whoever settles.
    let Ok(all) = all_copies(rotating, job) else {
        return false;
    };
    let all: Vec<_> = all.into_iter().map(|found| found.copy).collect();
    match copies::settle(head.as_ref(), &all, rules).action {
        // Of a store without a login there is nothing that could be spent; the job itself
        // tells so, or seeds.
        Action::Keep
        | Action::Place
        | Action::Refuse(Refusal::NothingStored | Refusal::UnusableStored) => true,
        Action::Refuse(_) | Action::Adopt { .. } => false,
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
    let copies = all_copies(rotating, job).unwrap_or_default();
    let bases = copies
        .iter()
        .filter_map(|found| found.copy.origins.as_ref());
    let mut bases = bases.map(|origins| &origins.base);
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
    let copies = all_copies(rotating, job)?;
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
