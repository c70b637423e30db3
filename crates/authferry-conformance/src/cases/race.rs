//! Concurrent writers and readers.

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

/// How many writes and reads must overlap.
const OVERLAP: usize = 30;

/// The count of reads that makes the reader stop.
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
        base = Some(check_round(&place, round, &winners).await?);
    }
    Ok(())
}

/// Checks the result of a round and returns the base version of the next round.
async fn check_round(
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
        // Several writers may pass the check before the first one writes: the declaration allows
        // it. At least one must win.
        Swap::CheckThenWrite => ensure!(!winners.is_empty(), "round {round} had no winner"),
    }
    let written: Vec<_> = winners
        .iter()
        .map(|(login, stamp, _)| (login.as_slice(), Some(stamp)))
        .collect();
    let shown = place.expect_one_of(&written).await?;
    ensure!(
        winners.iter().any(|(_, _, version)| *version == shown),
        "round {round}: a read returned {shown:?}, the version of no winner"
    );
    Ok(shown)
}

pub(super) async fn a_reader_never_sees_a_torn_value(place: Place) -> Result<(), Failure> {
    let stamp = place.stamp();
    let store = place.open().await;
    let mut version = store
        .compare_and_swap(None, &secret(&login(stamp.count)), &stamp)
        .await?;
    let reads = Arc::new(AtomicUsize::new(0));
    let reading = tokio::spawn(read_until_enough(
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
        // Without a delay, a store in memory finishes before the reader starts.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    reads.store(ENOUGH, Ordering::Relaxed);
    reading.await?
}

/// Reads until the count reaches [`ENOUGH`]. Every read must return the bytes, stamp and version of
/// one write.
async fn read_until_enough(
    store: Box<dyn SecretStore>,
    guarantees: Guarantees,
    reads: Arc<AtomicUsize>,
) -> Result<(), Failure> {
    let mut seen: Vec<(Version, Vec<u8>)> = Vec::new();
    while reads.fetch_add(1, Ordering::Relaxed) < ENOUGH {
        let Some(stored) = store.read().await? else {
            // A stale read may still find the place empty.
            ensure!(
                guarantees.reads == Reads::Eventual && seen.is_empty(),
                "a read found no value between two writes"
            );
            continue;
        };
        let bytes = stored.secret.expose().to_vec();
        if guarantees.stamps {
            let stamp = stored.stamp.as_ref();
            ensure!(
                stamp.is_some_and(|stamp| bytes == login(stamp.count)),
                "a read returned one write's bytes with another's stamp {stamp:?}"
            );
        }
        match seen.iter().find(|(version, _)| *version == stored.version) {
            Some((version, before)) => {
                ensure!(*before == bytes, "{version:?} named two different values");
            }
            None => seen.push((stored.version, bytes)),
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}
