//! The suite detects bugs: each bug makes the named case fail, and every case fails for at least
//! one bug.

mod broken;
mod broken_leases;
#[path = "../places/mod.rs"]
mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, PoisonError},
};

use authferry_conformance::cases;
use authferry_core::{Guarantees, Reads, SecretStore, Swap};
use broken::{Broken, Bug, Notes};
use broken_leases::{BrokenLeases, LeaseBug, LeaseNotes};
use places::{Places, PutLease, REFERENCE_GUARANTEES};

/// Each bug with the case that must detect it. Other cases may fail too.
const FOUND_BY: [(Bug, &str); 26] = [
    (
        Bug::IgnoresExpectation,
        "create::creating_over_an_existing_value_conflicts",
    ),
    (Bug::ChecksThenWrites, "race::one_of_many_writers_wins"),
    (
        Bug::NamesVersionsByContent,
        "swap::the_same_bytes_get_a_new_version",
    ),
    (Bug::RenamesVersionsOnRead, "swap::reading_changes_nothing"),
    (Bug::DropsStamps, "create::a_created_value_is_read_back"),
    (
        Bug::KeepsStampsAfterWritesByHand,
        "swap::a_write_by_hand_makes_our_version_stale",
    ),
    (
        Bug::KeepsStampsOfTheSameBytes,
        "stamps::the_same_bytes_put_by_hand_lose_the_stamp",
    ),
    (Bug::ForgetsFamilies, "stamps::every_field_is_read_back"),
    (Bug::ForgetsHints, "stamps::every_field_is_read_back"),
    (Bug::TruncatesCounts, "stamps::every_field_is_read_back"),
    (
        Bug::SkipsIdenticalBytes,
        "stamps::rewriting_the_same_login_makes_a_new_version",
    ),
    (
        Bug::WritesDuplicatesAgain,
        "idempotency::a_duplicate_writes_once",
    ),
    (
        Bug::ComparesIdsOnly,
        "idempotency::a_reused_write_id_with_other_bytes_fails",
    ),
    (
        Bug::WritesInTwoSteps,
        "swap::a_cancelled_swap_leaves_the_old_or_the_new_value",
    ),
    (
        Bug::RestartsVersions,
        "swap::the_version_of_a_deleted_value_conflicts",
    ),
    (
        Bug::ReadsInTwoSteps,
        "race::a_reader_never_sees_a_torn_value",
    ),
    (Bug::ReadsAreStale, "create::a_created_value_is_read_back"),
    (
        Bug::ReadsEmptyPlaceAsValue,
        "create::an_empty_place_reads_none",
    ),
    (Bug::NormalizesNewlines, "swap::bytes_are_stored_unchanged"),
    (
        Bug::TruncatesTheLongest,
        "limits::a_value_of_the_maximum_length_fits",
    ),
    (
        Bug::TruncatesTheTooLong,
        "limits::a_longer_value_is_refused",
    ),
    (
        Bug::DeclaresLess,
        "limits::the_declared_guarantees_match_the_fixture",
    ),
    (
        Bug::ReportsConflictsAsAmbiguous,
        "swap::a_stale_version_conflicts",
    ),
    (
        Bug::ReportsRefusalsAsAmbiguous,
        "refusal::a_refused_call_returns_its_error_and_changes_nothing",
    ),
    (Bug::PrintsLogins, "redaction::no_value_prints_the_login"),
    (
        Bug::PrintsLoginsInErrors,
        "redaction::no_error_prints_the_login",
    ),
];

/// The same for bugs in leases.
const LEASES_FOUND_BY: [(LeaseBug, &str); 24] = [
    (
        LeaseBug::AreMissing,
        "leases::the_declared_lease_support_matches_the_fixture",
    ),
    (
        LeaseBug::GrantWhatIsHeld,
        "leases::only_one_client_holds_the_lease",
    ),
    (
        LeaseBug::TakeOverAtExpiry,
        "leases::an_expired_lease_is_free_after_the_clock_skew",
    ),
    (
        LeaseBug::NeverTakeOver,
        "leases::an_expired_lease_is_free_after_the_clock_skew",
    ),
    (
        LeaseBug::KeepWhatIsReleased,
        "leases::a_released_lease_is_free_at_once",
    ),
    (
        LeaseBug::RenewLostLeases,
        "leases::a_lease_that_was_taken_over_is_lost",
    ),
    (
        LeaseBug::ReleaseOthersLeases,
        "leases::a_lease_that_was_taken_over_is_lost",
    ),
    (
        LeaseBug::ForgetRenewals,
        "leases::a_renewed_lease_holds_until_its_new_expiry",
    ),
    (
        LeaseBug::ForgetNotes,
        "leases::the_next_holder_reads_the_note",
    ),
    (
        LeaseBug::ShowReleasedAsHeld,
        "leases::a_look_returns_the_lease_status",
    ),
    (
        LeaseBug::RefuseRepeatedAcquire,
        "leases::a_repeated_acquire_returns_the_same_lease",
    ),
    (
        LeaseBug::RegrantRepeatedAcquire,
        "leases::a_repeated_acquire_returns_the_same_lease",
    ),
    (
        LeaseBug::RefuseRepeatedRenewal,
        "leases::a_repeated_renewal_succeeds",
    ),
    (
        LeaseBug::RefuseRepeatedRelease,
        "leases::a_repeated_release_succeeds",
    ),
    (
        LeaseBug::NeverExpire,
        "leases::a_lease_that_is_not_renewed_is_taken_over",
    ),
    (
        LeaseBug::ExpireWhatIsRenewed,
        "leases::a_lease_that_is_not_renewed_is_taken_over",
    ),
    (
        LeaseBug::RefuseForeignRecords,
        "leases::a_record_without_a_stamp_is_taken_over_after_its_expiry",
    ),
    (
        LeaseBug::TakeOverForeignRecords,
        "leases::a_record_without_a_stamp_is_taken_over_after_its_expiry",
    ),
    (
        LeaseBug::NeverExpire,
        "leases::a_malformed_record_is_taken_over_after_one_term",
    ),
    (
        LeaseBug::CheckThenWrite,
        "leases::one_of_many_lease_clients_wins",
    ),
    (
        LeaseBug::ReadsAreStale,
        "leases::a_released_lease_is_free_at_once",
    ),
    (
        LeaseBug::WriteOverTheLogin,
        "leases::a_lease_does_not_change_the_login",
    ),
    (
        LeaseBug::ReleaseOnLoginWrite,
        "leases::writing_the_login_does_not_change_the_lease",
    ),
    (
        LeaseBug::PrintLogins,
        "redaction::no_lease_prints_the_login",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn each_bug_fails_its_case() {
    let mut never_failed: BTreeSet<_> = cases().map(|case| case.name()).collect();
    let mut check = |bug: &dyn fmt::Debug, finder, failed: Failures| {
        assert!(
            failed.contains_key(finder),
            "{bug:?} is not found by {finder}, only by {failed:#?}"
        );
        never_failed.retain(|case| !failed.contains_key(case));
    };
    for (bug, finder) in FOUND_BY {
        check(&bug, finder, failures(bug, REFERENCE_GUARANTEES).await);
    }
    for (bug, finder) in LEASES_FOUND_BY {
        check(
            &bug,
            finder,
            lease_failures(bug, REFERENCE_GUARANTEES).await,
        );
    }
    assert!(never_failed.is_empty(), "no bug fails {never_failed:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_wrapper_without_a_bug_passes() {
    let failed = failures(Bug::None, REFERENCE_GUARANTEES).await;
    assert!(failed.is_empty(), "{failed:#?}");
    let failed = lease_failures(LeaseBug::None, REFERENCE_GUARANTEES).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Declared behavior is not a bug.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_store_that_declares_less_passes() {
    let late = Guarantees {
        reads: Reads::Eventual,
        ..REFERENCE_GUARANTEES
    };
    let check_then_write = Guarantees {
        swap: Swap::CheckThenWrite,
        ..REFERENCE_GUARANTEES
    };
    let unstamped = Guarantees {
        stamps: false,
        ..REFERENCE_GUARANTEES
    };
    for (bug, declared) in [
        (Bug::ReadsAreStale, late),
        (Bug::ChecksThenWrites, check_then_write),
        (Bug::DropsStamps, unstamped),
    ] {
        let failed = failures(bug, declared).await;
        assert!(failed.is_empty(), "{bug:?}: {failed:#?}");
    }
    // The swap decides who holds a lease, even if reads are stale.
    let failed = lease_failures(LeaseBug::ReadsAreStale, late).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The failed cases, each with its message.
type Failures = BTreeMap<&'static str, String>;

async fn failures(bug: Bug, declared: Guarantees) -> Failures {
    let notes = Notes::default();
    run(declared, None, move |inner| {
        Box::new(Broken {
            bug,
            declared,
            inner,
            notes: notes.clone(),
        })
    })
    .await
}

async fn lease_failures(bug: LeaseBug, declared: Guarantees) -> Failures {
    let (notes, store_notes) = (LeaseNotes::default(), Notes::default());
    let by_hand = notes.clone();
    let put_lease: PutLease = Box::new(move |place, text| {
        let mut notes = by_hand.lock().unwrap_or_else(PoisonError::into_inner);
        let note = notes.entry(place.to_owned()).or_default();
        note.put_by_hand(place, text);
    });
    let has_own = matches!(bug, LeaseBug::CheckThenWrite | LeaseBug::ReadsAreStale);
    run(declared, has_own.then_some(put_lease), move |inner| {
        Box::new(BrokenLeases {
            bug,
            declared,
            inner,
            notes: notes.clone(),
            store_notes: store_notes.clone(),
        })
    })
    .await
}

async fn run(
    declared: Guarantees,
    put_lease: Option<PutLease>,
    wrap: impl Fn(Box<dyn SecretStore>) -> Box<dyn SecretStore> + Send + Sync + 'static,
) -> Failures {
    let mut places = Places::new(move |inner, _| wrap(inner));
    places.guarantees = declared;
    places.put_lease = put_lease;
    let places = Arc::new(places);
    let mut failed = BTreeMap::new();
    for case in cases() {
        if let Err(failure) = case.run(Arc::clone(&places) as _).await {
            failed.insert(case.name(), failure.to_string());
        }
    }
    failed
}
