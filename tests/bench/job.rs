//! An idle job, and authferry's activity during it.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    process::{Child, ChildStdin, Stdio},
};

use crate::scene::{Scene, megabytes};

/// `authferry run` of a command that waits for the end of its input.
pub(crate) struct Job {
    authferry: Child,
    input: ChildStdin,
}

/// The activity of a process so far.
pub(crate) struct Activity {
    /// The CPU time, in ticks.
    ticks: u32,
    /// How often each thread has started to wait.
    waits: HashMap<String, u32>,
}

impl Job {
    /// Starts the job and returns when its command runs.
    pub(crate) fn start(scene: &Scene) -> Self {
        let mut authferry = scene
            .authferry(&["-q", "run", "--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a program");
        let mut input = authferry.stdin.take().expect("piped");
        let mut output = authferry.stdout.take().expect("piped");
        input.write_all(b".").expect("a reader");
        output.read_exact(&mut [0]).expect("an echo");
        Self { authferry, input }
    }

    /// Ends the job.
    pub(crate) fn finish(mut self) {
        drop(self.input);
        let status = self.authferry.wait().expect("our child");
        assert!(status.success(), "the job failed: {status}");
    }

    /// Returns authferry's activity so far.
    pub(crate) fn activity(&self) -> Activity {
        let stat = self.proc("stat");
        // The program's name is before this point and may contain anything.
        let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
        let fields = fields.split(' ');
        // Fields 14 and 15 of proc(5): in user mode and in the kernel.
        let ticks = fields.skip(11).take(2).map(number).sum();
        let threads = fs::read_dir(self.path("task")).expect("our child");
        let waits = threads
            .filter_map(|thread| {
                let thread = thread.expect("a thread").file_name();
                let thread = thread.to_string_lossy().into_owned();
                // The thread may have ended.
                let status =
                    fs::read_to_string(self.path(&format!("task/{thread}/status"))).ok()?;
                Some((thread, field(&status, "voluntary_ctxt_switches:")))
            })
            .collect();
        Activity { ticks, waits }
    }

    /// Returns authferry's peak memory, in megabytes.
    pub(crate) fn peak_memory(&self) -> f64 {
        let kibibytes = field(&self.proc("status"), "VmHWM:");
        megabytes(u64::from(kibibytes) * 1024)
    }

    fn proc(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("our child")
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.authferry.id())
    }
}

impl Activity {
    /// Returns the ticks since then.
    pub(crate) fn ticks_since(&self, before: &Self) -> f64 {
        f64::from(self.ticks - before.ticks)
    }

    /// Returns how often a thread was woken since then. An ended thread counts one last wake.
    pub(crate) fn wakes_since(&self, before: &Self) -> f64 {
        let then = |thread| before.waits.get(thread).copied().unwrap_or_default();
        let waits = self.waits.iter();
        let waits: u32 = waits.map(|(thread, waits)| waits - then(thread)).sum();
        let threads = before.waits.keys();
        let ended = threads.filter(|&thread| !self.waits.contains_key(thread));
        f64::from(waits) + ended.map(|_| 1.0).sum::<f64>()
    }
}

fn field(text: &str, name: &str) -> u32 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let value = value.expect("a field of proc(5)").trim_start();
    number(value.split(' ').next().unwrap_or_default())
}

fn number(text: &str) -> u32 {
    text.parse().expect("a number")
}
