//! The suite has teeth: each fault that a store may have makes the named case fail, and
//! there is no case that nothing can make fail.

mod broken;
#[path = "../places/mod.rs"]
mod places;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use authferry_conformance::cases;
use authferry_core::{Guarantees, Reads, Swap};
use broken::{Broken, Bug, Notes};
use places::{OF_THE_REFERENCE, Places};

/// Each bug with the case that is there to find it. Others may fail with it.
const FOUND_BY: [(Bug, &str); 21] = [
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

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn each_bug_fails_the_case_that_is_there_to_find_it() {
    let mut toothless: BTreeSet<_> = cases().map(|case| case.name()).collect();
    for (bug, finder) in FOUND_BY {
        let failed = failures(bug, OF_THE_REFERENCE).await;
        assert!(
            failed.contains_key(finder),
            "{bug:?} is not found by {finder}, only by {failed:#?}"
        );
        toothless.retain(|case| !failed.contains_key(case));
    }
    assert!(toothless.is_empty(), "no bug fails {toothless:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn a_wrapper_without_a_bug_passes() {
    let failed = failures(Bug::None, OF_THE_REFERENCE).await;
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
}

/// Returns the cases that fail on a store with `bug`, each with what it says.
async fn failures(bug: Bug, declared: Guarantees) -> BTreeMap<&'static str, String> {
    let notes = Notes::default();
    let mut places = Places::new(move |inner, _| {
        Box::new(Broken {
            bug,
            declared,
            inner,
            notes: notes.clone(),
        })
    });
    places.guarantees = declared;
    let places = Arc::new(places);
    let mut failed = BTreeMap::new();
    for case in cases() {
        if let Err(failure) = case.run(Arc::clone(&places) as _).await {
            failed.insert(case.name(), failure.to_string());
        }
    }
    failed
}
