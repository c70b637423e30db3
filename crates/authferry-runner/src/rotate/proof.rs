//! What is proven before a token is spent: that the store takes a login, and that what was
//! looked at is what it holds.

use std::pin::pin;

use authferry_core::rotation::Proof;
use authferry_core::{
    Base, CasError, Family, Fingerprint, Origin, Stamp, Stored, Trouble, WriteId,
};
use tokio::time::timeout;

use super::{Answer, Driver, settle};
use crate::mark::Notes;
use crate::signals::Told;
use crate::{Mark, Signals};

impl Driver<'_> {
    /// Swaps what was looked at for itself. Who wrote it, and how, stays beside it.
    pub(super) fn prove(&mut self) {
        let Some(known) = &self.rotated.known else {
            unreachable!("nothing but a login that was read is due");
        };
        let (store, expected) = (self.rotating.store, known.version.clone());
        let id = self.write_id(known);
        let lost = || {
            let base = settle::base_of(self.rotating, self.job, known);
            stamp_of(id, base.as_ref(), self.rotating.writer)
        };
        let stamp = Stamp {
            id,
            ..known.stamp.clone().unwrap_or_else(lost)
        };
        let secret = known.secret.duplicate();
        self.proving = Some((expected.clone(), id));
        self.request = Some(Box::pin(async move {
            let swapped = store.compare_and_swap(Some(&expected), &secret, &stamp);
            Answer::Proven(swapped.await.map(|version| Stored {
                secret,
                version,
                stamp: Some(stamp),
            }))
        }));
    }

    /// The write of no trip: those have numbers of their own. It is the same one as long as
    /// it rests on the same version, and so has the same bytes. One that has landed unheard
    /// is no proof any more by the time it is seen, and is followed by another.
    fn write_id(&self, known: &Stored) -> WriteId {
        let number = match &self.proving {
            None => 0,
            Some((expected, id)) => id.number + u64::from(*expected != known.version),
        };
        WriteId {
            trip: self.holder,
            number,
        }
    }

    pub(super) fn proven(&mut self, proven: Result<Stored, CasError>) -> Proof {
        match proven {
            Ok(stored) => {
                self.rotated.known = Some(stored);
                Proof::Landed
            }
            Err(CasError::Conflict) => Proof::Moved,
            Err(CasError::Ambiguous(error)) => {
                self.trouble(error);
                Proof::Trouble(Trouble::Transient)
            }
            Err(CasError::Refused(error)) => Proof::Trouble(self.trouble(error)),
        }
    }

    /// Whether nothing needs to be written, for nothing will be spent: the login is known to
    /// be dead, or there is no place for the home in which it would be rotated.
    pub(super) async fn is_in_vain(&mut self, signals: &mut Signals) -> bool {
        self.rotated.dead = self.known_dead(signals).await;
        match crate::rotations::private(self.rotating.rotations) {
            Ok(folder) => self.folder = Some(folder),
            Err(error) => self.rotated.not_begun = Some(error),
        }
        self.rotated.dead.is_some() || self.rotated.not_begun.is_some()
    }

    /// What an earlier rotation that found the login dead has left beside the claim.
    async fn known_dead(&mut self, signals: &mut Signals) -> Option<Mark> {
        let before = self.rotated.generation.as_ref()?.fingerprint;
        let mark = Notes::read(self.lease.as_ref()?.note()).dead?;
        (mark.fingerprint == before && self.still_holds(before, signals).await).then_some(mark)
    }

    /// Whether the store holds this generation. One that cannot be read, or not before a
    /// signal comes, is as it was.
    async fn still_holds(&mut self, held: Fingerprint, signals: &mut Signals) -> bool {
        self.read_again(signals).await.is_none_or(|stored| {
            authferry_codex::parse(&stored.secret).is_ok_and(|it| it.fingerprint == held)
        })
    }

    /// Reads what the store holds; `None` if it cannot be read, holds nothing, or a signal comes
    /// first.
    pub(super) async fn read_again(&mut self, signals: &mut Signals) -> Option<Stored> {
        let mut read = pin!(timeout(self.rotating.patience, self.rotating.store.read()));
        loop {
            tokio::select! {
                read = &mut read => return read.ok()?.ok()?,
                told = signals.next() => match told {
                    Told::Child => {}
                    Told::End(signal) | Told::Other(signal) => {
                        self.rotated.signal.get_or_insert(signal.as_raw());
                        return None;
                    }
                }
            }
        }
    }
}

/// The stamp of a login that has none: a person put it there, or touched another field, a tag or
/// the file. It stays in its family if that is known; else a family begins with it.
pub(super) fn stamp_of(id: WriteId, base: Option<&Base>, writer: &str) -> Stamp {
    Stamp {
        id,
        count: base.map_or(1, |base| base.count),
        origin: Origin::Seed,
        family: base.map_or(Family(Fingerprint::new([0; 8])), |base| base.family),
        volatile_hints: base.is_some_and(|base| base.volatile_hints),
        writer: writer.to_owned(),
    }
}
