//! Where a generation goes that the store will not hold.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use authferry_core::Secret;

/// Writes the bytes to a file of mode 0600 in `directory` (made 0700 if missing), safe
/// against a crash once it returns; gives its path.
///
/// A file that is there already under that name is the same rescue.
pub(crate) fn keep(directory: &Path, secret: &Secret) -> io::Result<PathBuf> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let mut file = tempfile::Builder::new()
        .prefix(".rescue-")
        .permissions(fs::Permissions::from_mode(0o600))
        .tempfile_in(directory)?;
    file.as_file_mut().write_all(secret.expose())?;
    file.as_file().sync_all()?;
    let path = directory.join(name(secret));
    file.persist(&path)?;
    fs::File::open(directory)?.sync_all()?;
    Ok(path)
}

/// Returns the name under which bytes are kept. The same bytes have the same name.
pub(crate) fn name(secret: &Secret) -> String {
    match authferry_codex::parse(secret) {
        Ok(generation) => format!("{}.json", generation.fingerprint),
        Err(_) => format!(
            "unusable-{}.json",
            authferry_codex::fingerprint_of_bytes(secret)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rescue_is_ours_alone_to_read() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let place = dir.path().join("state/rescue");
        for _ in 0..2 {
            let path = keep(&place, &Secret::new(b"made up".to_vec())).expect("kept");
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
