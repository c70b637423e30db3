//! Waiting for an auth file that Codex is just writing.

use std::{thread, time::Duration};

use crate::{Home, Look, Unfit};

impl Home {
    /// Looks at the auth file until it holds still, for a quarter of a second at most.
    ///
    /// Codex up to 0.166.0 empties the file and writes it anew, in place: a single look
    /// finds it empty or cut off every now and then (up to one in 40 was measured), and can even
    /// find the head of one generation with the tail of the next. So a look counts when a
    /// second one finds the same bytes, and when they are not those of a torn file. When
    /// none counts in time, the last look is returned as it is. Errors as in
    /// [`look`](Self::look).
    pub fn settled_look(&self) -> Result<Look, Unfit> {
        self.settled_look_with(&mut None)
    }

    /// The same. `glimpse` becomes the last look that found a whole login which the next look did
    /// not find again: if nothing better comes, that login may exist nowhere else.
    pub fn settled_look_with(&self, glimpse: &mut Option<Look>) -> Result<Look, Unfit> {
        settle(PATIENCE, || self.look(), glimpse)
    }
}

impl Look {
    /// Returns the bytes of a file that Codex cannot just be writing.
    fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Usable { secret, .. } => Some(secret.expose()),
            Self::Unusable { secret, why } if !why.may_be_torn() => Some(secret.expose()),
            Self::Unusable { .. } | Self::Missing => None,
        }
    }
}

/// Between two looks that did not agree.
const STEP: Duration = Duration::from_millis(10);
/// How many times a look that does not count is followed by another.
const PATIENCE: u32 = 25;

fn settle(
    patience: u32,
    mut look: impl FnMut() -> Result<Look, Unfit>,
    glimpse: &mut Option<Look>,
) -> Result<Look, Unfit> {
    let mut last = look()?;
    for _ in 0..patience {
        // Codex never removes the file in order to write it: a missing one is not torn.
        if matches!(last, Look::Missing) {
            break;
        }
        let next = look();
        let agrees = next
            .as_ref()
            .is_ok_and(|next| next.whole().is_some() && next.whole() == last.whole());
        if !agrees && matches!(last, Look::Usable { .. }) {
            *glimpse = Some(last);
        }
        last = next?;
        if agrees {
            return Ok(last);
        }
        thread::sleep(STEP);
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

    /// Plays the looks in turn, and returns what is made of them and how many were taken.
    fn settled(looks: Vec<Look>) -> (Look, usize) {
        let mut taken = 0;
        let mut looks = looks.into_iter().inspect(|_| taken += 1);
        let look =
            settle(3, || Ok(looks.next().expect("no further look")), &mut None).expect("a look");
        drop(looks);
        (look, taken)
    }

    #[test]
    fn a_look_counts_when_the_next_one_agrees() {
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
    fn a_file_that_stays_torn_is_reported_in_the_end() {
        for torn in [&b""[..], b"{", b"\xC3(", b"\0\0"] {
            let (look, taken) = settled((0..4).map(|_| unusable(torn)).collect());
            assert!(
                matches!(look, Look::Unusable { .. }) && taken == 4,
                "{look:?}"
            );
        }
    }

    type Looks = Vec<Result<Look, Unfit>>;

    /// A whole login that is gone at the next look is not lost, whatever took its place.
    #[test]
    fn a_glimpse_is_kept() {
        let unfit = |home: &Home| Unfit::NotARegularFile {
            path: home.auth_file().into(),
        };
        let (_above, home) = home();
        let cases: [(Looks, Option<u32>); 6] = [
            (vec![Ok(usable(1)), Ok(Look::Missing)], Some(1)),
            (vec![Ok(usable(1)), Err(unfit(&home))], Some(1)),
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
        for (looks, wanted) in cases {
            let (mut looks, mut glimpse) = (looks.into_iter(), None);
            settle(3, || looks.next().expect("no further look"), &mut glimpse).ok();
            match (&glimpse, wanted) {
                (None, None) => {}
                (Some(look), Some(n)) if is(look, n) => {}
                _ => panic!("{glimpse:?} for {wanted:?}"),
            }
        }
    }

    /// The three ways in which Codex writes the file: in place (up to 0.163.0), in place
    /// under a lock (0.166.0), by a rename (0.169.0).
    fn writers() -> [fn(&Home, &[u8]); 3] {
        fn in_place(home: &Home, bytes: &[u8]) {
            let mut file = File::create(home.auth_file()).expect("a file");
            // The pause makes sure that the reader meets the torn states, all of them.
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
    fn no_settled_look_is_torn() {
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
                    // Patient, so that a busy machine does not fail the test.
                    let look = settle(1000, || home.look(), &mut None).expect("a look");
                    assert!((0..3).any(|n| is(&look, n)), "{look:?}");
                }
            });
        }
    }
}
