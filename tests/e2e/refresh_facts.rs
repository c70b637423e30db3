//! What *rotate first* and *access only* take for granted about Codex, shown on Codex alone.

use rig::{AppServer, Bearer, Login, Runner, Stub, What, finish};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::codex_facts::{calls, read, runner};

/// When a version rotates by itself, before it does anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// When the last refresh is more than eight days old, whenever the access token ends.
    LastRefresh,
    /// When the access token has ended.
    Ended,
    /// When the access token ends within five minutes.
    EndsSoon,
}

/// Makes a test of each story on a version of each rule, so that a failure names both.
macro_rules! by_each_rule {
    ($($story:ident),+ $(,)?) => {
        by_each_rule!(@ V0_101 LastRefresh $($story),+);
        by_each_rule!(@ V0_130 Ended $($story),+);
        by_each_rule!(@ V0_169 EndsSoon $($story),+);
    };
    (@ $version:ident $rule:ident $($story:ident),+) => {
        #[expect(non_snake_case, reason = "named like the version")]
        mod $version {
            $(
                #[test]
                fn $story() {
                    super::$story(rig::$version, crate::refresh_facts::Rule::$rule);
                }
            )+
        }
    };
}

pub(crate) use by_each_rule;

by_each_rule![
    asked_for_nothing_the_server_rotates_by_its_own_rule,
    asked_only_if_nothing_happened_the_server_rotates_once,
    asked_at_once_the_server_can_rotate_twice,
    a_failed_rotation_is_not_in_the_reply,
    a_method_that_the_server_lacks_is_an_error,
    a_server_that_nobody_asks_rotates_a_stale_login_too,
    a_job_that_outlives_its_token_rotates_in_the_middle,
    an_access_only_job_that_outlives_its_token_fails_and_spends_nothing,
    the_model_can_have_the_whole_login,
];

fn asked_for_nothing_the_server_rotates_by_its_own_rule(version: &str, rule: Rule) {
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

fn asked_only_if_nothing_happened_the_server_rotates_once(version: &str, _: Rule) {
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

/// Why the server is asked for nothing first.
fn asked_at_once_the_server_can_rotate_twice(version: &str, rule: Rule) {
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

fn a_failed_rotation_is_not_in_the_reply(version: &str, _: Rule) {
    let stale = Login::stale();
    let (stub, first) = scene(version, &stale);
    finish(&mut first.exec());
    let before = calls(&stub).len();
    let late = runner(&stub, version, Some(&stale));

    let mut server = AppServer::start(&late).expect("a server");
    for wish in [false, true] {
        let reply = server.auth_status(wish).expect("a reply");
        assert!(reply["error"].is_null(), "{reply}");
    }
    let (status, said) = server.finish().expect("a server that ends");

    assert!(status.success(), "{status}");
    assert!(said.contains("refresh token was already used"), "{said}");
    assert!(calls(&stub).len() > before);
    assert_eq!(read(&late), stale.auth_json());
}

fn a_method_that_the_server_lacks_is_an_error(version: &str, _: Rule) {
    let (stub, runner) = scene(version, &Login::fresh());
    let mut server = AppServer::start(&runner).expect("a server");
    let reply = server.ask("noSuchMethod", &json!({})).expect("a reply");
    assert_eq!(reply["error"]["code"], -32600, "{reply}");
    server.finish().expect("a server that ends");
    assert_eq!(calls(&stub), []);
}

/// From its start on the server must be taken for one that has spent the token.
fn a_server_that_nobody_asks_rotates_a_stale_login_too(version: &str, _: Rule) {
    let (stub, runner) = scene(version, &Login::stale());
    let server = AppServer::start(&runner).expect("a server");
    let seen = stub.wait_for(std::time::Duration::from_mins(1), What::is_refresh);
    assert!(seen.what.is_rotation(), "{seen:?}");
    server.finish().expect("a server that ends");
}

fn a_job_that_outlives_its_token_rotates_in_the_middle(version: &str, rule: Rule) {
    let login = Login::ending_in(Duration::minutes(10));
    let (stub, runner) = scene(version, &login);
    let run = outlive(&stub, &runner);

    assert!(run.status.success(), "{run:?}");
    assert_eq!(stub.count(What::is_rotation), 1, "{:#?}", calls(&stub));
    let first = calls(&stub).remove(0);
    assert_eq!(first.is_rotation(), rule == Rule::LastRefresh, "{first:?}");
    assert!(stub.is_live(read(&runner).as_bytes()));
}

fn an_access_only_job_that_outlives_its_token_fails_and_spends_nothing(version: &str, _: Rule) {
    let login = Login::ending_in(Duration::minutes(10));
    let stub = Stub::start(&login);
    // A version that goes by the last refresh asks ahead, in vain, and goes on.
    let access_only = login.clone().access_only();
    let runner = runner(&stub, version, Some(&access_only));
    let run = outlive(&stub, &runner);

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

/// Why there is *access only*.
fn the_model_can_have_the_whole_login(version: &str, _: Rule) {
    let login = Login::fresh();
    let (stub, runner) = scene(version, &login);
    stub.rules(|rules| rules.shell = Some("cat \"$CODEX_HOME/auth.json\"".to_owned()));
    let run = finish(runner.exec().arg(UNCONFINED));
    assert!(run.status.success(), "{run:?}");
    let printed = printed(&stub);
    assert_eq!(printed.len(), 1, "{printed:?}");
    assert!(printed[0].contains(&login.refresh_token), "{printed:?}");
}

/// Has Codex run what the model wants as if nothing confined it: a sandbox that lets it read
/// everything is no help, and not every machine has one.
pub(crate) const UNCONFINED: &str = "--dangerously-bypass-approvals-and-sandbox";

/// What the lines of shell have printed that the model asked for.
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

/// Moves the provider's clock past the end of a token that ends in ten minutes: to the
/// provider, a job that begins now is one that goes on for that long.
pub(crate) fn let_ten_minutes_pass(stub: &Stub) {
    stub.rules(|rules| {
        rules.clock = Some(OffsetDateTime::now_utc() + Duration::minutes(11));
        // Else a job would fail for what another one did, whatever the time.
        rules.bearer = Bearer::Unexpired;
    });
}

fn outlive(stub: &Stub, runner: &Runner) -> std::process::Output {
    let_ten_minutes_pass(stub);
    finish(&mut runner.exec())
}

fn scene(version: &str, login: &Login) -> (Stub, Runner) {
    let stub = Stub::start(login);
    let runner = runner(&stub, version, Some(login));
    (stub, runner)
}

/// Logins of every kind, and by which rules each is due.
fn logins() -> [(&'static str, Login, &'static [Rule]); 6] {
    use Rule::{Ended, EndsSoon, LastRefresh};
    let refreshed = |ago, login| Login {
        last_refresh: OffsetDateTime::now_utc() - ago,
        ..login
    };
    let live = Login::ending_in(Duration::days(5));
    [
        ("fresh", Login::fresh(), &[]),
        ("ended", Login::stale(), &[LastRefresh, Ended, EndsSoon]),
        (
            "ended, but refreshed an hour ago",
            refreshed(Duration::hours(1), Login::stale()),
            &[Ended, EndsSoon],
        ),
        (
            "ends in ten minutes",
            Login::ending_in(Duration::minutes(10)),
            &[LastRefresh],
        ),
        (
            "ends in three minutes",
            Login::ending_in(Duration::minutes(3)),
            &[LastRefresh, EndsSoon],
        ),
        (
            "ends in five days, refreshed nine days ago",
            refreshed(Duration::days(9), live),
            &[LastRefresh],
        ),
    ]
}
