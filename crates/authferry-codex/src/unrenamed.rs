//! A login that Codex wrote to a temporary file and did not rename over the auth file.

use std::{fs, path::PathBuf, time::SystemTime};

use authferry_core::{Fingerprint, Generation, Secret};

use crate::{Home, Look, MAX_LEN};

/// The prefix of Codex's temporary files. Since 0.167.2 Codex writes `.auth-XXXXXX`,
/// syncs it and renames it over the auth file.
const TEMP: &str = ".auth-";

/// A whole login in a temporary file of Codex.
#[derive(Debug)]
pub struct Unrenamed {
    /// The temporary file.
    pub path: PathBuf,
    /// Its bytes.
    pub secret: Secret,
    /// Its generation.
    pub generation: Generation,
    modified: SystemTime,
}

impl Home {
    /// Returns the login that a killed Codex did not rename; the refresh token in the auth file
    /// is then spent. `base` is the placed login, from which every other login descends.
    ///
    /// A whole login counts if the auth file still holds the base or is missing, or if the
    /// temporary file was written after the auth file. The newest one wins.
    #[must_use]
    pub fn unrenamed(&self, base: Option<Fingerprint>) -> Option<Unrenamed> {
        let all = self.all_unrenamed();
        if all.is_empty() {
            return None;
        }
        let placed = self.auth_file().symlink_metadata();
        let placed = placed.and_then(|it| it.modified()).ok();
        let in_place = match self.look() {
            Ok(Look::Usable { generation, .. }) => Some(generation.fingerprint),
            Ok(Look::Missing | Look::Unusable { .. }) | Err(_) => None,
        };
        let is_base = in_place.is_some() && in_place == base;
        let counts = |it: &Unrenamed| {
            let login = Some(it.generation.fingerprint);
            // With the base in place, ignore the times: the next login may look older after a clock
            // was set back or the folder was copied.
            let is_next = is_base || placed.is_none_or(|placed| it.modified >= placed);
            login != in_place && login != base && is_next
        };
        let next = all.into_iter().filter(counts);
        next.max_by_key(|it| it.modified)
    }

    /// Returns every whole login in Codex's temporary files, including older ones.
    #[must_use]
    pub fn all_unrenamed(&self) -> Vec<Unrenamed> {
        let entries = fs::read_dir(self.dir()).into_iter().flatten().flatten();
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
            // Codex may have written a new refresh token into an ended copy.
            let Look::Usable { secret, generation } = Look::of(secret).restored() else {
                return None;
            };
            Some(Unrenamed {
                path: entry.path(),
                generation,
                secret,
                modified,
            })
        });
        found.collect()
    }

    /// Finishes the write of a killed Codex: renames its temporary file over the auth file. `base`
    /// is the placed login. Must not be called while a Codex may run in this home.
    pub fn rename_for_codex(&self, base: Option<Fingerprint>) {
        if let Some(next) = self.unrenamed(base) {
            // If the rename fails, `unrenamed` still finds the login.
            fs::rename(next.path, self.auth_file()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use super::*;
    use crate::made_up::{auth_file, home, is};
    use crate::parse;

    #[test]
    fn an_unrenamed_login_is_found_unless_torn_or_older() {
        let (_above, home) = home();
        let temp = home.dir().join(".auth-made-up");
        let placed = fs::metadata(home.auth_file()).and_then(|it| it.modified());
        let placed = placed.expect("a file");
        let second = Duration::from_secs(1);
        let next = auth_file(2);
        let torn = &next[..next.len() / 2];
        let base = parse(&Secret::new(fs::read(home.auth_file()).expect("a file")));
        let base = base.expect("a login").fingerprint;
        assert!(home.unrenamed(Some(base)).is_none());
        for (written, at, base, is_found) in [
            (&next[..], placed + second, Some(base), true),
            (torn, placed + second, Some(base), false),
            // If the auth file does not hold the base, only the file times order the logins.
            (&next, placed + second, None, true),
            (&next, placed - second, None, false),
            (&next, placed - second, Some(base), true),
        ] {
            fs::write(&temp, written).expect("room");
            let opened = File::options().write(true).open(&temp).expect("a file");
            opened.set_modified(at).expect("our file");
            let found = home.unrenamed(base).is_some();
            assert_eq!(found, is_found, "{at:?} {written}");
        }
        fs::write(&temp, next).expect("room");
        home.rename_for_codex(Some(base));
        assert!(!temp.exists());
        assert!(is(&home.look().expect("a look"), 2));
    }
}
