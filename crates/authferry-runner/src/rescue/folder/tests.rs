//! Tests of the rescue folder on disk.

use authferry_core::{
    Base, Family, Fingerprint, Generation, Identity, Issued, SessionHints, Version,
};

use super::super::Reason;
use super::super::forget::remove_if_unchanged;
use super::*;

fn remove(rescued: &Rescued) -> io::Result<bool> {
    remove_if_unchanged(rescued.location.file().expect("a file"), rescued.files)
}

fn record() -> Record {
    Record::new("memory:a".into(), Reason::NotPersisted, None, "a job")
}

#[test]
fn a_rescued_login_is_private_and_has_its_record() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("state/rescue");
    assert!(list(&place).expect("no folder").is_empty());
    for _ in 0..2 {
        let path = keep(&place, &Secret::new(b"made up".to_vec()), &record()).expect("kept");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(&place), mode(&path)), (0o700, 0o600));
        assert_eq!(mode(&record_path(&path)), 0o600);
        assert_eq!(fs::read(&path).expect("readable"), b"made up");
    }
    let found = list(&place).expect("our folder");
    let [rescued] = &found[..] else {
        panic!("{found:?}");
    };
    let found = rescued.record.as_ref().expect("a record");
    assert_eq!(
        Record {
            time: 0,
            ..found.clone()
        },
        Record {
            time: 0,
            ..record()
        }
    );
    assert_eq!(
        fs::read_dir(&place).expect("there").count(),
        2,
        "no temporary file stays"
    );
    assert!(remove(rescued).expect("there"));
    assert_eq!(fs::read_dir(&place).expect("there").count(), 0);
}

#[test]
fn a_rewritten_record_keeps_its_family() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    let login = Secret::new(b"made up".to_vec());
    let found = |record: &Record| {
        keep(&place, &login, record).expect("kept");
        let mut found = list(&place).expect("our folder");
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0).record.expect("a record")
    };
    let first = Record {
        base: Some(base(1)),
        seen: 2,
        ..Record::new("memory:a".into(), Reason::SetAside, None, "a job")
    };
    assert_eq!(found(&first), first);
    let again = Record {
        base: Some(base(7)),
        time: first.time + 9,
        ..record()
    };
    let expected = Record {
        base: Some(base(1)),
        seen: 2,
        ..again.clone()
    };
    assert_eq!(found(&again), expected);
    let of_the_store = Record {
        base: Some(base(7)),
        reason: Reason::Replaced,
        ..record()
    };
    assert_eq!(found(&of_the_store), of_the_store);
}

#[test]
fn the_record_of_another_store_is_not_overwritten() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    let login = Secret::new(b"made up".to_vec());
    let of = |store: &str| Record::new(store.into(), Reason::NotPersisted, None, "a job");
    let paths = ["a", "b", "a", "b"].map(|it| keep(&place, &login, &of(it)).expect("kept"));
    assert_eq!(paths[..2], paths[2..]);
    let mut stores: Vec<_> = list(&place)
        .expect("our folder")
        .into_iter()
        .map(|it| it.record.expect("a record").store)
        .collect();
    stores.sort();
    assert_eq!(stores, ["a", "b"]);
    // A record that cannot be parsed is not overwritten either.
    fs::write(record_path(&paths[0]), "of another format").expect("room");
    let path = keep(&place, &login, &of("a")).expect("kept");
    assert_ne!(path, paths[0]);
    assert_eq!(
        fs::read(record_path(&paths[0])).expect("there"),
        b"of another format"
    );
}

#[test]
fn an_unreadable_file_does_not_hide_the_others() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    keep(&place, &Secret::new(b"made up".to_vec()), &record()).expect("kept");
    // Root can read every file, so test an oversized file too.
    fs::write(place.join("oversized.json"), vec![b' '; 2 * MAX_LEN]).expect("room");
    let unreadable_file = place.join("unreadable.json");
    fs::write(&unreadable_file, "made up").expect("room");
    fs::set_permissions(&unreadable_file, fs::Permissions::from_mode(0o000)).expect("ours");
    // Other files and dangling symlinks are ignored.
    std::os::unix::fs::symlink("nowhere", place.join("gone.json")).expect("room");
    std::os::unix::fs::symlink("nowhere", place.join(".rescue-x")).expect("room");
    let found = list(&place).expect("our folder");
    assert_eq!(found.len(), 3, "{found:?}");
    let is_root = rustix::process::geteuid().is_root();
    for rescued in found {
        let unreadable = matches!(rescued.login, Err(NotALogin::Unreadable(_)));
        assert_eq!(
            unreadable,
            rescued.location.file() == Some(&*unreadable_file) && !is_root,
            "{rescued:?}"
        );
    }
}

#[test]
fn a_login_that_was_kept_again_is_not_removed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    let login = Secret::new(b"made up".to_vec());
    let files = || {
        let entries = fs::read_dir(&place).expect("there");
        entries.count()
    };
    for again in [true, false] {
        keep(&place, &login, &record()).expect("kept");
        let found = list(&place).expect("our folder");
        if again {
            keep(&place, &login, &record()).expect("kept");
        } else {
            // Only the record has been written so far.
            write_record(&place, &copy_name(&login), &record()).expect("kept");
        }
        assert!(!remove(&found[0]).expect("there"));
        assert_eq!(files(), 2);
    }
    // A login whose record is written after the login was read.
    let bare = place.join("bare.json");
    fs::write(&bare, "made up").expect("room");
    let found = list(&place).expect("our folder");
    let found = found
        .iter()
        .find(|it| it.location.file() == Some(&*bare))
        .expect("listed");
    fs::write(record_path(&bare), "a record").expect("room");
    assert!(!remove(found).expect("there"));
    assert_eq!(fs::read(&bare).expect("there"), b"made up");
}

fn base(number: u8) -> Base {
    let fingerprint = Fingerprint::new([number; 8]);
    Base {
        version: Version::new("1"),
        generation: Generation {
            fingerprint,
            identity: Identity::default(),
            hints: SessionHints::default(),
            issued: Issued::default(),
        },
        count: 1,
        family: Family(fingerprint),
        ancestors: vec![],
        volatile_hints: false,
        unrelated: vec![],
    }
}

#[test]
fn a_folder_that_is_open_to_others_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).expect("ours");
    let kept = keep(dir.path(), &Secret::new(b"made up".to_vec()), &record());
    for error in [kept.map(drop), list(dir.path()).map(drop)] {
        let error = error.expect_err("open to others");
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }
}

/// Fakes encryption by inverting every bit.
#[derive(Debug)]
struct InvertingSeal;

impl Seal for InvertingSeal {
    fn seal(&self, plain: &Secret) -> io::Result<Vec<u8>> {
        Ok(plain.expose().iter().map(|byte| !byte).collect())
    }
}

#[test]
fn an_encrypted_copy_contains_its_record_and_leaves_no_plaintext() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    let secret = Secret::new(b"made up".to_vec());
    let path = keep_encrypted(&place, &secret, &record(), &InvertingSeal).expect("kept");
    let names: Vec<_> = fs::read_dir(&place).expect("there").collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let mode = fs::metadata(&path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(list(&place).expect("our folder").is_empty());
    let [found] = &encrypted(&place).expect("our folder")[..] else {
        panic!("one file");
    };
    assert_eq!(found.file(), Some(&*path));
    let text = fs::read(&path)
        .expect("readable")
        .iter()
        .map(|it| !it)
        .collect();
    let copy = KeptCopy::parse(&Secret::new(text)).expect("a document");
    assert_eq!(copy.secret.expose(), b"made up");
    assert_eq!(copy.record.job, "a job");
    fs::remove_file(&path).expect("there");
    assert!(encrypted(&place).expect("our folder").is_empty());
}

#[test]
fn an_encrypted_copy_of_another_store_is_not_overwritten() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    let secret = Secret::new(b"made up".to_vec());
    let of = |store: &str| Record::new(store.into(), Reason::NotPersisted, None, "a job");
    let keep = |store| keep_encrypted(&place, &secret, &of(store), &InvertingSeal).expect("kept");
    let first = keep("a");
    let bytes = fs::read(&first).expect("there");
    let second = keep("b");
    assert_ne!(first, second);
    assert_eq!(keep("b"), second);
    assert_eq!(fs::read(&first).expect("there"), bytes);
    assert_eq!(encrypted(&place).expect("our folder").len(), 2);
}

#[test]
fn after_a_failed_encryption_nothing_is_written() {
    #[derive(Debug)]
    struct BrokenSeal;
    impl Seal for BrokenSeal {
        fn seal(&self, _: &Secret) -> io::Result<Vec<u8>> {
            Err(ErrorKind::Other.into())
        }
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    let secret = Secret::new(b"made up".to_vec());
    keep_encrypted(&place, &secret, &record(), &BrokenSeal).expect_err("no encryption");
    assert!(!place.exists());
}
