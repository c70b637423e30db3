//! Which processes use a folder.

use std::{
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Whether another process works in a folder: its current folder is there, it has a file there
/// open for writing, or its `CODEX_HOME` is there. Where the system does not tell (no `/proc`,
/// another namespace), nobody does.
///
/// A descriptor of the folder itself is no sign: each authferry that looks at it has one.
pub(crate) fn work_in(folder: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else {
        return false;
    };
    let us = std::process::id().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.bytes().all(|byte| byte.is_ascii_digit()) && name != us
        })
        .any(|entry| works_in(&entry.path(), &folder))
}

fn works_in(process: &Path, folder: &Path) -> bool {
    let is_there = |path: PathBuf| path.starts_with(folder);
    fs::read_link(process.join("cwd")).is_ok_and(is_there)
        || codex_home(process).is_some_and(is_there)
        || writes(process, folder)
}

fn codex_home(process: &Path) -> Option<PathBuf> {
    let environment = fs::read(process.join("environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let home = variables.find_map(|variable| variable.strip_prefix(b"CODEX_HOME="))?;
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(home)))
}

/// Whether a process has a file in the folder open for writing.
fn writes(process: &Path, folder: &Path) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten();
    descriptors.flatten().any(|descriptor| {
        let is_below = fs::read_link(descriptor.path())
            .is_ok_and(|path| path != folder && path.starts_with(folder));
        is_below && is_writable(&process.join("fdinfo").join(descriptor.file_name()))
    })
}

/// Whether a descriptor was opened for writing, by the octal number behind `flags:`.
fn is_writable(info: &Path) -> bool {
    let text = fs::read_to_string(info).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 3 != 0)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// A process that waits, ended when dropped.
    struct Waits(Child);

    impl Waits {
        fn start(command: &mut Command) -> Self {
            Self(command.stdin(Stdio::piped()).spawn().expect("a shell"))
        }
    }

    impl Drop for Waits {
        fn drop(&mut self) {
            self.0.kill().expect("our child");
            self.0.wait().expect("our child");
        }
    }

    #[test]
    fn a_process_works_where_it_is_writes_or_has_its_home() {
        let above = tempfile::tempdir().expect("a folder");
        let folder = above.path().join("one");
        let home = folder.join("home");
        fs::create_dir_all(&home).expect("room");
        fs::create_dir(above.path().join("one-more")).expect("room");
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command
                .args(["-c", script])
                .current_dir("/")
                .env("FOLDER", &folder);
            command
        };
        let waits = "echo ready >$FOLDER-ready; read -r line";
        let is_at_work = |mut command: Command, until_ready: bool| {
            let waits = Waits::start(&mut command);
            while until_ready && !above.path().join("one-ready").exists() {
                std::thread::yield_now();
            }
            let found = work_in(&folder);
            drop(waits);
            fs::remove_file(above.path().join("one-ready")).ok();
            found
        };
        let mut inside = shell(waits);
        inside.current_dir(&home);
        assert!(is_at_work(inside, true), "its current folder");
        let mut codex = shell(waits);
        codex.env("CODEX_HOME", &home);
        assert!(is_at_work(codex, true), "its home");
        let writing = format!("exec 3>$FOLDER/home/file; {waits}");
        assert!(is_at_work(shell(&writing), true), "an open file");
        let looking = format!("exec 3<$FOLDER 4<$FOLDER/home/file; {waits}");
        assert!(!is_at_work(shell(&looking), true), "it only looks");
        let mut beside = shell(waits);
        beside.current_dir(above.path().join("one-more"));
        assert!(!is_at_work(beside, true), "another folder");
        assert!(!work_in(&folder), "nobody");
    }
}
