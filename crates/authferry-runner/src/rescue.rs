//! Where a generation goes that the store will not hold.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use authferry_core::{Fingerprint, Secret};

/// Writes the bytes to `name` in `directory` (made 0700 if missing) as a file of mode 0600,
/// safe against a crash once it returns; gives the path.
///
/// The name tells the bytes apart, so a file that is there already is the same rescue.
pub(crate) fn keep(directory: &Path, name: &str, secret: &Secret) -> io::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let mut file = tempfile::Builder::new()
        .prefix(".rescue-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.write_all(secret.expose())?;
    file.as_file().sync_all()?;
    let path = directory.join(name);
    file.persist(&path)?;
    fs::File::open(directory)?.sync_all()?;
    Ok(path)
}

/// Returns the name under which bytes are kept: by their fingerprint, or by the time if
/// they have none.
pub(crate) fn name(fingerprint: Option<Fingerprint>) -> String {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis()
    };
    fingerprint.map_or_else(
        || format!("unusable-{}.json", now()),
        |f| format!("{f}.json"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rescue_is_ours_alone_to_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().join("state/rescue");
        for _ in 0..2 {
            let path = keep(&place, "1.json", &Secret::new(b"made up".to_vec())).expect("kept");
            let mode =
                |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
            assert_eq!((mode(&place), mode(&path)), (0o700, 0o600));
            assert_eq!(fs::read(&path).expect("readable"), b"made up");
        }
        assert_eq!(
            fs::read_dir(&place).expect("there").count(),
            1,
            "no temporary file stays"
        );
    }
}
