//! What differs between versions of Codex, as far as authferry depends on it.
//!
//! Every fact was measured on the real binaries against a stub of the provider. Between two measured
//! versions that differ, the more cautious fact counts from the first unmeasured version on.

use std::{fmt, path::Path, time::Duration};

use authferry_core::DueRule;

use crate::program;

/// The versions on which the facts were measured, oldest first.
pub const TESTED: &[CodexVersion] = &[
    CodexVersion::new(63, 0),
    CodexVersion::new(92, 0),
    CodexVersion::new(93, 0),
    CodexVersion::new(96, 0),
    CodexVersion::new(98, 0),
    CodexVersion::new(101, 0),
    CodexVersion::new(116, 0),
    CodexVersion::new(117, 0),
    CodexVersion::new(130, 0),
    CodexVersion::new(135, 0),
    CodexVersion::new(136, 0),
    CodexVersion::new(137, 0),
    CodexVersion::new(145, 0),
    CodexVersion::new(153, 4),
    CodexVersion::new(157, 1),
    CodexVersion::new(160, 1),
    CodexVersion::new(163, 0),
    CodexVersion::new(165, 0),
    CodexVersion::new(166, 0),
    CodexVersion::new(167, 2),
    CodexVersion::new(168, 0),
    CodexVersion::new(169, 0),
    CodexVersion::new(171, 0),
];

/// The facts of each range of versions, oldest first. A range ends where the next one begins; the
/// last one ends with the newest tested version.
pub const RANGES: &[VersionRange] = &[
    VersionRange::OLDEST,
    VersionRange {
        // Measured on 0.93.0 and 0.96.0.
        first: CodexVersion::new(92, 1),
        answer_timeout: Duration::from_secs(5),
        resends: true,
        ..VersionRange::OLDEST
    },
    VersionRange {
        first: CodexVersion::new(98, 0),
        answer_timeout: Duration::from_secs(15),
        resends: true,
        ..VersionRange::OLDEST
    },
    VersionRange {
        // Between the last measured version with one rule and the first one with the next.
        first: CodexVersion::new(116, 1),
        due_rule: DueRule::Any,
        answer_timeout: Duration::from_secs(15),
        resends: true,
        ..VersionRange::OLDEST
    },
    VersionRange {
        first: CodexVersion::new(117, 0),
        due_rule: DueRule::Ended,
        answer_timeout: Duration::from_secs(15),
        resends: true,
        ..VersionRange::OLDEST
    },
    VersionRange {
        // Measured from 0.136.0 on.
        first: CodexVersion::new(135, 1),
        due_rule: DueRule::Ending,
        answer_timeout: Duration::from_secs(15),
        resends: true,
        ..VersionRange::OLDEST
    },
    VersionRange {
        first: CodexVersion::new(157, 1),
        answer_timeout: Duration::from_secs(20),
        launcher_hides_signals: true,
        write_form: WriteForm::InPlace,
        ..VersionRange::NEWEST
    },
    VersionRange {
        first: CodexVersion::new(166, 0),
        write_form: WriteForm::InPlaceUnderLock,
        ..VersionRange::NEWEST
    },
    VersionRange::NEWEST,
];

/// What the versions from `first` to the next range do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The first version of the range.
    pub first: CodexVersion,
    /// When Codex rotates a login without a request to do so.
    pub due_rule: DueRule,
    /// How long Codex waits for the provider's answer to the refresh of a login that is due. It drops
    /// a later answer, and the new login with it. It waits longer for a refresh that authferry
    /// requested of a login that is not due (30 s, on 0.101.0 to 0.171.0).
    pub answer_timeout: Duration,
    /// Whether Codex then sends the same refresh token again.
    pub resends: bool,
    /// How Codex writes the auth file.
    pub write_form: WriteForm,
    /// Whether npm's launcher exits with 0 after SIGTERM has ended its Codex.
    pub launcher_hides_signals: bool,
}

/// How Codex writes the auth file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteForm {
    /// It truncates the file and writes it.
    InPlace,
    /// The same, under a lock on `auth.lock`.
    InPlaceUnderLock,
    /// It renames a complete temporary file into place, under `auth.lock`.
    Rename,
}

impl VersionRange {
    const OLDEST: Self = Self {
        first: CodexVersion::new(63, 0),
        due_rule: DueRule::Age,
        // 0.92.0 accepts an answer after 70 s, 0.63.0 drops it after 60 s.
        answer_timeout: Duration::from_mins(1),
        resends: false,
        write_form: WriteForm::InPlace,
        launcher_hides_signals: true,
    };
    const NEWEST: Self = Self {
        first: CodexVersion::new(167, 2),
        due_rule: DueRule::Ending,
        answer_timeout: Duration::from_secs(20),
        resends: true,
        write_form: WriteForm::Rename,
        launcher_hides_signals: false,
    };

    /// The [`answer_timeout`](Self::answer_timeout) of an unknown version: the shortest one since
    /// 0.98.0.
    const UNKNOWN_TIMEOUT: Duration = Duration::from_secs(15);
}

/// A version of Codex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodexVersion {
    numbers: [u32; 3],
    is_pre_release: bool,
}

impl CodexVersion {
    const fn new(minor: u32, patch: u32) -> Self {
        Self {
            numbers: [0, minor, patch],
            is_pre_release: false,
        }
    }

    /// Parses a version as `codex --version` or npm writes it: `codex-cli 0.171.0`,
    /// `0.171.0-linux-x64`, `0.171.0-alpha.3`.
    ///
    /// Returns `None` for other texts, and for `0.0.0`: a build from the source has that number,
    /// which says nothing about its behavior.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let version = text.split_whitespace().last()?;
        let (numbers, suffix) = version.split_once('-').unwrap_or((version, ""));
        let mut parsed = [0; 3];
        let mut parts = numbers.split('.');
        for number in &mut parsed {
            *number = parts.next()?.parse().ok()?;
        }
        let is_version = parts.next().is_none() && parsed != [0; 3];
        let is_platform = |word: &str| PLATFORMS.contains(&word);
        is_version.then_some(Self {
            numbers: parsed,
            is_pre_release: !suffix.is_empty()
                && !suffix.split('-').next().is_some_and(is_platform),
        })
    }

    /// Returns the version of a Codex that npm installed, from the manifest of its package. Codex is
    /// not started. `program`: npm's launcher or the binary, or a link to one of them.
    #[must_use]
    pub fn of_program(program: &Path) -> Option<Self> {
        let program = program.canonicalize();
        Self::parse(&program::version(&program.ok()?)?)
    }

    /// Returns what this version does; `None` if it is newer or older than every tested one, or a
    /// pre-release, which may belong to either of two ranges.
    #[must_use]
    pub fn range(self) -> Option<&'static VersionRange> {
        match self.support() {
            Support::Newer | Support::Older | Support::PreRelease => None,
            Support::Tested | Support::Between => {
                let begins_before = |range: &&VersionRange| range.first.numbers <= self.numbers;
                RANGES.iter().rev().find(begins_before)
            }
        }
    }

    /// Returns how this version relates to the tested ones.
    #[must_use]
    pub fn support(self) -> Support {
        let (oldest, newest) = (TESTED[0].numbers, TESTED[TESTED.len() - 1].numbers);
        if self.numbers > newest {
            Support::Newer
        } else if self.numbers < oldest {
            Support::Older
        } else if self.is_pre_release {
            Support::PreRelease
        } else if TESTED.contains(&self) {
            Support::Tested
        } else {
            Support::Between
        }
    }
}

/// The first words of the suffixes with which npm names the platform of a package.
const PLATFORMS: [&str; 4] = ["linux", "darwin", "win32", "android"];

impl fmt::Display for CodexVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        f.write_str(if self.is_pre_release {
            " (pre-release)"
        } else {
            ""
        })
    }
}

/// How a version relates to the tested ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It was tested.
    Tested,
    /// An older and a newer version were tested.
    Between,
    /// It is newer than every tested one.
    Newer,
    /// It is older than every tested one.
    Older,
    /// It is a pre-release between the oldest and the newest tested version.
    PreRelease,
}

/// Returns the rule by which a Codex rotates a login; of an unknown version, any of the rules.
#[must_use]
pub fn due_rule(version: Option<CodexVersion>) -> DueRule {
    let range = version.and_then(CodexVersion::range);
    range.map_or(DueRule::Any, |range| range.due_rule)
}

/// Returns the [`answer_timeout`](VersionRange::answer_timeout) of a Codex; of an unknown version,
/// the shortest one since 0.98.0.
#[must_use]
pub fn answer_timeout(version: Option<CodexVersion>) -> Duration {
    let range = version.and_then(CodexVersion::range);
    range.map_or(VersionRange::UNKNOWN_TIMEOUT, |range| range.answer_timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> CodexVersion {
        CodexVersion::parse(text).unwrap_or_else(|| panic!("{text} is a version"))
    }

    #[test]
    fn a_version_is_parsed_as_codex_and_npm_write_it() {
        for (text, shown) in [
            ("codex-cli 0.171.0", Some("0.171.0")),
            ("0.171.0-linux-x64", Some("0.171.0")),
            ("0.171.0-win32-arm64", Some("0.171.0")),
            ("codex-cli 0.171.0-alpha.3", Some("0.171.0 (pre-release)")),
            ("0.171.0-alpha.3-linux-x64", Some("0.171.0 (pre-release)")),
            ("1.2.3", Some("1.2.3")),
            ("codex-cli 0.0.0", None),
            ("0.171", None),
            ("0.171.0.1", None),
            ("made up", None),
            ("", None),
        ] {
            let parsed = CodexVersion::parse(text).map(|version| version.to_string());
            assert_eq!(parsed.as_deref(), shown, "{text}");
        }
    }

    #[test]
    fn a_version_is_compared_with_the_tested_ones() {
        for (text, support) in [
            ("0.50.0", Support::Older),
            ("0.63.0", Support::Tested),
            ("0.100.0", Support::Between),
            ("0.171.0", Support::Tested),
            ("0.171.0-alpha.3", Support::PreRelease),
            ("0.171.1", Support::Newer),
            ("0.172.0-alpha.1", Support::Newer),
            ("1.0.0", Support::Newer),
        ] {
            assert_eq!(version(text).support(), support, "{text}");
        }
    }

    #[test]
    fn a_version_has_its_measured_facts() {
        use DueRule::{Age, Ended, Ending};
        use WriteForm::{InPlace, InPlaceUnderLock, Rename};
        for (text, rule, seconds, write_form, launcher_hides_signals) in [
            ("0.63.0", Age, 60, InPlace, true),
            ("0.92.0", Age, 60, InPlace, true),
            ("0.93.0", Age, 5, InPlace, true),
            ("0.98.0", Age, 15, InPlace, true),
            ("0.116.0", Age, 15, InPlace, true),
            ("0.117.0-linux-x64", Ended, 15, InPlace, true),
            ("0.135.0", Ended, 15, InPlace, true),
            ("0.136.0", Ending, 15, InPlace, true),
            ("0.153.4", Ending, 15, InPlace, true),
            ("0.157.0", Ending, 15, InPlace, true),
            ("0.157.1", Ending, 20, InPlace, true),
            ("0.165.0", Ending, 20, InPlace, true),
            ("0.166.0", Ending, 20, InPlaceUnderLock, false),
            ("0.167.2", Ending, 20, Rename, false),
        ] {
            let range = version(text).range().expect("a range");
            let timeout = Duration::from_secs(seconds);
            assert_eq!(
                (range.due_rule, range.answer_timeout),
                (rule, timeout),
                "{text}"
            );
            assert_eq!(range.write_form, write_form, "{text}");
            assert_eq!(
                range.launcher_hides_signals, launcher_hides_signals,
                "{text}"
            );
            assert_eq!(range.resends, seconds < 60, "{text}");
        }
    }

    #[test]
    fn of_an_unknown_version_the_most_cautious_facts_count() {
        for version in [None, Some(version("0.172.0")), Some(version("0.50.0"))] {
            assert_eq!(due_rule(version), DueRule::Any);
            assert_eq!(answer_timeout(version), Duration::from_secs(15));
        }
    }

    #[test]
    fn the_table_is_in_order() {
        assert!(TESTED.is_sorted_by(|a, b| a.numbers < b.numbers));
        assert!(RANGES.is_sorted_by(|a, b| a.first.numbers < b.first.numbers));
        assert_eq!(RANGES[0].first, TESTED[0]);
    }
}
