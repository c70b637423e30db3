//! The folder, as other processes meet it.

use authferry_core::{
    Base, Family, Fingerprint, Generation, Identity, Issued, SessionHints, Version,
};

use super::super::Reason;
use super::super::forget::forget as forget_seen;
use super::*;

fn forget(rescued: &Rescued) -> io::Result<bool> {
    forget_seen(rescued.location.file().expect("a file"), rescued.seen)
}

fn record() -> Record {
    Record::new("memory:a".into(), Reason::NotPersisted, None, "a job")
}

#[test]
fn a_rescue_is_ours_alone_to_read_and_has_its_record() {
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
    assert!(forget(rescued).expect("there"));
    assert_eq!(fs::read_dir(&place).expect("there").count(), 0);
}

#[test]
fn a_record_keeps_what_it_says_of_the_family() {
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
fn the_record_of_another_store_is_not_touched() {
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
    // Nor is one that makes no sense to us.
    fs::write(record_path(&paths[0]), "of another format").expect("room");
    let path = keep(&place, &login, &of("a")).expect("kept");
    assert_ne!(path, paths[0]);
    assert_eq!(
        fs::read(record_path(&paths[0])).expect("there"),
        b"of another format"
    );
}

#[test]
fn a_file_that_cannot_be_read_hides_no_other_one() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    keep(&place, &Secret::new(b"made up".to_vec()), &record()).expect("kept");
    // Root may read everything: a file that is longer than it may be is as odd.
    fs::write(place.join("odd.json"), vec![b' '; 2 * MAX_LEN]).expect("room");
    let sealed = place.join("sealed.json");
    fs::write(&sealed, "made up").expect("room");
    fs::set_permissions(&sealed, fs::Permissions::from_mode(0o000)).expect("ours");
    // What is no login is not even looked at.
    std::os::unix::fs::symlink("nowhere", place.join("gone.json")).expect("room");
    std::os::unix::fs::symlink("nowhere", place.join(".rescue-x")).expect("room");
    let found = list(&place).expect("our folder");
    assert_eq!(found.len(), 3, "{found:?}");
    let is_root = rustix::process::geteuid().is_root();
    for rescued in found {
        let unreadable = matches!(rescued.login, Err(NotALogin::Unreadable(_)));
        assert_eq!(
            unreadable,
            rescued.location.file() == Some(&*sealed) && !is_root,
            "{rescued:?}"
        );
    }
}

#[test]
fn what_was_kept_anew_is_not_forgotten() {
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
            // No more than the record has come so far.
            keep_record(&place, &name(&login), &record()).expect("kept");
        }
        assert!(!forget(&found[0]).expect("there"));
        assert_eq!(files(), 2);
    }
    // A login whose record is only being written.
    let bare = place.join("bare.json");
    fs::write(&bare, "made up").expect("room");
    let found = list(&place).expect("our folder");
    let found = found
        .iter()
        .find(|it| it.location.file() == Some(&*bare))
        .expect("listed");
    fs::write(record_path(&bare), "a record").expect("room");
    assert!(!forget(found).expect("there"));
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

/// Stands for encryption: every bit is the other way round.
#[derive(Debug)]
struct Inverted;

impl Seal for Inverted {
    fn seal(&self, plain: &Secret) -> io::Result<Vec<u8>> {
        Ok(plain.expose().iter().map(|byte| !byte).collect())
    }
}

#[test]
fn an_encrypted_copy_has_its_record_with_it_and_no_clear_copy_beside_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    let secret = Secret::new(b"made up".to_vec());
    let path = keep_encrypted(&place, &secret, &record(), &Inverted).expect("kept");
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
fn an_encrypted_copy_of_another_store_is_not_touched() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    let secret = Secret::new(b"made up".to_vec());
    let of = |store: &str| Record::new(store.into(), Reason::NotPersisted, None, "a job");
    let keep = |store| keep_encrypted(&place, &secret, &of(store), &Inverted).expect("kept");
    let first = keep("a");
    let bytes = fs::read(&first).expect("there");
    let second = keep("b");
    assert_ne!(first, second);
    assert_eq!(keep("b"), second);
    assert_eq!(fs::read(&first).expect("there"), bytes);
    assert_eq!(encrypted(&place).expect("our folder").len(), 2);
}

#[test]
fn what_cannot_be_encrypted_is_not_written() {
    #[derive(Debug)]
    struct Broken;
    impl Seal for Broken {
        fn seal(&self, _: &Secret) -> io::Result<Vec<u8>> {
            Err(ErrorKind::Other.into())
        }
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let place = dir.path().join("rescue");
    let secret = Secret::new(b"made up".to_vec());
    keep_encrypted(&place, &secret, &record(), &Broken).expect_err("no encryption");
    assert!(!place.exists());
}
