//! Jobs that get a login without its refresh token.

use rig::{Login, What, finish};
use time::Duration;

use crate::any_store::{AnyStore, in_each_store};
use crate::codex_facts::calls;
use crate::crowds::{crowd, low_priority_run};
use crate::ferry::assert_code;
use crate::refresh_facts::{UNCONFINED, let_ten_minutes_pass, printed};

in_each_store![slow:
    fifty_concurrent_jobs_succeed_and_prompt_injection_never_reads_the_refresh_token,
    a_job_with_a_rejected_access_token_fails_and_spends_nothing,
];

/// Prints everything that a job can read of the login and of its machine.
const READ_EVERYTHING: &str =
    r#"cat "$CODEX_HOME/auth.json"; env; grep -rh made-up.refresh "$HOME" "$TMPDIR" "$PWD""#;

fn fifty_concurrent_jobs_succeed_and_prompt_injection_never_reads_the_refresh_token<S: AnyStore>(
    version: &str,
) {
    let login = Login::ending_in(Duration::minutes(10));
    let scene = S::holding(version, &login);
    let_ten_minutes_pass(scene.stub());
    scene
        .stub()
        .rules(|rules| rules.shell = Some(READ_EVERYTHING.to_owned()));
    let jobs = crowd(50, &scene, |runner| {
        let mut run = low_priority_run(&scene, runner, &["--access-only"]);
        run.arg(UNCONFINED);
        run
    });

    for job in &jobs {
        assert_code(job, 0);
    }
    let rotations: Vec<What> = calls(scene.stub());
    let rotations: Vec<&What> = rotations.iter().filter(|call| call.is_refresh()).collect();
    assert_eq!(rotations.len(), 1, "{rotations:#?}");
    assert!(scene.is_live());
    assert_eq!(scene.status()["generation"], 2);

    let live = scene.stub().live().expect("a live login");
    let printed = printed(scene.stub());
    assert_eq!(printed.len(), 50);
    // On a busy machine, Codex's 10-second timeout can pass before the shell prints anything.
    let is_late = |text: &&String| text.contains("Process running");
    assert!(printed.iter().filter(is_late).count() < printed.len());
    for text in printed.iter().filter(|text| !is_late(text)) {
        assert!(
            text.contains(&live.access_token()),
            "the shell did not print the auth file: {text}"
        );
    }
    let outputs = jobs.iter().flat_map(|job| [&job.stdout, &job.stderr]);
    let outputs = outputs.map(|output| String::from_utf8_lossy(output).into_owned());
    for text in outputs.chain(printed) {
        for token in [&login.refresh_token, &live.refresh_token] {
            assert!(
                !text.contains(token),
                "the refresh token was printed: {text}"
            );
        }
    }
}

fn a_job_with_a_rejected_access_token_fails_and_spends_nothing<S: AnyStore>(version: &str) {
    let login = Login::fresh();
    let scene = S::holding(version, &login);
    scene.stub().rules(|rules| rules.model_failure = Some(401));
    let before = scene.traces();

    let runner = scene.runner();
    let run = finish(&mut low_priority_run(&scene, &runner, &["--access-only"]));

    assert_code(&run, 1);
    assert!(scene.stub().count(What::is_model_call) > 0);
    for call in calls(scene.stub()) {
        let spent = matches!(
            call,
            What::Refresh {
                serial: Some(_),
                ..
            }
        );
        assert!(!spent, "{call:?}");
    }
    assert_eq!(scene.stub().live(), Some(login));
    assert_eq!(scene.traces(), before, "the store was written");
    assert!(!runner.auth_file().exists(), "the login was left behind");
}
