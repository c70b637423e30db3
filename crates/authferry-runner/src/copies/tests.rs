use std::{
    fs::{self, DirBuilder, File, FileTimes, Permissions},
    io::Read,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use authferry_codex::Home;
use authferry_core::{Family, Generation, Version};
use tempfile::TempDir;

use super::*;
use crate::rotations::create_private_folder;
use crate::users::Owner;

#[test]
fn only_rotation_folders_are_read_and_swept() {
    let rotations_folder = RotationsFolder::new();
    let dead = rotations_folder.folder("authferry-rotation-dead", 0o700);
    let others = [
        rotations_folder.folder("work", 0o700),
        rotations_folder.folder("authferry-of-another-kind", 0o700),
        rotations_folder.folder("authferry-rotation-open", 0o777),
    ];
    assert!(rotations_folder.look().copies.is_empty());
    assert!(dead.exists(), "a read-only search removes nothing");
    assert!(rotations_folder.find().copies.is_empty());
    assert!(!dead.exists(), "a dead rotation stays forever");
    for other in others {
        assert!(
            other.join("file").exists(),
            "{} was removed",
            other.display()
        );
    }
}

/// A backup may not restore the mode of a folder.
#[test]
fn an_unfinished_rotation_is_found_in_a_folder_readable_by_others() {
    let rotations_folder = RotationsFolder::new();
    let folder = rotations_folder.unfinished(STORE, &login("next"));
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("our folder");
    let found = rotations_folder.find();
    assert_eq!(found.copies.len(), 1);
    found.copies[0].sweep();
    assert!(!folder.exists());
}

/// After a clock was set back or a folder was copied, the newer login may be the older file.
#[test]
fn an_unrenamed_login_is_found_despite_its_file_time_and_swept_only_when_safe() {
    let rotations_folder = RotationsFolder::new();
    let folder = rotations_folder.unfinished(STORE, &login("head"));
    let unrenamed = folder.join("home/.auth-made-up");
    fs::write(&unrenamed, login("next")).expect("room");
    make_old(&unrenamed);
    let found = rotations_folder.find();
    let next = generation("next").fingerprint;
    assert_eq!(found.copies.len(), 1);
    assert_eq!(found.copies[0].fingerprint(), Some(next));
    // Another login that exists only here.
    fs::write(folder.join("home/.auth-another"), login("other")).expect("room");
    make_old(&folder.join("home/.auth-another"));
    make_old(&unrenamed);
    found.copies[0].sweep();
    let other = folder.join("home/.auth-another");
    assert!(other.exists(), "the only copy of the other login is gone");
    assert!(!unrenamed.exists(), "it would be found as the copy forever");
    fs::remove_file(other).expect("a file");
    drop(found);
    rotations_folder.find().copies[0].sweep();
    assert!(!folder.exists());
}

#[test]
fn two_jobs_find_an_unfinished_rotation_and_the_last_one_sweeps_it() {
    let rotations_folder = RotationsFolder::new();
    let folder = rotations_folder.unfinished(STORE, &login("next"));
    let (first, second) = (rotations_folder.find(), rotations_folder.find());
    assert_eq!((first.copies.len(), second.copies.len()), (1, 1));
    first.copies[0].sweep();
    assert!(folder.exists(), "another job still uses it");
    drop(first);
    second.copies[0].sweep();
    assert!(!folder.exists());
}

#[test]
fn a_read_only_search_keeps_no_lock_and_sweeps_nothing() {
    let rotations_folder = RotationsFolder::new();
    let folder = rotations_folder.unfinished(STORE, &login("next"));
    let found = rotations_folder.look();
    assert_eq!(found.copies.len(), 1);
    found.copies[0].sweep();
    assert!(folder.exists());
    rotations_folder.find().copies[0].sweep();
    assert!(!folder.exists(), "a read-only search kept a lock");
}

#[test]
fn a_rotation_waits_for_a_reader_of_its_folder() {
    let rotations_folder = RotationsFolder::new();
    let rotation = create_private_folder(rotations_folder.path()).expect("room");
    let lock = rotation.lock().expect("a lock");
    lock.unlock().expect("ours");
    let looking = File::open(rotation.path()).expect("a folder");
    looking.lock_shared().expect("free");
    let waits = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(looking);
    });
    let is_locked = rotations::lock_exclusively(&lock, Duration::from_secs(30));
    waits.join().expect("the reader exits");
    assert!(is_locked.expect("no error"));
}

/// authferry was killed, and its Codex is still running between spend and write.
#[test]
fn a_folder_of_a_running_codex_is_reported_and_not_removed() {
    let rotations_folder = RotationsFolder::new();
    let folder = rotations_folder.unfinished(STORE, &login("head"));
    let seen = rotations_folder.find();
    let mut codex = Command::new("sh");
    codex.args(["-c", "read -r line"]).stdin(Stdio::piped());
    let codex = codex.current_dir(folder.join("home")).spawn();
    let mut codex = codex.expect("a shell");
    wait_for(|| crate::processes::work_in(&folder));
    seen.copies[0].sweep();
    assert!(folder.exists(), "removed under a Codex");
    let found = rotations_folder.find();
    assert!(found.copies.is_empty());
    assert_eq!(found.running_rotation.as_deref(), Some(&*folder));
    codex.kill().expect("our child");
    codex.wait().expect("our child");
    assert_eq!(rotations_folder.find().copies.len(), 1);
}

/// The lock shows a running Codex where its process is not visible.
#[test]
fn a_codex_inherits_the_lock_of_its_folder() {
    let rotations_folder = RotationsFolder::new();
    let rotation = create_private_folder(rotations_folder.path()).expect("room");
    let folder = rotation.path().to_owned();
    RotationsFolder::fill(&folder, STORE, &login("head"));
    let lock = rotation.lock();
    let start = || {
        let mut codex = Command::new("sh");
        codex.args(["-c", "echo started; read -r line"]);
        codex.stdin(Stdio::piped()).stdout(Stdio::piped());
        codex.current_dir("/").spawn().expect("a shell")
    };
    let mut codex = crate::refresher::spawn_with_lock(lock.as_ref(), start);
    // The system lets the parent continue shortly before it closes the files of the new program.
    let mut started = [0; 8];
    let output = codex.stdout.as_mut().expect("a pipe");
    output.read_exact(&mut started).expect("the shell's line");
    drop(lock);
    rotation.keep();
    assert_eq!(
        rotations_folder.find().running_rotation.as_deref(),
        Some(&*folder)
    );
    codex.kill().expect("our child");
    codex.wait().expect("our child");
    // A child that another test starts at the same moment inherits the lock too.
    wait_for(|| rotations_folder.find().copies.len() == 1);
}

#[test]
fn a_login_that_codex_did_not_rename_is_the_copy() {
    let rotations_folder = RotationsFolder::new();
    let folder = rotations_folder.unfinished(STORE, &login("head"));
    let next = folder.join("home/.auth-made-up");
    fs::write(&next, login("next")).expect("room");
    let found = rotations_folder.find();
    let [copy] = &found.copies[..] else {
        panic!("{:?}", found.copies);
    };
    assert_eq!(copy.fingerprint(), Some(generation("next").fingerprint));
    assert_eq!(copy.location.file(), Some(&*next));
    // A file written since holds another login, which is not safe elsewhere.
    fs::write(folder.join("home/.auth-made-up-too"), login("newest")).expect("room");
    copy.sweep();
    assert!(folder.exists());
    drop(found);
    // Each search finds one of them, the newest first.
    fs::write(&next, login("next")).expect("room");
    make_old(&next);
    for login in ["newest", "next"] {
        let found = rotations_folder.find();
        let fingerprint = generation(login).fingerprint;
        assert_eq!(found.copies[0].fingerprint(), Some(fingerprint), "{login}");
        found.copies[0].sweep();
    }
    assert!(!folder.exists());
}

#[test]
fn a_rotation_with_an_unreadable_receipt_is_listed_and_stays() {
    let rotations_folder = RotationsFolder::new();
    let folder = rotations_folder.unfinished(STORE, &login("next"));
    fs::write(folder.join("home/authferry-receipt.json"), "").expect("room");
    let found = rotations_folder.find();
    let [copy] = &found.copies[..] else {
        panic!("{:?}", found.copies);
    };
    assert_eq!(copy.copy.origins, None);
    copy.sweep();
    assert!(folder.exists());
}

#[test]
fn a_torn_file_is_swept_only_with_unchanged_bytes() {
    let rotations_folder = RotationsFolder::new();
    let torn = &login("next")[..50];
    let folder = rotations_folder.unfinished(STORE, torn);
    let found = rotations_folder.find();
    let auth_file = folder.join("home/auth.json");
    fs::write(&auth_file, "something else").expect("room");
    found.copies[0].sweep();
    assert!(folder.exists(), "its bytes changed");
    fs::write(&auth_file, torn).expect("room");
    found.copies[0].sweep();
    assert!(!folder.exists());
}

#[test]
fn a_rotation_for_another_address_is_found_and_stays() {
    let rotations_folder = RotationsFolder::new();
    let folder = rotations_folder.unfinished("memory:another", &login("next"));
    let found = rotations_folder.find();
    let [copy] = &found.copies[..] else {
        panic!("{:?}", found.copies);
    };
    assert_eq!(copy.elsewhere.as_deref(), Some("memory:another"));
    assert!(copy.copy.origins.as_ref().is_some_and(|it| it.elsewhere));
    copy.sweep();
    assert!(folder.exists());
}

const STORE: &str = "memory:a";

struct RotationsFolder(TempDir);

impl RotationsFolder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn find(&self) -> FoundCopies {
        self.search(Access::Job)
    }

    fn look(&self) -> FoundCopies {
        self.search(Access::ReadOnly)
    }

    fn search(&self, access: Access) -> FoundCopies {
        let none = Rescue::new(self.path().join("none"));
        search(STORE, &none, Some(self.path()), access).expect("no rescue folder")
    }

    /// Makes a folder with a file in it, an hour old.
    fn folder(&self, name: &str, mode: u32) -> PathBuf {
        let folder = self.path().join(name);
        make(&folder, mode);
        fs::write(folder.join("file"), "").expect("room");
        make_old(&folder);
        folder
    }

    /// Makes the folder of a killed rotation.
    fn unfinished(&self, store: &str, text: &str) -> PathBuf {
        let folder = self.path().join("authferry-rotation-killed");
        make(&folder, 0o700);
        Self::fill(&folder, store, text);
        make_old(&folder);
        folder
    }

    fn fill(folder: &Path, store: &str, text: &str) {
        let home = Home::new(&folder.join("home")).expect("a home");
        make(home.dir(), 0o700);
        fs::write(home.auth_file(), text).expect("room");
        let head = generation("head");
        let base = Base {
            version: Version::new("1"),
            count: 1,
            family: Family(head.fingerprint),
            ancestors: vec![],
            volatile_hints: false,
            unrelated: vec![],
            generation: head,
        };
        let head_fingerprint = base.generation.fingerprint;
        let receipt = Receipt::new(
            store.to_owned(),
            base,
            head_fingerprint,
            true,
            false,
            Owner::default(),
        );
        receipt.write(&home).expect("room");
    }
}

fn make(folder: &Path, mode: u32) {
    DirBuilder::new().create(folder).expect("room");
    // Independent of the umask.
    fs::set_permissions(folder, Permissions::from_mode(mode)).expect("our folder");
}

fn make_old(folder: &Path) {
    let hour = Duration::from_hours(1);
    let times = FileTimes::new().set_modified(SystemTime::now() - hour);
    let opened = File::open(folder).expect("a folder");
    opened.set_times(times).expect("our folder");
}

fn login(name: &str) -> String {
    format!(
        r#"{{"tokens":{{"id_token":"e30.e30.x","access_token":"e30.e30.x","refresh_token":"made-up-{name}","account_id":"account"}},"last_refresh":"2001-01-01T00:00:00Z"}}"#
    )
}

fn generation(name: &str) -> Generation {
    authferry_codex::parse(&Secret::new(login(name).into_bytes())).expect("a login")
}

fn wait_for(condition: impl Fn() -> bool) {
    while !condition() {
        std::thread::sleep(Duration::from_millis(2));
    }
}
