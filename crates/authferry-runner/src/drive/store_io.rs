//! Executes the effects on the store and on the home, and returns their results as events.

use std::sync::Arc;

use authferry_codex::{AuthFileError, Look};
use authferry_core::{
    CasError, Event, Fingerprint, Held, Origin, Placing, Reply, Retryable, RoundTrip, Secret,
    Stamp, StoreError, Stored, Write,
};

use super::{PendingRequest, RequestResult, RoundTripDriver};
use crate::unwound::guarded;
use crate::{InUse, Placement, seen};

impl RoundTripDriver<'_, '_> {
    pub(super) fn read(&mut self) {
        let store = self.job.store;
        let known = self.known.take();
        let answer = Box::pin(async {
            RequestResult::Read(match known {
                Some(known) => Ok(Some(known)),
                None => match guarded(store.read()).await {
                    Ok(read) => read,
                    Err(panicked) => Err(panicked.at(store, "read")),
                },
            })
        });
        self.request = Some(PendingRequest::Store {
            answer,
            swap: false,
        });
    }

    pub(super) fn swap(&mut self, write: &Write) {
        let fingerprint = write.generation.fingerprint;
        let Some(secret) = self.bytes_on_disk(fingerprint) else {
            unreachable!("the state machine writes only generations found on disk");
        };
        let (store, expected) = (self.job.store, write.expected.clone());
        self.last_sent = Some(fingerprint);
        let stamp = Stamp {
            id: write.id,
            count: write.count,
            origin: Origin::Rotation,
            family: write.family,
            volatile_hints: write.volatile_hints,
            writer: self.job.writer.to_owned(),
        };
        let answer = Box::pin(async move {
            let swap = guarded(store.compare_and_swap(Some(&expected), &secret, &stamp));
            RequestResult::Swapped(match swap.await {
                Ok(swapped) => swapped,
                // The swap may have landed.
                Err(panicked) => Err(CasError::Ambiguous(panicked.at(store, "write"))),
            })
        });
        self.request = Some(PendingRequest::Store { answer, swap: true });
    }

    pub(super) fn answered(&mut self, answer: RequestResult) -> Event {
        match answer {
            RequestResult::PauseOver => Event::Waited,
            RequestResult::Read(Ok(stored)) => {
                let held = stored.as_ref().map(|stored| {
                    let (held, unusable) = held(stored);
                    self.report.stored_unusable = unusable;
                    held
                });
                self.stored = stored;
                Event::Read(Ok(held))
            }
            RequestResult::Read(Err(error)) => Event::Read(Err(self.note_store_error(error))),
            RequestResult::Swapped(Ok(version)) => Event::Swapped(Reply::Landed(version)),
            RequestResult::Swapped(Err(CasError::Conflict)) => Event::Swapped(Reply::Conflict),
            RequestResult::Swapped(Err(CasError::Ambiguous(error))) => {
                self.report.doubtful = true;
                self.note_store_error(error);
                Event::Swapped(Reply::Ambiguous)
            }
            RequestResult::Swapped(Err(CasError::Refused(error))) => {
                Event::Swapped(Reply::Refused(self.note_store_error(error)))
            }
        }
    }

    fn note_store_error(&mut self, error: StoreError) -> Retryable {
        let transient = error.kind.is_transient();
        self.report.store_error = Some(error);
        if transient {
            Retryable::Yes
        } else {
            Retryable::No
        }
    }

    /// The bytes of a generation found on this machine.
    fn bytes_on_disk(&self, login: Fingerprint) -> Option<Arc<Secret>> {
        let in_home = self.generations.get(&login);
        let copies = self.copies.iter();
        let mut copies = copies.filter(|copy| copy.fingerprint() == Some(login));
        in_home
            .or_else(|| copies.find_map(|copy| copy.secret.as_ref()))
            .map(Arc::clone)
    }

    /// The bytes of a generation read from the store or found on this machine.
    fn bytes_of(&self, login: Fingerprint) -> Option<Arc<Secret>> {
        let stored = self.stored.as_ref().filter(|stored| {
            authferry_codex::parse(&stored.secret).is_ok_and(|it| it.fingerprint == login)
        });
        match stored {
            Some(stored) => Some(Arc::new(stored.secret.duplicate())),
            None => self.bytes_on_disk(login),
        }
    }

    pub(super) fn place(&mut self, round_trip: &RoundTrip, login: Fingerprint) -> Placing {
        let Some(secret) = self.bytes_of(login) else {
            return Placing::Failed;
        };
        // The store read took time: check that the file is still the one that was judged.
        match self.job.home.settled_look() {
            Ok(look) if seen(&look) != seen(&self.look) => return Placing::ConcurrentWrite,
            Ok(_) => {}
            Err(home_error) => {
                self.report.home_error = Some(home_error);
                return Placing::Failed;
            }
        }
        if let Some(by) = self.possible_spender() {
            self.report.in_use = Some(InUse {
                by,
                may_be_spent: true,
            });
            return Placing::ConcurrentWrite;
        }
        let access_only = match self
            .access_only
            .then(|| authferry_codex::access_only(&secret))
        {
            None => None,
            Some(Ok(access_only)) => Some(access_only),
            Some(Err(why)) => {
                self.report.stored_unusable = Some(why);
                return Placing::Failed;
            }
        };
        let login = access_only.as_ref().unwrap_or(&*secret);
        if let Some(observer) = self.job.observer {
            observer.on_login(login);
        }
        // The next job finds a killed rotation by its receipt, so write the receipt before the
        // login.
        if self.is_private {
            self.receipt_before_login(round_trip);
        }
        let is_judged = |look: &Look| seen(look) == seen(&self.look);
        match self.job.home.place(login, is_judged) {
            Ok(false) => Placing::ConcurrentWrite,
            Ok(true) => {
                self.report.placement = Some(Placement::Placed);
                Placing::Done
            }
            Err(home_error) => {
                self.report.home_error = Some(home_error);
                Placing::Failed
            }
        }
    }
}

/// What the state machine may know of a stored value, and why the value is unusable.
pub(crate) fn held(stored: &Stored) -> (Held, Option<AuthFileError>) {
    let generation = authferry_codex::parse(&stored.secret);
    let unusable = generation.as_ref().err().copied();
    let (version, stamp) = (stored.version.clone(), stored.stamp.as_ref());
    let held = Held::new(version, generation.ok(), stamp);
    (held, unusable)
}
