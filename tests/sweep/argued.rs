//! Aborts and panics that are not ours to avoid, and why.

use crate::judge::{Finding, Verdict};

/// What a process says that aborts or panics, and why that is no fault of ours.
const ARGUED: &[(&str, &str)] = &[
    ("memory allocation of", "no memory: Rust aborts"),
    (
        "fatal runtime error: initialization",
        "before `main` or in a new thread: Rust aborts",
    ),
    (
        "fatal runtime error: assertion failed: signal(libc::SIGPIPE",
        "before `main`: Rust aborts",
    ),
    (
        "rseq registration failed",
        "in a new thread: the C library aborts, `rseq` has no such error",
    ),
    (
        "failed to wake I/O driver",
        "`write` to an eventfd has no such error: tokio panics",
    ),
    (
        "OS can't spawn worker thread",
        "no thread: tokio panics before the store is read, we catch it and exit with 125",
    ),
    (
        "unexpected error when polling the I/O driver",
        "`epoll_wait` has no such error: tokio panics",
    ),
    (
        "inotify.rs",
        "`epoll_wait` has no such error: notify panics",
    ),
    (
        "unexpected error during closedir",
        "`close` of a folder has no such error: Rust panics",
    ),
    (
        "src/backend/linux_raw/conv.rs",
        "`uname` and its like have no error: rustix panics",
    ),
];

/// Why a finding that is no good one is as it has to be.
pub(crate) fn argued(finding: &Finding) -> Option<&'static str> {
    if !matches!(finding.verdict, Verdict::Aborted | Verdict::Panicked) {
        return None;
    }
    let mut known = ARGUED
        .iter()
        .filter(|(said, _)| finding.said.contains(said));
    known.next().map(|(_, why)| *why)
}
