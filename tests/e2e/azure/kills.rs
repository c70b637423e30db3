//! A job that is killed between any two of its steps leaves nothing that the next one cannot
//! finish or drop.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rig::{Call, Login, Moment, Op, finish};

use super::site::{
    Identity::GitHub,
    Mode::{self, Alone, Coordinated},
    NAME, Site,
};
use crate::ferry::{assert_code, start, successor};

/// More steps than a persist has.
const STEPS: usize = 40;

/// How long a job may take to come to its next step.
const SOON: Duration = Duration::from_mins(1);

#[test]
fn a_job_that_is_killed_at_any_step_leaves_a_store_that_goes_on() {
    killed_at_each_step(Coordinated, 4);
}

#[test]
fn so_does_one_with_a_vault_alone() {
    // They spend their time waiting.
    killed_at_each_step(Alone, 16);
}

fn killed_at_each_step(mode: Mode, at_once: usize) {
    let next_step = AtomicUsize::new(0);
    let last_step = AtomicUsize::new(usize::MAX);
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    let step = next_step.fetch_add(1, Ordering::Relaxed);
                    if step > last_step.load(Ordering::Relaxed) {
                        return;
                    }
                    assert!(step < STEPS, "it never ends");
                    let killed =
                        [Moment::Before, Moment::After].map(|it| is_killed(mode, step, it));
                    if killed == [false, false] {
                        last_step.fetch_min(step, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let steps = last_step.load(Ordering::Relaxed);
    // A look, a write, and a look for others who wrote at once.
    assert!(steps >= 3, "{steps} steps");
}

/// Kills a persist at one of its requests. Returns whether it came so far.
fn is_killed(mode: Mode, step: usize, moment: Moment) -> bool {
    let login = Login::fresh();
    let next = successor(&login);
    let site = Site::new(mode, rig::V0_169, &login).seeded(&login);
    let runner = site.runner();
    let restore = ["restore", "--no-rotate-first"];
    assert_code(&finish(&mut site.in_job(&runner, GitHub, &restore)), 0);
    runner.place(&next.auth_json()).expect("room");

    let seen = AtomicUsize::new(0);
    let is_due =
        move |call: &Call| call.op != Op::SignIn && seen.fetch_add(1, Ordering::Relaxed) == step;
    let hold = site.vault.hold(moment, is_due);
    let mut persist = start(&mut site.in_job(&runner, GitHub, &["persist"]));
    let deadline = Instant::now() + SOON;
    while hold.waiting() == 0 {
        if let Some(status) = persist.try_wait().expect("our child") {
            assert_eq!(status.code(), Some(0));
            return false;
        }
        assert!(Instant::now() < deadline, "step {step} was never taken");
        thread::sleep(Duration::from_millis(5));
    }
    persist.kill().expect("our child");
    persist.wait().expect("our child");
    hold.lose();

    let what = format!("{mode:?}, killed {moment:?} step {step}");
    let landed = site
        .vault
        .versions(NAME)
        .iter()
        .any(|it| it.value == next.auth_json());
    let found = site.restored();
    if landed && mode == Coordinated {
        assert_eq!(found, next.auth_json().as_bytes(), "{what}: it is finished");
    }
    let either = [login.auth_json(), next.auth_json()];
    assert!(either.iter().any(|it| it.as_bytes() == found), "{what}");

    // The machine is still there, and so is its login.
    let again = finish(&mut site.in_job(&runner, GitHub, &["-v", "persist"]));
    assert_eq!(again.status.code(), Some(0), "{what}: {again:?}");
    assert_eq!(site.restored(), next.auth_json().as_bytes(), "{what}");
    let of_next = site.vault.versions(NAME).into_iter();
    let of_next = of_next.filter(|it| it.value == next.auth_json());
    assert_eq!(of_next.count(), 1, "{what}");
    true
}
