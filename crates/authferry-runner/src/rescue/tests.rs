use std::fs;

use authferry_conformance::{Fault, Faulty, MemoryStore};
use authferry_core::ErrorKind;

use super::*;

const LIMIT: Duration = Duration::from_secs(8);

#[derive(Debug)]
struct FailingSeal;

impl Seal for FailingSeal {
    fn seal(&self, _: &Secret) -> io::Result<Vec<u8>> {
        Err(io::Error::other("no encryption"))
    }
}

fn secret_and_record() -> (Secret, Record) {
    let record = Record::new("memory:a".into(), Reason::NotPersisted, None, "a job");
    (Secret::new(b"made up".to_vec()), record)
}

#[tokio::test(start_paused = true)]
async fn a_copy_in_the_second_store_is_not_written_to_the_folder() {
    let above = tempfile::tempdir().expect("a temporary folder");
    let folder = above.path().join("rescue");
    let store = Arc::new(MemoryStore::new("second"));
    let rescue = Rescue::new(&folder).with_second_store(store);
    let (secret, record) = secret_and_record();
    let kept = rescue.keep(&secret, &record, LIMIT).await;
    let location = kept.location.expect("in the second store");
    assert_eq!(location.file(), None);
    assert_eq!(kept.not_in_second_store, None);
    assert!(!folder.exists());
    let [copy] = &rescue.in_second_store()[..] else {
        panic!("one copy");
    };
    assert_eq!(copy.location, location);
    assert!(rescue.remove(copy, LIMIT).await.expect("removed"));
    assert!(rescue.in_second_store().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_folder_is_the_fallback_and_the_reason_is_reported() {
    let above = tempfile::tempdir().expect("a temporary folder");
    let folder = above.path().join("rescue");
    let denied = vec![Fault::Refused(ErrorKind::PermissionDenied)];
    let store = Faulty::new(Box::new(MemoryStore::new("second")), denied);
    let rescue = Rescue::new(&folder).with_second_store(Arc::new(store));
    let (secret, record) = secret_and_record();
    let kept = rescue.keep(&secret, &record, LIMIT).await;
    let location = kept.location.expect("in the folder");
    let file = location.file().expect("a file");
    assert_eq!(fs::read(file).expect("readable"), secret.expose());
    let why = kept.not_in_second_store.expect("a reason");
    assert!(why.contains("permission denied: injected fault"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn after_a_failed_encryption_nothing_is_written() {
    let above = tempfile::tempdir().expect("a temporary folder");
    let folder = above.path().join("rescue");
    let rescue = Rescue::new(&folder).with_seal(Box::new(FailingSeal));
    let (secret, record) = secret_and_record();
    let kept = rescue.keep(&secret, &record, LIMIT).await;
    kept.location.expect_err("no encryption");
    assert!(!folder.exists());
}
