//! Stories of jobs, people and old files on one login, drawn from a seed.
//!
//! The runner, its watches, the file store, the receipts and the rescue folder are the real ones. The
//! provider and Codex are simulated in this process, and the processes of a machine are made up, in a
//! folder that the runner reads in place of `/proc`: so a story takes milliseconds.
//!
//! After each step the world is compared with the one before it. A live login that was somewhere
//! still is: in the store, on the disk of a machine, or *in flight*, in a Codex that lives and will
//! write it into a file that is as that Codex has left it. The store's login was not replaced by an
//! earlier one of its family, nor by one of another family but by a person.
//!
//! What is not driven here: the command of a `run`, the supervisor's own loop and the lease. They need
//! real processes: `trip::model`, `rotation::model` and `tests/e2e` have them. The private home of a
//! rotation is made by the same restore, and emptied by the same persist.
//!
//! ```sh
//! cargo test -p authferry-tests --test simulator                    # a sample
//! AUTHFERRY_TEST_STORIES=100000 cargo test -p authferry-tests --test simulator
//! AUTHFERRY_TEST_STORY=4711 cargo test -p authferry-tests --test simulator -- --nocapture
//! ```
//!
//! A story that fails prints its seed and its steps. A watch hears of a file by a thread, and of two
//! events that are ready the runtime takes either: a story that failed may have to be replayed several times.

mod codexes;
mod judge;
mod machine;
mod odd_hands;
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
        Story::tell(seed).unwrap_or_else(|why| panic!("{why}"));
        return;
    }
    // The sample of the gate is the same each time, so that a red gate always has a reason in the
    // change; more stories are drawn from the seed.
    let more = number("AUTHFERRY_TEST_STORIES");
    let seed = more
        .and_then(|_| number("AUTHFERRY_TEST_SEED"))
        .unwrap_or(1);
    let (stories, first) = (more.unwrap_or(SAMPLE), seed.wrapping_mul(1 << 32));
    let mut tally = tally::Tally::default();
    for seed in first..first + stories {
        let told = Story::tell(seed);
        tally.add(&told.unwrap_or_else(|why| panic!("{why}")));
    }
    tally.print(stories);
    let missing = tally.missing();
    assert!(missing.is_empty(), "these never happened: {missing:?}");
}
