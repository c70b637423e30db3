//! Random stories of jobs, people and old files that use one login. A random seed determines a
//! story.
//!
//! The runner, its watches, the file store, the receipts and the rescue folder are real. The
//! provider and Codex are simulated in this process. The processes of a machine are made up, in a
//! folder that the runner reads in place of `/proc`, so a story takes milliseconds.
//!
//! After each step the test compares the world with the one before it. Every live login must still
//! exist: in the store, on a machine's disk, or *in flight*: a running Codex has received it and
//! not written it (Codex discards it if the auth file has changed meanwhile). No ancestor may
//! replace the store's login, and only a person may replace it by a login of another family.
//!
//! The stories do not cover the command of a `run`, the supervisor's own loop and the lease. They
//! need real processes: `round_trip::model`, `rotation::model` and `tests/e2e` cover them. A
//! rotation's private home uses the same restore and the same persist.
//!
//! ```sh
//! cargo test -p authferry-tests --test simulator                    # a sample
//! AUTHFERRY_TEST_STORIES=100000 cargo test -p authferry-tests --test simulator
//! AUTHFERRY_TEST_STORY=4711 cargo test -p authferry-tests --test simulator -- --nocapture
//! ```
//!
//! A failing story prints its random seed and its steps. A replay may pass, so repeat it: a thread
//! reports file changes, and tokio picks one of two ready events at random.

mod codexes;
mod interference;
mod judge;
mod machine;
mod owners;
mod processes;
mod provider;
mod random;
mod story;
mod tally;
mod world;

use std::env;

use story::Story;

/// How many stories the gate plays.
const SAMPLE: u64 = 300;

#[test]
fn no_story_loses_a_login_or_puts_an_older_one_over_a_newer_one() {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let _processes = processes::make_up();
    if let Some(seed) = number("AUTHFERRY_TEST_STORY") {
        Story::play(seed).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    // The gate's sample is the same each time, so that only the change can make the gate fail; more
    // stories are drawn from the seed.
    let more = number("AUTHFERRY_TEST_STORIES");
    let seed = more
        .and_then(|_| number("AUTHFERRY_TEST_SEED"))
        .unwrap_or(1);
    let (stories, first) = (more.unwrap_or(SAMPLE), seed.wrapping_mul(1 << 32));
    let mut tally = tally::Tally::default();
    for seed in first..first + stories {
        let played = Story::play(seed);
        tally.add(&played.unwrap_or_else(|why| panic!("{why}")));
    }
    tally.print(stories);
    let missing = tally.missing();
    assert!(missing.is_empty(), "these never happened: {missing:?}");
}
