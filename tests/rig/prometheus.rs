//! Prometheus' own Python client: an independent reader of metrics.

use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::pip;

/// The release under test.
const PACKAGES: [&str; 1] = ["prometheus-client==0.23.1"];

const PARSE: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as parse
families = parse(sys.stdin.read())
print(json.dumps([[s.name, s.labels, s.value] for family in families for s in family.samples]))
";

/// A sample: its name, its labels and its value.
pub type Sample = (String, BTreeMap<String, String>, f64);

/// Parses a text of metrics.
///
/// # Panics
///
/// If the parser cannot be installed, or does not accept the text.
#[must_use]
#[track_caller]
pub fn prometheus_samples(text: &str) -> Vec<Sample> {
    let packages = pip::install("prometheus-python", &PACKAGES).expect("the client from PyPI");
    let mut parser = Command::new("python3")
        .args(["-s", "-c", PARSE])
        .env("PYTHONPATH", packages)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python");
    let mut stdin = parser.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("a reader");
    drop(stdin);
    let output = parser.wait_with_output().expect("our child");
    assert!(output.status.success(), "not accepted:\n{text}");
    let samples: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    serde_json::from_value(samples).expect("samples")
}
