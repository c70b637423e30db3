//! SIGKILL during an acquire, a renewal or a release.

use std::time::Duration;

use authferry_core::{CLOCK_SKEW, LeaseError};

use crate::{
    crash::{MAX_KILLS, fraction, run_and_kill},
    rig::{self, Login},
};

/// The minimum number of kills.
const KILLS: u64 = 60;

const NOW: u64 = 1_760_000_000;

/// The holder number of the test itself, which is never killed.
const SURVIVOR: u64 = 0;

/// Acquires, renews and releases the lease until it is killed.
pub(crate) fn client(login: &Login) {
    for holder in SURVIVOR + 1.. {
        rig::print_line("sends");
        let lease = login.acquire(holder, NOW).expect("the only client");
        let lease = login.renew(&lease, NOW + 90).expect("our own lease");
        login.release(&lease).expect("our own lease");
    }
}

pub(crate) fn a_lease_client_killed_at_any_instruction_leaves_a_lease_that_expires() {
    let folder = rig::folder();
    let path = folder.path().join("login.json");
    let login = Login::at(&path);
    let version = login.swap(None, 1, 1, 2000).expect("an empty place");
    let mut random = 7_u64;
    let (mut held, mut left) = (0, 0);

    for kill in 0..MAX_KILLS {
        // Go on until some kills have hit a held lease and a write.
        if kill >= KILLS && held > 0 && left > 0 {
            break;
        }
        // Up to sixteen milliseconds.
        let time = Duration::from_millis(16).mul_f64(fraction(&mut random));
        run_and_kill("lease_client", &path, time);
        left += u32::from(!rig::leftovers(folder.path()).is_empty());

        // The lease is intact: it is free, or free after its expiry.
        let lease = match login.acquire(SURVIVOR, NOW) {
            Err(LeaseError::Held { until, .. }) => {
                held += 1;
                let free = until + CLOCK_SKEW;
                let early = login.acquire(SURVIVOR, free - 1);
                let is_held = matches!(early, Err(LeaseError::Held { .. }));
                assert!(is_held, "kill {kill}: {early:?}");
                login.acquire(SURVIVOR, free)
            }
            answer => answer,
        };
        let lease = lease.unwrap_or_else(|error| panic!("kill {kill}: {error:?}"));
        login.release(&lease).expect("our own lease");
        assert!(rig::leftovers(folder.path()).is_empty(), "kill {kill}");
        let stored = login.look().expect("a place");
        assert_eq!(stored, Some((1, version.clone())), "kill {kill}");
    }
    assert!(held > 0 && left > 0, "{held} {left}");
}
