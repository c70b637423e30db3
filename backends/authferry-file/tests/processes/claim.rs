//! Kill -9 while a claim is taken, renewed or given back.

use std::time::Duration;

use authferry_core::{CLOCK_SKEW, ClaimError};

use crate::{
    crash::{KILLS_AT_MOST, fraction, run_and_kill},
    rig::{self, Login},
};

/// The number of kills, if enough of them hit a claim.
const KILLS: u64 = 60;

const NOW: u64 = 1_760_000_000;

/// The holder that never dies.
const HEIR: u64 = 0;

/// Takes the claim, renews it and gives it back, until it is killed.
pub(crate) fn claimer(login: &Login) {
    for holder in HEIR + 1.. {
        rig::say("sends");
        let claim = login.acquire(holder, NOW).expect("the only claimer");
        let claim = login.renew(&claim, NOW + 90).expect("our own claim");
        login.release(&claim).expect("our own claim");
    }
}

pub(crate) fn a_claimer_killed_at_any_instruction_leaves_a_claim_that_ends() {
    let folder = rig::folder();
    let path = folder.path().join("login.json");
    let login = Login::at(&path);
    let version = login.swap(None, 1, 1, 2000).expect("an empty place");
    let mut random = 7_u64;
    let (mut held, mut left) = (0, 0);

    for kill in 0..KILLS_AT_MOST {
        // Otherwise the kills fell where nothing could go wrong.
        if kill >= KILLS && held > 0 && left > 0 {
            break;
        }
        // Up to sixteen milliseconds.
        let time = Duration::from_millis(16).mul_f64(fraction(&mut random));
        run_and_kill("claimer", &path, time);
        left += u32::from(!rig::leftovers(folder.path()).is_empty());

        // The claim is whole: it is free, or it is held until its end and then free.
        let heir = match login.acquire(HEIR, NOW) {
            Err(ClaimError::Held { until, .. }) => {
                held += 1;
                let free = until + CLOCK_SKEW;
                let early = login.acquire(HEIR, free - 1);
                let is_held = matches!(early, Err(ClaimError::Held { .. }));
                assert!(is_held, "kill {kill}: {early:?}");
                login.acquire(HEIR, free)
            }
            answer => answer,
        };
        let heir = heir.unwrap_or_else(|error| panic!("kill {kill}: {error:?}"));
        login.release(&heir).expect("our own claim");
        assert!(rig::leftovers(folder.path()).is_empty(), "kill {kill}");
        let there = login.look().expect("a place");
        assert_eq!(there, Some((1, version.clone())), "kill {kill}");
    }
    assert!(held > 0 && left > 0, "{held} {left}");
}
