//! Decides which copy of a login wins, and what must happen before a refresh token is spent.
//!
//! Time of issue orders generations *within one family* only. So each copy on this machine is
//! compared with the store's login (the *head*), using the copy's receipt or record: [`judge`]
//! returns one [`Verdict`] for a copy, [`settle`] returns one [`Settlement`] for all copies.

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
    /// The private home of an interrupted rotation.
    Rotation,
}

/// What a copy holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Content {
    /// There is no file, or an empty one.
    Missing,
    /// A file without a usable login.
    AuthFileError {
        /// Whether the bytes could be read and can be backed up.
        keepable: bool,
    },
    /// A login without a refresh token: it cannot be lost.
    AccessOnly,
    /// A login.
    Usable(Generation),
}

/// The lineage of a copy, from its receipt or record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origins {
    /// The head that the copy descends from.
    pub base: Base,
    /// Number of generations seen after that head, up to this copy. A head that was backed up
    /// when a copy of unclear order replaced it has 1: the replacement may not descend from it.
    pub seen: u64,
    /// Whether a record names this fingerprint, see [`with_record`].
    pub by_name: bool,
    /// Whether session hints count. They count for the auth file of a persistent home.
    pub hints_count: bool,
    /// Whether the receipt or record names another address than this store's. That may be another
    /// spelling of the same place, a store that moved, or another store with the same login.
    /// Versions of two stores may be equal by chance.
    pub elsewhere: bool,
}

/// A generation found anywhere else than in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Copy {
    /// Where the copy was found.
    pub place: Place,
    /// What the copy holds.
    pub content: Content,
    /// The copy's lineage: `None` without a receipt or record.
    pub origins: Option<Origins>,
}

impl Copy {
    /// Returns the login, if the copy is usable.
    #[must_use]
    pub fn generation(&self) -> Option<&Generation> {
        match &self.content {
            Content::Usable(generation) => Some(generation),
            Content::Missing | Content::AuthFileError { .. } | Content::AccessOnly => None,
        }
    }

    /// Marks the copy as one of this store, as a person has confirmed.
    #[must_use]
    pub fn here(mut self) -> Self {
        if let Some(origins) = &mut self.origins {
            origins.elsewhere = false;
        }
        self
    }
}

/// How a copy compares with the head. The numbers are those of the tests `row_N_…` in
/// `copies::tests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// 1: The store holds no login. A person may seed it with this copy.
    OnlyCopy,
    /// 2 and 4: The copy holds no login that could be lost.
    Missing,
    /// 3: No usable login, but a receipt: backed up, then the head is placed.
    UnusableKnown,
    /// 3: No usable login, and no receipt: refused.
    AuthFileError,
    /// 5: The copy is the head.
    IsHead,
    /// 6: The copy is the base of its receipt, and the head is surely later.
    Ancestor,
    /// 7: Of another family than the head: the head wins, regardless of the times.
    OtherFamily,
    /// 8: Another workspace or person: refused.
    OtherIdentity,
    /// 9: The provider has refused the copy: the head wins.
    RefusedBefore,
    /// 10: Later than the head: an earlier persist failed.
    Later,
    /// 11: Earlier than the head.
    Earlier,
    /// 12: Unclear by the times, but written after the head was placed, by its receipt.
    WrittenAfterHead,
    /// 13: Of the head's family, but the order is unclear.
    Unclear,
    /// 14: Of an unknown family, and surely earlier than the head.
    UnknownEarlier,
    /// 15: Of an unknown family, and maybe later. It may be a person's own login: refused.
    UnknownFamily,
    /// Not the auth file. It belongs to another store address, is of the head's family and may be
    /// later: refused until a person decides.
    Elsewhere,
    /// Not the auth file, and of another or unknown family or person: only listed.
    Listed,
}

/// What must happen before a refresh token is spent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Nothing: the auth file already is the head.
    Keep,
    /// Place the head in the auth file.
    Place,
    /// Swap a copy into the store.
    Adopt {
        /// The index of the copy.
        copy: usize,
        /// Whether the head must be backed up first.
        keep_head: bool,
        /// Whether the backup must be in the rescue folder, even if the store has history. The
        /// copy is not surely later, so authferry tries the head again if the provider refuses
        /// the copy. The next job finds the head only by its record.
        in_rescue: bool,
    },
    /// Refuse: do not spend, place or swap a login.
    Refuse(Refusal),
}

/// The decision about the head and all copies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settlement {
    /// One verdict for each copy, in the same order.
    pub verdicts: Vec<Verdict>,
    /// What to do.
    pub action: Action,
    /// The copies to back up before they are replaced or removed.
    pub set_aside: Vec<usize>,
    /// The copies to try, in this order, if the provider refuses the winner.
    pub next: Vec<usize>,
}

/// The `--replace` option, and the known refusals by the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Whether an auth file that is unusable, of another identity or of an unknown family may be
    /// replaced. It is backed up first.
    pub replace: bool,
    /// Generations that the provider refused.
    pub refused: Vec<Fingerprint>,
}

/// Decides between the head and all copies. `copies` lists records newest first.
///
/// Each combination of head and copies has exactly one answer.
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
            known.is_some() && is_worth_trying(&copies[index], theirs, rules)
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
        .filter(|&index| !stays_in_place(&copies[index], verdicts[index]))
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

/// Compares one copy with the head.
#[must_use]
pub fn judge(head: Option<&Held>, copy: &Copy, rules: &Rules) -> Verdict {
    let ours = match &copy.content {
        Content::Usable(ours) => ours,
        _ if copy.place != Place::AuthFile => return Verdict::Listed,
        Content::Missing | Content::AccessOnly => return Verdict::Missing,
        Content::AuthFileError { keepable: true } if copy.origins.is_some() => {
            return Verdict::UnusableKnown;
        }
        Content::AuthFileError { .. } => return Verdict::AuthFileError,
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
    let elsewhere = known.filter(|origins| !is_of_this_store(origins, stored, theirs));
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

/// Compares a login that is not the head. `known`: the origins from its receipt or record.
fn judge_known(
    copy: &Copy,
    ours: &Generation,
    known: Option<&Origins>,
    stored: &Held,
    theirs: &Generation,
    rules: &Rules,
) -> Verdict {
    let origins = known.filter(|origins| applies_to(origins, ours));
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
                        // The head may be an older file that a job mistook for a rotation.
                        Order::Earlier | Order::Unclear => Verdict::Unclear,
                    }
                }
                _ if ours.identity.contradicts(&theirs.identity) => other_identity(copy),
                _ if rules.refused.contains(&ours.fingerprint) => Verdict::RefusedBefore,
                // The receipt is behind the store: the copy may not descend from the head, so
                // this verdict backs the head up.
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

/// Returns a copy with the origins from a record that names its login. Such a record overrides
/// the receipt, which applies to any file in the home, unless the receipt names the login itself.
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
        // A record without origins does not override a receipt that lists the login as unrelated.
        let receipt = receipt.filter(|it| is_unrelated(it, ours));
        let by_record = copy.place != Place::Rescue && !in_line;
        by_record.then(|| record.origins.as_ref().or(receipt).cloned())
    });
    Copy {
        origins: known.unwrap_or_else(|| copy.origins.clone()),
        ..copy.clone()
    }
}

/// Returns the origins that a verdict used, or `None` if it did not use the receipt or record.
/// A record of the copy must contain nothing else, because later decisions trust it.
#[must_use]
pub fn lineage(copy: &Copy, verdict: Verdict) -> Option<&Origins> {
    let origins = copy.origins.as_ref()?;
    let is_of = |ours: &Generation| {
        applies_to(origins, ours) && !ours.identity.contradicts(&origins.base.generation.identity)
    };
    match verdict {
        Verdict::OnlyCopy
        | Verdict::Missing
        | Verdict::AuthFileError
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

/// Returns the copies that lose against a base. If such a login comes back, it is not a rotation.
pub(crate) fn outranked_by(base: &Base, copies: &[Copy]) -> Vec<Fingerprint> {
    let head = Held {
        version: base.version.clone(),
        generation: Some(base.generation.clone()),
        id: None,
        count: base.count,
        family: Some(base.family),
        volatile_hints: base.volatile_hints,
    };
    let outranked = copies.iter().filter(|copy| {
        let verdict = judge(Some(&head), copy, &Rules::default());
        !is_adopted(verdict) && verdict != Verdict::IsHead
    });
    let logins = outranked.filter_map(Copy::generation);
    logins.map(|login| login.fingerprint).collect()
}

/// Whether a copy that the head replaces is of another family, as far as is known.
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
        | Verdict::AuthFileError
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

/// Returns whether a head is of a base's family: by its stamp, or because it is that base. Without
/// a stamp, the base's known ancestors and its seed count too. A head loses its stamp when a person
/// touches another field, a tag or the file.
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

/// Returns the bases in the receipts and records of this store, including those under another
/// spelling of its address.
pub fn bases_here<'a>(
    copies: impl IntoIterator<Item = &'a Copy>,
    held: &'a Held,
    theirs: &'a Generation,
) -> impl Iterator<Item = &'a Base> {
    let origins = copies.into_iter().filter_map(|copy| copy.origins.as_ref());
    let here = origins.filter(|origins| is_of_this_store(origins, held, theirs));
    here.map(|origins| &origins.base)
}

/// Whether a receipt or record is of this store. Under another address it must name the head by
/// version *and* fingerprint: then the address is another spelling of the same place.
fn is_of_this_store(origins: &Origins, held: &Held, theirs: &Generation) -> bool {
    let base = &origins.base;
    let is_head = base.version == held.version && base.generation.fingerprint == theirs.fingerprint;
    !origins.elsewhere || is_head
}

/// Whether a base of another address is of the head's family. Versions do not count there.
fn is_family_elsewhere(held: &Held, theirs: &Generation, base: &Base) -> bool {
    let is_known =
        || base.family.0 == theirs.fingerprint || base.ancestors.contains(&theirs.fingerprint);
    base.generation.fingerprint == theirs.fingerprint
        || held
            .family
            .map_or_else(is_known, |family| family == base.family)
}

/// Returns the head with its family. Without a stamp, the family comes from any copy's receipt or
/// record.
fn with_family(held: &Held, copies: &[Copy]) -> Held {
    let mut known = held.clone();
    if let (None, Some(theirs)) = (held.family, &held.generation) {
        let mut bases = bases_here(copies, held, theirs);
        let base = bases.find(|base| is_family_of(held, theirs, base));
        known.family = base.map(|base| base.family);
    }
    known
}

/// Changes the verdict of a copy to earlier if any receipt or record lists it as an ancestor of the
/// head. Excludes heads that were backed up when a copy of unclear order replaced them: a receipt
/// calls such a head an ancestor only by its count.
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

/// The heads that were backed up when a copy of unclear order replaced them.
pub(crate) fn kept_heads(copies: &[Copy]) -> impl Iterator<Item = Fingerprint> + '_ {
    let kept = copies.iter().filter(|copy| is_kept_head(copy));
    kept.filter_map(|copy| Some(copy.generation()?.fingerprint))
}

/// Whether a record says that this was the head, and that its replacement may not descend from it.
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
        Verdict::AuthFileError => Some(Refusal::UnusableFile),
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

/// Applies `--replace`: it lifts every refusal of an auth file that can be backed up, but no
/// refusal of another copy, which is not replaced.
fn refusal_of(copy: &Copy, verdict: Verdict, rules: &Rules) -> Option<Refusal> {
    let keepable = copy.content != Content::AuthFileError { keepable: false };
    let is_lifted = rules.replace && keepable && verdict != Verdict::Elsewhere;
    refusal(verdict).filter(|_| !is_lifted)
}

fn is_adopted(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Later | Verdict::WrittenAfterHead)
}

fn is_next(verdict: Verdict) -> bool {
    is_adopted(verdict) || matches!(verdict, Verdict::OtherFamily | Verdict::Unclear)
}

/// Whether a copy must be backed up before it is replaced. Not if it is or was in the store, or
/// holds no login.
fn is_worth_keeping(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Missing | Verdict::IsHead | Verdict::Ancestor => false,
        Verdict::OnlyCopy
        | Verdict::UnusableKnown
        | Verdict::AuthFileError
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

/// Whether a copy may belong to another store, if this store is empty.
fn may_be_of_another_store(copy: &Copy) -> bool {
    let elsewhere = copy.origins.as_ref().map(|origins| origins.elsewhere);
    match copy.place {
        Place::AuthFile => false,
        Place::Rescue => elsewhere == Some(true),
        Place::Rotation => elsewhere != Some(false),
    }
}

/// Whether a copy is not touched: a record, or a private home that is unknown or belongs to another
/// store.
fn stays_in_place(copy: &Copy, verdict: Verdict) -> bool {
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

/// Whether a receipt or record applies to this login. It always applies to a login that it names,
/// or that is its base or an ancestor. It applies to no login that it lists as unrelated, or whose
/// session hints contradict the base: a person logged in again. It applies to any other login.
/// Hints that our rotation changed prove nothing.
fn applies_to(origins: &Origins, ours: &Generation) -> bool {
    let base = &origins.base;
    let known = is_in_line(base, ours.fingerprint);
    let new_session = origins.hints_count
        && !base.volatile_hints
        && ours.hints.contradict(&base.generation.hints);
    origins.by_name || known || !(new_session || is_unrelated(origins, ours))
}

/// Whether a generation is the base or one of its known ancestors.
fn is_in_line(base: &Base, generation: Fingerprint) -> bool {
    base.generation.fingerprint == generation || base.ancestors.contains(&generation)
}

/// Whether a receipt lists a login as one of another family.
fn is_unrelated(origins: &Origins, ours: &Generation) -> bool {
    origins.base.unrelated.contains(&ours.fingerprint)
}

/// Compares a copy with the head, within one family.
fn order_of(ours: &Generation, origins: &Origins, held: &Held, theirs: &Generation) -> Order {
    let base = &origins.base;
    // The seed identifies the family and is its first generation.
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

/// Whether the store has more generations of the family than a receipt or record knows. Other jobs
/// rotated, or the job was killed between a swap and its receipt. A refresh token is good for one
/// rotation, so a copy that the provider issued later still descends from the head.
fn is_behind(origins: &Origins, held: &Held) -> bool {
    let base = &origins.base;
    held.count > base.count.saturating_add(origins.seen) && held.family == Some(base.family)
}

/// Whether a copy is the base of its receipt: unchanged since restore. A record whose base is
/// its own login is of a replaced head, which does not show who spent the refresh token.
fn was_placed(ours: &Generation, origins: &Origins) -> bool {
    !origins.by_name && origins.base.generation.fingerprint == ours.fingerprint
}

fn is_head_the_base(theirs: &Generation, held: &Held, base: &Base) -> bool {
    base.generation.fingerprint == theirs.fingerprint || base.version == held.version
}

/// Whether the head is a base or one of its known ancestors: the store was rolled back.
fn is_head_in_line(theirs: &Generation, held: &Held, base: &Base) -> bool {
    is_head_the_base(theirs, held, base)
        || base.family.0 == theirs.fingerprint
        || base.ancestors.contains(&theirs.fingerprint)
}

/// Whether the head is later than the receipt's base: by a higher count, and without an earlier
/// time of issue. The head of a store that was rolled back has a lower count or an earlier time.
pub(crate) fn is_ahead(held: &Held, theirs: &Generation, base: &Base) -> bool {
    held.count > base.count
        && order::by_times(&theirs.issued, &base.generation.issued) != Order::Earlier
}

fn descends(copy: &Copy, held: &Held) -> bool {
    let base = copy.origins.as_ref().map(|origins| &origins.base);
    base.zip(held.generation.as_ref())
        .is_some_and(|(base, theirs)| is_head_the_base(theirs, held, base))
}

/// Whether to try a copy if the provider refuses the head: it has the same identity, is not surely
/// earlier, and was not refused itself.
fn is_worth_trying(copy: &Copy, theirs: &Generation, rules: &Rules) -> bool {
    copy.generation().is_some_and(|ours| {
        !ours.identity.contradicts(&theirs.identity)
            && !rules.refused.contains(&ours.fingerprint)
            && order::by_times(&ours.issued, &theirs.issued) != Order::Earlier
    })
}

fn is_auth_file(copy: &Copy) -> bool {
    copy.place == Place::AuthFile
}

/// Returns the latest of several candidates. If the times are unclear, the first candidate wins:
/// the auth file, then the newest record.
fn latest(copies: &[Copy], candidates: impl Iterator<Item = usize>) -> Option<usize> {
    let issued = |index: usize| copies[index].generation().map(|it| &it.issued);
    candidates.reduce(|best, other| {
        let is_later = issued(other)
            .zip(issued(best))
            .is_some_and(|(other, best)| order::by_times(other, best) == Order::Later);
        if is_later { other } else { best }
    })
}

/// Returns all candidates, latest first.
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
