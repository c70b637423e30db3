//! Many at once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use authferry_core::{CasError, Guarantees, Reads, SecretStore, Stamp, Swap, Version};
use tokio::sync::Barrier;

use super::RACERS;
use crate::{
    cases::{Failure, ensure},
    place::{Place, login, secret},
};

const ROUNDS: u64 = 60;

/// How many writes and reads must fall into each other.
const OVERLAP: usize = 30;

/// The count of reads that tells the reader to stop.
const ENOUGH: usize = usize::MAX / 2;

pub(super) async fn one_of_many_writers_wins(place: Place) -> Result<(), Failure> {
    let mut racers: Vec<Arc<dyn SecretStore>> = Vec::new();
    for _ in 0..RACERS {
        racers.push(place.open().await.into());
    }
    // The first round races to create, the others to swap.
    let mut base = None;
    for round in 0..ROUNDS {
        let start = Arc::new(Barrier::new(RACERS));
        let running: Vec<_> = (0..)
            .zip(&racers)
            .map(|(lane, store)| {
                let (store, start) = (Arc::clone(store), Arc::clone(&start));
                let (base, stamp) = (base.clone(), place.stamp());
                let login = login(round * 100 + lane);
                tokio::spawn(async move {
                    start.wait().await;
                    let answer = store
                        .compare_and_swap(base.as_ref(), &secret(&login), &stamp)
                        .await;
                    (login, stamp, answer)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for racer in running {
            let (login, stamp, answer) = racer.await?;
            match answer {
                Ok(version) => winners.push((login, stamp, version)),
                Err(CasError::Conflict) => {}
                Err(CasError::Ambiguous(error) | CasError::Refused(error)) => {
                    return Err(error.into());
                }
            }
        }
        base = Some(finish(&place, round, &winners).await?);
    }
    Ok(())
}

/// Judges a round and returns the version to race for in the next one.
async fn finish(
    place: &Place,
    round: u64,
    winners: &[(Vec<u8>, Stamp, Version)],
) -> Result<Version, Failure> {
    match place.guarantees().swap {
        Swap::Atomic => ensure!(
            winners.len() == 1,
            "round {round} had {} winners",
            winners.len()
        ),
        // Several may pass the check before the first one writes: that is what this
        // declaration owns up to. Somebody wins all the same.
        Swap::CheckThenWrite => ensure!(!winners.is_empty(), "round {round} had no winner"),
    }
    let written: Vec<_> = winners
        .iter()
        .map(|(login, stamp, _)| (login.as_slice(), Some(stamp)))
        .collect();
    let shown = place.shows_one_of(&written).await?;
    ensure!(
        winners.iter().any(|(_, _, version)| *version == shown),
        "round {round}: reading gives {shown:?}, which no winner was answered"
    );
    Ok(shown)
}

pub(super) async fn a_reader_never_sees_a_mixture(place: Place) -> Result<(), Failure> {
    let stamp = place.stamp();
    let store = place.open().await;
    let mut version = store
        .compare_and_swap(None, &secret(&login(stamp.count)), &stamp)
        .await?;
    let reads = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn(read_on(
        place.open().await,
        place.guarantees(),
        Arc::clone(&reads),
    ));
    let mut writes = 0;
    while !reading.is_finished() && (writes < OVERLAP || reads.load(Ordering::Relaxed) < OVERLAP) {
        let stamp = place.stamp();
        version = store
            .compare_and_swap(Some(&version), &secret(&login(stamp.count)), &stamp)
            .await?;
        writes += 1;
        // A store in memory would be done before the reader has begun.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reads.store(ENOUGH, Ordering::Relaxed);
    reading.await?
}

/// Reads until told [`ENOUGH`]; every read must give one write's bytes, stamp and
/// version, and none of another's.
async fn read_on(
    store: Box<dyn SecretStore>,
    guarantees: Guarantees,
    reads: Arc<AtomicUsize>,
) -> Result<(), Failure> {
    let mut seen: Vec<(Version, Vec<u8>)> = Vec::new();
    while reads.fetch_add(1, Ordering::Relaxed) < ENOUGH {
        let Some(stored) = store.read().await? else {
            // A read that may lag may still show the place as it was before.
            ensure!(
                guarantees.reads == Reads::Eventual && seen.is_empty(),
                "the value was gone for a moment"
            );
            continue;
        };
        let bytes = stored.secret.expose().to_vec();
        if guarantees.stamps {
            let stamp = stored.stamp.as_ref();
            ensure!(
                stamp.is_some_and(|stamp| bytes == login(stamp.count)),
                "a read gave one write's bytes with {stamp:?}"
            );
        }
        match seen.iter().find(|(version, _)| *version == stored.version) {
            Some((version, before)) => {
                ensure!(
                    *before == bytes,
                    "{version:?} stood for two different values"
                );
            }
            None => seen.push((stored.version, bytes)),
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}
