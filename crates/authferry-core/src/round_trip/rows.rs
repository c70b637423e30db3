//! What a round trip does, one case per test. The two tests marked *Masked* find bugs that the
//! exhaustive model cannot detect, because another part of the machine masks them.

use alloc::{vec, vec::Vec};

use super::*;
use crate::copies::Content;
use crate::{Identity, Issued, Label, Policy, SessionHints};

#[test]
fn unchanged_tokens_send_no_request() {
    let (_, effects) = RoundTrip::resume(terms(), base(1), &[], Seen::Usable(generation(1, "a")));
    assert_eq!(effects, [Effect::Finish(Outcome::Unchanged)]);
}

#[test]
fn a_joined_round_trip_writes_through_and_does_not_end() {
    for seen in [
        Seen::Missing,
        Seen::AuthFileError,
        Seen::Usable(generation(1, "a")),
    ] {
        let (round_trip, effects) = RoundTrip::join(terms(), base(1), &[], seen);
        assert_eq!(effects, []);
        let (_, effects) = round_trip.step(Event::Changed(generation(2, "a")));
        assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
    }
    let (round_trip, effects) =
        RoundTrip::join(terms(), base(1), &[], Seen::Usable(generation(2, "a")));
    let [Effect::Swap(write)] = &effects[..] else {
        panic!("the login on disk is swapped: {effects:?}");
    };
    assert_eq!((&write.expected, write.count), (&Version::new("v1"), 2));
    let (_, effects) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(effects, [], "the command may still run");
}

#[test]
fn a_running_codex_makes_the_outcome_unsettled() {
    let running = || RoundTrip::join(terms(), base(1), &[], Seen::Missing).0;
    let unsettled = [Effect::Finish(Outcome::Unsettled)];
    // Codex may truncate the file for an instant.
    for seen in [Seen::Usable(generation(1, "a")), Seen::AuthFileError] {
        assert_eq!(running().step(Event::CodexRunning(seen)).1, unsettled);
    }
    // Codex does not write a deleted file again.
    let (_, effects) = running().step(Event::CodexRunning(Seen::Missing));
    assert_eq!(effects, [not_persisted(Cause::Missing, false)]);
    let new = Seen::Usable(generation(2, "a"));
    let (round_trip, effects) = running().step(Event::CodexRunning(new));
    assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
    let (_, effects) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(effects, unsettled);
}

#[test]
fn a_new_generation_is_swapped_over_the_version_read() {
    let (round_trip, write) = swapping(2);
    assert_eq!(write.expected, Version::new("v1"));
    assert_eq!(write.count, 2);
    assert_eq!(write.family, base(1).family);
    let (_, effects) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Persisted {
            overwritten: vec![]
        })]
    );
}

#[test]
fn a_file_without_a_login_sends_no_swap() {
    let (_, effects) = RoundTrip::resume(terms(), base(1), &[], Seen::Missing);
    assert_eq!(effects, [not_persisted(Cause::Missing, false)]);
    let (round_trip, effects) = RoundTrip::resume(terms(), base(1), &[], Seen::AuthFileError);
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        round_trip.step(Event::Rescued(true)).1,
        [not_persisted(Cause::AuthFileError, true)]
    );
}

#[test]
fn another_account_is_not_persisted_unless_allowed() {
    let foreign = Seen::Usable(generation(2, "b"));
    let (round_trip, effects) = RoundTrip::resume(terms(), base(1), &[], foreign.clone());
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        round_trip.step(Event::Rescued(true)).1,
        [not_persisted(Cause::OtherAccount, true)]
    );
    let allowed = Terms {
        allow_account_change: true,
        ..terms()
    };
    // It does not descend from the base: the base is backed up, and a family starts.
    let (round_trip, effects) = RoundTrip::resume(allowed, base(1), &[], foreign);
    assert_eq!(effects, [Effect::Read], "for the bytes of the base");
    let (round_trip, effects) = round_trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    assert_eq!(effects, [Effect::Rescue(Keep::Theirs)]);
    let (_, effects) = round_trip.step(Event::Rescued(true));
    let [Effect::Swap(write)] = &effects[..] else {
        panic!("{effects:?}")
    };
    let begins = Family(generation(2, "b").fingerprint);
    assert_eq!((write.family, write.count), (begins, 1));
}

#[test]
fn a_refused_login_from_a_cache_is_not_persisted() {
    let refused = Terms {
        refused: vec![generation(2, "a").fingerprint],
        ..terms()
    };
    let (round_trip, effects) =
        RoundTrip::resume(refused, base(1), &[], Seen::Usable(generation(2, "a")));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        round_trip.step(Event::Rescued(true)).1,
        [not_persisted(Cause::Older, true)]
    );
}

/// Only Codex's own refresh writes there, regardless of the clocks of seeder and provider.
#[test]
fn in_a_rotations_private_home_the_times_do_not_count() {
    let rotation = Terms {
        is_rotation: true,
        ..terms()
    };
    // The base is not backed up: it is spent, and would count as the later login.
    let (_, effects) = RoundTrip::resume(rotation, base(3), &[], Seen::Usable(generation(2, "a")));
    assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
}

#[test]
fn only_a_rotation_marks_session_hints_as_volatile() {
    for is_rotation in [true, false] {
        let terms = Terms {
            is_rotation,
            history: true,
            ..terms()
        };
        let mut next = generation(2, "a");
        next.hints.session = Some(Label::new("another"));
        let mut base = base(1);
        base.generation.hints.session = Some(Label::new("session"));
        let (_, effects) = RoundTrip::resume(terms, base, &[], Seen::Usable(next));
        let [Effect::Swap(write)] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(write.volatile_hints, is_rotation);
    }
}

#[test]
fn a_stale_file_is_rescued_and_not_swapped() {
    let (round_trip, effects) =
        RoundTrip::resume(terms(), base(3), &[], Seen::Usable(generation(2, "a")));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        round_trip.step(Event::Rescued(true)).1,
        [not_persisted(Cause::Older, true)]
    );
}

#[test]
fn a_file_set_back_to_the_restored_login_is_no_change() {
    let (round_trip, write) = running_swap(2);
    let (round_trip, _) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(write.generation, generation(2, "a"));
    let (_, effects) = round_trip.step(Event::Exited(Seen::Usable(generation(1, "a"))));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Persisted {
            overwritten: vec![]
        })]
    );
}

#[test]
fn our_own_landed_write_is_no_conflict() {
    for shown in [
        held("v2", 2, Some(1)),
        held("v2", 2, None),
        held("v9", 9, Some(1)),
    ] {
        let (round_trip, _) = swapping(2);
        let (round_trip, effects) = round_trip.step(Event::Swapped(Reply::Conflict));
        assert_eq!(effects, [Effect::Read]);
        let (_, effects) = round_trip.step(Event::Read(Ok(Some(shown))));
        assert_eq!(
            effects,
            [Effect::Finish(Outcome::Persisted {
                overwritten: vec![]
            })]
        );
    }
}

#[test]
fn the_newest_generation_wins_and_the_other_is_backed_up_first() {
    let (round_trip, first) = swapping(3);
    let (round_trip, _) = round_trip.step(Event::Swapped(Reply::Conflict));
    let (round_trip, effects) = round_trip.step(Event::Read(Ok(Some(held("v2", 2, None)))));
    assert_eq!(effects, [Effect::Rescue(Keep::Theirs)]);
    let (round_trip, effects) = round_trip.step(Event::Rescued(true));
    let [Effect::Swap(second)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(second.expected, Version::new("v2"));
    assert_ne!(second.id, first.id, "a new intent");
    let (_, effects) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v3"))));
    let overwritten = vec![generation(2, "a").fingerprint];
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Persisted { overwritten })]
    );
}

#[test]
fn a_reseed_stays_current_even_if_it_was_issued_earlier() {
    let (round_trip, _) = swapping(3);
    let (round_trip, _) = round_trip.step(Event::Swapped(Reply::Conflict));
    let reseed = Held {
        family: Some(family(2)),
        ..held("v2", 2, None)
    };
    let (round_trip, effects) = round_trip.step(Event::Read(Ok(Some(reseed))));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    let by = generation(2, "a").fingerprint;
    let end = Effect::Finish(Outcome::Superseded { by, rescued: true });
    assert_eq!(round_trip.step(Event::Rescued(true)).1, [end]);
}

#[test]
fn another_accounts_login_in_the_store_stays_and_ours_is_rescued() {
    let mut theirs = held("v2", 9, None);
    theirs.generation = Some(generation(9, "b"));
    let no_login = Held {
        generation: None,
        ..theirs.clone()
    };
    for shown in [theirs, no_login] {
        let (round_trip, _) = swapping(2);
        let (round_trip, _) = round_trip.step(Event::Swapped(Reply::Conflict));
        let (round_trip, effects) = round_trip.step(Event::Read(Ok(Some(shown))));
        assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
        assert_eq!(
            round_trip.step(Event::Rescued(true)).1,
            [not_persisted(Cause::ForeignLogin, true)]
        );
    }
}

#[test]
fn an_emptied_store_is_not_refilled() {
    let (round_trip, _) = swapping(2);
    let (round_trip, _) = round_trip.step(Event::Swapped(Reply::Conflict));
    let (round_trip, effects) = round_trip.step(Event::Read(Ok(None)));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        round_trip.step(Event::Rescued(false)).1,
        [not_persisted(Cause::Emptied, false)]
    );
}

#[test]
fn a_transient_failure_is_retried_until_the_deadline() {
    let (mut round_trip, _) = swapping(2);
    for _ in 0..20 {
        let effects;
        (round_trip, effects) = round_trip.step(Event::Swapped(Reply::Refused(Retryable::Yes)));
        assert!(matches!(effects[..], [Effect::Wait(_)]), "{effects:?}");
        (round_trip, _) = round_trip.step(Event::Waited);
    }
    let (round_trip, effects) = round_trip.step(Event::Deadline);
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        round_trip.step(Event::Rescued(true)).1,
        [not_persisted(Cause::Store, true)]
    );
}

/// Masked in the exhaustive model: there tokens never repeat, so they identify the write as well.
#[test]
fn every_retry_of_a_write_has_the_same_id() {
    let (round_trip, first) = swapping(2);
    let (round_trip, _) = round_trip.step(Event::Swapped(Reply::Ambiguous));
    let (round_trip, effects) = round_trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    assert!(matches!(effects[..], [Effect::Wait(_)]), "{effects:?}");
    let (_, effects) = round_trip.step(Event::Waited);
    assert_eq!(effects, [Effect::Swap(first)]);
}

/// Masked in the exhaustive model: there the last read of the file finds the change as well.
#[test]
fn a_change_during_a_swap_is_swapped_next() {
    let (round_trip, _) = running_swap(2);
    let (round_trip, effects) = round_trip.step(Event::Changed(generation(3, "a")));
    assert_eq!(effects, []);
    let (_, effects) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    let [Effect::Swap(write)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(write.generation, generation(3, "a"));
    assert_eq!(write.expected, Version::new("v2"));
}

#[test]
fn a_refused_write_is_retried_once_after_the_command() {
    let (round_trip, write) = running_swap(2);
    let (round_trip, effects) = round_trip.step(Event::Swapped(Reply::Refused(Retryable::No)));
    assert_eq!(effects, []);
    let (round_trip, effects) = round_trip.step(Event::Exited(Seen::Usable(generation(2, "a"))));
    assert_eq!(effects, [Effect::Swap(write)]);
    let (_, effects) = round_trip.step(Event::Swapped(Reply::Refused(Retryable::No)));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
}

#[test]
fn a_newer_file_goes_to_the_store_before_the_command_starts() {
    let (round_trip, _) =
        RoundTrip::start(terms(), vec![auth_file(generation(2, "a"), Some(base(1)))]);
    let (round_trip, effects) = round_trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    assert!(matches!(&effects[..], [Effect::Swap(w)] if w.generation == generation(2, "a")));
    let (_, effects) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(effects, [Effect::Run]);
}

#[test]
fn a_rollback_to_the_parent_is_no_reseed() {
    let (round_trip, _) = swapping(3);
    let (round_trip, _) = round_trip.step(Event::Swapped(Reply::Conflict));
    let (round_trip, effects) = round_trip.step(Event::Read(Ok(Some(held("v2", 1, None)))));
    assert!(matches!(effects[..], [Effect::Wait(_)]), "{effects:?}");
    let (_, effects) = round_trip.step(Event::Waited);
    let [Effect::Swap(write)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(write.expected, Version::new("v2"));
}

#[test]
fn an_unclear_rotation_backs_up_the_base_first() {
    let (round_trip, _) = running_swap(3);
    let (round_trip, _) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    let mut next = generation(4, "a");
    next.issued.iat = None;
    let (round_trip, effects) = round_trip.step(Event::Changed(next));
    assert_eq!(effects, [Effect::Read], "for the bytes of the base");
    let base = held("v2", 3, Some(1));
    let (round_trip, effects) = round_trip.step(Event::Read(Ok(Some(base))));
    assert_eq!(effects, [Effect::Rescue(Keep::Theirs)]);
    let (_, effects) = round_trip.step(Event::Rescued(true));
    assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
}

#[test]
fn a_change_after_the_last_read_is_persisted() {
    let (round_trip, _) = swapping(2);
    let (round_trip, _) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    let (round_trip, effects) = round_trip.reopen(Seen::Usable(generation(3, "a")));
    assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
    let (_, effects) = round_trip.step(Event::Swapped(Reply::Landed(Version::new("v3"))));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Persisted {
            overwritten: vec![]
        })]
    );
}

#[test]
fn an_adopted_file_backs_up_the_head_unless_it_descends_from_it() {
    let adopt = |known: Base| {
        let copy = auth_file(generation(3, "a"), Some(known));
        let (round_trip, _) = RoundTrip::start(terms(), vec![copy]);
        round_trip.step(Event::Read(Ok(Some(held("v2", 2, None)))))
    };
    let of_the_head = Base {
        version: Version::new("v2"),
        ..base(2)
    };
    assert!(matches!(adopt(of_the_head).1[..], [Effect::Swap(_)]));
    let (round_trip, effects) = adopt(base(1));
    assert_eq!(effects, [Effect::Rescue(Keep::Theirs)]);
    let (_, effects) = round_trip.clone().step(Event::Rescued(false));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Refused(Refusal::NotKept))]
    );
    assert!(matches!(
        round_trip.step(Event::Rescued(true)).1[..],
        [Effect::Swap(_)]
    ));
}

#[test]
fn a_foreign_file_is_backed_up_before_it_is_replaced() {
    let terms = Terms {
        replace: true,
        ..terms()
    };
    let (round_trip, _) = RoundTrip::start(terms, vec![auth_file(generation(2, "b"), None)]);
    let (round_trip, effects) = round_trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    assert_eq!(
        effects,
        [Effect::Rescue(Keep::Copies(vec![SetAside {
            copy: 0,
            origins: None
        }]))]
    );
    let head = generation(1, "a").fingerprint;
    assert_eq!(
        round_trip.step(Event::Rescued(true)).1,
        [Effect::Place(head)]
    );
}

#[test]
fn a_newer_file_that_the_store_refuses_starts_no_command() {
    let (round_trip, _) =
        RoundTrip::start(terms(), vec![auth_file(generation(2, "a"), Some(base(1)))]);
    let (round_trip, _) = round_trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    let (_, effects) = round_trip.step(Event::Swapped(Reply::Refused(Retryable::No)));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Refused(Refusal::Unwritable))]
    );
}

/// A resumed round trip whose first swap is in flight.
fn swapping(number: u8) -> (RoundTrip, Write) {
    let (round_trip, effects) =
        RoundTrip::resume(terms(), base(1), &[], Seen::Usable(generation(number, "a")));
    (round_trip, only_swap(effects))
}

/// The same while the command runs.
fn running_swap(number: u8) -> (RoundTrip, Write) {
    let (round_trip, _) = RoundTrip::start(terms(), vec![]);
    let (round_trip, _) = round_trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    let (round_trip, effects) = round_trip.step(Event::Placed(Placing::Done));
    assert_eq!(effects, [Effect::Run]);
    let (round_trip, effects) = round_trip.step(Event::Changed(generation(number, "a")));
    (round_trip, only_swap(effects))
}

fn only_swap(mut effects: Vec<Effect>) -> Write {
    match (effects.pop(), effects.pop()) {
        (Some(Effect::Swap(write)), None) => write,
        other => panic!("{other:?}"),
    }
}

fn terms() -> Terms {
    Terms {
        goal: Goal::Run,
        policy: Policy::Newest,
        nonce: 7,
        history: false,
        replace: false,
        refused: vec![],
        allow_account_change: false,
        is_rotation: false,
    }
}

fn base(number: u8) -> Base {
    Base {
        version: Version::new("v1"),
        generation: generation(number, "a"),
        count: 1,
        family: family(1),
        ancestors: vec![],
        volatile_hints: false,
        unrelated: vec![],
    }
}

fn family(number: u8) -> Family {
    Family(Fingerprint::new([number; 8]))
}

fn auth_file(generation: Generation, known: Option<Base>) -> Copy {
    Copy {
        place: Place::AuthFile,
        content: Content::Usable(generation),
        origins: known.map(|base| Origins {
            base,
            seen: 0,
            by_name: false,
            hints_count: true,
            elsewhere: false,
        }),
    }
}

fn held(version: &str, number: u8, write: Option<u64>) -> Held {
    Held {
        version: Version::new(version),
        generation: Some(generation(number, "a")),
        id: write.map(|number| WriteId { nonce: 7, number }),
        count: 1,
        family: Some(family(1)),
        volatile_hints: false,
    }
}

fn generation(number: u8, account: &str) -> Generation {
    Generation {
        fingerprint: Fingerprint::new([number; 8]),
        identity: Identity {
            account: Some(Label::new(account)),
            ..Identity::default()
        },
        hints: SessionHints::default(),
        issued: Issued {
            iat: Some(1000 * i64::from(number)),
            ..Issued::default()
        },
    }
}

fn not_persisted(cause: Cause, rescued: bool) -> Effect {
    Effect::Finish(Outcome::NotPersisted { cause, rescued })
}
