//! Recognizes a running Codex and its version.

use std::{ffi::OsStr, fs::File, io::Read, path::Path};

use authferry_core::DueRule;
use serde::Deserialize;

use crate::versions::{self, CodexVersion};

/// The largest package manifest that is read.
const MAX_MANIFEST_BYTES: u64 = 64 * 1024;

/// How many folders above the program its package manifest may be.
const MAX_DEPTH: usize = 6;

/// Returns whether this executable path, as the system reports it for a process, is Codex.
///
/// The npm launcher is a script: its process runs `node` and starts Codex as a child. Codex
/// also starts helpers from its folder (`codex-code-mode-host`), which never rotate a login.
#[must_use]
pub fn is_codex(program: &Path) -> bool {
    let name = program.file_name().map(OsStr::to_string_lossy);
    let name = name.unwrap_or_default();
    // The system appends this after an update has replaced the executable.
    let name = name.trim_end_matches(" (deleted)");
    name == "codex" || (name.starts_with("codex-") && !name.ends_with("-host"))
}

/// Returns the rule by which the Codex at this path rotates a login. The version comes from the
/// package manifest that npm installs; Codex is not started.
#[must_use]
pub fn due_rule(program: &Path) -> DueRule {
    versions::due_rule(version(program).as_deref().and_then(CodexVersion::parse))
}

/// Returns the version in the manifest of the package that the program belongs to.
pub(crate) fn version(program: &Path) -> Option<String> {
    let folders = program.ancestors().skip(1).take(MAX_DEPTH);
    let mut versions = folders.filter_map(|folder| version_in(&folder.join("package.json")));
    versions.next()
}

fn version_in(manifest: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Manifest {
        name: String,
        version: String,
    }
    let mut text = Vec::new();
    let file = File::open(manifest).ok()?;
    file.take(MAX_MANIFEST_BYTES).read_to_end(&mut text).ok()?;
    let manifest: Manifest = serde_json::from_slice(&text).ok()?;
    let is_codex = manifest.name.starts_with("@openai/codex");
    is_codex.then_some(manifest.version)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn codex_is_recognized_by_the_name_of_its_executable() {
        for (path, is) in [
            ("/a/bin/codex", true),
            ("/a/bin/codex (deleted)", true),
            ("/a/codex-x86_64-unknown-linux-musl", true),
            ("/a/codex-code-mode-host", false),
            ("/a/codex-voice-host (deleted)", false),
            ("/a/node", false),
            ("/a/authferry", false),
            ("/codex/sh", false),
            ("/", false),
        ] {
            assert_eq!(is_codex(Path::new(path)), is, "{path}");
        }
    }

    #[test]
    fn the_package_manifest_names_the_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let bin = folder.path().join("codex-linux-x64/vendor/musl/bin");
        fs::create_dir_all(&bin).expect("room");
        let program = bin.join("codex");
        assert_eq!(due_rule(&program), DueRule::Any);
        let manifest = folder.path().join("codex-linux-x64/package.json");
        let text = r#"{"name": "@openai/codex", "version": "0.130.0-linux-x64", "os": ["linux"]}"#;
        fs::write(&manifest, text).expect("room");
        assert_eq!(due_rule(&program), DueRule::Ended);
        let other = text.replace("@openai/codex", "another-package");
        fs::write(&manifest, other).expect("room");
        assert_eq!(due_rule(&program), DueRule::Any);
    }
}
