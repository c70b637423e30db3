//! The judge detects jobs that lose a login or report a false success.

use libtest_mimic::{Failed, Trial};

use crate::{
    judge::{Verdict, run_with_fault},
    parts::Part,
    store::Store,
};

/// A job without a fault at a call, and the expected verdict.
const BAD_JOBS: [(&str, Verdict, &str); 6] = [
    (
        "a_lost_login",
        Verdict::Lost,
        r#""$A" restore --no-watch && codex exec rotate; rm "$CODEX_HOME/auth.json""#,
    ),
    (
        "an_older_login_in_the_store",
        Verdict::Older,
        r#""$A" restore --no-watch && echo '{}' >"$ROOT/store/login.json""#,
    ),
    (
        "a_spent_login_that_is_used",
        Verdict::Spent,
        r#""$A" restore --no-watch && codex exec rotate && "$A" persist
cp "$ROOT/first.json" "$CODEX_HOME/auth.json"; codex exec"#,
    ),
    (
        "an_exit_code_that_lies",
        Verdict::Lied,
        r#""$A" restore --no-watch && codex exec rotate"#,
    ),
    ("an_abort", Verdict::Aborted, "sh -c 'kill -ABRT $$'"),
    (
        "a_login_that_is_stored",
        Verdict::Stored,
        r#""$A" restore --no-watch && codex exec rotate && "$A" persist"#,
    ),
];

/// A test for each verdict.
pub(crate) fn trials() -> Vec<Trial> {
    let trials = BAD_JOBS.map(|(name, expected, job)| {
        Trial::test(format!("teeth::{name}"), move || sees(job, expected))
    });
    trials.into()
}

fn sees(job: &'static str, expected: Verdict) -> Result<(), Failed> {
    let part = Part {
        name: "teeth",
        swept: &[],
        job,
        is_due: false,
        promises: true,
    };
    let (verdict, _, codes, output) = run_with_fault(&part, &Store::file(), None)?;
    if verdict == expected {
        return Ok(());
    }
    Err(format!("{verdict:?}, not {expected:?}; {codes:?}\n{output}").into())
}
