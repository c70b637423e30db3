//! What a trip asks of the store and of the home, and what comes back.

use std::sync::Arc;

use authferry_codex::Unusable;
use authferry_core::{
    CasError, Event, Held, Origin, Placing, Reply, SecretStore, Stamp, StoreError, Stored, Trouble,
    Write,
};

use super::{Answer, Driver, Request};
use crate::{Placement, seen};

impl Driver<'_, '_> {
    pub(super) fn read(&mut self) {
        let store = self.job.store;
        let known = self.known.take();
        let answer = Box::pin(async {
            Answer::Read(match known {
                Some(known) => Ok(Some(known)),
                None => store.read().await,
            })
        });
        self.request = Some(Request::Store {
            answer,
            swap: false,
        });
    }

    pub(super) fn swap(&mut self, write: &Write) {
        let fingerprint = write.generation.fingerprint;
        let Some(secret) = self.generations.get(&fingerprint) else {
            unreachable!("the machine only writes what was seen on disk");
        };
        let (store, secret, expected) =
            (self.job.store, Arc::clone(secret), write.expected.clone());
        self.sent = Some(fingerprint);
        let stamp = Stamp {
            id: write.id,
            count: write.count,
            origin: Origin::Rotation,
            writer: self.job.writer.to_owned(),
        };
        let answer = Box::pin(async move {
            Answer::Swapped(
                store
                    .compare_and_swap(Some(&expected), &secret, &stamp)
                    .await,
            )
        });
        self.request = Some(Request::Store { answer, swap: true });
    }

    pub(super) fn answered(&mut self, answer: Answer) -> Event {
        match answer {
            Answer::Woke => Event::Woke,
            Answer::Read(Ok(stored)) => {
                let held = stored.as_ref().map(|stored| {
                    let (held, unusable) = held(self.job.store, stored);
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

    pub(super) fn place(&mut self) -> Placing {
        let Some(stored) = &self.stored else {
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
        let lent = match self
            .lent
            .then(|| authferry_codex::access_only(&stored.secret))
        {
            None => None,
            Some(Ok(lent)) => Some(lent),
            Some(Err(why)) => {
                self.report.stored_unusable = Some(why);
                return Placing::Failed;
            }
        };
        let login = lent.as_ref().unwrap_or(&stored.secret);
        if let Some(witness) = self.job.witness {
            witness.sees(login);
        }
        match self.job.home.place(login) {
            Ok(()) => {
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
pub(crate) fn held(store: &dyn SecretStore, stored: &Stored) -> (Held, Option<Unusable>) {
    let generation = authferry_codex::parse(&stored.secret);
    let unusable = generation.as_ref().err().copied();
    let (version, stamp) = (stored.version.clone(), stored.stamp.as_ref());
    let held = Held::new(version, generation.ok(), stamp, store.guarantees());
    (held, unusable)
}
