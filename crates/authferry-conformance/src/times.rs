//! Records the duration of each test, which libtest-mimic does not report.

use std::{
    env,
    fs::File,
    io::Write as _,
    time::{Duration, Instant},
};

/// Runs a test. If the environment variable `AUTHFERRY_TEST_TIMES` names a file, appends the test's
/// name and duration in seconds. Records nothing for a test that panics.
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
    // Ignore an error: the time is only informative.
    drop(file.and_then(|mut file| file.write_all(line.as_bytes())));
}
