//! What a trip asks of the store and of the home, and what comes back.

use std::sync::Arc;

use authferry_codex::{Look, Unusable};
use authferry_core::{
    CasError, Event, Fingerprint, Held, Origin, Placing, Reply, Secret, Stamp, StoreError, Stored,
    Trip, Trouble, Write,
};

use super::{Answer, Driver, Request};
use crate::unwound::guarded;
use crate::{InUse, Placement, seen};

impl Driver<'_, '_> {
    pub(super) fn read(&mut self) {
        let store = self.job.store;
        let known = self.known.take();
        let answer = Box::pin(async {
            Answer::Read(match known {
                Some(known) => Ok(Some(known)),
                None => match guarded(store.read()).await {
                    Ok(read) => read,
                    Err(panicked) => Err(panicked.at(store, "read")),
                },
            })
        });
        self.request = Some(Request::Store {
            answer,
            swap: false,
        });
    }

    pub(super) fn swap(&mut self, write: &Write) {
        let fingerprint = write.generation.fingerprint;
        let Some(secret) = self.bytes_on_disk(fingerprint) else {
            unreachable!("the machine only writes what was seen on disk");
        };
        let (store, expected) = (self.job.store, write.expected.clone());
        self.sent = Some(fingerprint);
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
            Answer::Swapped(match swap.await {
                Ok(swapped) => swapped,
                // Nobody knows how far it came.
                Err(panicked) => Err(CasError::Ambiguous(panicked.at(store, "write"))),
            })
        });
        self.request = Some(Request::Store { answer, swap: true });
    }

    pub(super) fn answered(&mut self, answer: Answer) -> Event {
        match answer {
            Answer::Woke => Event::Woke,
            Answer::Read(Ok(stored)) => {
                let held = stored.as_ref().map(|stored| {
                    let (held, unusable) = held(stored);
                    self.report.stored_unusable = unusable;
                    held
                });
                self.stored = stored;
                Event::Read(Ok(held))
            }
            Answer::Read(Err(error)) => Event::Read(Err(self.trouble(error))),
            Answer::Swapped(Ok(version)) => Event::Swapped(Reply::Landed(version)),
            Answer::Swapped(Err(CasError::Conflict)) => Event::Swapped(Reply::Conflict),
            Answer::Swapped(Err(CasError::Ambiguous(error))) => {
                self.report.doubtful = true;
                self.trouble(error);
                Event::Swapped(Reply::Ambiguous)
            }
            Answer::Swapped(Err(CasError::Refused(error))) => {
                Event::Swapped(Reply::Refused(self.trouble(error)))
            }
        }
    }

    fn trouble(&mut self, error: StoreError) -> Trouble {
        let transient = error.kind.is_transient();
        self.report.store_error = Some(error);
        if transient {
            Trouble::Transient
        } else {
            Trouble::Permanent
        }
    }

    /// The bytes of a generation that was seen on this machine.
    fn bytes_on_disk(&self, login: Fingerprint) -> Option<Arc<Secret>> {
        let in_home = self.generations.get(&login);
        let copies = self.copies.iter();
        let mut copies = copies.filter(|copy| copy.fingerprint() == Some(login));
        in_home
            .or_else(|| copies.find_map(|copy| copy.secret.as_ref()))
            .map(Arc::clone)
    }

    /// The bytes of a generation that was read from the store, or found on this machine.
    fn bytes_of(&self, login: Fingerprint) -> Option<Arc<Secret>> {
        let stored = self.stored.as_ref().filter(|stored| {
            authferry_codex::parse(&stored.secret).is_ok_and(|it| it.fingerprint == login)
        });
        match stored {
            Some(stored) => Some(Arc::new(stored.secret.duplicate())),
            None => self.bytes_on_disk(login),
        }
    }

    pub(super) fn place(&mut self, trip: &Trip, login: Fingerprint) -> Placing {
        let Some(secret) = self.bytes_of(login) else {
            return Placing::Failed;
        };
        // Reading the store took its time. What was judged must still be what is there.
        match self.job.home.settled_look() {
            Ok(look) if seen(&look) != seen(&self.look) => return Placing::Overtaken,
            Ok(_) => {}
            Err(unfit) => {
                self.report.unfit = Some(unfit);
                return Placing::Failed;
            }
        }
        if let Some(by) = self.spender() {
            self.report.in_use = Some(InUse {
                by,
                may_be_spent: true,
            });
            return Placing::Overtaken;
        }
        let lent = match self.lent.then(|| authferry_codex::access_only(&secret)) {
            None => None,
            Some(Ok(lent)) => Some(lent),
            Some(Err(why)) => {
                self.report.stored_unusable = Some(why);
                return Placing::Failed;
            }
        };
        let login = lent.as_ref().unwrap_or(&*secret);
        if let Some(witness) = self.job.witness {
            witness.sees(login);
        }
        // A killed rotation is known by its receipt, which therefore comes before its login.
        if self.is_private {
            self.receipt_before_login(trip);
        }
        let is_judged = |look: &Look| seen(look) == seen(&self.look);
        match self.job.home.place(login, is_judged) {
            Ok(false) => Placing::Overtaken,
            Ok(true) => {
                self.report.placement = Some(Placement::Placed);
                Placing::Done
            }
            Err(unfit) => {
                self.report.unfit = Some(unfit);
                Placing::Failed
            }
        }
    }
}

/// What the machine may know of what a store holds, and what is wrong with it.
pub(crate) fn held(stored: &Stored) -> (Held, Option<Unusable>) {
    let generation = authferry_codex::parse(&stored.secret);
    let unusable = generation.as_ref().err().copied();
    let (version, stamp) = (stored.version.clone(), stored.stamp.as_ref());
    let held = Held::new(version, generation.ok(), stamp);
    (held, unusable)
}
