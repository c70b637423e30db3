//! No room: a limit on the size of files, which every user can set, and a disk that is
//! full to the brim, where one may be mounted.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
    process::Command,
};

use authferry_core::{CasError, ClaimError, ErrorKind, Version};

use crate::rig::{self, Login};

/// Longer than the limit that [`small`] lives with.
const LONG: usize = 64 * 1024;

/// Tries to write more than it may.
pub(crate) fn small(login: &Login) {
    full(&login.swap(None, 1, 1, LONG));
    assert_eq!(login.look().expect("a place"), None);

    let version = login.swap(None, 1, 2, 100).expect("that much fits");
    full(&login.swap(Some(&version), 1, 3, LONG));
    assert_eq!(login.look().expect("a place"), Some((2, version.clone())));
    login
        .swap(Some(&version), 1, 4, 100)
        .expect("that much fits");
    rig::say("done");
}

pub(crate) fn a_limit_on_the_size_of_files_is_told_as_full() {
    let folder = rig::folder();
    // Four blocks of 512 or 1024 bytes. Who ignores the signal is told by an error.
    let limit = ["sh", "-c", "trap '' XFSZ; ulimit -f 4; exec \"$0\" \"$@\""];
    let output = rig::command(&limit, "small", &folder.path().join("login.json"))
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("\ndone\n"),
        "{output:?}"
    );
    assert!(rig::leftovers(folder.path()).is_empty());
}

/// Swaps on a disk with less and less room.
pub(crate) fn brim(login: &Login, path: &Path) {
    const PAGE: usize = 4096;
    let folder = path.parent().expect("a file in a folder");
    let room = folder.with_file_name("room");
    let (mut refused, mut done) = (0, 0);
    let (mut unclaimed, mut claimed) = (0, 0);
    for pages in (0..12).rev() {
        // Fill the disk to the last byte, and give this much back.
        fs::remove_file(&room).ok();
        let before = login.look().expect("a place");
        let mut filling = OpenOptions::new()
            .create_new(true)
            .write(true)
            .open(&room)
            .expect("room for a name");
        let mut filled = 0;
        while filling.write_all(&[0]).is_ok() {
            filled += 1;
        }
        filling
            .set_len(u64::saturating_sub(filled, (pages * PAGE) as u64))
            .expect("a shorter file");

        let (base, number) = match &before {
            Some((number, version)) => (Some(version), number + 1),
            None => (None, 1),
        };
        let answer = login.swap(base, 1, number, 2 * PAGE);
        match answer {
            Ok(version) => {
                done += 1;
                let there = login.look().expect("a place");
                assert_eq!(there, Some((number, version)));
            }
            refusal => {
                refused += 1;
                full(&refusal);
                assert_eq!(login.look().expect("a place"), before);
            }
        }
        let there = login.look().expect("a place");
        match login.acquire(1, 1) {
            Ok(claim) => {
                claimed += 1;
                // Giving it back may find no room: it ends by itself, and is ours until then.
                login.release(&claim).ok();
            }
            Err(ClaimError::Store(error)) => {
                unclaimed += 1;
                assert_eq!(error.kind, ErrorKind::Full, "{error}");
            }
            Err(error @ (ClaimError::Held { .. } | ClaimError::Lost)) => panic!("{error}"),
        }
        assert_eq!(login.look().expect("a place"), there);
        assert!(rig::leftovers(folder).is_empty(), "with {pages} pages");
    }
    assert!(refused > 1 && done > 2, "{refused} {done}");
    assert!(unclaimed > 0 && claimed > 2, "{unclaimed} {claimed}");
    rig::say("done");
}

#[expect(clippy::print_stderr, reason = "what is not tried is said")]
pub(crate) fn a_full_disk_is_told_as_full() {
    let folder = rig::folder();
    let disk = folder.path().display();
    // In a mount namespace of its own, so that nothing stays mounted.
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
            eprintln!("not tried, since no disk can be mounted here: {why}");
            return;
        }
        Err(error) => {
            eprintln!("not tried, since no disk can be mounted here: {error}");
            return;
        }
    }
    let path = folder.path().join("x").join("login.json");
    let output = rig::command(&launcher, "brim", &path)
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("\ndone\n"),
        "{output:?}"
    );
}

fn full(answer: &Result<Version, CasError>) {
    assert!(
        matches!(answer, Err(CasError::Refused(error)) if error.kind == ErrorKind::Full),
        "{answer:?}"
    );
}
