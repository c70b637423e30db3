//! A login that Codex wrote and did not bring to its place.

use std::{fs, path::PathBuf, time::SystemTime};

use authferry_core::{Generation, Secret};

use crate::{Home, MAX_LEN, parse};

/// How the names of Codex's temporary files begin. From 0.167.2 on it writes `.auth-XXXXXX`,
/// syncs it and renames it over the auth file.
const TEMP: &str = ".auth-";

/// A whole login in a temporary file of Codex's.
#[derive(Debug)]
pub struct Unrenamed {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub secret: Secret,
    /// Its generation.
    pub generation: Generation,
    modified: SystemTime,
}

impl Home {
    /// Returns the login that a killed Codex did not rename any more: the newest whole one that
    /// was written after the auth file. The refresh token in the auth file is spent then.
    #[must_use]
    pub fn unrenamed(&self) -> Option<Unrenamed> {
        let placed = self.auth_file().symlink_metadata();
        let placed = placed.and_then(|it| it.modified()).ok();
        let entries = fs::read_dir(self.dir()).ok()?.flatten();
        let found = entries.filter_map(|entry| {
            let name = entry.file_name();
            if !name.as_encoded_bytes().starts_with(TEMP.as_bytes()) {
                return None;
            }
            let metadata = entry.metadata().ok()?;
            if !metadata.is_file() || metadata.len() > MAX_LEN as u64 {
                return None;
            }
            let modified = metadata.modified().ok()?;
            let secret = Secret::new(fs::read(entry.path()).ok()?);
            Some(Unrenamed {
                path: entry.path(),
                generation: parse(&secret).ok()?,
                secret,
                modified,
            })
        });
        found
            .filter(|it| placed.is_none_or(|placed| it.modified >= placed))
            .max_by_key(|it| it.modified)
    }

    /// Does what a killed Codex would have done next: renames its temporary file over the auth
    /// file. Must not be called while a Codex may be running there.
    pub fn rename_for_codex(&self) {
        if let Some(next) = self.unrenamed() {
            // One that cannot be renamed is still found where it is.
            fs::rename(next.path, self.auth_file()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use super::*;
    use crate::made_up::{auth_file, home, is};

    #[test]
    fn a_login_that_was_not_renamed_is_found_unless_it_is_torn_or_older() {
        let (_above, home) = home();
        let temp = home.dir().join(".auth-made-up");
        let placed = fs::metadata(home.auth_file()).and_then(|it| it.modified());
        let placed = placed.expect("a file");
        let second = Duration::from_secs(1);
        let next = auth_file(2);
        let torn = &next[..next.len() / 2];
        assert!(home.unrenamed().is_none());
        for (written, at, is_found) in [
            (&next[..], placed + second, true),
            (torn, placed + second, false),
            (&next, placed - second, false),
        ] {
            fs::write(&temp, written).expect("room");
            let opened = File::options().write(true).open(&temp).expect("a file");
            opened.set_modified(at).expect("our file");
            assert_eq!(home.unrenamed().is_some(), is_found, "{at:?} {written}");
        }
        fs::write(&temp, next).expect("room");
        home.rename_for_codex();
        assert!(!temp.exists());
        assert!(is(&home.look().expect("a look"), 2));
    }
}
