//! The table of cases, and what a case is.

use std::{error::Error, fmt, pin::Pin, sync::Arc};

use crate::{Fixture, place::Place};

mod claims;
mod create;
mod identity;
mod limits;
mod race;
mod redaction;
mod refusal;
mod stamps;
mod swap;

/// How many writers race for one version, and how many bidders for one claim.
pub(crate) const RACERS: usize = 8;

/// One thing that every store must do, under a name.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    run: fn(Place) -> Running,
}

type Running = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

impl Case {
    /// Returns its name: `swap::a_stale_version_conflicts`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Runs it on a fresh place. Needs a runtime with time; writers race the harder
    /// the more threads it has.
    ///
    /// The [`Failure`] says what the store did instead.
    pub async fn run(&self, fixture: Arc<dyn Fixture>) -> Result<(), Failure> {
        (self.run)(Place::new(fixture, self.name)).await
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({})", self.name)
    }
}

/// What a store did that it must not, or failed to do, in words.
#[derive(Debug)]
pub struct Failure(String);

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error where none is due is a failure; it is told with all that lies below it.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut below = error.source();
        while let Some(error) = below {
            text = format!("{text}: {error}");
            below = error.source();
        }
        Self(text)
    }
}

/// Returns early with a [`Failure`] unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::cases::Failure::new(format!($($message)+)));
        }
    };
}
pub(crate) use ensure;

macro_rules! table {
    ($($subject:ident::$case:ident,)+) => {
        [$(Case {
            name: concat!(stringify!($subject), "::", stringify!($case)),
            run: |place| Box::pin($subject::$case(place)),
        },)+]
    };
}

/// Returns the cases. Each decides from the fixture's guarantees what it asks for.
pub fn cases() -> impl Iterator<Item = Case> {
    table![
        create::an_empty_place_reads_none,
        create::a_created_value_is_read_back,
        create::a_filled_place_is_not_created_over,
        create::a_value_put_by_hand_is_not_created_over,
        swap::the_current_version_is_replaced,
        swap::a_stale_version_conflicts,
        swap::a_version_never_given_conflicts,
        swap::a_value_that_is_gone_conflicts,
        swap::the_same_bytes_get_another_version,
        swap::a_value_put_by_hand_is_swapped_over,
        swap::a_value_put_by_hand_over_ours_ends_our_version,
        swap::bytes_are_kept_as_they_are,
        swap::reading_changes_nothing,
        swap::a_swap_given_up_leaves_one_of_the_two,
        stamps::each_part_comes_back,
        stamps::the_same_bytes_put_by_hand_lose_the_stamp,
        stamps::a_login_that_is_put_again_is_a_new_version,
        race::one_of_many_writers_wins,
        race::a_reader_never_sees_a_mixture,
        identity::a_lost_reply_is_settled_by_looking,
        identity::a_lost_request_lands_once_when_sent_again,
        identity::a_duplicate_is_one_write,
        identity::a_late_duplicate_brings_nothing_back,
        identity::an_id_does_not_stand_for_other_bytes,
        limits::the_declaration_is_the_pinned_one,
        limits::the_longest_value_fits,
        limits::a_longer_value_is_refused,
        refusal::a_refusal_is_told_as_one,
        redaction::no_value_prints_the_login,
        redaction::no_error_prints_the_login,
        redaction::no_claim_prints_the_login,
        claims::the_declaration_is_the_pinned_one,
        claims::one_holds_it_at_a_time,
        claims::what_was_released_is_free_at_once,
        claims::what_has_ended_is_free_once_all_clocks_say_so,
        claims::what_was_taken_over_is_lost,
        claims::a_renewed_claim_holds_until_its_new_end,
        claims::a_look_tells_how_it_stands,
        claims::a_note_is_found_by_whoever_has_it_next,
        claims::a_bid_asked_again_is_one_claim,
        claims::a_renewal_asked_again_lasts,
        claims::a_release_asked_again_is_done,
        claims::a_claim_that_nobody_renews_is_taken_over,
        claims::a_record_without_a_stamp_is_taken_over_after_its_end,
        claims::a_record_that_makes_no_sense_is_taken_over_after_a_term,
        claims::one_of_many_bidders_wins,
        claims::a_claim_leaves_the_login_alone,
        claims::a_login_leaves_the_claim_alone,
    ]
    .into_iter()
}
