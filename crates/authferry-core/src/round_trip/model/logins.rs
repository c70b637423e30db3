//! The logins of a world: their true lineage, and the times in their files.

use alloc::vec::Vec;

use crate::order::{self, Order};
use crate::{Fingerprint, Generation, Identity, Issued, Label, SessionHints};

/// One generation, small enough to be copied. The number is its order of creation in the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Login {
    pub(super) number: u8,
    person: u8,
    /// The session hint: the number of its family's first generation.
    session: u8,
    /// The provider's clock, in units of 100 s.
    iat: Option<i16>,
    /// The runner's clock, in units of 100 s.
    refreshed: Option<i16>,
}

/// The clock readings of a generation relative to its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Clock {
    /// Both clocks say that it is later.
    Later,
    /// The clocks contradict each other within 300 s.
    Close,
    /// The provider's clock went back by more than 300 s.
    Back,
    /// An opaque access token: only the runner's clock is known.
    Opaque,
}

/// A generation with its true parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Born {
    pub(super) login: Login,
    pub(super) parent: Option<u8>,
}

/// Every generation of a world.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Logins(Vec<Born>);

impl Login {
    pub(super) fn generation(self) -> Generation {
        Generation {
            fingerprint: fingerprint(self.number),
            identity: Identity {
                account: Some(Label::new("workspace")),
                subject: Some(Label::new(if self.person == 0 { "his" } else { "hers" })),
                ..Identity::default()
            },
            hints: SessionHints {
                session: None,
                password_time: Some(i64::from(self.session)),
            },
            issued: self.issued(),
        }
    }

    fn issued(self) -> Issued {
        Issued {
            iat: self.iat.map(|it| i64::from(it) * 100),
            exp: None,
            last_refresh: self
                .refreshed
                .map(|it| i128::from(it) * 100 * 1_000_000_000),
        }
    }
}

impl Logins {
    /// A person logs in.
    pub(super) fn log_in(&mut self, person: u8, clock: Clock) -> u8 {
        self.add(None, person, clock)
    }

    /// The provider accepts the refresh token of `parent` and issues the next generation.
    pub(super) fn rotate(&mut self, parent: u8, clock: Clock) -> u8 {
        let person = self.get(parent).person;
        self.add(Some(parent), person, clock)
    }

    fn add(&mut self, parent: Option<u8>, person: u8, clock: Clock) -> u8 {
        let number = u8::try_from(self.0.len()).expect("small");
        let now = i16::from(number) * 10;
        let before = parent.map(|parent| self.get(parent));
        let parent_iat = before.and_then(|it| it.iat).unwrap_or(now - 10);
        let parent_refreshed = before.and_then(|it| it.refreshed).unwrap_or(now - 10);
        let (iat, refreshed) = match clock {
            Clock::Later => (Some(now), now),
            Clock::Close => (Some(parent_iat + 1), parent_refreshed - 1),
            Clock::Back => (Some(parent_iat - 10), now),
            Clock::Opaque => (None, now),
        };
        let login = Login {
            number,
            person,
            session: parent.map_or(number, |parent| self.get(parent).session),
            iat,
            refreshed: Some(refreshed),
        };
        self.0.push(Born { login, parent });
        number
    }

    pub(super) fn get(&self, number: u8) -> Login {
        self.0[usize::from(number)].login
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u8> + use<> {
        0..u8::try_from(self.0.len()).expect("small")
    }

    /// The first generation of the family.
    pub(super) fn family(&self, number: u8) -> u8 {
        self.get(number).session
    }

    pub(super) fn person(&self, number: u8) -> u8 {
        self.get(number).person
    }

    /// Whether the provider has accepted the refresh token.
    pub(super) fn is_spent(&self, number: u8) -> bool {
        self.0.iter().any(|it| it.parent == Some(number))
    }

    /// Whether `later` descends from `earlier` by rotations.
    pub(super) fn descends(&self, later: u8, earlier: u8) -> bool {
        let mut at = self.0[usize::from(later)].parent;
        while let Some(number) = at {
            if number == earlier {
                return true;
            }
            at = self.0[usize::from(number)].parent;
        }
        false
    }

    /// The order by the clocks.
    pub(super) fn by_times(&self, ours: u8, theirs: u8) -> Order {
        order::by_times(&self.get(ours).issued(), &self.get(theirs).issued())
    }
}

pub(super) fn fingerprint(number: u8) -> Fingerprint {
    Fingerprint::new([number; 8])
}

/// The number of a generation, from its fingerprint.
pub(super) fn number(fingerprint: Fingerprint) -> u8 {
    let text = alloc::format!("{fingerprint}");
    u8::from_str_radix(&text[..2], 16).expect("a fingerprint of this model")
}
