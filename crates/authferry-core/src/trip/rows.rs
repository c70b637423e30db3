//! The tables of what a trip does, row by row, and the two faults that the exhaustive
//! check cannot see because another part of the machine covers them.

use alloc::{vec, vec::Vec};

use super::*;
use crate::copies::Content;
use crate::{Identity, Issued, Label, Policy, SessionHints};

#[test]
fn the_same_tokens_cost_no_request() {
    let (_, effects) = Trip::resume(terms(), base(1), &[], Seen::Usable(generation(1, "a")));
    assert_eq!(effects, [Effect::Finish(Outcome::Unchanged)]);
}

#[test]
fn who_joins_a_trip_writes_through_and_ends_nothing() {
    for seen in [
        Seen::Missing,
        Seen::Unusable,
        Seen::Usable(generation(1, "a")),
    ] {
        let (trip, effects) = Trip::join(terms(), base(1), &[], seen);
        assert_eq!(effects, []);
        let (_, effects) = trip.step(Event::Changed(generation(2, "a")));
        assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
    }
    let (trip, effects) = Trip::join(terms(), base(1), &[], Seen::Usable(generation(2, "a")));
    let [Effect::Swap(write)] = &effects[..] else {
        panic!("what is there already is written: {effects:?}");
    };
    assert_eq!((&write.expected, write.count), (&Version::new("v1"), 2));
    let (_, effects) = trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(effects, [], "the command may still be at work");
}

#[test]
fn nothing_is_settled_while_a_codex_may_still_write() {
    let running = || Trip::join(terms(), base(1), &[], Seen::Missing).0;
    let unsettled = [Effect::Finish(Outcome::Unsettled)];
    // The file may be truncated for an instant.
    for seen in [Seen::Usable(generation(1, "a")), Seen::Unusable] {
        assert_eq!(running().step(Event::Left(seen)).1, unsettled);
    }
    // A removed file is not written again.
    let (_, effects) = running().step(Event::Left(Seen::Missing));
    assert_eq!(effects, [stranded(Cause::Missing, false)]);
    let new = Seen::Usable(generation(2, "a"));
    let (trip, effects) = running().step(Event::Left(new));
    assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
    let (_, effects) = trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(effects, unsettled);
}

#[test]
fn a_new_generation_is_swapped_over_the_version_that_was_read() {
    let (trip, write) = swapping(2);
    assert_eq!(write.expected, Version::new("v1"));
    assert_eq!(write.count, 2);
    assert_eq!(write.family, base(1).family);
    let (_, effects) = trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Persisted { buried: vec![] })]
    );
}

#[test]
fn a_file_that_carries_no_login_leaves_the_store_alone() {
    let (_, effects) = Trip::resume(terms(), base(1), &[], Seen::Missing);
    assert_eq!(effects, [stranded(Cause::Missing, false)]);
    let (trip, effects) = Trip::resume(terms(), base(1), &[], Seen::Unusable);
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        trip.step(Event::Rescued(true)).1,
        [stranded(Cause::Unusable, true)]
    );
}

#[test]
fn another_account_is_refused_unless_it_was_allowed() {
    let foreign = Seen::Usable(generation(2, "b"));
    let (trip, effects) = Trip::resume(terms(), base(1), &[], foreign.clone());
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        trip.step(Event::Rescued(true)).1,
        [stranded(Cause::OtherAccount, true)]
    );
    let allowed = Terms {
        allow_account_change: true,
        ..terms()
    };
    // It descends from nothing here: the base is kept, and a family begins.
    let (trip, effects) = Trip::resume(allowed, base(1), &[], foreign);
    assert_eq!(effects, [Effect::Read], "for the bytes of the base");
    let (trip, effects) = trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    assert_eq!(effects, [Effect::Rescue(Keep::Theirs)]);
    let (_, effects) = trip.step(Event::Rescued(true));
    let [Effect::Swap(write)] = &effects[..] else {
        panic!("{effects:?}")
    };
    let begins = Family(generation(2, "b").fingerprint);
    assert_eq!((write.family, write.count), (begins, 1));
}

#[test]
fn a_login_that_the_provider_refused_is_not_persisted_when_a_cache_brings_it_back() {
    let refused = Terms {
        refused: vec![generation(2, "a").fingerprint],
        ..terms()
    };
    let (trip, effects) = Trip::resume(refused, base(1), &[], Seen::Usable(generation(2, "a")));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        trip.step(Event::Rescued(true)).1,
        [stranded(Cause::Older, true)]
    );
}

/// Nobody but Codex's own refresh writes there, whatever the clocks of seeder and provider say.
#[test]
fn in_the_home_of_a_rotation_no_clock_makes_a_login_older() {
    let rotation = Terms {
        is_rotation: true,
        ..terms()
    };
    // Nor is the base kept: it is spent, and would be taken for the later one.
    let (_, effects) = Trip::resume(rotation, base(3), &[], Seen::Usable(generation(2, "a")));
    assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
}

#[test]
fn session_hints_that_change_count_no_more_only_where_a_rotation_of_ours_changed_them() {
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
        let (_, effects) = Trip::resume(terms, base, &[], Seen::Usable(next));
        let [Effect::Swap(write)] = &effects[..] else {
            panic!("{effects:?}")
        };
        assert_eq!(write.volatile_hints, is_rotation);
    }
}

#[test]
fn a_file_set_back_to_an_older_login_is_rescued_and_never_written() {
    let (trip, effects) = Trip::resume(terms(), base(3), &[], Seen::Usable(generation(2, "a")));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        trip.step(Event::Rescued(true)).1,
        [stranded(Cause::Older, true)]
    );
}

#[test]
fn a_file_set_back_to_what_this_trip_restored_is_no_news() {
    let (trip, write) = running_swap(2);
    let (trip, _) = trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(write.generation, generation(2, "a"));
    let (_, effects) = trip.step(Event::Exited(Seen::Usable(generation(1, "a"))));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Persisted { buried: vec![] })]
    );
}

#[test]
fn a_store_that_moved_by_our_own_hand_is_no_conflict() {
    for shown in [
        held("v2", 2, Some(1)),
        held("v2", 2, None),
        held("v9", 9, Some(1)),
    ] {
        let (trip, _) = swapping(2);
        let (trip, effects) = trip.step(Event::Swapped(Reply::Conflict));
        assert_eq!(effects, [Effect::Read]);
        let (_, effects) = trip.step(Event::Read(Ok(Some(shown))));
        assert_eq!(
            effects,
            [Effect::Finish(Outcome::Persisted { buried: vec![] })]
        );
    }
}

#[test]
fn newest_becomes_current_and_what_it_replaces_is_kept_first() {
    let (trip, first) = swapping(3);
    let (trip, _) = trip.step(Event::Swapped(Reply::Conflict));
    let (trip, effects) = trip.step(Event::Read(Ok(Some(held("v2", 2, None)))));
    assert_eq!(effects, [Effect::Rescue(Keep::Theirs)]);
    let (trip, effects) = trip.step(Event::Rescued(true));
    let [Effect::Swap(second)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(second.expected, Version::new("v2"));
    assert_ne!(second.id, first.id, "a new intent");
    let (_, effects) = trip.step(Event::Swapped(Reply::Landed(Version::new("v3"))));
    let buried = vec![generation(2, "a").fingerprint];
    assert_eq!(effects, [Effect::Finish(Outcome::Persisted { buried })]);
}

#[test]
fn a_reseed_stays_current_even_if_it_was_issued_earlier() {
    let (trip, _) = swapping(3);
    let (trip, _) = trip.step(Event::Swapped(Reply::Conflict));
    let reseed = Held {
        family: Some(family(2)),
        ..held("v2", 2, None)
    };
    let (trip, effects) = trip.step(Event::Read(Ok(Some(reseed))));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    let by = generation(2, "a").fingerprint;
    let end = Effect::Finish(Outcome::Superseded { by, rescued: true });
    assert_eq!(trip.step(Event::Rescued(true)).1, [end]);
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
        let (trip, _) = swapping(2);
        let (trip, _) = trip.step(Event::Swapped(Reply::Conflict));
        let (trip, effects) = trip.step(Event::Read(Ok(Some(shown))));
        assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
        assert_eq!(
            trip.step(Event::Rescued(true)).1,
            [stranded(Cause::Stranger, true)]
        );
    }
}

#[test]
fn an_emptied_store_is_not_filled_again_behind_its_owners_back() {
    let (trip, _) = swapping(2);
    let (trip, _) = trip.step(Event::Swapped(Reply::Conflict));
    let (trip, effects) = trip.step(Event::Read(Ok(None)));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        trip.step(Event::Rescued(false)).1,
        [stranded(Cause::Emptied, false)]
    );
}

#[test]
fn an_unreachable_store_is_asked_again_until_the_deadline() {
    let (mut trip, _) = swapping(2);
    for _ in 0..20 {
        let effects;
        (trip, effects) = trip.step(Event::Swapped(Reply::Refused(Trouble::Transient)));
        assert!(matches!(effects[..], [Effect::Wait(_)]), "{effects:?}");
        (trip, _) = trip.step(Event::Woke);
    }
    let (trip, effects) = trip.step(Event::Deadline);
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
    assert_eq!(
        trip.step(Event::Rescued(true)).1,
        [stranded(Cause::Store, true)]
    );
}

/// Masked in the exhaustive check, where tokens never repeat: they settle it as well.
#[test]
fn every_attempt_at_one_write_carries_the_same_id() {
    let (trip, first) = swapping(2);
    let (trip, _) = trip.step(Event::Swapped(Reply::Ambiguous));
    let (trip, effects) = trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    assert!(matches!(effects[..], [Effect::Wait(_)]), "{effects:?}");
    let (_, effects) = trip.step(Event::Woke);
    assert_eq!(effects, [Effect::Swap(first)]);
}

/// Masked in the exhaustive check, where the last look at the file finds it as well.
#[test]
fn a_change_seen_during_a_swap_follows_at_once() {
    let (trip, _) = running_swap(2);
    let (trip, effects) = trip.step(Event::Changed(generation(3, "a")));
    assert_eq!(effects, []);
    let (_, effects) = trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    let [Effect::Swap(write)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(write.generation, generation(3, "a"));
    assert_eq!(write.expected, Version::new("v2"));
}

#[test]
fn a_refusal_while_the_command_runs_is_tried_once_more_at_its_end() {
    let (trip, write) = running_swap(2);
    let (trip, effects) = trip.step(Event::Swapped(Reply::Refused(Trouble::Permanent)));
    assert_eq!(effects, []);
    let (trip, effects) = trip.step(Event::Exited(Seen::Usable(generation(2, "a"))));
    assert_eq!(effects, [Effect::Swap(write)]);
    let (_, effects) = trip.step(Event::Swapped(Reply::Refused(Trouble::Permanent)));
    assert_eq!(effects, [Effect::Rescue(Keep::Ours)]);
}

#[test]
fn a_newer_file_goes_to_the_store_before_the_command_starts() {
    let (trip, _) = Trip::start(terms(), vec![auth_file(generation(2, "a"), Some(base(1)))]);
    let (trip, effects) = trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    assert!(matches!(&effects[..], [Effect::Swap(w)] if w.generation == generation(2, "a")));
    let (_, effects) = trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    assert_eq!(effects, [Effect::Run]);
}

#[test]
fn a_parent_that_was_put_back_is_no_reseed() {
    let (trip, _) = swapping(3);
    let (trip, _) = trip.step(Event::Swapped(Reply::Conflict));
    let (trip, effects) = trip.step(Event::Read(Ok(Some(held("v2", 1, None)))));
    assert!(matches!(effects[..], [Effect::Wait(_)]), "{effects:?}");
    let (_, effects) = trip.step(Event::Woke);
    let [Effect::Swap(write)] = &effects[..] else {
        panic!("{effects:?}")
    };
    assert_eq!(write.expected, Version::new("v2"));
}

#[test]
fn a_clock_that_steps_back_a_little_makes_no_rotation_older_and_the_base_is_kept_first() {
    let (trip, _) = running_swap(3);
    let (trip, _) = trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    let mut next = generation(4, "a");
    next.issued.iat = None;
    let (trip, effects) = trip.step(Event::Changed(next));
    assert_eq!(effects, [Effect::Read], "for the bytes of the base");
    let base = held("v2", 3, Some(1));
    let (trip, effects) = trip.step(Event::Read(Ok(Some(base))));
    assert_eq!(effects, [Effect::Rescue(Keep::Theirs)]);
    let (_, effects) = trip.step(Event::Rescued(true));
    assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
}

#[test]
fn a_file_that_changed_after_the_last_look_is_persisted_too() {
    let (trip, _) = swapping(2);
    let (trip, _) = trip.step(Event::Swapped(Reply::Landed(Version::new("v2"))));
    let (trip, effects) = trip.reopen(Seen::Usable(generation(3, "a")));
    assert!(matches!(effects[..], [Effect::Swap(_)]), "{effects:?}");
    let (_, effects) = trip.step(Event::Swapped(Reply::Landed(Version::new("v3"))));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Persisted { buried: vec![] })]
    );
}

#[test]
fn what_an_adopted_file_replaces_is_kept_first_unless_the_file_descends_from_it() {
    let adopt = |known: Base| {
        let copy = auth_file(generation(3, "a"), Some(known));
        let (trip, _) = Trip::start(terms(), vec![copy]);
        trip.step(Event::Read(Ok(Some(held("v2", 2, None)))))
    };
    let of_the_head = Base {
        version: Version::new("v2"),
        ..base(2)
    };
    assert!(matches!(adopt(of_the_head).1[..], [Effect::Swap(_)]));
    let (trip, effects) = adopt(base(1));
    assert_eq!(effects, [Effect::Rescue(Keep::Theirs)]);
    let (_, effects) = trip.clone().step(Event::Rescued(false));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Refused(Refusal::NotKept))]
    );
    assert!(matches!(
        trip.step(Event::Rescued(true)).1[..],
        [Effect::Swap(_)]
    ));
}

#[test]
fn a_foreign_file_that_is_let_go_of_is_kept_first() {
    let terms = Terms {
        replace: true,
        ..terms()
    };
    let (trip, _) = Trip::start(terms, vec![auth_file(generation(2, "b"), None)]);
    let (trip, effects) = trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    assert_eq!(
        effects,
        [Effect::Rescue(Keep::Copies(vec![SetAside {
            copy: 0,
            origins: None
        }]))]
    );
    let head = generation(1, "a").fingerprint;
    assert_eq!(trip.step(Event::Rescued(true)).1, [Effect::Place(head)]);
}

#[test]
fn a_newer_file_that_the_store_refuses_starts_nothing() {
    let (trip, _) = Trip::start(terms(), vec![auth_file(generation(2, "a"), Some(base(1)))]);
    let (trip, _) = trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    let (_, effects) = trip.step(Event::Swapped(Reply::Refused(Trouble::Permanent)));
    assert_eq!(
        effects,
        [Effect::Finish(Outcome::Refused(Refusal::Unwritable))]
    );
}

/// A resumed trip whose first swap is under way.
fn swapping(number: u8) -> (Trip, Write) {
    let (trip, effects) =
        Trip::resume(terms(), base(1), &[], Seen::Usable(generation(number, "a")));
    (trip, only_swap(effects))
}

/// The same while the command runs.
fn running_swap(number: u8) -> (Trip, Write) {
    let (trip, _) = Trip::start(terms(), vec![]);
    let (trip, _) = trip.step(Event::Read(Ok(Some(held("v1", 1, None)))));
    let (trip, effects) = trip.step(Event::Placed(Placing::Done));
    assert_eq!(effects, [Effect::Run]);
    let (trip, effects) = trip.step(Event::Changed(generation(number, "a")));
    (trip, only_swap(effects))
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
        trip: 7,
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
        id: write.map(|number| WriteId { trip: 7, number }),
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

fn stranded(cause: Cause, rescued: bool) -> Effect {
    Effect::Finish(Outcome::Stranded { cause, rescued })
}
