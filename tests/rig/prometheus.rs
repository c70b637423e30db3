//! Prometheus' own Python client: an independent reader of metrics.

use std::{collections::BTreeMap, process::Command};

use crate::{json_filter::json_of, pip};

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
    let mut parser = Command::new("python3");
    parser.args(["-s", "-c", PARSE]).env("PYTHONPATH", packages);
    serde_json::from_value(json_of(&mut parser, text)).expect("samples")
}
