//! Aborts, panics and hangs that authferry cannot avoid, and why.

use crate::judge::{Finding, Verdict};

/// What an aborting or panicking process prints, and why it does so.
const PRINTED: &[(&str, &str)] = &[
    ("memory allocation of", "no memory: Rust aborts"),
    (
        "stack_overflow.rs",
        "no memory for the signal stack of a thread: Rust aborts",
    ),
    (
        "fatal runtime error: assertion failed: signal(libc::SIGPIPE",
        "before `main`: Rust aborts, the call has no such error",
    ),
    (
        "rseq registration failed",
        "in a new thread: the C library aborts, the call has no such error",
    ),
    (
        "OS can't spawn worker thread",
        "no thread, before the store is read: tokio panics, we catch it, exit code 125",
    ),
    (
        "failed to create UnixStream",
        "no socket for signals, before the store is read: tokio panics, exit code 125",
    ),
    (
        "unexpected error when polling the I/O driver",
        "the call has no such error: tokio panics",
    ),
    (
        "failed to wake I/O driver",
        "the call has no such error on an eventfd: tokio panics",
    ),
    (
        "Bad read on self-pipe",
        "the call has no such error on a socket of our own: tokio panics",
    ),
    ("inotify.rs", "the call has no such error: notify panics"),
    (
        "unexpected error during closedir",
        "the call has no such error for a folder: Rust panics",
    ),
    (
        "failed to generate random data",
        "the call has no such error: Rust panics",
    ),
    (
        "src/backend/linux_raw/conv.rs",
        "the call never fails: rustix panics",
    ),
];

/// Aborts and hangs that print nothing we see: the verdict, the process (empty: any), the calls,
/// and why. The error stream of a supervisor goes to the process that rotates.
const AT_CALL: &[(Verdict, &str, &[&str], &str)] = &[
    (
        Verdict::Aborted,
        "",
        &["mmap", "mprotect", "munmap", "mremap", "madvise", "brk"],
        "no memory: Rust aborts",
    ),
    (
        Verdict::Aborted,
        "",
        &["poll", "rt_sigaction", "sigaltstack", "rseq"],
        "before `main` or in a new thread: Rust or the C library aborts",
    ),
    (
        Verdict::Hung,
        "",
        &["rt_sigprocmask"],
        "the call has no such error: signals stay blocked that end the job",
    ),
    (
        Verdict::Hung,
        "watch",
        &["sendto"],
        "tokio drops a signal that it cannot hand on, here the SIGTERM to `watch`: the next one ends it",
    ),
];

/// Returns why a bad finding is expected.
pub(crate) fn argued(finding: &Finding) -> Option<&'static str> {
    let has_ended = matches!(finding.verdict, Verdict::Aborted | Verdict::Panicked);
    let printed: &[_] = if has_ended { PRINTED } else { &[] };
    let mut by_output = printed
        .iter()
        .filter(|(text, _)| finding.output.contains(text));
    let mut at_call = AT_CALL.iter().filter(|(verdict, process, calls, _)| {
        let at = &finding.call.position;
        *verdict == finding.verdict
            && (process.is_empty() || *process == at.process)
            && calls.contains(&finding.call.name.as_str())
    });
    let why = by_output.next().map(|(_, why)| *why);
    why.or_else(|| at_call.next().map(|(_, _, _, why)| *why))
}
