//! The versions that npm serves, and those that a run plays.

use std::{
    error::Error,
    process::{Command, Stdio},
};

use authferry_codex::versions::TESTED;

/// One version of each rule and each way to write, the oldest and the newest of the table.
const REPRESENTATIVES: [&str; 6] = [
    "0.63.0",
    rig::V0_101,
    rig::V0_130,
    rig::V0_145,
    rig::V0_166,
    rig::V0_171,
];

/// More versions of `--all`, between those of the table.
const BETWEEN: [&str; 8] = [
    "0.72.0", "0.87.0", "0.110.0", "0.124.0", "0.133.0", "0.142.0", "0.150.0", "0.164.0",
];

/// Returns the versions that run by default.
pub(crate) fn usual() -> Result<Vec<String>, Box<dyn Error>> {
    let mut versions: Vec<_> = REPRESENTATIVES.iter().map(ToString::to_string).collect();
    versions.push(newest()?);
    Ok(in_order(versions))
}

/// Returns every version of the table, and the newest.
pub(crate) fn all() -> Result<Vec<String>, Box<dyn Error>> {
    let mut versions: Vec<_> = TESTED.iter().map(ToString::to_string).collect();
    versions.extend(BETWEEN.iter().map(ToString::to_string));
    versions.push(newest()?);
    Ok(in_order(versions))
}

/// Returns the versions of the sample in the gate, which asks no server.
pub(crate) fn sample() -> Vec<String> {
    REPRESENTATIVES.iter().map(ToString::to_string).collect()
}

/// Returns the newest version that npm serves.
fn newest() -> Result<String, Box<dyn Error>> {
    let mut view = Command::new("npm");
    view.args(["view", "@openai/codex", "version"]);
    let output = view.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot run npm: {error}"))?;
    let version = String::from_utf8(output.stdout)?.trim().to_owned();
    if output.status.success() && !version.is_empty() {
        Ok(version)
    } else {
        Err("npm does not say which version of Codex is the newest".into())
    }
}

/// Sorts versions by their numbers, each once.
pub(crate) fn in_order(mut versions: Vec<String>) -> Vec<String> {
    versions.sort_by_key(|version| numbers(version));
    versions.dedup();
    versions
}

/// Returns the numbers of a version, and its text for those with equal numbers.
pub(crate) fn numbers(version: &str) -> (Vec<u64>, String) {
    let numbers = version.split(['.', '-']).map_while(|it| it.parse().ok());
    (numbers.collect(), version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_sorted_by_their_numbers() {
        let versions = ["0.171.0", "0.63.0", "0.157.1", "0.63.0", "0.171.0-alpha.3"];
        let sorted = in_order(versions.map(str::to_owned).into());
        assert_eq!(sorted, ["0.63.0", "0.157.1", "0.171.0", "0.171.0-alpha.3"]);
    }

    #[test]
    fn the_versions_of_a_sample_are_in_the_table() {
        let tested: Vec<_> = TESTED.iter().map(ToString::to_string).collect();
        assert!(sample().iter().all(|version| tested.contains(version)));
        assert!(tested.len() + BETWEEN.len() >= 24);
    }
}
