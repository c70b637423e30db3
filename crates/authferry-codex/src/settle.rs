//! Waits until Codex has finished writing the auth file.

use std::{thread, time::Duration};

use crate::{Home, HomeError, Look};

impl Home {
    /// Reads the auth file until it is stable, for at most a quarter of a second.
    ///
    /// Codex up to 0.166.0 truncates the file and rewrites it in place. A single read sometimes
    /// sees the file empty or cut off (measured: up to one in 40), or even the beginning of one
    /// generation with the end of the next. So a read counts only if the next read finds the same
    /// bytes and they do not look torn. After the timeout, this returns the last read. Errors as in
    /// [`look`](Self::look).
    pub fn settled_look(&self) -> Result<Look, HomeError> {
        self.settled_look_with(&mut None)
    }

    /// Like [`settled_look`](Self::settled_look). `transient` becomes the last read of a whole
    /// login that the next read did not confirm: this may be the only copy of that login.
    pub fn settled_look_with(&self, transient: &mut Option<Look>) -> Result<Look, HomeError> {
        settle(MAX_RETRIES, || self.look(), transient)
    }
}

impl Look {
    /// Returns the bytes of a file that cannot be the torn state of a write.
    fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Usable { secret, .. } => Some(secret.expose()),
            Self::Unusable { secret, why } if !why.may_be_torn() => Some(secret.expose()),
            Self::Unusable { .. } | Self::Missing => None,
        }
    }
}

/// The delay between two reads that differ.
const RETRY_DELAY: Duration = Duration::from_millis(10);
/// The maximum number of reads after the first one.
const MAX_RETRIES: u32 = 25;

fn settle(
    max_retries: u32,
    mut look: impl FnMut() -> Result<Look, HomeError>,
    transient: &mut Option<Look>,
) -> Result<Look, HomeError> {
    let mut last = look()?;
    for _ in 0..max_retries {
        // Codex never removes the file to write it: a missing file is not a torn write.
        if matches!(last, Look::Missing) {
            break;
        }
        let next = look();
        let agrees = next
            .as_ref()
            .is_ok_and(|next| next.whole().is_some() && next.whole() == last.whole());
        if !agrees && matches!(last, Look::Usable { .. }) {
            *transient = Some(last);
        }
        last = next?;
        if agrees {
            return Ok(last);
        }
        thread::sleep(RETRY_DELAY);
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, File, OpenOptions},
        io::Write,
    };

    use authferry_core::Secret;
    use rustix::fs::{FlockOperation, flock};

    use super::*;
    use crate::{
        made_up::{auth_file, home, is, secret},
        parse,
    };

    fn usable(n: u32) -> Look {
        let (secret, found) = (secret(n), parse(&secret(n)));
        let generation = found.expect("a good file");
        Look::Usable { secret, generation }
    }

    fn unusable(bytes: &[u8]) -> Look {
        let secret = Secret::new(bytes.to_vec());
        let why = parse(&secret).expect_err("a bad file");
        Look::Unusable { secret, why }
    }

    /// Settles on these reads; returns the result and the number of reads.
    fn settled(looks: Vec<Look>) -> (Look, usize) {
        let mut taken = 0;
        let mut looks = looks.into_iter().inspect(|_| taken += 1);
        let look =
            settle(3, || Ok(looks.next().expect("no further look")), &mut None).expect("a look");
        drop(looks);
        (look, taken)
    }

    #[test]
    fn a_read_counts_when_the_next_read_agrees() {
        let (look, taken) = settled(vec![usable(1), usable(1)]);
        assert!(is(&look, 1) && taken == 2, "{look:?}");
        let (look, taken) = settled(vec![usable(1), usable(2), usable(2)]);
        assert!(is(&look, 2) && taken == 3, "{look:?}");
        let (look, taken) = settled(vec![unusable(b""), unusable(b"{"), usable(2), usable(2)]);
        assert!(is(&look, 2) && taken == 4, "{look:?}");
        let (look, taken) = settled(vec![Look::Missing]);
        assert!(matches!(look, Look::Missing) && taken == 1, "{look:?}");
        let (look, taken) = settled(vec![unusable(b"{}"), unusable(b"{}")]);
        assert!(
            matches!(look, Look::Unusable { .. }) && taken == 2,
            "{look:?}"
        );
    }

    #[test]
    fn a_file_that_stays_torn_is_reported() {
        for torn in [&b""[..], b"{", b"\xC3(", b"\0\0"] {
            let (look, taken) = settled((0..4).map(|_| unusable(torn)).collect());
            assert!(
                matches!(look, Look::Unusable { .. }) && taken == 4,
                "{look:?}"
            );
        }
    }

    type Looks = Vec<Result<Look, HomeError>>;

    /// A whole login that the next read does not find is returned.
    #[test]
    fn a_transient_login_is_returned() {
        let not_a_file = |home: &Home| HomeError::NotARegularFile {
            path: home.auth_file().into(),
        };
        let (_above, home) = home();
        let cases: [(Looks, Option<u32>); 6] = [
            (vec![Ok(usable(1)), Ok(Look::Missing)], Some(1)),
            (vec![Ok(usable(1)), Err(not_a_file(&home))], Some(1)),
            (
                vec![Ok(usable(1)), Ok(usable(2)), Ok(Look::Missing)],
                Some(2),
            ),
            (
                vec![Ok(usable(1)), Ok(unusable(b"{}")), Ok(unusable(b"{}"))],
                Some(1),
            ),
            (vec![Ok(usable(1)), Ok(usable(1))], None),
            (vec![Ok(unusable(b"{")), Ok(Look::Missing)], None),
        ];
        for (looks, expected) in cases {
            let (mut looks, mut transient) = (looks.into_iter(), None);
            settle(3, || looks.next().expect("no further look"), &mut transient).ok();
            match (&transient, expected) {
                (None, None) => {}
                (Some(look), Some(n)) if is(look, n) => {}
                _ => panic!("{transient:?} for {expected:?}"),
            }
        }
    }

    /// How Codex writes the file: in place (up to 0.163.0), in place under a lock (0.166.0),
    /// by a rename (0.169.0).
    fn writers() -> [fn(&Home, &[u8]); 3] {
        fn in_place(home: &Home, bytes: &[u8]) {
            let mut file = File::create(home.auth_file()).expect("a file");
            // The delay lets the reader see every torn state.
            for part in [&bytes[..bytes.len() / 2], &bytes[bytes.len() / 2..]] {
                thread::sleep(Duration::from_micros(500));
                file.write_all(part).expect("a write");
            }
        }
        fn locked(home: &Home, bytes: &[u8]) {
            let lock = home.dir().join("auth.lock");
            let lock = OpenOptions::new()
                .create(true)
                .append(true)
                .open(lock)
                .expect("a file");
            flock(lock, FlockOperation::LockExclusive).expect("a lock");
            in_place(home, bytes);
        }
        fn renamed(home: &Home, bytes: &[u8]) {
            let new = home.dir().join(".auth-new");
            fs::write(&new, bytes).expect("a file");
            fs::rename(new, home.auth_file()).expect("a rename");
        }
        [in_place, locked, renamed]
    }

    #[test]
    fn a_settled_look_is_never_torn() {
        const WRITES: u32 = 150;
        for write in writers() {
            let (_above, home) = home();
            thread::scope(|scope| {
                let writer = scope.spawn(|| {
                    for n in 1..=WRITES {
                        write(&home, auth_file(n % 3).as_bytes());
                        thread::sleep(Duration::from_millis(2));
                    }
                });
                while !writer.is_finished() {
                    // Many retries, so that the test passes on a busy machine.
                    let look = settle(1000, || home.look(), &mut None).expect("a look");
                    assert!((0..3).any(|n| is(&look, n)), "{look:?}");
                }
            });
        }
    }
}
