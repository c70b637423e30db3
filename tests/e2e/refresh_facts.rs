//! Assumptions of *rotate first* and `--access-only` about Codex, verified on Codex alone.

use rig::{AppServer, Bearer, Login, Runner, Stub, What, finish};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::codex_facts::{calls, read, runner};

/// When a version of Codex rotates by itself, before its first request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// When the last refresh is more than 8 days old; the expiry of the access token is ignored.
    LastRefresh,
    /// When the access token has expired.
    Expired,
    /// When the access token expires within 5 minutes.
    ExpiresSoon,
}

/// Generates a test of each scenario on one version per rule, so that the name of a failed test has
/// both.
macro_rules! by_each_rule {
    ($($scenario:ident),+ $(,)?) => {
        by_each_rule!(@ V0_101 LastRefresh $($scenario),+);
        by_each_rule!(@ V0_130 Expired $($scenario),+);
        by_each_rule!(@ V0_169 ExpiresSoon $($scenario),+);
    };
    (@ $version:ident $rule:ident $($scenario:ident),+) => {
        #[expect(non_snake_case, reason = "named like the version")]
        mod $version {
            $(
                #[test]
                fn $scenario() {
                    super::$scenario(rig::$version, crate::refresh_facts::Rule::$rule);
                }
            )+
        }
    };
}

pub(crate) use by_each_rule;

by_each_rule![
    the_app_server_rotates_by_its_own_rule,
    a_refresh_requested_only_if_needed_rotates_once,
    a_refresh_requested_at_once_can_rotate_twice,
    the_reply_does_not_show_a_failed_rotation,
    an_unknown_method_is_an_error,
    the_app_server_rotates_a_stale_login_without_a_request,
    a_job_that_outlives_its_token_rotates_during_the_run,
    an_access_only_job_that_outlives_its_token_fails_and_spends_nothing,
    the_model_can_read_the_whole_login,
];

fn the_app_server_rotates_by_its_own_rule(version: &str, rule: Rule) {
    for (what, login, rotates) in logins() {
        let (stub, runner) = scene(version, &login);
        let mut server = AppServer::start(&runner).expect("a server");
        let reply = server.auth_status(false).expect("a reply");
        assert_eq!(reply["result"]["authMethod"], "chatgpt", "{reply}");
        assert!(reply["result"]["authToken"].is_null(), "{reply}");
        server.finish().expect("a server that ends");

        let rotated = stub.count(What::is_rotation);
        let due = rotates.contains(&rule);
        assert_eq!(rotated, usize::from(due), "{what}: {:#?}", calls(&stub));
        assert_eq!(read(&runner) != login.auth_json(), due, "{what}");
        assert!(stub.is_live(read(&runner).as_bytes()), "{what}");
        assert_eq!(stub.count(What::is_model_call), 0, "{what}");
    }
}

fn a_refresh_requested_only_if_needed_rotates_once(version: &str, _: Rule) {
    for (what, login, _) in logins() {
        let (stub, runner) = scene(version, &login);
        let mut server = AppServer::start(&runner).expect("a server");
        server.auth_status(false).expect("a reply");
        if read(&runner) == login.auth_json() {
            server.auth_status(true).expect("a reply");
        }
        server.finish().expect("a server that ends");

        assert_eq!(calls(&stub).len(), 1, "{what}: {:#?}", calls(&stub));
        assert_eq!(stub.count(What::is_rotation), 1, "{what}");
        assert!(stub.is_live(read(&runner).as_bytes()), "{what}");
    }
}

/// The reason why authferry first sends the app server a request that asks for no refresh.
fn a_refresh_requested_at_once_can_rotate_twice(version: &str, rule: Rule) {
    for (what, login, rotates) in logins() {
        let (stub, runner) = scene(version, &login);
        let mut server = AppServer::start(&runner).expect("a server");
        server.auth_status(true).expect("a reply");
        server.finish().expect("a server that ends");

        let wanted = if rotates.contains(&rule) { 2 } else { 1 };
        assert_eq!(stub.count(What::is_rotation), wanted, "{what}");
        assert!(stub.is_live(read(&runner).as_bytes()), "{what}");
    }
}

fn the_reply_does_not_show_a_failed_rotation(version: &str, _: Rule) {
    let stale = Login::stale();
    let (stub, first) = scene(version, &stale);
    finish(&mut first.exec());
    let before = calls(&stub).len();
    let late = runner(&stub, version, Some(&stale));

    let mut server = AppServer::start(&late).expect("a server");
    for refresh in [false, true] {
        let reply = server.auth_status(refresh).expect("a reply");
        assert!(reply["error"].is_null(), "{reply}");
    }
    let (status, stderr) = server.finish().expect("a server that ends");

    assert!(status.success(), "{status}");
    assert!(
        stderr.contains("refresh token was already used"),
        "{stderr}"
    );
    assert!(calls(&stub).len() > before);
    assert_eq!(read(&late), stale.auth_json());
}

fn an_unknown_method_is_an_error(version: &str, _: Rule) {
    let (stub, runner) = scene(version, &Login::fresh());
    let mut server = AppServer::start(&runner).expect("a server");
    let reply = server.ask("noSuchMethod", &json!({})).expect("a reply");
    assert_eq!(reply["error"]["code"], -32600, "{reply}");
    server.finish().expect("a server that ends");
    assert_eq!(calls(&stub), []);
}

/// So authferry must assume from its start that the app server has spent the token.
fn the_app_server_rotates_a_stale_login_without_a_request(version: &str, _: Rule) {
    let (stub, runner) = scene(version, &Login::stale());
    let server = AppServer::start(&runner).expect("a server");
    let seen = stub.wait_for(std::time::Duration::from_mins(3), What::is_refresh);
    assert!(seen.what.is_rotation(), "{seen:?}");
    server.finish().expect("a server that ends");
}

fn a_job_that_outlives_its_token_rotates_during_the_run(version: &str, rule: Rule) {
    let login = Login::ending_in(Duration::minutes(10));
    let (stub, runner) = scene(version, &login);
    let run = run_past_token_expiry(&stub, &runner);

    assert!(run.status.success(), "{run:?}");
    assert_eq!(stub.count(What::is_rotation), 1, "{:#?}", calls(&stub));
    let first = calls(&stub).remove(0);
    assert_eq!(first.is_rotation(), rule == Rule::LastRefresh, "{first:?}");
    assert!(stub.is_live(read(&runner).as_bytes()));
}

fn an_access_only_job_that_outlives_its_token_fails_and_spends_nothing(version: &str, _: Rule) {
    let login = Login::ending_in(Duration::minutes(10));
    let stub = Stub::start(&login);
    // A version of rule `LastRefresh` sends a refresh request, which fails, and continues.
    let access_only = login.clone().access_only();
    let runner = runner(&stub, version, Some(&access_only));
    let run = run_past_token_expiry(&stub, &runner);

    assert_eq!(run.status.code(), Some(1), "{run:?}");
    for call in calls(&stub) {
        let spent = matches!(
            call,
            What::Refresh {
                serial: Some(_),
                ..
            }
        );
        assert!(!spent, "{call:?}");
    }
    assert_eq!(stub.live(), Some(login));
    assert_eq!(read(&runner), access_only.auth_json());
}

/// The reason for `--access-only`.
fn the_model_can_read_the_whole_login(version: &str, _: Rule) {
    let login = Login::fresh();
    let (stub, runner) = scene(version, &login);
    stub.rules(|rules| rules.shell = Some("cat \"$CODEX_HOME/auth.json\"".to_owned()));
    let run = finish(runner.exec().arg(UNCONFINED));
    assert!(run.status.success(), "{run:?}");
    let printed = printed(&stub);
    assert_eq!(printed.len(), 1, "{printed:?}");
    assert!(printed[0].contains(&login.refresh_token), "{printed:?}");
}

/// Makes Codex run the model's commands without a sandbox: a sandbox with full read access does not
/// protect the login, and not every machine has one.
pub(crate) const UNCONFINED: &str = "--dangerously-bypass-approvals-and-sandbox";

/// The output of the shell commands that the model requested.
pub(crate) fn printed(stub: &Stub) -> Vec<String> {
    let events = stub.events().into_iter();
    events
        .filter_map(|event| match event.what {
            What::Printed { text } => Some(text),
            What::Refresh { .. }
            | What::Revoke { .. }
            | What::Model { .. }
            | What::Other { .. } => None,
        })
        .collect()
}

/// Moves the provider's clock past the expiry of a token with 10 minutes left: to the provider, a job
/// that starts now has run for that long.
pub(crate) fn let_ten_minutes_pass(stub: &Stub) {
    stub.rules(|rules| {
        rules.clock = Some(OffsetDateTime::now_utc() + Duration::minutes(11));
        // By default, a rotation by another job invalidates the access token at once.
        rules.bearer = Bearer::Unexpired;
    });
}

fn run_past_token_expiry(stub: &Stub, runner: &Runner) -> std::process::Output {
    let_ten_minutes_pass(stub);
    finish(&mut runner.exec())
}

fn scene(version: &str, login: &Login) -> (Stub, Runner) {
    let stub = Stub::start(login);
    let runner = runner(&stub, version, Some(login));
    (stub, runner)
}

/// Logins of every kind, each with the rules by which it is due.
fn logins() -> [(&'static str, Login, &'static [Rule]); 6] {
    use Rule::{Expired, ExpiresSoon, LastRefresh};
    let refreshed = |ago, login| Login {
        last_refresh: OffsetDateTime::now_utc() - ago,
        ..login
    };
    let live = Login::ending_in(Duration::days(5));
    [
        ("fresh", Login::fresh(), &[]),
        (
            "expired",
            Login::stale(),
            &[LastRefresh, Expired, ExpiresSoon],
        ),
        (
            "expired, but refreshed an hour ago",
            refreshed(Duration::hours(1), Login::stale()),
            &[Expired, ExpiresSoon],
        ),
        (
            "expires in ten minutes",
            Login::ending_in(Duration::minutes(10)),
            &[LastRefresh],
        ),
        (
            "expires in three minutes",
            Login::ending_in(Duration::minutes(3)),
            &[LastRefresh, ExpiresSoon],
        ),
        (
            "expires in five days, refreshed nine days ago",
            refreshed(Duration::days(9), live),
            &[LastRefresh],
        ),
    ]
}
