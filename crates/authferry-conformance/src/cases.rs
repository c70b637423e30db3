//! The table of cases.

use std::{error::Error, fmt, pin::Pin, sync::Arc};

use crate::{Fixture, place::Place};

mod create;
mod idempotency;
mod leases;
mod limits;
mod race;
mod redaction;
mod refusal;
mod stamps;
mod swap;

/// How many writers race for one version, and how many lease clients for one lease.
pub(crate) const RACERS: usize = 8;

/// A named check that every store must pass.
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

    /// Runs the case on a new place. Needs a runtime with a timer; more threads make the races
    /// harder.
    ///
    /// The [`Failure`] describes what the store did instead.
    pub async fn run(&self, fixture: Arc<dyn Fixture>) -> Result<(), Failure> {
        (self.run)(Place::new(fixture, self.name)).await
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({})", self.name)
    }
}

/// A description of the store's wrong behavior.
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

/// An unexpected error is a failure. The text contains the error and all its causes.
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

/// Returns the cases. Each case adapts to the fixture's guarantees.
pub fn cases() -> impl Iterator<Item = Case> {
    table![
        create::an_empty_place_reads_none,
        create::a_created_value_is_read_back,
        create::creating_over_an_existing_value_conflicts,
        create::creating_over_a_value_put_by_hand_conflicts,
        swap::the_current_version_is_replaced,
        swap::a_stale_version_conflicts,
        swap::an_unknown_version_conflicts,
        swap::the_version_of_a_deleted_value_conflicts,
        swap::the_same_bytes_get_a_new_version,
        swap::a_value_put_by_hand_can_be_swapped,
        swap::a_write_by_hand_makes_our_version_stale,
        swap::bytes_are_stored_unchanged,
        swap::reading_changes_nothing,
        swap::a_cancelled_swap_leaves_the_old_or_the_new_value,
        stamps::every_field_is_read_back,
        stamps::the_same_bytes_put_by_hand_lose_the_stamp,
        stamps::rewriting_the_same_login_makes_a_new_version,
        race::one_of_many_writers_wins,
        race::a_reader_never_sees_a_torn_value,
        idempotency::a_lost_reply_is_resolved_by_a_read,
        idempotency::a_retry_of_a_lost_request_writes_once,
        idempotency::a_duplicate_writes_once,
        idempotency::a_delayed_duplicate_overwrites_nothing,
        idempotency::a_reused_write_id_with_other_bytes_fails,
        limits::the_declared_guarantees_match_the_fixture,
        limits::a_value_of_the_maximum_length_fits,
        limits::a_longer_value_is_refused,
        refusal::a_refused_call_returns_its_error_and_changes_nothing,
        redaction::no_value_prints_the_login,
        redaction::no_error_prints_the_login,
        redaction::no_lease_prints_the_login,
        leases::the_declared_lease_support_matches_the_fixture,
        leases::only_one_client_holds_the_lease,
        leases::a_released_lease_is_free_at_once,
        leases::an_expired_lease_is_free_after_the_clock_skew,
        leases::a_lease_that_was_taken_over_is_lost,
        leases::a_renewed_lease_holds_until_its_new_expiry,
        leases::a_look_returns_the_lease_status,
        leases::the_next_holder_reads_the_note,
        leases::a_repeated_acquire_returns_the_same_lease,
        leases::a_repeated_renewal_succeeds,
        leases::a_repeated_release_succeeds,
        leases::a_lease_that_is_not_renewed_is_taken_over,
        leases::a_record_without_a_stamp_is_taken_over_after_its_expiry,
        leases::a_malformed_record_is_taken_over_after_one_term,
        leases::one_of_many_lease_clients_wins,
        leases::a_lease_does_not_change_the_login,
        leases::writing_the_login_does_not_change_the_lease,
    ]
    .into_iter()
}
