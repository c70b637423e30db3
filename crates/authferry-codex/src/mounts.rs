//! Whether a file is a mount point.

use std::{
    fs::{self, Metadata},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

/// Returns whether `file`, an absolute path without symbolic links, is a mount point.
///
/// On Linux the kernel's mount list decides. Only this list shows a bind mount from the same
/// file system. On an overlay, the root of most containers, a plain file may have another
/// device number than its folder. Without the list the device numbers decide.
pub(crate) fn is_mount_point(file: &Path, metadata: &Metadata, folder: &Metadata) -> bool {
    match fs::read("/proc/self/mountinfo") {
        Ok(list) => lists(&list, file),
        Err(_) => metadata.dev() != folder.dev(),
    }
}

/// Returns whether a mountinfo list names the file as a mount point, in the fifth field.
fn lists(mountinfo: &[u8], file: &Path) -> bool {
    mountinfo
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4))
        .any(|point| unescape(point) == file.as_os_str().as_bytes())
}

/// Undoes the kernel's octal escapes for white space and backslashes.
fn unescape(mut field: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(field.len());
    loop {
        field = match field {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                rest @ ..,
            ] => {
                path.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest
            }
            [byte, rest @ ..] => {
                path.push(*byte);
                rest
            }
            [] => return path,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
35 22 0:31 / /home/ci/.codex rw,nosuid - tmpfs tmpfs rw
36 35 254:0 /secret/auth.json /home/ci/.codex/auth.json rw master:1 - ext4 /dev/root rw
37 22 254:0 /x /a\\040b\\134c/auth.json rw - ext4 /dev/root rw
";

    #[test]
    fn only_mount_points_are_found_in_the_list() {
        for (file, expected) in [
            ("/home/ci/.codex/auth.json", true),
            ("/a b\\c/auth.json", true),
            ("/home/ci/.codex/auth.jso", false),
            ("/home/ci/.codex/auth.json.lock", false),
            ("/secret/auth.json", false),
            ("/a\\040b\\134c/auth.json", false),
            ("auth.json", false),
        ] {
            assert_eq!(lists(LIST, Path::new(file)), expected, "{file}");
        }
        assert!(!lists(b"", Path::new("/auth.json")));
    }
}
