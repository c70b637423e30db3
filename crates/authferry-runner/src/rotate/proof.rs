//! Proves before a token is spent that the store accepts a write, and that the last read is not
//! stale.

use std::pin::pin;

use authferry_core::rotation::Proof;
use authferry_core::{
    Base, CasError, Family, Fingerprint, Origin, Retryable, Stamp, Stored, WriteId,
};
use tokio::time::timeout;

use super::{RotationAnswer, RotationDriver, settle};
use crate::refusal_note::Notes;
use crate::signals::SignalEvent;
use crate::{RefusalNote, Signals, lease};

impl RotationDriver<'_> {
    /// Swaps the login for itself. Writer and origin in its stamp stay.
    pub(super) fn start_proof(&mut self) {
        let Some(known) = &self.rotated.last_read else {
            unreachable!("only a login that was read is due");
        };
        let (store, expected) = (self.rotating.store, known.version.clone());
        let id = self.proof_write_id(known);
        let new_stamp = || {
            let base = settle::base_of(self.rotating, self.job, known);
            stamp_of(id, base.as_ref(), self.rotating.writer)
        };
        let stamp = Stamp {
            id,
            ..known.stamp.clone().unwrap_or_else(new_stamp)
        };
        let secret = known.secret.duplicate();
        self.proof_write = Some((expected.clone(), id));
        self.request = Some(Box::pin(async move {
            let swapped = store.compare_and_swap(Some(&expected), &secret, &stamp);
            RotationAnswer::Proven(swapped.await.map(|version| Stored {
                secret,
                version,
                stamp: Some(stamp),
            }))
        }));
    }

    /// Returns the id of the proof write; round trips use other ids. The id stays the same while
    /// the expected version does, so a retry has the same bytes. If a write landed but its answer
    /// was lost, the read that shows the write may be stale as well. That read has a new version,
    /// so another proof write with the next id follows.
    fn proof_write_id(&self, known: &Stored) -> WriteId {
        let number = match &self.proof_write {
            None => 0,
            Some((expected, id)) => id.number + u64::from(*expected != known.version),
        };
        WriteId {
            nonce: self.holder,
            number,
        }
    }

    pub(super) fn check_proof(&mut self, proven: Result<Stored, CasError>) -> Proof {
        match proven {
            Ok(stored) => {
                self.rotated.last_read = Some(stored);
                Proof::Landed
            }
            Err(CasError::Conflict) => Proof::Conflict,
            Err(CasError::Ambiguous(error)) => {
                self.record_store_error(error);
                Proof::Failed(Retryable::Yes)
            }
            Err(CasError::Refused(error)) => Proof::Failed(self.record_store_error(error)),
        }
    }

    /// Whether to skip the proof because no token will be spent: the provider is known to refuse
    /// the login, or no private home can be created for the rotation.
    pub(super) async fn skips_proof(&mut self, signals: &mut Signals) -> bool {
        self.rotated.refusal = self.known_refusal(signals).await;
        match crate::rotations::create_private_folder(self.rotating.rotations) {
            Ok(folder) => self.folder = Some(folder),
            Err(error) => self.rotated.start_error = Some(error),
        }
        self.rotated.refusal.is_some() || self.rotated.start_error.is_some()
    }

    /// Returns the note of an earlier rotation that forbids another attempt with this login: the
    /// login is dead, or the provider refused it without a reason a short time ago.
    async fn known_refusal(&mut self, signals: &mut Signals) -> Option<RefusalNote> {
        let before = self.rotated.generation.as_ref()?.fingerprint;
        let note = Notes::parse(self.lease.as_ref()?.note()).on(before)?;
        let applies = note.forbids_attempt(lease::now());
        (applies && self.still_holds(before, signals).await).then_some(note)
    }

    /// Whether the store still holds this generation. True if the read fails or a signal
    /// interrupts it.
    async fn still_holds(&mut self, held: Fingerprint, signals: &mut Signals) -> bool {
        self.read_again(signals).await.is_none_or(|stored| {
            authferry_codex::parse(&stored.secret).is_ok_and(|it| it.fingerprint == held)
        })
    }

    /// Reads the store; `None` if the read fails, the store is empty, or a signal interrupts.
    pub(super) async fn read_again(&mut self, signals: &mut Signals) -> Option<Stored> {
        let mut read = pin!(timeout(
            self.rotating.store_timeout,
            self.rotating.store.read()
        ));
        loop {
            tokio::select! {
                read = &mut read => return read.ok()?.ok()?,
                event = signals.next() => match event {
                    SignalEvent::Child => {}
                    SignalEvent::End(signal) | SignalEvent::Other(signal) => {
                        self.rotated.signal.get_or_insert(signal.as_raw());
                        return None;
                    }
                }
            }
        }
    }
}

/// Returns a stamp for a login without one: a person put the login into the store, or edited
/// another field, a tag, or the file. The login gets the family of `base`; without a base (the
/// content is not a login), the family is a placeholder of zeros.
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
