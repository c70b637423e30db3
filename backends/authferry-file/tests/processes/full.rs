//! A file size limit, which every user can set, and a full disk, if the test may mount one.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::Command,
};

use authferry_core::{CasError, ErrorKind, LeaseError, Version};

use crate::rig::{self, Login};

/// Longer than the file size limit of [`write_over_limit`].
const LONG: usize = 64 * 1024;

/// Writes more than the file size limit.
pub(crate) fn write_over_limit(login: &Login) {
    expect_full(&login.swap(None, 1, 1, LONG));
    assert_eq!(login.look().expect("a place"), None);

    let version = login.swap(None, 1, 2, 100).expect("that much fits");
    expect_full(&login.swap(Some(&version), 1, 3, LONG));
    assert_eq!(login.look().expect("a place"), Some((2, version.clone())));
    login
        .swap(Some(&version), 1, 4, 100)
        .expect("that much fits");
    rig::print_line("done");
}

pub(crate) fn a_file_size_limit_is_reported_as_full() {
    let folder = rig::folder();
    // Four blocks of 512 or 1024 bytes. If the signal is ignored, the write fails with an error.
    let limit = ["sh", "-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""];
    let output = rig::command(
        &limit,
        "write_over_limit",
        &folder.path().join("login.json"),
    )
    .output()
    .expect("a process");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("\ndone\n"),
        "{output:?}"
    );
    assert!(rig::leftovers(folder.path()).is_empty());
}

/// Swaps on a disk, first with some free pages and then with fewer and fewer.
pub(crate) fn fill_disk(login: &Login, path: &Path) {
    const PAGE: usize = 4096;
    let folder = path.parent().expect("a file in a folder");
    let filler = folder.with_file_name("filler");
    let (mut refused, mut done) = (0, 0);
    let (mut not_acquired, mut acquired) = (0, 0);
    for pages in (0..12).rev() {
        // Fill the disk to the last byte, and then free this many pages.
        fs::remove_file(&filler).ok();
        let before = login.look().expect("a place");
        let mut filling = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&filler)
            .expect("room for a name");
        let mut bytes_written = 0;
        while filling.write_all(&[0]).is_ok() {
            bytes_written += 1;
        }
        filling
            .set_len(u64::saturating_sub(bytes_written, (pages * PAGE) as u64))
            .expect("a shorter file");

        let (base, number) = match &before {
            Some((number, version)) => (Some(version), number + 1),
            None => (None, 1),
        };
        let answer = login.swap(base, 1, number, 2 * PAGE);
        match answer {
            Ok(version) => {
                done += 1;
                let stored = login.look().expect("a place");
                assert_eq!(stored, Some((number, version)));
            }
            refusal => {
                refused += 1;
                expect_full(&refusal);
                assert_eq!(login.look().expect("a place"), before);
            }
        }
        let stored = login.look().expect("a place");
        match login.acquire(1, 1) {
            Ok(lease) => {
                acquired += 1;
                // The release may find no space: the lease then expires.
                login.release(&lease).ok();
            }
            Err(LeaseError::Store(error)) => {
                not_acquired += 1;
                assert_eq!(error.kind, ErrorKind::Full, "{error}");
            }
            Err(error @ (LeaseError::Held { .. } | LeaseError::Lost)) => panic!("{error}"),
        }
        assert_eq!(login.look().expect("a place"), stored);
        assert!(rig::leftovers(folder).is_empty(), "with {pages} pages");
    }
    assert!(refused > 1 && done > 2, "{refused} {done}");
    assert!(
        not_acquired > 0 && acquired > 2,
        "{not_acquired} {acquired}"
    );
    rig::print_line("done");
}

#[expect(clippy::print_stderr, reason = "a skipped test is reported")]
pub(crate) fn a_full_disk_is_reported_as_full() {
    let folder = rig::folder();
    let disk = folder.path().display();
    // In a new mount namespace, so that nothing stays mounted.
    let mount =
        format!("mount -t tmpfs -o size=128k,mode=700 tmpfs '{disk}' && mkdir -m 700 '{disk}/x'");
    let then = format!("{mount} && exec \"$0\" \"$@\"");
    let launcher = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        &then,
    ];
    let may = Command::new(launcher[0])
        .args(&launcher[1..6])
        .arg(&mount)
        .output();
    match may {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            eprintln!("skipped: cannot mount a disk: {why}");
            return;
        }
        Err(error) => {
            eprintln!("skipped: cannot mount a disk: {error}");
            return;
        }
    }
    let path = folder.path().join("x").join("login.json");
    let output = rig::command(&launcher, "fill_disk", &path)
        .output()
        .expect("a process");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && stdout.contains("\ndone\n"),
        "{output:?}"
    );
}

fn expect_full(answer: &Result<Version, CasError>) {
    assert!(
        matches!(answer, Err(CasError::Refused(error)) if error.kind == ErrorKind::Full),
        "{answer:?}"
    );
}
