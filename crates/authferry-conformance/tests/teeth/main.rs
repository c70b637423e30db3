//! The suite has teeth: each fault that a store may have makes the named case fail, and
//! there is no case that nothing can make fail.

mod broken;
mod broken_claims;
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
use broken_claims::{BrokenClaims, ClaimBug, ClaimNotes};
use places::{OF_THE_REFERENCE, Places, PutClaim};

/// Each bug with the case that is there to find it. Others may fail with it.
const FOUND_BY: [(Bug, &str); 26] = [
    (
        Bug::IgnoresExpectation,
        "create::a_filled_place_is_not_created_over",
    ),
    (Bug::ChecksThenWrites, "race::one_of_many_writers_wins"),
    (
        Bug::NamesVersionsByContent,
        "swap::the_same_bytes_get_another_version",
    ),
    (
        Bug::NamesVersionsAnewOnRead,
        "swap::reading_changes_nothing",
    ),
    (Bug::DropsStamps, "create::a_created_value_is_read_back"),
    (
        Bug::KeepsStampsOverHand,
        "swap::a_value_put_by_hand_over_ours_ends_our_version",
    ),
    (
        Bug::KeepsStampsOfTheSameBytes,
        "stamps::the_same_bytes_put_by_hand_lose_the_stamp",
    ),
    (Bug::ForgetsFamilies, "stamps::each_part_comes_back"),
    (Bug::ForgetsHints, "stamps::each_part_comes_back"),
    (Bug::CutsCounts, "stamps::each_part_comes_back"),
    (
        Bug::IgnoresTheSameBytes,
        "stamps::a_login_that_is_put_again_is_a_new_version",
    ),
    (
        Bug::WritesDuplicatesAgain,
        "identity::a_duplicate_is_one_write",
    ),
    (
        Bug::AnswersForIdsAlone,
        "identity::an_id_does_not_stand_for_other_bytes",
    ),
    (
        Bug::WritesInTwoSteps,
        "swap::a_swap_given_up_leaves_one_of_the_two",
    ),
    (
        Bug::RestartsVersions,
        "swap::a_value_that_is_gone_conflicts",
    ),
    (Bug::ReadsInTwoSteps, "race::a_reader_never_sees_a_mixture"),
    (Bug::ReadsLate, "create::a_created_value_is_read_back"),
    (
        Bug::ReadsNothingAsAValue,
        "create::an_empty_place_reads_none",
    ),
    (Bug::MendsNewlines, "swap::bytes_are_kept_as_they_are"),
    (Bug::CutsTheLongest, "limits::the_longest_value_fits"),
    (Bug::CutsTheTooLong, "limits::a_longer_value_is_refused"),
    (
        Bug::DeclaresLess,
        "limits::the_declaration_is_the_pinned_one",
    ),
    (Bug::DoubtsConflicts, "swap::a_stale_version_conflicts"),
    (Bug::DoubtsRefusals, "refusal::a_refusal_is_told_as_one"),
    (Bug::PrintsLogins, "redaction::no_value_prints_the_login"),
    (
        Bug::PrintsLoginsInErrors,
        "redaction::no_error_prints_the_login",
    ),
];

/// The same for claims.
const CLAIMS_FOUND_BY: [(ClaimBug, &str); 24] = [
    (
        ClaimBug::AreMissing,
        "claims::the_declaration_is_the_pinned_one",
    ),
    (ClaimBug::GrantWhatIsHeld, "claims::one_holds_it_at_a_time"),
    (
        ClaimBug::TakeOverAtTheEnd,
        "claims::what_has_ended_is_free_once_all_clocks_say_so",
    ),
    (
        ClaimBug::NeverTakeOver,
        "claims::what_has_ended_is_free_once_all_clocks_say_so",
    ),
    (
        ClaimBug::KeepWhatIsReleased,
        "claims::what_was_released_is_free_at_once",
    ),
    (
        ClaimBug::LetLosersRenew,
        "claims::what_was_taken_over_is_lost",
    ),
    (
        ClaimBug::LetLosersRelease,
        "claims::what_was_taken_over_is_lost",
    ),
    (
        ClaimBug::ForgetRenewals,
        "claims::a_renewed_claim_holds_until_its_new_end",
    ),
    (
        ClaimBug::ForgetNotes,
        "claims::a_note_is_found_by_whoever_has_it_next",
    ),
    (
        ClaimBug::ShowReleasedAsHeld,
        "claims::a_look_tells_how_it_stands",
    ),
    (
        ClaimBug::RefuseABidAskedAgain,
        "claims::a_bid_asked_again_is_one_claim",
    ),
    (
        ClaimBug::GrantABidAskedAgain,
        "claims::a_bid_asked_again_is_one_claim",
    ),
    (
        ClaimBug::RefuseARenewalAskedAgain,
        "claims::a_renewal_asked_again_lasts",
    ),
    (
        ClaimBug::RefuseAReleaseAskedAgain,
        "claims::a_release_asked_again_is_done",
    ),
    (
        ClaimBug::NeverExpire,
        "claims::a_claim_that_nobody_renews_is_taken_over",
    ),
    (
        ClaimBug::ExpireWhatIsRenewed,
        "claims::a_claim_that_nobody_renews_is_taken_over",
    ),
    (
        ClaimBug::RefuseForeignRecords,
        "claims::a_record_without_a_stamp_is_taken_over_after_its_end",
    ),
    (
        ClaimBug::TakeOverForeignRecords,
        "claims::a_record_without_a_stamp_is_taken_over_after_its_end",
    ),
    (
        ClaimBug::NeverExpire,
        "claims::a_record_that_makes_no_sense_is_taken_over_after_a_term",
    ),
    (ClaimBug::CheckThenWrite, "claims::one_of_many_bidders_wins"),
    (
        ClaimBug::ReadLate,
        "claims::what_was_released_is_free_at_once",
    ),
    (
        ClaimBug::WriteOverTheLogin,
        "claims::a_claim_leaves_the_login_alone",
    ),
    (
        ClaimBug::GoWithTheLogin,
        "claims::a_login_leaves_the_claim_alone",
    ),
    (
        ClaimBug::PrintLogins,
        "redaction::no_claim_prints_the_login",
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn each_bug_fails_the_case_that_is_there_to_find_it() {
    let mut toothless: BTreeSet<_> = cases().map(|case| case.name()).collect();
    let mut check = |bug: &dyn fmt::Debug, finder, failed: Failures| {
        assert!(
            failed.contains_key(finder),
            "{bug:?} is not found by {finder}, only by {failed:#?}"
        );
        toothless.retain(|case| !failed.contains_key(case));
    };
    for (bug, finder) in FOUND_BY {
        check(&bug, finder, failures(bug, OF_THE_REFERENCE).await);
    }
    for (bug, finder) in CLAIMS_FOUND_BY {
        check(&bug, finder, claim_failures(bug, OF_THE_REFERENCE).await);
    }
    assert!(toothless.is_empty(), "no bug fails {toothless:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_wrapper_without_a_bug_passes() {
    let failed = failures(Bug::None, OF_THE_REFERENCE).await;
    assert!(failed.is_empty(), "{failed:#?}");
    let failed = claim_failures(ClaimBug::None, OF_THE_REFERENCE).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

/// What a store declares is no bug in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_store_that_declares_less_is_held_to_that() {
    let late = Guarantees {
        reads: Reads::Eventual,
        ..OF_THE_REFERENCE
    };
    let check_then_write = Guarantees {
        swap: Swap::CheckThenWrite,
        ..OF_THE_REFERENCE
    };
    let unstamped = Guarantees {
        stamps: false,
        ..OF_THE_REFERENCE
    };
    for (bug, declared) in [
        (Bug::ReadsLate, late),
        (Bug::ChecksThenWrites, check_then_write),
        (Bug::DropsStamps, unstamped),
    ] {
        let failed = failures(bug, declared).await;
        assert!(failed.is_empty(), "{bug:?}: {failed:#?}");
    }
    // The swap decides who has a claim, however late it can be read.
    let failed = claim_failures(ClaimBug::ReadLate, late).await;
    assert!(failed.is_empty(), "{failed:#?}");
}

/// The cases that failed, each with what it says.
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

async fn claim_failures(bug: ClaimBug, declared: Guarantees) -> Failures {
    let (notes, store_notes) = (ClaimNotes::default(), Notes::default());
    let by_hand = notes.clone();
    let put_claim: PutClaim = Box::new(move |place, text| {
        let mut notes = by_hand.lock().unwrap_or_else(PoisonError::into_inner);
        let note = notes.entry(place.to_owned()).or_default();
        note.put_by_hand(place, text);
    });
    let has_own = matches!(bug, ClaimBug::CheckThenWrite | ClaimBug::ReadLate);
    run(declared, has_own.then_some(put_claim), move |inner| {
        Box::new(BrokenClaims {
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
    put_claim: Option<PutClaim>,
    wrap: impl Fn(Box<dyn SecretStore>) -> Box<dyn SecretStore> + Send + Sync + 'static,
) -> Failures {
    let mut places = Places::new(move |inner, _| wrap(inner));
    places.guarantees = declared;
    places.put_claim = put_claim;
    let places = Arc::new(places);
    let mut failed = BTreeMap::new();
    for case in cases() {
        if let Err(failure) = case.run(Arc::clone(&places) as _).await {
            failed.insert(case.name(), failure.to_string());
        }
    }
    failed
}
