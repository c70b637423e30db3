//! `authferry refresh` when the provider does not do as it should.

use std::process::Command;

use rig::{Fault, Login, Outcome, What, finish};
use time::Duration;

use crate::any_store::AnyStore;
use crate::ferry::{Ferry, assert_code, under_test};
use crate::refresh_facts::{Rule, by_each_rule};

by_each_rule![
    where_there_is_no_room_for_a_new_login_none_is_spent,
    a_login_that_ends_at_once_is_not_rotated_for_ever,
    a_provider_that_fails_leaves_the_login_as_it_was,
    a_reply_that_is_lost_leaves_a_login_that_is_told_to_be_dead,
];

/// Such a Codex spends the token first, and then has nowhere to put what it got.
#[expect(clippy::print_stderr, reason = "what is not tried is said")]
fn where_there_is_no_room_for_a_new_login_none_is_spent(version: &str, _: Rule) {
    let namespace = ["--user", "--map-root-user", "--mount"];
    let may = Command::new("unshare").args(namespace).arg("true").status();
    if !may.is_ok_and(|status| status.success()) {
        eprintln!("not tried, since no disk can be mounted here");
        return;
    }
    let ferry = Ferry::holding(version, &Login::ending_in(Duration::minutes(10)));
    let before = ferry.stored();
    let runner = ferry.runner();
    // In a mount namespace of its own, so that nothing stays mounted.
    let full = "rotations=\"$HOME/.local/state/authferry/rotations\"; \
        mkdir -p \"$rotations\" && mount -t tmpfs -o size=1m,mode=700 tmpfs \"$rotations\" && exec \"$@\"";
    let mut refresh = ferry.command(&runner, "unshare");
    refresh.args(namespace);
    refresh.args(["sh", "-c", full, "sh", under_test(), "refresh"]);

    let refresh = finish(&mut refresh);

    assert_code(&refresh, 125);
    let said = String::from_utf8_lossy(&refresh.stderr);
    assert!(said.contains("No space left on device"), "{said}");
    assert_eq!(ferry.stub.count(What::is_refresh), 0, "{said}");
    assert_eq!(ferry.stored(), before);

    let refresh = finish(&mut ferry.authferry(&runner, &["refresh"]));
    assert_code(&refresh, 0);
    assert!(ferry.is_live());
}

/// As on a machine whose clock is ahead.
fn a_login_that_ends_at_once_is_not_rotated_for_ever(version: &str, _: Rule) {
    for lifetime in [-Duration::MINUTE, Duration::MINUTE] {
        // Codex itself may lose a login as it ends: seen in 1 of 12 runs with 0.169.0, which had sent
        // one more request by then.
        let mut attempts = (0..5).map(|_| ends_at_once(version, lifetime));
        assert!(
            attempts.any(|is_live| is_live),
            "{lifetime}: lost each time"
        );
    }
}

/// Refreshes a login whose access token lives this long. Returns whether the store holds the live
/// login; if not, authferry says that it may be spent.
fn ends_at_once(version: &str, lifetime: Duration) -> bool {
    let ferry = Ferry::holding(version, &Login::stale());
    ferry.stub.rules(|rules| rules.access_lifetime = lifetime);

    let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));

    assert_code(&refresh, 125);
    let said = String::from_utf8_lossy(&refresh.stderr);
    assert!(said.contains("clock"), "{said}");
    // It is not ended while a request may be out: another one may follow the second.
    let rotations = ferry.stub.count(What::is_rotation);
    assert!((1..=4).contains(&rotations), "{rotations} rotations");
    let is_live = ferry.is_live();
    assert!(is_live || said.contains("may be spent"), "{said}");
    is_live
}

fn a_provider_that_fails_leaves_the_login_as_it_was(version: &str, _: Rule) {
    for fault in [Fault::ServerError, Fault::RequestLost] {
        let ferry = Ferry::holding(version, &Login::ending_in(Duration::minutes(10)));
        let before = ferry.stored();
        ferry
            .stub
            .rules(|rules| rules.refresh_faults.extend([fault; 50]));

        let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));

        assert_code(&refresh, 125);
        assert!(ferry.stub.count(What::is_refresh) > 0, "{refresh:?}");
        assert_eq!(ferry.stored(), before);
        assert!(ferry.is_live());

        ferry.stub.rules(|rules| rules.refresh_faults.clear());
        let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));
        assert_code(&refresh, 0);
        assert_ne!(ferry.stored(), before);
        assert!(ferry.is_live());
    }
}

/// Of an ended one: while a login has not ended, later versions give no reason.
fn a_reply_that_is_lost_leaves_a_login_that_is_told_to_be_dead(version: &str, _: Rule) {
    let ferry = Ferry::holding(version, &Login::stale());
    ferry
        .stub
        .rules(|rules| rules.refresh_faults.push_back(Fault::ReplyLost));

    let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));

    assert_code(&refresh, 125);
    let said = String::from_utf8_lossy(&refresh.stderr);
    assert!(said.contains("dead since"), "{said}");
    let asked = ferry.stub.count(What::is_refresh);
    let is_ours = |what: &What| {
        matches!(
            what,
            What::Refresh {
                outcome: Outcome::Rotated(_) | Outcome::Reused,
                ..
            }
        )
    };
    assert_eq!(ferry.stub.count(is_ours), asked);

    // The next one knows without asking.
    let refresh = finish(&mut ferry.authferry(&ferry.runner(), &["refresh"]));
    assert_code(&refresh, 125);
    assert_eq!(ferry.stub.count(What::is_refresh), asked);
}
