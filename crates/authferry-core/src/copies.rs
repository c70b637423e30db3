//! Which copy of a login counts, and what has to be done before anything may be spent.
//!
//! Time of issue orders generations *within one family* and says nothing between two. So each
//! copy that can be seen is judged against what the store holds (the *head*) with what its
//! receipt or record says of it: [`judge`] gives one [`Verdict`] a copy, [`settle`] makes one
//! [`Settlement`] of all of them.

use alloc::vec::Vec;

use crate::order::{self, Order};
use crate::verdict::Held;
use crate::{Base, Fingerprint, Generation, Refusal};

/// Where a copy was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The auth file of the home.
    AuthFile,
    /// The rescue folder.
    Rescue,
    /// The private home of a rotation that did not come to its end.
    Rotation,
}

/// What a copy is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// There is no file, or an empty one.
    Missing,
    /// A file that carries no login. `keepable`: its bytes can be set aside.
    Unusable {
        /// Whether the bytes could be read, and can be set aside.
        keepable: bool,
    },
    /// A login without a refresh token: nothing in it could be lost.
    AccessOnly,
    /// A login.
    Usable(Generation),
}

/// What a receipt or a record says of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origins {
    /// The head that the copy descends from.
    pub base: Base,
    /// How many generations were seen since that head, up to this copy. A head that was kept
    /// when something unclear replaced it has one: what replaced it may not descend from it.
    pub seen: u64,
    /// Whether a record names this very fingerprint, see [`with_record`].
    pub by_name: bool,
    /// Whether session hints count. They do for the auth file of a home that stays.
    pub hints_count: bool,
    /// Whether the receipt or record names another address than the store has here. That may be
    /// another spelling of one place, a store that was moved, or another store with the same
    /// login; versions of two stores may be alike by chance.
    pub elsewhere: bool,
}

/// A place where a generation may be, other than the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Copy {
    /// Where it was found.
    pub place: Place,
    /// What it is.
    pub content: Content,
    /// What is known of it: `None` without a receipt or record.
    pub origins: Option<Origins>,
}

impl Copy {
    /// Returns the login, if it is one.
    #[must_use]
    pub fn generation(&self) -> Option<&Generation> {
        match &self.content {
            Content::Usable(generation) => Some(generation),
            Content::Missing | Content::Unusable { .. } | Content::AccessOnly => None,
        }
    }

    /// Returns the copy as one of this store's, which a person says it is.
    #[must_use]
    pub fn here(mut self) -> Self {
        if let Some(origins) = &mut self.origins {
            origins.elsewhere = false;
        }
        self
    }
}

/// What a copy is worth compared with the head. The number is the row of the design's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// 1: The store holds no login, and this one could be put there by a person.
    OnlyCopy,
    /// 2 and 4: There is nothing that could be lost.
    Missing,
    /// 3: No login. With a receipt it is set aside, as the head is placed.
    UnusableKnown,
    /// 3: No login, and its origin is unknown: refused.
    Unusable,
    /// 5: It is the head.
    IsHead,
    /// 6: Exactly what its receipt says the store had, and the head surely came after it.
    Ancestor,
    /// 7: Of another family than the head: the head counts, whatever the times say.
    OtherFamily,
    /// 8: Another workspace or person: refused.
    OtherIdentity,
    /// 9: The provider refused it before: the head counts.
    RefusedBefore,
    /// 10: Later than the head: an earlier persist was lost.
    Later,
    /// 11: Earlier than the head.
    Earlier,
    /// 12: Unclear, but its receipt says that it was written after the head was placed.
    WrittenAfterHead,
    /// 13: Of the head's family, and it is unclear which is later.
    Unclear,
    /// 14: Of an unknown family, and surely earlier.
    UnknownEarlier,
    /// 15: Of an unknown family, and perhaps later: it may be a person's own login. Refused.
    UnknownFamily,
    /// Not the auth file, of the head's family and perhaps later, and kept for another address:
    /// refused until a person says what it is.
    Elsewhere,
    /// Not the auth file, and of no family or person that counts here: listed, nothing else.
    Listed,
}

/// What is to be done before anything may be spent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The auth file is the head already.
    Keep,
    /// The head is to be placed.
    Place,
    /// The copy of this index is swapped into the store.
    Adopt {
        /// Which one.
        copy: usize,
        /// Whether the head has to be kept first.
        keep_head: bool,
        /// Whether the store's history is not enough for that: the copy is not surely
        /// later, so the head is tried again if the provider refuses the copy, and only a
        /// record tells the next job of it.
        in_rescue: bool,
    },
    /// Nothing may be spent, placed or swapped.
    Refuse(Refusal),
}

/// What follows from the head and all copies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settlement {
    /// One for each copy, in their order.
    pub verdicts: Vec<Verdict>,
    /// What is to be done.
    pub action: Action,
    /// The copies that have to be kept elsewhere before they are replaced or removed.
    pub set_aside: Vec<usize>,
    /// The copies that are tried, in this order, if the provider refuses what counts.
    pub next: Vec<usize>,
}

/// What a person allowed, and what is known of refusals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Whether an auth file that is unusable, of another identity or of an unknown family may
    /// be replaced: it is set aside.
    pub replace: bool,
    /// Generations that the provider refused.
    pub refused: Vec<Fingerprint>,
}

/// Judges the head and all copies. Records come newest first.
///
/// There is exactly one answer for each combination: the first row that fits.
#[must_use]
pub fn settle(head: Option<&Held>, copies: &[Copy], rules: &Rules) -> Settlement {
    let known = head.map(|stored| with_family(stored, copies));
    let head = known.as_ref();
    let judged: Vec<Copy> = copies.iter().map(|it| with_record(it, copies)).collect();
    let mut verdicts: Vec<Verdict> = judged.iter().map(|copy| judge(head, copy, rules)).collect();
    if let Some(stored) = head {
        mark_ancestors(stored, copies, &mut verdicts);
    }
    let Some((stored, theirs)) =
        head.and_then(|stored| Some((stored, stored.generation.as_ref()?)))
    else {
        return without_head(head, verdicts);
    };
    let all = |wanted: fn(Verdict) -> bool| {
        let numbered = verdicts.iter().enumerate();
        numbered
            .filter(move |(_, verdict)| wanted(**verdict))
            .map(|(index, _)| index)
    };
    let mut refusals = all(|verdict| refusal(verdict).is_some());
    if let Some(why) = refusals.find_map(|index| refusal_of(&copies[index], verdicts[index], rules))
    {
        return Settlement {
            verdicts,
            action: Action::Refuse(why),
            set_aside: Vec::new(),
            next: Vec::new(),
        };
    }
    let next = latest_first(
        copies,
        all(is_next).filter(|&index| {
            let known = lineage(&judged[index], verdicts[index]);
            known.is_some() && is_worth_a_try(&copies[index], theirs, rules)
        }),
    );
    let head_is_refused = rules.refused.contains(&theirs.fingerprint);
    let adopted = latest(copies, all(is_adopted))
        .or_else(|| next.first().copied().filter(|_| head_is_refused));
    let action = match adopted {
        Some(copy) => Action::Adopt {
            copy,
            keep_head: verdicts[copy] != Verdict::Later || !descends(&judged[copy], stored),
            in_rescue: verdicts[copy] != Verdict::Later,
        },
        None if all(|verdict| verdict == Verdict::IsHead).any(|it| is_auth_file(&copies[it])) => {
            Action::Keep
        }
        None => Action::Place,
    };
    let set_aside = all(is_worth_keeping)
        .filter(|&index| Some(index) != adopted)
        .filter(|&index| !stays_where_it_is(&copies[index], verdicts[index]))
        .collect();
    let next = next
        .into_iter()
        .filter(|&index| Some(index) != adopted)
        .collect();
    Settlement {
        verdicts,
        action,
        set_aside,
        next,
    }
}

/// Judges one copy against the head.
#[must_use]
pub fn judge(head: Option<&Held>, copy: &Copy, rules: &Rules) -> Verdict {
    let ours = match &copy.content {
        Content::Usable(ours) => ours,
        _ if copy.place != Place::AuthFile => return Verdict::Listed,
        Content::Missing | Content::AccessOnly => return Verdict::Missing,
        Content::Unusable { keepable: true } if copy.origins.is_some() => {
            return Verdict::UnusableKnown;
        }
        Content::Unusable { .. } => return Verdict::Unusable,
    };
    let Some((stored, theirs)) =
        head.and_then(|stored| Some((stored, stored.generation.as_ref()?)))
    else {
        return if may_be_of_another_store(copy) {
            Verdict::Listed
        } else {
            Verdict::OnlyCopy
        };
    };
    if ours.fingerprint == theirs.fingerprint {
        return Verdict::IsHead;
    }
    let known = copy.origins.as_ref();
    let verdict = |known| judge_known(copy, ours, known, stored, theirs, rules);
    let elsewhere = known.filter(|origins| !speaks_here(origins, stored, theirs));
    match elsewhere {
        None => verdict(known),
        Some(origins) if !is_family_elsewhere(stored, theirs, &origins.base) => verdict(None),
        Some(_) => match (verdict(known), copy.place) {
            (Verdict::Later | Verdict::WrittenAfterHead | Verdict::Unclear, Place::AuthFile) => {
                Verdict::UnknownFamily
            }
            (Verdict::Later | Verdict::WrittenAfterHead | Verdict::Unclear, _) => {
                Verdict::Elsewhere
            }
            (verdict, _) => verdict,
        },
    }
}

/// Judges a login that is not the head. `known`: what its receipt or record says.
fn judge_known(
    copy: &Copy,
    ours: &Generation,
    known: Option<&Origins>,
    stored: &Held,
    theirs: &Generation,
    rules: &Rules,
) -> Verdict {
    let origins = known.filter(|origins| speaks_of(origins, ours));
    match origins {
        None if !ours.identity.contradicts(&theirs.identity)
            && known.is_some_and(|it| {
                is_unrelated(it, ours) && is_family_of(stored, theirs, &it.base)
            }) =>
        {
            Verdict::OtherFamily
        }
        Some(origins) if is_family_of(stored, theirs, &origins.base) => {
            let order = order_of(ours, origins, stored, theirs);
            match order {
                _ if was_placed(ours, origins) && is_ahead(stored, theirs, &origins.base) => {
                    match order::by_times(&theirs.issued, &ours.issued) {
                        Order::Later => Verdict::Ancestor,
                        // The head may be an older file that a job took for a rotation.
                        Order::Earlier | Order::Unclear => Verdict::Unclear,
                    }
                }
                _ if ours.identity.contradicts(&theirs.identity) => other_identity(copy),
                _ if rules.refused.contains(&ours.fingerprint) => Verdict::RefusedBefore,
                // Its receipt knows less than the store: the head is kept, if it is no ancestor.
                Order::Later if is_behind(origins, stored) => Verdict::WrittenAfterHead,
                Order::Later => Verdict::Later,
                Order::Earlier => Verdict::Earlier,
                Order::Unclear if is_head_in_line(theirs, stored, &origins.base) => {
                    Verdict::WrittenAfterHead
                }
                Order::Unclear => Verdict::Unclear,
            }
        }
        Some(origins) if was_placed(ours, origins) && stored.family.is_some() => Verdict::Ancestor,
        Some(origins) if !ours.identity.contradicts(&origins.base.generation.identity) => {
            Verdict::OtherFamily
        }
        Some(_) | None if ours.identity.contradicts(&theirs.identity) => other_identity(copy),
        Some(_) | None if copy.place != Place::AuthFile => Verdict::Listed,
        Some(_) | None if rules.refused.contains(&ours.fingerprint) => Verdict::RefusedBefore,
        Some(_) | None => match order::by_times(&ours.issued, &theirs.issued) {
            Order::Earlier => Verdict::UnknownEarlier,
            Order::Later | Order::Unclear => Verdict::UnknownFamily,
        },
    }
}

/// Returns a copy with what a record that names this very login says of it. That beats a
/// receipt, which speaks of whatever file is there, unless the receipt names the login itself.
#[must_use]
pub fn with_record(copy: &Copy, all: &[Copy]) -> Copy {
    let known = copy.generation().and_then(|ours| {
        let receipt = copy.origins.as_ref();
        let in_line = receipt.is_some_and(|it| is_in_line(&it.base, ours.fingerprint));
        let mut records = all.iter().filter(|it| {
            let elsewhere = it.origins.as_ref().is_some_and(|it| it.elsewhere);
            it.place == Place::Rescue && !elsewhere
        });
        let record = records.find(|it| {
            let theirs = it.generation().map(|theirs| theirs.fingerprint);
            theirs == Some(ours.fingerprint)
        })?;
        // A record that knows nothing is no better than a receipt that knows what it is not.
        let receipt = receipt.filter(|it| is_unrelated(it, ours));
        let by_record = copy.place != Place::Rescue && !in_line;
        by_record.then(|| record.origins.as_ref().or(receipt).cloned())
    });
    Copy {
        origins: known.unwrap_or_else(|| copy.origins.clone()),
        ..copy.clone()
    }
}

/// Returns what a verdict knew of a copy: nothing if it did not go by the receipt or record.
/// Nothing else may be written into the record of the copy, where it would count as known.
#[must_use]
pub fn lineage(copy: &Copy, verdict: Verdict) -> Option<&Origins> {
    let origins = copy.origins.as_ref()?;
    let is_of = |ours: &Generation| {
        speaks_of(origins, ours) && !ours.identity.contradicts(&origins.base.generation.identity)
    };
    match verdict {
        Verdict::OnlyCopy
        | Verdict::Missing
        | Verdict::Unusable
        | Verdict::OtherIdentity
        | Verdict::UnknownEarlier
        | Verdict::UnknownFamily
        | Verdict::Elsewhere
        | Verdict::Listed => None,
        Verdict::UnusableKnown
        | Verdict::IsHead
        | Verdict::Ancestor
        | Verdict::OtherFamily
        | Verdict::RefusedBefore
        | Verdict::Later
        | Verdict::Earlier
        | Verdict::WrittenAfterHead
        | Verdict::Unclear => copy.generation().is_none_or(is_of).then_some(origins),
    }
}

/// Returns the copies of which a base says that they count less than it: what brings one of them
/// back is no rotation.
pub(crate) fn decided_against(base: &Base, copies: &[Copy]) -> Vec<Fingerprint> {
    let head = Held {
        version: base.version.clone(),
        generation: Some(base.generation.clone()),
        id: None,
        count: base.count,
        family: Some(base.family),
        volatile_hints: base.volatile_hints,
    };
    let against = copies.iter().filter(|copy| {
        let verdict = judge(Some(&head), copy, &Rules::default());
        !is_adopted(verdict) && verdict != Verdict::IsHead
    });
    let logins = against.filter_map(Copy::generation);
    logins.map(|login| login.fingerprint).collect()
}

/// Whether a copy that makes way for a head is not of its family, as far as is known.
pub(crate) fn is_of_another_family(copy: &Copy, verdict: Verdict, head: &Base) -> bool {
    match verdict {
        Verdict::OtherFamily
        | Verdict::OtherIdentity
        | Verdict::UnknownEarlier
        | Verdict::UnknownFamily => true,
        Verdict::Ancestor => {
            let family = copy.origins.as_ref().map(|origins| origins.base.family);
            family != Some(head.family)
        }
        Verdict::OnlyCopy
        | Verdict::Missing
        | Verdict::UnusableKnown
        | Verdict::Unusable
        | Verdict::IsHead
        | Verdict::RefusedBefore
        | Verdict::Later
        | Verdict::Earlier
        | Verdict::WrittenAfterHead
        | Verdict::Unclear
        | Verdict::Elsewhere
        | Verdict::Listed => false,
    }
}

/// Returns whether a head is of the family of a base: by its stamp, or because it is that very
/// base or, without a stamp, one of its known ancestors or the generation that its family begins
/// with. A stamp is lost when a person touches another field, a tag or the file.
#[must_use]
pub fn is_family_of(held: &Held, theirs: &Generation, base: &Base) -> bool {
    is_head_the_base(theirs, held, base)
        || match held.family {
            Some(family) => family == base.family,
            None => {
                base.family.0 == theirs.fingerprint || base.ancestors.contains(&theirs.fingerprint)
            }
        }
}

/// Returns what the receipts and records of this store say, also under another spelling of its
/// address.
pub fn bases_here<'a>(
    copies: impl IntoIterator<Item = &'a Copy>,
    held: &'a Held,
    theirs: &'a Generation,
) -> impl Iterator<Item = &'a Base> {
    let origins = copies.into_iter().filter_map(|copy| copy.origins.as_ref());
    let here = origins.filter(|origins| speaks_here(origins, held, theirs));
    here.map(|origins| &origins.base)
}

/// Whether a receipt or record is of this store. Under another address it is if it names the
/// head by its version *and* its fingerprint: another spelling of one place.
fn speaks_here(origins: &Origins, held: &Held, theirs: &Generation) -> bool {
    let base = &origins.base;
    let is_head = base.version == held.version && base.generation.fingerprint == theirs.fingerprint;
    !origins.elsewhere || is_head
}

/// Whether a base of another address is of the head's family. A version tells nothing there.
fn is_family_elsewhere(held: &Held, theirs: &Generation, base: &Base) -> bool {
    let is_known =
        || base.family.0 == theirs.fingerprint || base.ancestors.contains(&theirs.fingerprint);
    base.generation.fingerprint == theirs.fingerprint
        || held
            .family
            .map_or_else(is_known, |family| family == base.family)
}

/// Returns the head with its family. Without a stamp, a receipt or record of any copy may know it.
fn with_family(held: &Held, copies: &[Copy]) -> Held {
    let mut known = held.clone();
    if let (None, Some(theirs)) = (held.family, &held.generation) {
        let mut bases = bases_here(copies, held, theirs);
        let base = bases.find(|base| is_family_of(held, theirs, base));
        known.family = base.map(|base| base.family);
    }
    known
}

/// A copy that any receipt or record knows as an ancestor of the head is earlier; but for a head
/// that was kept when something unclear replaced it, in any record: a higher count is all that
/// a receipt knows of the two.
fn mark_ancestors(held: &Held, copies: &[Copy], verdicts: &mut [Verdict]) {
    let Some(theirs) = &held.generation else {
        return;
    };
    let line: Vec<Fingerprint> = copies
        .iter()
        .filter(|copy| !is_kept_head(copy))
        .flat_map(|copy| bases_here([copy], held, theirs))
        .filter(|base| is_family_of(held, theirs, base))
        .flat_map(|base| Base::of_head(held, theirs, Some(base)).ancestors)
        .filter(|ancestor| !kept_heads(copies).any(|kept| kept == *ancestor))
        .collect();
    for (copy, verdict) in copies.iter().zip(verdicts) {
        let is_known = copy
            .generation()
            .is_some_and(|ours| line.contains(&ours.fingerprint));
        if is_known
            && matches!(
                verdict,
                Verdict::Later | Verdict::WrittenAfterHead | Verdict::Unclear
            )
        {
            *verdict = Verdict::Earlier;
        }
    }
}

/// The heads that were kept when something unclear replaced them.
pub(crate) fn kept_heads(copies: &[Copy]) -> impl Iterator<Item = Fingerprint> + '_ {
    let kept = copies.iter().filter(|copy| is_kept_head(copy));
    kept.filter_map(|copy| Some(copy.generation()?.fingerprint))
}

/// Whether a record says that this was the head, and that what replaced it may not descend from
/// it.
fn is_kept_head(copy: &Copy) -> bool {
    let ours = copy.generation().map(|ours| ours.fingerprint);
    copy.origins.as_ref().is_some_and(|origins| {
        let is_base = ours == Some(origins.base.generation.fingerprint);
        origins.by_name && origins.seen > 0 && is_base
    })
}

fn without_head(head: Option<&Held>, verdicts: Vec<Verdict>) -> Settlement {
    let why = if verdicts.contains(&Verdict::OnlyCopy) {
        Refusal::OnlyCopies
    } else if head.is_none() {
        Refusal::NothingStored
    } else {
        Refusal::UnusableStored
    };
    Settlement {
        verdicts,
        action: Action::Refuse(why),
        set_aside: Vec::new(),
        next: Vec::new(),
    }
}

fn refusal(verdict: Verdict) -> Option<Refusal> {
    match verdict {
        Verdict::Unusable => Some(Refusal::UnusableFile),
        Verdict::OtherIdentity => Some(Refusal::OtherAccount),
        Verdict::UnknownFamily => Some(Refusal::UnknownFamily),
        Verdict::Elsewhere => Some(Refusal::CopyElsewhere),
        Verdict::OnlyCopy
        | Verdict::Missing
        | Verdict::UnusableKnown
        | Verdict::IsHead
        | Verdict::Ancestor
        | Verdict::OtherFamily
        | Verdict::RefusedBefore
        | Verdict::Later
        | Verdict::Earlier
        | Verdict::WrittenAfterHead
        | Verdict::Unclear
        | Verdict::UnknownEarlier
        | Verdict::Listed => None,
    }
}

/// A person's `--replace` lifts every refusal of an auth file that can be set aside, and none of
/// another copy: that is not replaced.
fn refusal_of(copy: &Copy, verdict: Verdict, rules: &Rules) -> Option<Refusal> {
    let keepable = copy.content != Content::Unusable { keepable: false };
    let is_lifted = rules.replace && keepable && verdict != Verdict::Elsewhere;
    refusal(verdict).filter(|_| !is_lifted)
}

fn is_adopted(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Later | Verdict::WrittenAfterHead)
}

fn is_next(verdict: Verdict) -> bool {
    is_adopted(verdict) || matches!(verdict, Verdict::OtherFamily | Verdict::Unclear)
}

/// Whether the login would be missed if it were replaced: all but those that are in the store
/// already, or never held anything.
fn is_worth_keeping(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Missing | Verdict::IsHead | Verdict::Ancestor => false,
        Verdict::OnlyCopy
        | Verdict::UnusableKnown
        | Verdict::Unusable
        | Verdict::OtherFamily
        | Verdict::OtherIdentity
        | Verdict::RefusedBefore
        | Verdict::Later
        | Verdict::Earlier
        | Verdict::WrittenAfterHead
        | Verdict::Unclear
        | Verdict::UnknownEarlier
        | Verdict::UnknownFamily
        | Verdict::Elsewhere
        | Verdict::Listed => true,
    }
}

/// Whether nothing tells that a copy is of a store that holds nothing.
fn may_be_of_another_store(copy: &Copy) -> bool {
    let elsewhere = copy.origins.as_ref().map(|origins| origins.elsewhere);
    match copy.place {
        Place::AuthFile => false,
        Place::Rescue => elsewhere == Some(true),
        Place::Rotation => elsewhere != Some(false),
    }
}

/// Whether nothing happens to a copy: no record is removed, and no rotation of which nothing is
/// known, or that is none of this store's.
fn stays_where_it_is(copy: &Copy, verdict: Verdict) -> bool {
    match copy.place {
        Place::AuthFile => false,
        Place::Rescue => true,
        Place::Rotation => {
            let origins = copy.origins.as_ref();
            verdict == Verdict::Listed || origins.is_some_and(|origins| origins.elsewhere)
        }
    }
}

fn other_identity(copy: &Copy) -> Verdict {
    match copy.place {
        Place::AuthFile => Verdict::OtherIdentity,
        Place::Rescue | Place::Rotation => Verdict::Listed,
    }
}

/// Whether a receipt or record speaks of this login. Session hints that contradict a receipt
/// mean that a person logged in afresh; hints that changed in a rotation of ours say nothing.
fn speaks_of(origins: &Origins, ours: &Generation) -> bool {
    let base = &origins.base;
    let known = is_in_line(base, ours.fingerprint);
    let afresh = origins.hints_count
        && !base.volatile_hints
        && ours.hints.contradict(&base.generation.hints);
    origins.by_name || known || !(afresh || is_unrelated(origins, ours))
}

/// Whether a base or its known ancestors name a generation.
fn is_in_line(base: &Base, generation: Fingerprint) -> bool {
    base.generation.fingerprint == generation || base.ancestors.contains(&generation)
}

/// Whether a receipt knows a login as one of another family.
fn is_unrelated(origins: &Origins, ours: &Generation) -> bool {
    origins.base.unrelated.contains(&ours.fingerprint)
}

/// Where a copy stands to the head, within one family.
fn order_of(ours: &Generation, origins: &Origins, held: &Held, theirs: &Generation) -> Order {
    let base = &origins.base;
    // The family begins with the generation that it is named by.
    let rank = |fingerprint| {
        let line = base.ancestors.iter().chain([&base.generation.fingerprint]);
        let mut line = line.enumerate();
        let place = line.find_map(|(place, it)| (*it == fingerprint).then_some(place + 1));
        if fingerprint == base.family.0 {
            Some(0)
        } else {
            place
        }
    };
    if let (Some(ours), Some(theirs)) = (rank(ours.fingerprint), rank(theirs.fingerprint)) {
        return order::by_rank(ours, theirs);
    }
    let by_times = order::by_times(&ours.issued, &theirs.issued);
    match by_times {
        Order::Earlier | Order::Unclear if is_behind(origins, held) => Order::Earlier,
        Order::Earlier | Order::Later | Order::Unclear => by_times,
    }
}

/// Whether the store has more generations of the family than a receipt or record knows: others
/// rotated, or the job was killed between a swap and its receipt. A refresh token is good for one
/// rotation, so a copy that the provider issued later still descends from the head.
fn is_behind(origins: &Origins, held: &Held) -> bool {
    let base = &origins.base;
    held.count > base.count.saturating_add(origins.seen) && held.family == Some(base.family)
}

/// Whether a copy is exactly what its receipt says the store had. A record that names itself as
/// the base is of a head that was replaced: that tells nothing of who spent it.
fn was_placed(ours: &Generation, origins: &Origins) -> bool {
    !origins.by_name && origins.base.generation.fingerprint == ours.fingerprint
}

fn is_head_the_base(theirs: &Generation, held: &Held, base: &Base) -> bool {
    base.generation.fingerprint == theirs.fingerprint || base.version == held.version
}

/// Whether the head is a base or one of its known ancestors: a store that went back.
fn is_head_in_line(theirs: &Generation, held: &Held, base: &Base) -> bool {
    is_head_the_base(theirs, held, base)
        || base.family.0 == theirs.fingerprint
        || base.ancestors.contains(&theirs.fingerprint)
}

/// Whether the head came after what its receipt says the store had: by a higher count, and not
/// by an earlier time of issue. A store that was set back has neither.
pub(crate) fn is_ahead(held: &Held, theirs: &Generation, base: &Base) -> bool {
    held.count > base.count
        && order::by_times(&theirs.issued, &base.generation.issued) != Order::Earlier
}

fn descends(copy: &Copy, held: &Held) -> bool {
    let base = copy.origins.as_ref().map(|origins| &origins.base);
    base.zip(held.generation.as_ref())
        .is_some_and(|(base, theirs)| is_head_the_base(theirs, held, base))
}

/// Whether a copy is tried if the provider refuses the head: one of the same identity that is
/// not surely earlier and was not refused itself.
fn is_worth_a_try(copy: &Copy, theirs: &Generation, rules: &Rules) -> bool {
    copy.generation().is_some_and(|ours| {
        !ours.identity.contradicts(&theirs.identity)
            && !rules.refused.contains(&ours.fingerprint)
            && order::by_times(&ours.issued, &theirs.issued) != Order::Earlier
    })
}

fn is_auth_file(copy: &Copy) -> bool {
    copy.place == Place::AuthFile
}

/// The latest of several that would be adopted. Where the times are unclear the auth file
/// counts, then the newest record: the order in which they are given.
fn latest(copies: &[Copy], candidates: impl Iterator<Item = usize>) -> Option<usize> {
    let issued = |index: usize| copies[index].generation().map(|it| &it.issued);
    candidates.reduce(|best, other| {
        let is_later = issued(other)
            .zip(issued(best))
            .is_some_and(|(other, best)| order::by_times(other, best) == Order::Later);
        if is_later { other } else { best }
    })
}

/// All of them, the latest first.
fn latest_first(copies: &[Copy], candidates: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut left: Vec<usize> = candidates.collect();
    let mut sorted = Vec::new();
    while let Some(best) = latest(copies, left.iter().copied()) {
        left.retain(|&index| index != best);
        sorted.push(best);
    }
    sorted
}

#[cfg(test)]
mod tests;
