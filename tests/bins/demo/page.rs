//! The output of the demo.
#![expect(clippy::print_stdout, reason = "the demo prints its results")]

use std::{
    iter,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// The width of the output.
const WIDTH: usize = 100;

/// How long to wait before a notice about slow work.
const NOTICE_DELAY: Duration = Duration::from_secs(1);

/// Prints a line.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints the number of a machine and its command.
pub(crate) fn heading(machine: u32, command: &Command) {
    let program = command.get_program().display().to_string();
    let arguments = command.get_args().map(|argument| {
        let argument = argument.display();
        let quote = argument.to_string().contains(' ');
        if quote {
            format!("\"{argument}\"")
        } else {
            argument.to_string()
        }
    });
    let words: Vec<_> = iter::once(program).chain(arguments).collect();
    line(&format!("\nMachine {machine}: {}", words.join(" ")));
}

/// Prints a text with a label, wrapped.
pub(crate) fn row(label: &str, text: &str) {
    let mut line = format!("  {label:<9}");
    for word in text.split(' ') {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            println!("{line}");
            line = format!("  {:<9}", "");
        }
        line.push(' ');
        line.push_str(word);
    }
    println!("{line}");
}

/// Runs `work`, and calls `notify` if it takes longer than a second.
pub(crate) fn with_notice<T: Send>(work: impl FnOnce() -> T + Send, notify: impl FnOnce()) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(work);
        let notice_at = Instant::now() + NOTICE_DELAY;
        while !worker.is_finished() && Instant::now() < notice_at {
            thread::sleep(Duration::from_millis(10));
        }
        if !worker.is_finished() {
            notify();
        }
        worker.join().expect("a worker that does not panic")
    })
}
