//! Jobs that get a login without its refresh token.

use rig::{Login, What, finish};
use time::Duration;

use crate::codex_facts::calls;
use crate::crowds::{crowd, kind_run};
use crate::ferry::{Ferry, assert_code};
use crate::refresh_facts::{Rule, UNCONFINED, by_each_rule, let_ten_minutes_pass, printed};

by_each_rule![
    fifty_jobs_at_once_succeed_and_no_injected_prompt_yields_the_refresh_token,
    a_job_whose_bearer_is_refused_fails_and_spends_nothing,
];

/// Everything that a job can see of its machine, and of the login.
const LOOK_AROUND: &str =
    r#"cat "$CODEX_HOME/auth.json"; env; grep -rh made-up.refresh "$HOME" "$TMPDIR" "$PWD""#;

fn fifty_jobs_at_once_succeed_and_no_injected_prompt_yields_the_refresh_token(
    version: &str,
    _: Rule,
) {
    let login = Login::ending_in(Duration::minutes(10));
    let ferry = Ferry::new(version, &login);
    let_ten_minutes_pass(&ferry.stub);
    ferry
        .stub
        .rules(|rules| rules.shell = Some(LOOK_AROUND.to_owned()));
    let jobs = crowd(50, &ferry, |runner| {
        let mut run = kind_run(&ferry, runner, &["--access-only"]);
        run.arg(UNCONFINED);
        run
    });

    for job in &jobs {
        assert_code(job, 0);
    }
    let rotations: Vec<What> = calls(&ferry.stub);
    let rotations: Vec<&What> = rotations.iter().filter(|call| call.is_refresh()).collect();
    assert_eq!(rotations.len(), 1, "{rotations:#?}");
    assert!(ferry.is_live());
    assert_eq!(ferry.status()["generation"], 2);

    let live = ferry.stub.live().expect("a live login");
    let printed = printed(&ferry.stub);
    assert_eq!(printed.len(), 50);
    for text in &printed {
        assert!(
            text.contains(&live.access_token()),
            "nothing was seen: {text}"
        );
    }
    let said = jobs.iter().flat_map(|job| [&job.stdout, &job.stderr]);
    let said = said.map(|said| String::from_utf8_lossy(said).into_owned());
    for text in said.chain(printed) {
        for token in [&login.refresh_token, &live.refresh_token] {
            assert!(!text.contains(token), "the refresh token was seen: {text}");
        }
    }
}

fn a_job_whose_bearer_is_refused_fails_and_spends_nothing(version: &str, _: Rule) {
    let login = Login::fresh();
    let ferry = Ferry::new(version, &login);
    ferry.stub.rules(|rules| rules.model_failure = Some(401));
    let before = ferry.folder();

    let runner = ferry.runner();
    let run = finish(&mut kind_run(&ferry, &runner, &["--access-only"]));

    assert_code(&run, 1);
    assert!(ferry.stub.count(What::is_model_call) > 0);
    for call in calls(&ferry.stub) {
        let spent = matches!(
            call,
            What::Refresh {
                serial: Some(_),
                ..
            }
        );
        assert!(!spent, "{call:?}");
    }
    assert_eq!(ferry.stub.live(), Some(login));
    assert_eq!(ferry.folder(), before, "the store was touched");
    assert!(!runner.auth_file().exists(), "the login was left behind");
}
