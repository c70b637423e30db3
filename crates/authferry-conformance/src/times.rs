//! How long each test takes: libtest-mimic does not report it.

use std::{
    env,
    fs::File,
    io::Write as _,
    time::{Duration, Instant},
};

/// Runs a test and appends its name and its seconds to the file in `AUTHFERRY_TEST_TIMES`, if
/// that variable is set. A test that panics has no time.
pub fn timed<T>(name: &str, test: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = test();
    record(name, started.elapsed());
    result
}

fn record(name: &str, took: Duration) {
    let Some(path) = env::var_os("AUTHFERRY_TEST_TIMES") else {
        return;
    };
    // One write for each line: other threads and processes append to the same file.
    let line = format!("{name}\t{:.3}\n", took.as_secs_f64());
    let file = File::options().create(true).append(true).open(path);
    // The time is for people to read: without it the test still counts.
    drop(file.and_then(|mut file| file.write_all(line.as_bytes())));
}
