use std::{
    fs::{self, DirBuilder, File, FileTimes, Permissions},
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use authferry_codex::Home;
use authferry_core::{Family, Generation, Version};
use tempfile::TempDir;

use super::*;
use crate::rotations::private;
use crate::users::Owner;

#[test]
fn only_the_folders_of_rotations_are_looked_at_and_swept() {
    let scene = Scene::new();
    let dead = scene.folder("authferry-rotation-dead", 0o700);
    let others = [
        scene.folder("work", 0o700),
        scene.folder("authferry-of-another-kind", 0o700),
        scene.folder("authferry-rotation-open", 0o777),
    ];
    assert!(scene.look().copies.is_empty());
    assert!(dead.exists(), "a look removes nothing");
    assert!(scene.find().copies.is_empty());
    assert!(!dead.exists(), "a dead rotation stays for ever");
    for other in others {
        assert!(
            other.join("file").exists(),
            "{} was removed",
            other.display()
        );
    }
}

/// A backup may lose the mode of a folder.
#[test]
fn an_unfinished_rotation_is_found_in_a_folder_that_others_can_read() {
    let scene = Scene::new();
    let folder = scene.unfinished(STORE, &login("next"));
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).expect("our folder");
    let found = scene.find();
    assert_eq!(found.copies.len(), 1);
    found.copies[0].sweep();
    assert!(!folder.exists());
}

/// A clock that was set back, or a folder that was copied, makes the last login the older file.
#[test]
fn what_codex_did_not_rename_is_found_whatever_its_time_and_swept_only_when_it_is_safe() {
    let scene = Scene::new();
    let folder = scene.unfinished(STORE, &login("head"));
    let unrenamed = folder.join("home/.auth-made-up");
    fs::write(&unrenamed, login("next")).expect("room");
    make_old(&unrenamed);
    let found = scene.find();
    let next = generation("next").fingerprint;
    assert_eq!(found.copies.len(), 1);
    assert_eq!(found.copies[0].fingerprint(), Some(next));
    // Another one that is safe nowhere.
    fs::write(folder.join("home/.auth-another"), login("other")).expect("room");
    make_old(&folder.join("home/.auth-another"));
    make_old(&unrenamed);
    found.copies[0].sweep();
    let other = folder.join("home/.auth-another");
    assert!(other.exists(), "the other login is gone");
    assert!(!unrenamed.exists(), "it would be the copy for ever");
    fs::remove_file(other).expect("a file");
    drop(found);
    scene.find().copies[0].sweep();
    assert!(!folder.exists());
}

#[test]
fn two_jobs_see_one_unfinished_rotation_and_the_last_one_sweeps_it() {
    let scene = Scene::new();
    let folder = scene.unfinished(STORE, &login("next"));
    let (first, second) = (scene.find(), scene.find());
    assert_eq!((first.copies.len(), second.copies.len()), (1, 1));
    first.copies[0].sweep();
    assert!(folder.exists(), "another job is not done with it");
    drop(first);
    second.copies[0].sweep();
    assert!(!folder.exists());
}

#[test]
fn a_look_keeps_no_lock_and_sweeps_nothing() {
    let scene = Scene::new();
    let folder = scene.unfinished(STORE, &login("next"));
    let looked = scene.look();
    assert_eq!(looked.copies.len(), 1);
    looked.copies[0].sweep();
    assert!(folder.exists());
    scene.find().copies[0].sweep();
    assert!(!folder.exists(), "a look kept a lock");
}

#[test]
fn a_rotation_waits_for_a_process_that_looks_at_its_folder() {
    let scene = Scene::new();
    let rotation = private(scene.path()).expect("room");
    let lock = rotation.lock().expect("a lock");
    lock.unlock().expect("ours");
    let looking = File::open(rotation.path()).expect("a folder");
    looking.lock_shared().expect("free");
    let waits = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        drop(looking);
    });
    let is_locked = rotations::exclusive(&lock, Duration::from_secs(30));
    waits.join().expect("it ends");
    assert!(is_locked.expect("no error"));
}

/// An authferry that was killed, and its Codex goes on: it is between spend and write.
#[test]
fn a_folder_in_which_a_codex_is_still_at_work_is_waited_for_and_not_removed() {
    let scene = Scene::new();
    let folder = scene.unfinished(STORE, &login("head"));
    let seen = scene.find();
    let mut codex = Command::new("sh");
    codex.args(["-c", "read -r line"]).stdin(Stdio::piped());
    let codex = codex.current_dir(folder.join("home")).spawn();
    let mut codex = codex.expect("a shell");
    wait_for(|| crate::processes::work_in(&folder));
    seen.copies[0].sweep();
    assert!(folder.exists(), "removed under a Codex");
    let found = scene.find();
    assert!(found.copies.is_empty());
    assert_eq!(found.at_work.as_deref(), Some(&*folder));
    codex.kill().expect("our child");
    codex.wait().expect("our child");
    assert_eq!(scene.find().copies.len(), 1);
}

/// Where processes cannot be seen, the lock tells.
#[test]
fn a_codex_inherits_the_lock_of_its_folder() {
    let scene = Scene::new();
    let rotation = private(scene.path()).expect("room");
    let folder = rotation.path().to_owned();
    Scene::fill(&folder, STORE, &login("head"));
    let lock = rotation.lock();
    let start = || {
        let mut codex = Command::new("sh");
        codex.args(["-c", "read -r line"]).stdin(Stdio::piped());
        codex.current_dir("/").spawn().expect("a shell")
    };
    let mut codex = crate::refresher::inherited(lock.as_ref(), start);
    drop(lock);
    rotation.keep();
    assert_eq!(scene.find().at_work.as_deref(), Some(&*folder));
    codex.kill().expect("our child");
    codex.wait().expect("our child");
    // A child that another test started at the same moment inherits the lock as well.
    wait_for(|| scene.find().copies.len() == 1);
}

#[test]
fn a_login_that_codex_did_not_rename_any_more_is_the_copy() {
    let scene = Scene::new();
    let folder = scene.unfinished(STORE, &login("head"));
    let next = folder.join("home/.auth-made-up");
    fs::write(&next, login("next")).expect("room");
    let found = scene.find();
    let [copy] = &found.copies[..] else {
        panic!("{:?}", found.copies);
    };
    assert_eq!(copy.fingerprint(), Some(generation("next").fingerprint));
    assert_eq!(copy.location.file(), Some(&*next));
    // One that came since is another login, and nothing that is safe elsewhere.
    fs::write(folder.join("home/.auth-made-up-too"), login("newest")).expect("room");
    copy.sweep();
    assert!(folder.exists());
    drop(found);
    // Each is the copy once, the newest first.
    fs::write(&next, login("next")).expect("room");
    make_old(&next);
    for login in ["newest", "next"] {
        let found = scene.find();
        let fingerprint = generation(login).fingerprint;
        assert_eq!(found.copies[0].fingerprint(), Some(fingerprint), "{login}");
        found.copies[0].sweep();
    }
    assert!(!folder.exists());
}

#[test]
fn a_rotation_without_a_receipt_that_can_be_read_is_listed_and_stays() {
    let scene = Scene::new();
    let folder = scene.unfinished(STORE, &login("next"));
    fs::write(folder.join("home/authferry-receipt.json"), "").expect("room");
    let found = scene.find();
    let [copy] = &found.copies[..] else {
        panic!("{:?}", found.copies);
    };
    assert_eq!(copy.copy.origins, None);
    copy.sweep();
    assert!(folder.exists());
}

#[test]
fn a_torn_file_of_an_unfinished_rotation_is_swept_by_its_bytes() {
    let scene = Scene::new();
    let torn = &login("next")[..50];
    let folder = scene.unfinished(STORE, torn);
    let found = scene.find();
    let auth_file = folder.join("home/auth.json");
    fs::write(&auth_file, "something else").expect("room");
    found.copies[0].sweep();
    assert!(folder.exists(), "it has changed");
    fs::write(&auth_file, torn).expect("room");
    found.copies[0].sweep();
    assert!(!folder.exists());
}

#[test]
fn a_rotation_of_another_address_is_found_and_stays() {
    let scene = Scene::new();
    let folder = scene.unfinished("memory:another", &login("next"));
    let found = scene.find();
    let [copy] = &found.copies[..] else {
        panic!("{:?}", found.copies);
    };
    assert_eq!(copy.elsewhere.as_deref(), Some("memory:another"));
    assert!(copy.copy.origins.as_ref().is_some_and(|it| it.elsewhere));
    copy.sweep();
    assert!(folder.exists());
}

const STORE: &str = "memory:a";

struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn find(&self) -> Found {
        self.search(Access::Job)
    }

    fn look(&self) -> Found {
        self.search(Access::Look)
    }

    fn search(&self, access: Access) -> Found {
        let none = Rescue::new(self.path().join("none"));
        search(STORE, &none, Some(self.path()), access).expect("no rescue folder")
    }

    /// Makes a folder with a file in it that nobody has touched for an hour.
    fn folder(&self, name: &str, mode: u32) -> PathBuf {
        let folder = self.path().join(name);
        make(&folder, mode);
        fs::write(folder.join("file"), "").expect("room");
        make_old(&folder);
        folder
    }

    /// Leaves the folder of a rotation that was killed.
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
        let began = base.generation.fingerprint;
        let receipt = Receipt::new(store.to_owned(), base, began, true, false, Owner::default());
        receipt.write(&home).expect("room");
    }
}

fn make(folder: &Path, mode: u32) {
    DirBuilder::new().create(folder).expect("room");
    // Whatever the umask.
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
