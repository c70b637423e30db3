//! The verdicts, row by row (numbers: see [`Verdict`]), and an enumeration of all conditions.

use alloc::{vec, vec::Vec};

use super::*;
use crate::{Family, Identity, Issued, Label, SessionHints, Version};

/// A day: more than any clock skew.
const DAY: i64 = 86_400;

#[test]
fn row_1_an_empty_store_and_a_usable_copy_refuse() {
    for place in [Place::AuthFile, Place::Rescue, Place::Rotation] {
        let only = [copy(place, login(5)).known(base(4))];
        for head in [None, Some(unusable_head())] {
            let settled = settle(head.as_ref(), &only, &Rules::default());
            assert_eq!(settled.verdicts, [Verdict::OnlyCopy]);
            assert_eq!(settled.action, Action::Refuse(Refusal::OnlyCopies));
        }
    }
    let none = settle(None, &[], &Rules::default());
    assert_eq!(none.action, Action::Refuse(Refusal::NothingStored));
    let damaged = settle(Some(&unusable_head()), &[], &Rules::default());
    assert_eq!(damaged.action, Action::Refuse(Refusal::UnusableStored));
}

#[test]
fn row_2_a_missing_file_gets_the_head() {
    let file = auth_file(Content::Missing).known(base(5));
    assert_verdict(&head(5), &file, Verdict::Missing, &Action::Place);
    assert_eq!(set_aside(&head(5), &file), [] as [usize; 0]);
}

#[test]
fn row_3_an_unusable_file_with_a_receipt_is_set_aside() {
    let torn = auth_file(Content::AuthFileError { keepable: true });
    let known = torn.clone().known(base(5));
    assert_verdict(&head(5), &known, Verdict::UnusableKnown, &Action::Place);
    assert_eq!(set_aside(&head(5), &known), [0]);
    let refused = Action::Refuse(Refusal::UnusableFile);
    assert_verdict(&head(5), &torn, Verdict::AuthFileError, &refused);
    let unreadable = auth_file(Content::AuthFileError { keepable: false }).known(base(5));
    assert_verdict(&head(5), &unreadable, Verdict::AuthFileError, &refused);
    let still_refused = settle(Some(&head(5)), &[unreadable], &replacing());
    assert_eq!(still_refused.action, refused);
    let replaced = settle(Some(&head(5)), &[torn], &replacing());
    assert_eq!(
        (replaced.action, &*replaced.set_aside),
        (Action::Place, &[0][..])
    );
}

#[test]
fn row_4_a_file_without_a_refresh_token_is_missing() {
    let file = auth_file(Content::AccessOnly);
    assert_verdict(&head(5), &file, Verdict::Missing, &Action::Place);
}

#[test]
fn row_5_the_head_is_kept() {
    for file in [auth(login(5)), auth(login(5)).known(base(3))] {
        assert_verdict(&head(5), &file, Verdict::IsHead, &Action::Keep);
    }
}

#[test]
fn row_6_the_receipts_base_is_replaced_without_a_backup() {
    let file = auth(login(5)).known(base(5));
    for later in [head(6), of_family(head(6), 9), of_family(head(3), 9)] {
        assert_verdict(&later, &file, Verdict::Ancestor, &Action::Place);
        assert_eq!(set_aside(&later, &file), [] as [usize; 0]);
    }
}

/// A job may have mistaken an older file for a rotation. Then the receipt's base is live.
#[test]
fn row_6_the_receipts_base_is_backed_up_and_next_if_the_order_is_unclear() {
    let file = auth(login(5)).known(base(5));
    let unclear = without_head_times(head(6));
    assert_verdict(&unclear, &file, Verdict::Unclear, &Action::Place);
    assert_eq!(set_aside(&unclear, &file), [0]);
    assert_eq!(next(&unclear, &file), [0]);
}

#[test]
fn row_6_the_receipts_base_is_no_ancestor_of_a_rolled_back_head() {
    let file = auth(login(5)).known(base(5));
    assert_verdict(
        &head(3),
        &file,
        Verdict::Later,
        &adopt_keeping_the_head_in_history(),
    );
}

#[test]
fn a_rolled_back_head_keeps_only_its_own_ancestors() {
    let ancestors = |head: &Held, known: &Base| {
        let theirs = head.generation.as_ref().expect("a login");
        Base::of_head(head, theirs, Some(known)).ancestors
    };
    let mut known = base(5);
    let ahead: Vec<_> = (1..6).map(|it| login(it).fingerprint).collect();
    assert_eq!(ancestors(&head(6), &known), ahead);
    assert_eq!(ancestors(&head(3), &known), ahead[..2]);
    // The remaining ancestors may include descendants of the head.
    known.ancestors.remove(2);
    assert_eq!(ancestors(&head(3), &known), []);
}

#[test]
fn row_7_a_head_of_another_family_wins_regardless_of_the_times() {
    let file = auth(login(8)).known(base(5));
    for reseed in [
        of_family(head(100), 100),
        of_family(head(2), 100),
        written_by_hand(head(2), 100),
    ] {
        assert_verdict(&reseed, &file, Verdict::OtherFamily, &Action::Place);
        assert_eq!(set_aside(&reseed, &file), [0]);
    }
    let reseed = of_family(head(2), 100);
    assert_eq!(
        next(&reseed, &file),
        [0],
        "tried if the provider refuses the head"
    );
    let later = of_family(head(100), 100);
    assert_eq!(next(&later, &file), [] as [usize; 0], "surely earlier");
}

#[test]
fn row_8_another_person_is_refused() {
    let refused = Action::Refuse(Refusal::OtherAccount);
    for known in [None, Some(base(5))] {
        let mut file = auth(person(login(6), "hers"));
        file.origins = known.map(origins);
        assert_verdict(&head(5), &file, Verdict::OtherIdentity, &refused);
    }
    let rescued = copy(Place::Rescue, person(login(6), "hers")).known(base(5));
    assert_verdict(&head(5), &rescued, Verdict::Listed, &Action::Place);
}

#[test]
fn row_9_a_login_that_the_provider_refused_is_not_adopted() {
    let file = auth(login(6)).known(base(5));
    let rules = Rules {
        refused: vec![login(6).fingerprint],
        ..Rules::default()
    };
    let settled = settle(Some(&head(5)), &[file], &rules);
    assert_eq!(settled.verdicts, [Verdict::RefusedBefore]);
    assert_eq!((settled.action, settled.next), (Action::Place, vec![]));
}

#[test]
fn row_10_a_later_copy_of_the_family_is_adopted() {
    let action = Action::Adopt {
        copy: 0,
        keep_head: false,
        in_rescue: false,
    };
    assert_verdict(
        &head(5),
        &auth(login(6)).known(base(5)),
        Verdict::Later,
        &action,
    );
    let rescued = copy(Place::Rescue, login(6)).named(base(5));
    assert_verdict(&head(5), &rescued, Verdict::Later, &action);
}

#[test]
fn row_11_an_earlier_copy_of_the_family_is_set_aside() {
    let file = auth(login(4)).known(base(5));
    assert_verdict(&head(5), &file, Verdict::Earlier, &Action::Place);
    assert_eq!(set_aside(&head(5), &file), [0]);
    // Without times the count decides.
    let opaque = auth(without_times(login(6))).known(base(5));
    let later = without_head_times(head(9));
    assert_verdict(&later, &opaque, Verdict::Earlier, &Action::Place);
}

#[test]
fn row_12_an_unclear_copy_written_after_the_head_was_placed_is_adopted() {
    let file = auth(without_times(login(6))).known(base(5));
    assert_verdict(
        &head(5),
        &file,
        Verdict::WrittenAfterHead,
        &adopt_keeping_the_head(),
    );
}

#[test]
fn row_13_another_unclear_copy_is_set_aside_and_next() {
    let file = auth(without_times(login(6))).known(base(4));
    let same_count = Held {
        count: 4,
        ..head(5)
    };
    assert_verdict(&same_count, &file, Verdict::Unclear, &Action::Place);
    assert_eq!(set_aside(&same_count, &file), [0]);
    assert_eq!(next(&same_count, &file), [0]);
}

#[test]
fn row_14_an_earlier_copy_of_an_unknown_family_is_set_aside() {
    let file = auth(login(4));
    assert_verdict(&head(5), &file, Verdict::UnknownEarlier, &Action::Place);
    assert_eq!(set_aside(&head(5), &file), [0]);
}

#[test]
fn row_15_a_later_file_of_an_unknown_family_is_refused() {
    let refused = Action::Refuse(Refusal::UnknownFamily);
    let new_session = with_session(login(6), "another");
    for file in [
        auth(login(6)),
        auth(without_times(login(4))),
        auth(new_session.clone()).known(with_session_of_base(base(5), "one")),
    ] {
        assert_verdict(&head(5), &file, Verdict::UnknownFamily, &refused);
    }
    let replaced = settle(Some(&head(5)), &[auth(login(6))], &replacing());
    assert_eq!(
        (replaced.action, &*replaced.set_aside),
        (Action::Place, &[0][..])
    );
}

#[test]
fn session_hints_that_a_rotation_changed_are_ignored() {
    let new_session = with_session(login(6), "another");
    let volatile = Base {
        volatile_hints: true,
        ..with_session_of_base(base(5), "one")
    };
    let verdict = |copy: Copy| judge(Some(&head(5)), &copy, &Rules::default());
    assert_eq!(
        verdict(auth(new_session.clone()).known(volatile)),
        Verdict::Later
    );
    // A record that names the login overrides the hints, too.
    let named = auth(new_session).named(with_session_of_base(base(5), "one"));
    assert_eq!(verdict(named), Verdict::Later);
}

#[test]
fn a_head_without_a_stamp_gets_its_family_from_the_receipt() {
    let touched = Held {
        family: None,
        count: 1,
        ..head(5)
    };
    let verdict = |copy: &Copy| judge(Some(&touched), copy, &Rules::default());
    assert_eq!(verdict(&auth(login(6)).known(base(5))), Verdict::Later);
    // A manual rollback to a known ancestor.
    assert_eq!(verdict(&auth(login(7)).known(base(6))), Verdict::Later);
    // The version alone identifies the family as well.
    let respelled = Base {
        generation: login(77),
        ..base(5)
    };
    assert_eq!(verdict(&auth(login(6)).known(respelled)), Verdict::Later);
}

#[test]
fn known_ancestors_override_the_clocks() {
    let mut line = base(5);
    line.generation = without_times(line.generation);
    let rolled_back = Held {
        generation: Some(without_times(login(3))),
        ..head(3)
    };
    let file = auth(without_times(login(4))).known(line);
    assert_eq!(
        judge(Some(&rolled_back), &file, &Rules::default()),
        Verdict::Later
    );
}

#[test]
fn a_seed_without_a_stamp_is_of_its_family() {
    let unstamped = Held {
        family: None,
        count: 1,
        version: Version::new("put back"),
        ..head(1)
    };
    let mut fresh = base(5);
    fresh.ancestors.clear();
    assert_verdict(
        &unstamped,
        &auth(login(6)).known(fresh),
        Verdict::Later,
        &adopt_keeping_the_head_in_history(),
    );
}

#[test]
fn one_receipt_identifies_the_heads_family_for_all_copies() {
    let unstamped = Held {
        family: None,
        count: 1,
        version: Version::new("put back"),
        ..head(3)
    };
    let mut fresh = base(4);
    fresh.ancestors.clear();
    let later = copy(Place::Rescue, login(5)).named(fresh);
    let alone = settle(
        Some(&unstamped),
        core::slice::from_ref(&later),
        &Rules::default(),
    );
    assert_eq!(alone.verdicts, [Verdict::OtherFamily]);
    let receipt = auth_file(Content::Missing).known(base(4));
    let both = settle(Some(&unstamped), &[receipt, later], &Rules::default());
    assert_eq!(both.verdicts, [Verdict::Missing, Verdict::Later]);
}

#[test]
fn a_copy_listed_as_an_ancestor_in_another_receipt_is_earlier() {
    let mut fresh = base(2);
    fresh.ancestors.clear();
    let opaque = copy(Place::Rescue, without_times(login(4))).named(fresh);
    let receipt = auth_file(Content::Missing).known(base(5));
    let same_count = Held {
        count: 2,
        ..head(5)
    };
    let settled = settle(Some(&same_count), &[receipt, opaque], &Rules::default());
    assert_eq!(settled.verdicts, [Verdict::Missing, Verdict::Earlier]);
}

#[test]
fn a_receipt_of_another_address_counts_only_if_it_names_the_head_by_version_and_fingerprint() {
    let verdict = |copy: Copy| judge(Some(&head(5)), &copy, &Rules::default());
    let spelled = |base: Base| auth(login(6)).known(base).elsewhere();
    assert_eq!(verdict(spelled(base(5))), Verdict::Later);
    // Two stores may have equal versions, or the same login.
    let other_login = Base {
        generation: login(9),
        family: Family(login(9).fingerprint),
        ..base(5)
    };
    let other_version = Base {
        version: Version::new("of another store"),
        ..base(5)
    };
    for other in [other_login, other_version] {
        assert_eq!(verdict(spelled(other)), Verdict::UnknownFamily);
    }
}

#[test]
fn a_copy_of_another_address_that_may_be_later_is_refused() {
    let moved = |number| Base {
        version: Version::new("of another store"),
        ..base(number)
    };
    let refused = Action::Refuse(Refusal::CopyElsewhere);
    for place in [Place::Rescue, Place::Rotation] {
        let elsewhere = |login, base| copy(place, login).named(base).elsewhere();
        let later = elsewhere(login(6), moved(5));
        assert_verdict(&head(5), &later, Verdict::Elsewhere, &refused);
        let unclear = elsewhere(without_times(login(6)), moved(5));
        assert_verdict(&head(5), &unclear, Verdict::Elsewhere, &refused);
        // `--replace` applies to the auth file only.
        let settled = settle(Some(&head(5)), core::slice::from_ref(&later), &replacing());
        assert_eq!(settled.action, refused);
        assert_eq!(settled.set_aside, [] as [usize; 0]);
        // A person confirms that the copy is of this store.
        let rules = Rules::default();
        assert_eq!(judge(Some(&head(5)), &later.here(), &rules), Verdict::Later);
        // The head, an ancestor or an earlier copy is not refused.
        let head_itself = elsewhere(login(5), moved(5));
        assert_verdict(&head(5), &head_itself, Verdict::IsHead, &Action::Place);
        let earlier = elsewhere(login(4), moved(5));
        assert_verdict(&head(5), &earlier, Verdict::Earlier, &Action::Place);
        // A login of another store does not matter here.
        let other = elsewhere(login(8), of_another_family(moved(5)));
        assert_verdict(&head(5), &other, Verdict::Listed, &Action::Place);
        assert_eq!(set_aside(&head(5), &other), [] as [usize; 0]);
        let none = settle(None, &[other], &Rules::default());
        assert_eq!(none.action, Action::Refuse(Refusal::NothingStored));
    }
}

/// The receipt of a home knows that the head has a higher count, but not its parent.
#[test]
fn a_head_that_an_unclear_copy_replaced_is_no_ancestor() {
    let opaque = |mut base: Base| {
        base.generation = without_times(base.generation);
        base
    };
    let kept = copy(Place::Rescue, without_times(login(5))).named(opaque(base(5)));
    // An older receipt, or one updated by the job that mistook the copy for a rotation.
    for known in [base(5), base(6)] {
        let receipt = auth_file(Content::Missing).known(opaque(known));
        let unclear = without_head_times(head(6));
        let settled = settle(Some(&unclear), &[receipt, kept.clone()], &Rules::default());
        assert_eq!(settled.verdicts, [Verdict::Missing, Verdict::Unclear]);
        assert_eq!(settled.next, [1], "tried if the provider refuses the head");
    }
}

#[test]
fn an_unclear_file_is_adopted_over_a_rolled_back_head() {
    let file = auth(without_times(login(6))).known(base(5));
    assert_verdict(
        &head(3),
        &file,
        Verdict::WrittenAfterHead,
        &adopt_keeping_the_head(),
    );
}

#[test]
fn a_record_that_names_the_login_overrides_the_receipt() {
    let file = auth(login(8)).known(base(5));
    let record = |origins: Option<Base>| {
        let copy = copy(Place::Rescue, login(8));
        match origins {
            Some(base) => copy.named(base),
            None => copy,
        }
    };
    let mut first_family = base(7);
    first_family.family = family_id(99);
    first_family.ancestors.clear();
    let settled = |record: Copy| settle(Some(&head(5)), &[file.clone(), record], &Rules::default());
    assert_eq!(settled(record(Some(base(5)))).verdicts[0], Verdict::Later);
    let reseeded = settled(record(Some(first_family)));
    assert_eq!(reseeded.verdicts, [Verdict::OtherFamily; 2]);
    assert_eq!(reseeded.action, Action::Place);
    // A record without origins leaves the family unknown,
    let unknown = settled(record(None));
    assert_eq!(unknown.verdicts[0], Verdict::UnknownFamily);
    // unless the receipt lists the login as unrelated.
    let mut receipt = base(5);
    receipt.unrelated.push(login(8).fingerprint);
    let copies = [auth(login(8)).known(receipt), record(None)];
    let settled = settle(Some(&head(5)), &copies, &Rules::default());
    assert_eq!(settled.verdicts[0], Verdict::OtherFamily);
}

#[test]
fn a_receipt_that_names_the_login_is_not_overridden() {
    let mut other = base(4);
    other.family = family_id(99);
    other.ancestors.clear();
    let copies = [
        auth(login(5)).known(base(5)),
        copy(Place::Rescue, login(5)).named(other),
    ];
    let settled = settle(Some(&head(6)), &copies, &Rules::default());
    assert_eq!(settled.verdicts[0], Verdict::Ancestor);
}

#[test]
fn a_login_listed_as_unrelated_is_not_adopted() {
    let mut receipt = base(5);
    receipt.unrelated.push(login(8).fingerprint);
    let file = auth(login(8)).known(receipt.clone());
    assert_verdict(&head(5), &file, Verdict::OtherFamily, &Action::Place);
    assert_eq!(set_aside(&head(5), &file), [0]);
    assert_eq!(lineage(&file, Verdict::OtherFamily), None);
    // Its family is unknown.
    let refused = Rules {
        refused: vec![login(5).fingerprint],
        ..Rules::default()
    };
    let settled = settle(Some(&head(5)), core::slice::from_ref(&file), &refused);
    assert_eq!((settled.action, settled.next), (Action::Place, vec![]));
    let other_person = auth(person(login(8), "hers")).known(receipt);
    assert_verdict(
        &head(5),
        &other_person,
        Verdict::OtherIdentity,
        &Action::Refuse(Refusal::OtherAccount),
    );
}

#[test]
fn a_receipt_that_the_verdict_ignored_is_no_lineage() {
    let new_session =
        auth(with_session(login(6), "another")).known(with_session_of_base(base(5), "one"));
    let other_person = auth(person(login(6), "hers")).known(base(5));
    for (copy, verdict) in [
        (new_session.clone(), Verdict::UnknownFamily),
        (other_person, Verdict::OtherIdentity),
        (auth(login(6)), Verdict::UnknownFamily),
    ] {
        let settled = settle(Some(&head(5)), core::slice::from_ref(&copy), &replacing());
        assert_eq!(settled.verdicts, [verdict]);
        assert_eq!(lineage(&copy, verdict), None, "{copy:?}");
    }
    // Refused before, without reading the receipt.
    assert_eq!(lineage(&new_session, Verdict::RefusedBefore), None);
    let file = auth(login(6)).known(base(5));
    assert_eq!(lineage(&file, Verdict::Later), file.origins.as_ref());
}

#[test]
fn a_later_copy_is_adopted_although_the_store_has_a_higher_count() {
    let file = auth(login(7)).known(base(4));
    assert_verdict(
        &head(6),
        &file,
        Verdict::WrittenAfterHead,
        &adopt_keeping_the_head(),
    );
    // Without times the order is unknown.
    let unclear = auth(without_times(login(7))).known(base(4));
    assert_verdict(&head(6), &unclear, Verdict::Earlier, &Action::Place);
    assert_eq!(set_aside(&head(6), &unclear), [0]);
}

#[test]
fn the_latest_of_several_next_copies_comes_first() {
    let copies = [
        auth(login(6)).known(base(5)),
        copy(Place::Rescue, login(8)).named(base(5)),
    ];
    let reseed = of_family(head(2), 100);
    let settled = settle(Some(&reseed), &copies, &Rules::default());
    assert_eq!((settled.action, settled.next), (Action::Place, vec![1, 0]));
}

#[test]
fn a_refused_auth_file_overrides_all_other_copies() {
    let copies = [auth(login(9)), copy(Place::Rescue, login(6)).named(base(5))];
    let settled = settle(Some(&head(5)), &copies, &Rules::default());
    assert_eq!(settled.action, Action::Refuse(Refusal::UnknownFamily));
}

#[test]
fn the_latest_of_several_copies_is_adopted_and_the_others_are_set_aside() {
    let copies = [
        auth(login(6)).known(base(5)),
        copy(Place::Rescue, login(8)).named(base(5)),
        copy(Place::Rotation, login(7)).known(base(5)),
    ];
    let settled = settle(Some(&head(5)), &copies, &Rules::default());
    let Action::Adopt { copy: 1, .. } = settled.action else {
        panic!("{settled:?}");
    };
    assert_eq!(settled.set_aside, [0, 2]);
}

#[test]
fn the_auth_file_wins_over_other_unclear_copies() {
    let unclear = |number| without_times(login(number));
    let copies = [
        auth(unclear(6)).known(base(5)),
        copy(Place::Rescue, unclear(7)).named(base(5)),
    ];
    let settled = settle(Some(&head(5)), &copies, &Rules::default());
    assert_eq!(settled.action, adopt_keeping_the_head());
}

#[test]
fn a_refused_head_is_replaced_by_the_next_copy_of_the_same_person() {
    let file = auth(login(8)).known(base(5));
    let reseed = of_family(head(2), 100);
    let refused = |more: &[Generation]| Rules {
        refused: more.iter().map(|it| it.fingerprint).collect(),
        ..Rules::default()
    };
    let one = [file.clone()];
    let settled = settle(Some(&reseed), &one, &refused(&[login(2)]));
    assert_eq!(settled.action, adopt_keeping_the_head());
    let both = settle(Some(&reseed), &one, &refused(&[login(2), login(8)]));
    assert_eq!(both.action, Action::Place);
    let other_person = [auth(person(login(8), "hers")).known(of_person(base(5), "hers"))];
    let other = settle(Some(&reseed), &other_person, &refused(&[login(2)]));
    assert_eq!(
        other.action,
        Action::Place,
        "another person's copy is not tried"
    );
}

/// Every combination of the table's conditions has one answer. None loses a login or overrides a
/// person's decision.
#[test]
fn every_combination_has_one_answer_that_loses_no_login() {
    let mut combinations = 0;
    for head in heads() {
        for copy in copies() {
            for replace in [false, true] {
                for refused in [
                    vec![],
                    vec![login(5).fingerprint],
                    vec![login(6).fingerprint],
                ] {
                    let rules = Rules { replace, refused };
                    let settled = settle(head.as_ref(), core::slice::from_ref(&copy), &rules);
                    assert_sound(head.as_ref(), &copy, &rules, &settled);
                    combinations += 1;
                }
            }
        }
    }
    assert!(combinations > 30_000, "{combinations}");
}

fn assert_sound(head: Option<&Held>, copy: &Copy, rules: &Rules, settled: &Settlement) {
    let about = (head, copy, rules, settled);
    let [verdict] = settled.verdicts[..] else {
        panic!("{about:#?}");
    };
    let theirs = head.and_then(|stored| stored.generation.as_ref());
    let (Some(stored), Some(theirs)) = (head, theirs) else {
        assert!(matches!(settled.action, Action::Refuse(_)), "{about:#?}");
        return;
    };
    match &settled.action {
        Action::Adopt { keep_head, .. } => {
            let ours = copy.generation().expect("only a login is adopted");
            let origins = copy
                .origins
                .as_ref()
                .expect("only a copy with origins is adopted");
            assert!(!ours.identity.contradicts(&theirs.identity), "{about:#?}");
            assert!(!rules.refused.contains(&ours.fingerprint), "{about:#?}");
            let refused = rules.refused.contains(&theirs.fingerprint);
            let same = is_family_of(stored, theirs, &origins.base);
            assert!(
                same || refused,
                "the head's family changes only if the head is refused: {about:#?}"
            );
            let earlier = order::by_times(&ours.issued, &theirs.issued) == Order::Earlier;
            let in_line = origins.base.ancestors.contains(&theirs.fingerprint);
            assert!(
                !earlier || in_line,
                "an older login overwrites a newer one: {about:#?}"
            );
            assert!(
                is_of_this_store(origins, stored, theirs),
                "another address: {about:#?}"
            );
            assert!(
                *keep_head || is_head_the_base(theirs, stored, &origins.base),
                "the head is backed up first unless it is the base: {about:#?}"
            );
        }
        Action::Keep => assert_eq!(verdict, Verdict::IsHead, "{about:#?}"),
        Action::Place => {
            let is_lost = match (&copy.content, copy.place) {
                (Content::Missing | Content::AccessOnly, _)
                | (_, Place::Rescue)
                | (Content::AuthFileError { .. }, Place::Rotation) => false,
                (Content::AuthFileError { .. }, _) => true,
                (Content::Usable(_), Place::Rotation) if stays_in_place(copy, verdict) => false,
                (Content::Usable(ours), _) => {
                    let known = copy
                        .origins
                        .as_ref()
                        .map(|it| it.base.generation.fingerprint);
                    ours.fingerprint != theirs.fingerprint && known != Some(ours.fingerprint)
                }
            };
            assert!(!is_lost || settled.set_aside == [0], "lost: {about:#?}");
        }
        Action::Refuse(Refusal::CopyElsewhere) => {
            let origins = copy.origins.as_ref().expect("a record");
            assert!(
                origins.elsewhere && copy.place != Place::AuthFile,
                "{about:#?}"
            );
            let earlier = copy.generation().is_some_and(|ours| {
                order::by_times(&ours.issued, &theirs.issued) == Order::Earlier
                    && !origins.base.ancestors.contains(&theirs.fingerprint)
            });
            assert!(!earlier, "an earlier copy is not refused: {about:#?}");
        }
        Action::Refuse(_) => {
            assert_eq!(
                copy.place,
                Place::AuthFile,
                "only the auth file is refused: {about:#?}"
            );
            let keepable = copy.content != Content::AuthFileError { keepable: false };
            assert!(
                !(rules.replace && keepable),
                "--replace lifts the refusal: {about:#?}"
            );
        }
    }
}

fn heads() -> Vec<Option<Held>> {
    let mut heads = vec![None, Some(unusable_head())];
    for number in [3, 5, 6, 9] {
        for count in [1, 5, 9] {
            for family in [None, Some(1), Some(100)] {
                for who in ["his", "hers"] {
                    heads.push(Some(Held {
                        generation: Some(person(login(number), who)),
                        count,
                        family: family.map(family_id),
                        ..head(number)
                    }));
                }
            }
        }
    }
    heads
}

fn copies() -> Vec<Copy> {
    let mut contents = vec![
        Content::Missing,
        Content::AccessOnly,
        Content::AuthFileError { keepable: true },
        Content::AuthFileError { keepable: false },
    ];
    for number in [4, 5, 6] {
        for who in ["his", "hers"] {
            let login = with_session(person(login(number), who), "another");
            contents.push(Content::Usable(login.clone()));
            contents.push(Content::Usable(without_times(login)));
        }
    }
    let mut copies = vec![];
    for content in contents {
        for place in [Place::AuthFile, Place::Rescue, Place::Rotation] {
            for known in [
                None,
                Some(base(5)),
                Some(with_session_of_base(base(5), "one")),
            ] {
                for (by_name, elsewhere) in
                    [(false, false), (true, false), (false, true), (true, true)]
                {
                    copies.push(Copy {
                        place,
                        content: content.clone(),
                        origins: known.clone().map(|base| Origins {
                            by_name,
                            elsewhere,
                            ..origins(base)
                        }),
                    });
                }
            }
        }
    }
    copies
}

fn assert_verdict(head: &Held, copy: &Copy, verdict: Verdict, action: &Action) {
    let settled = settle(Some(head), core::slice::from_ref(copy), &Rules::default());
    assert_eq!(settled.verdicts, [verdict], "{head:?} {copy:?}");
    assert_eq!(&settled.action, action, "{head:?} {copy:?}");
}

fn set_aside(head: &Held, copy: &Copy) -> Vec<usize> {
    settle(Some(head), core::slice::from_ref(copy), &Rules::default()).set_aside
}

fn next(head: &Held, copy: &Copy) -> Vec<usize> {
    settle(Some(head), core::slice::from_ref(copy), &Rules::default()).next
}

fn adopt_keeping_the_head() -> Action {
    Action::Adopt {
        copy: 0,
        keep_head: true,
        in_rescue: true,
    }
}

fn adopt_keeping_the_head_in_history() -> Action {
    Action::Adopt {
        copy: 0,
        keep_head: true,
        in_rescue: false,
    }
}

fn replacing() -> Rules {
    Rules {
        replace: true,
        ..Rules::default()
    }
}

/// The n-th generation, issued on the n-th day.
fn login(number: u8) -> Generation {
    let day = i64::from(number) * DAY;
    Generation {
        fingerprint: Fingerprint::new([number; 8]),
        identity: Identity {
            account: Some(Label::new("workspace")),
            subject: Some(Label::new("his")),
            ..Identity::default()
        },
        hints: SessionHints::default(),
        issued: Issued {
            iat: Some(day),
            exp: Some(day + 10 * DAY),
            last_refresh: Some(i128::from(day) * 1_000_000_000),
        },
    }
}

fn person(mut login: Generation, subject: &str) -> Generation {
    login.identity.subject = Some(Label::new(subject));
    login
}

fn with_session(mut login: Generation, session: &str) -> Generation {
    login.hints.session = Some(Label::new(session));
    login
}

/// An opaque access token, without a last refresh.
fn without_times(mut login: Generation) -> Generation {
    login.issued = Issued::default();
    login
}

fn without_head_times(head: Held) -> Held {
    Held {
        generation: head.generation.map(without_times),
        ..head
    }
}

fn family_id(number: u8) -> Family {
    Family(login(number).fingerprint)
}

/// A receipt for the n-th generation, whose family starts with the first.
fn base(number: u8) -> Base {
    Base {
        version: Version::new(&alloc::format!("v{number}")),
        generation: login(number),
        count: u64::from(number),
        family: family_id(1),
        ancestors: (1..number).map(|it| login(it).fingerprint).collect(),
        volatile_hints: false,
        unrelated: vec![],
    }
}

fn with_session_of_base(base: Base, session: &str) -> Base {
    Base {
        generation: with_session(base.generation, session),
        ..base
    }
}

fn of_person(base: Base, subject: &str) -> Base {
    Base {
        generation: person(base.generation, subject),
        ..base
    }
}

fn head(number: u8) -> Held {
    Held {
        version: Version::new(&alloc::format!("v{number}")),
        generation: Some(login(number)),
        id: None,
        count: u64::from(number),
        family: Some(family_id(1)),
        volatile_hints: false,
    }
}

fn of_family(head: Held, number: u8) -> Held {
    Held {
        family: Some(family_id(number)),
        count: 1,
        version: Version::new("reseeded"),
        ..head
    }
}

/// An unknown login, written by hand without a stamp.
fn written_by_hand(head: Held, number: u8) -> Held {
    let mut generation = head.generation.expect("a login");
    generation.fingerprint = Fingerprint::new([number; 8]);
    Held {
        family: None,
        count: 1,
        version: Version::new("by hand"),
        generation: Some(generation),
        ..head
    }
}

fn unusable_head() -> Held {
    Held {
        generation: None,
        family: None,
        ..head(5)
    }
}

fn of_another_family(base: Base) -> Base {
    Base {
        generation: login(90),
        family: Family(login(90).fingerprint),
        ancestors: vec![],
        ..base
    }
}

fn origins(base: Base) -> Origins {
    Origins {
        base,
        seen: 0,
        by_name: false,
        hints_count: true,
        elsewhere: false,
    }
}

fn auth_file(content: Content) -> Copy {
    Copy {
        place: Place::AuthFile,
        content,
        origins: None,
    }
}

fn auth(login: Generation) -> Copy {
    auth_file(Content::Usable(login))
}

fn copy(place: Place, login: Generation) -> Copy {
    Copy {
        place,
        ..auth(login)
    }
}

impl Copy {
    fn known(self, base: Base) -> Self {
        Self {
            origins: Some(origins(base)),
            ..self
        }
    }

    fn elsewhere(mut self) -> Self {
        self.origins.as_mut().expect("a record").elsewhere = true;
        self
    }

    fn named(self, base: Base) -> Self {
        Self {
            origins: Some(Origins {
                by_name: true,
                seen: 1,
                ..origins(base)
            }),
            ..self
        }
    }
}
