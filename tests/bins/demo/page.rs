//! What is seen of the story.
#![expect(clippy::print_stdout, reason = "telling is all that the demo is for")]

use std::{
    iter,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// The width of a page.
const WIDTH: usize = 100;

/// How long somebody looks at a page on which nothing happens.
const SOON: Duration = Duration::from_secs(1);

/// Prints a line.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints which machine it is that runs this command.
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

/// Prints a text with a label before it, on as many lines as it needs.
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

/// Works, and tells so if that takes its time.
pub(crate) fn meanwhile<T: Send>(work: impl FnOnce() -> T + Send, tell: impl FnOnce()) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(work);
        let soon = Instant::now() + SOON;
        while !worker.is_finished() && Instant::now() < soon {
            thread::sleep(Duration::from_millis(10));
        }
        if !worker.is_finished() {
            tell();
        }
        worker.join().expect("a worker that does not panic")
    })
}
