//! A job is killed at any of its requests: the next job can complete or discard its write.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rig::{Call, Login, Moment, Op, finish};

use super::site::{Identity::GitHub, NAME, Site};
use crate::ferry::{assert_code, start, successor};

/// More steps than `persist` has.
const MAX_STEPS: usize = 40;

/// Timeout for a job to reach its next step.
const STEP_TIMEOUT: Duration = Duration::from_mins(3);

/// How many jobs run concurrently.
const CONCURRENCY: usize = 4;

#[test]
fn a_job_killed_at_any_step_leaves_a_usable_store() {
    let next_step = AtomicUsize::new(0);
    let last_step = AtomicUsize::new(usize::MAX);
    thread::scope(|scope| {
        for _ in 0..CONCURRENCY {
            scope.spawn(|| {
                loop {
                    let step = next_step.fetch_add(1, Ordering::Relaxed);
                    if step > last_step.load(Ordering::Relaxed) {
                        return;
                    }
                    assert!(step < MAX_STEPS, "too many steps");
                    let killed = [Moment::Before, Moment::After].map(|it| kill_at(step, it));
                    if killed == [false, false] {
                        last_step.fetch_min(step, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let steps = last_step.load(Ordering::Relaxed);
    // A read, a write, and a read for concurrent writers.
    assert!(steps >= 3, "{steps} steps");
}

/// Kills `persist` at a request. Returns whether `persist` sent that many requests.
fn kill_at(step: usize, moment: Moment) -> bool {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    let restore = ["restore", "--no-watch", "--no-rotate-first"];
    assert_code(&finish(&mut site.in_job(&runner, GitHub, &restore)), 0);
    runner.place(&next.auth_json()).expect("disk space");

    let seen = AtomicUsize::new(0);
    let is_due =
        move |call: &Call| call.op != Op::SignIn && seen.fetch_add(1, Ordering::Relaxed) == step;
    let hold = site.vault.hold(moment, is_due);
    let mut persist = start(&mut site.in_job(&runner, GitHub, &["persist"]));
    let deadline = Instant::now() + STEP_TIMEOUT;
    while hold.waiting() == 0 {
        if let Some(status) = persist.try_wait().expect("our child") {
            assert_eq!(status.code(), Some(0));
            return false;
        }
        assert!(Instant::now() < deadline, "step {step} was never reached");
        thread::sleep(Duration::from_millis(5));
    }
    persist.kill().expect("our child");
    persist.wait().expect("our child");
    hold.lose();

    let what = format!("killed {moment:?} step {step}");
    let applied = site
        .vault
        .versions(NAME)
        .iter()
        .any(|it| it.value == next.auth_json());
    let found = site.restored();
    if applied {
        assert_eq!(
            found,
            next.auth_json().as_bytes(),
            "{what}: it is completed"
        );
    }
    let either = [login.auth_json(), next.auth_json()];
    assert!(either.iter().any(|it| it.as_bytes() == found), "{what}");

    // The machine is persistent, and its login still exists.
    let again = finish(&mut site.in_job(&runner, GitHub, &["-v", "persist"]));
    assert_eq!(again.status.code(), Some(0), "{what}: {again:?}");
    assert_eq!(site.restored(), next.auth_json().as_bytes(), "{what}");
    let of_next = site.vault.versions(NAME).into_iter();
    let of_next = of_next.filter(|it| it.value == next.auth_json());
    assert_eq!(of_next.count(), 1, "{what}");
    true
}
