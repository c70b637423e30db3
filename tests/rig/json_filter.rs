//! A program that reads a text and prints JSON about it.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;

/// Gives the text to the program, and returns what it prints.
///
/// # Panics
///
/// If the program does not start, fails, or prints no JSON.
#[track_caller]
pub(crate) fn json_of(program: &mut Command, text: &str) -> Value {
    let mut child = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a program to start");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("a reader");
    drop(stdin);
    let output = child.wait_with_output().expect("our child");
    assert!(output.status.success(), "not accepted:\n{text}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}
