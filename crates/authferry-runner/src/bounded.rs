//! Reads small files that authferry wrote, and rejects anything else at their path.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;

/// Reads a file of at most `max` bytes. `InvalidData` for a longer one, and for anything but a
/// regular file: a symbolic link is not followed, and a pipe does not block.
pub(crate) fn read(path: &Path, max: usize) -> io::Result<Vec<u8>> {
    let mut options = File::options();
    let file = options.read(true).custom_flags(FLAGS).open(path);
    let file = file.map_err(|error| match rustix::io::Errno::from_io_error(&error) {
        Some(rustix::io::Errno::LOOP) => ErrorKind::InvalidData.into(),
        Some(_) | None => error,
    })?;
    let found = file.metadata()?;
    let len = usize::try_from(found.len()).unwrap_or(usize::MAX);
    if !found.is_file() || len > max {
        return Err(ErrorKind::InvalidData.into());
    }
    // Allocate the final size at once: a growing buffer leaves copies of a login in memory.
    let mut bytes = Vec::with_capacity(len + 1);
    file.take(max as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > max {
        return Err(ErrorKind::InvalidData.into());
    }
    Ok(bytes)
}

#[expect(clippy::cast_possible_wrap, reason = "small flags")]
const FLAGS: i32 = OFlags::NOFOLLOW
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .bits() as i32;

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use super::*;

    #[test]
    fn a_file_over_the_size_limit_is_rejected() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "made up").expect("room");
        assert_eq!(read(&file, 7).expect("short enough"), b"made up");
        let kind = |path: &Path, max| read(path, max).expect_err("refused").kind();
        assert_eq!(kind(&file, 6), ErrorKind::InvalidData);
        // A sparse file has no bytes on the disk.
        File::create(&file)
            .expect("a file")
            .set_len(1 << 40)
            .expect("sparse");
        assert_eq!(kind(&file, 1 << 20), ErrorKind::InvalidData);
    }

    #[test]
    fn only_a_regular_file_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let place = folder.path().join("place");
        let kind = || read(&place, 7).expect_err("refused").kind();
        assert_eq!(kind(), ErrorKind::NotFound);
        symlink(&place, &place).expect("a link");
        assert_eq!(kind(), ErrorKind::InvalidData);
        fs::remove_file(&place).expect("a link");
        let made = Command::new("mkfifo").arg(&place).status();
        assert!(made.expect("mkfifo").success());
        assert_eq!(kind(), ErrorKind::InvalidData);
        fs::remove_file(&place).expect("a pipe");
        fs::create_dir(&place).expect("a folder");
        assert_eq!(kind(), ErrorKind::InvalidData);
    }
}
