//! The environment variables in the home of Codex.

use std::{fs, io, path::Path};

use super::{Override, Setting, SettingPlace, override_of};
use crate::HomeError;

/// Returns the first variable in the `.env` of a home that makes Codex use other credentials than
/// the auth file.
///
/// Codex reads this file when it starts. It ignores the names that begin with `CODEX_`, and accepts
/// `export` and spaces (measured on 0.171.0).
pub(super) fn read(path: &Path) -> Result<Option<Setting<Override>>, HomeError> {
    if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Ok(None);
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HomeError::io("read", path, error)),
    };
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().zip(1..);
    Ok(lines.find_map(|(text, line)| {
        let (name, _) = text.trim_start().split_once('=')?;
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        let value = override_of(name).filter(|_| !name.starts_with("CODEX_"))?;
        let path = path.to_owned();
        let place = SettingPlace::File { path, line };
        Some(Setting { value, place })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_counts_as_codex_reads_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        let line = |text: &str| {
            fs::write(&path, text).expect("room");
            let found = read(&path).expect("a file");
            found.map(|it| match it.place {
                SettingPlace::File { line, .. } => line,
                SettingPlace::CommandLine => 0,
            })
        };
        for (text, expected) in [
            ("", None),
            ("A=1\nOPENAI_SPIFFE_ID=x\n", Some(2)),
            ("export OPENAI_SPIFFE_ID=x", Some(1)),
            (" OPENAI_IDENTITY_TOKEN_SOURCE = x", Some(1)),
            ("OPENAI_SPIFFE_ID=", Some(1)),
            ("#OPENAI_SPIFFE_ID=x", None),
            ("OPENAI_SPIFFE_ID", None),
            ("CODEX_API_KEY=x\nCODEX_ACCESS_TOKEN=x", None),
            ("OPENAI_API_KEY=x", None),
        ] {
            assert_eq!(line(text), expected, "{text}");
        }
        assert!(read(&folder.path().join("none")).expect("none").is_none());
        assert!(read(folder.path()).expect("a folder").is_none());
    }
}
