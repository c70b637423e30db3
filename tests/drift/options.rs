//! The command line, and the output.
#![expect(clippy::print_stdout, reason = "the command prints its results")]

use std::{
    env,
    error::Error,
    hash::{DefaultHasher, Hash, Hasher},
    thread,
};

use crate::{
    scenarios::{self, Length, Scenario},
    served,
};

const USAGE: &str = "\
cargo drift [OPTIONS] [VERSION…]    default: one version of each kind, and the newest
    --all          every version of the table
    --slow         also the scenarios that take a minute
    --only TEXT    only the scenarios with this text in their names; writes no table
    --table        with --only, bring the cells of these scenarios up to date
    --sample       a few cells of each kind of version, by AUTHFERRY_TEST_SEED; writes no table
    --jobs N       how many cells run side by side";

/// How many cells of each version are in a sample.
const SAMPLED: usize = 3;

/// What to play.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command line"
)]
#[derive(Debug, Default)]
pub(crate) struct Options {
    versions: Vec<String>,
    all: bool,
    slow: bool,
    sample: bool,
    only: Option<String>,
    table: bool,
    pub(crate) jobs: usize,
}

/// Prints a line.
pub(crate) fn say(text: &str) {
    println!("{text}");
}

impl Options {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            jobs: thread::available_parallelism().map_or(1, Into::into),
            ..Self::default()
        };
        while let Some(word) = words.next() {
            match word.as_str() {
                "--all" => options.all = true,
                "--slow" => options.slow = true,
                "--table" => options.table = true,
                "--sample" => options.sample = true,
                "--only" => options.only = Some(words.next().ok_or(USAGE)?),
                "--jobs" => options.jobs = words.next().ok_or(USAGE)?.parse()?,
                _ if word.starts_with('-') => return Err(USAGE.into()),
                _ => options.versions.push(word),
            }
        }
        if options.jobs == 0 {
            return Err(USAGE.into());
        }
        Ok(options)
    }

    /// Returns the versions to play, oldest first.
    pub(crate) fn versions(&self) -> Result<Vec<String>, Box<dyn Error>> {
        if !self.versions.is_empty() {
            Ok(served::in_order(self.versions.clone()))
        } else if self.all {
            served::all()
        } else if self.sample {
            Ok(served::sample())
        } else {
            served::usual()
        }
    }

    /// Returns the scenarios to play with a version.
    pub(crate) fn scenarios(&self, version: &str) -> Vec<Scenario> {
        let chosen = |scenario: &Scenario| {
            let named = self.only.as_deref();
            let is_named = named.is_none_or(|text| scenario.name.contains(text));
            is_named && self.takes(scenario.length)
        };
        let mut chosen: Vec<_> = scenarios::all().into_iter().filter(chosen).collect();
        if self.sample {
            let seed = env::var("AUTHFERRY_TEST_SEED").unwrap_or_default();
            chosen.sort_by_cached_key(|scenario| {
                let mut hasher = DefaultHasher::new();
                (&seed, version, scenario.name).hash(&mut hasher);
                hasher.finish()
            });
            chosen.truncate(SAMPLED);
        }
        chosen
    }

    /// Whether this run brings the table up to date.
    pub(crate) fn writes_table(&self) -> bool {
        !self.sample && (self.only.is_none() || self.table)
    }

    fn takes(&self, length: Length) -> bool {
        match length {
            Length::Short => true,
            Length::Long => !self.sample,
            Length::Slow => self.slow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Options {
        let words = words.iter().map(ToString::to_string);
        Options::parse(words).expect("a valid command line")
    }

    #[test]
    fn a_sample_draws_short_scenarios() {
        let sample = parse(&["--sample"]);
        for version in served::sample() {
            let drawn = sample.scenarios(&version);
            assert_eq!(drawn.len(), SAMPLED);
            assert!(drawn.iter().all(|it| it.length == Length::Short));
        }
        assert!(!sample.writes_table());
    }

    #[test]
    fn slow_scenarios_run_if_asked_for() {
        let count = |options: &Options| options.scenarios("0.171.0").len();
        let (usual, slow) = (parse(&["0.171.0"]), parse(&["--slow"]));
        assert!(count(&usual) < count(&slow));
        assert_eq!(count(&slow), scenarios::all().len());
        assert!(usual.writes_table());
        let only = parse(&["--only", "refusal"]);
        assert!(count(&only) >= 12);
        assert!(!only.writes_table());
        assert!(parse(&["--only", "refusal", "--table"]).writes_table());
    }

    #[test]
    fn an_unknown_option_is_refused() {
        for words in [&["--other"][..], &["--jobs", "0"], &["--only"]] {
            let words = words.iter().map(ToString::to_string);
            assert!(Options::parse(words).is_err());
        }
    }
}
