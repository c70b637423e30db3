//! The state of the token endpoint: which refresh token is live, and which access token is valid.

use time::{Duration, OffsetDateTime};

use crate::{Login, Session};

/// The generations of every login that the stub knows, oldest first.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    login: Login,
    /// The index of the login's first generation.
    family: usize,
    state: State,
}

/// The state of a generation's refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Live,
    Spent,
    Revoked,
}

/// A generation, by its index in the ledger.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(usize);

impl Ledger {
    /// Adds the first generation of a login.
    pub(super) fn sign_in(&mut self, login: Login) {
        let family = self.entries.len();
        self.push(login, family);
    }

    /// Returns the newest generation that carries a refresh token.
    pub(super) fn find(&self, refresh_token: &str) -> Option<(Place, u32, State)> {
        if refresh_token.is_empty() {
            return None;
        }
        self.find_last(|entry| entry.login.refresh_token == refresh_token)
            .map(|(place, entry)| (Place(place), entry.login.serial, entry.state))
    }

    /// Adds the next generation, with a new refresh token or, if it `keeps_refresh_token`, with the
    /// previous one. The person stays the same, and so does the session unless the refresh
    /// `changes_session`.
    pub(super) fn renew(
        &mut self,
        old: Place,
        now: OffsetDateTime,
        lifetime: Duration,
        keeps_refresh_token: bool,
        changes_session: bool,
    ) -> Login {
        let newest = self.entries.iter().map(|entry| entry.login.serial).max();
        let serial = newest.map_or(1, |serial| serial + 1);
        let old = &mut self.entries[old.0];
        let session = if changes_session {
            Some(Session::numbered(&old.login.account, serial))
        } else {
            old.login.session.clone()
        };
        let mut next = Login {
            person: old.login.person.clone(),
            session,
            ..Login::new(&old.login.account, serial, now, lifetime)
        };
        if keeps_refresh_token {
            next.refresh_token.clone_from(&old.login.refresh_token);
        }
        old.state = State::Spent;
        let family = old.family;
        self.push(next.clone(), family);
        next
    }

    /// Revokes a refresh token.
    pub(super) fn revoke(&mut self, place: Place) {
        self.entries[place.0].state = State::Revoked;
    }

    /// Returns the generation of an access token, and whether it is the newest one of its login.
    pub(super) fn bearer(&self, access_token: &str) -> Option<(&Login, bool)> {
        let (place, entry) = self.find_last(|entry| entry.login.access_token() == access_token)?;
        let newest = self.find_last(|other| other.family == entry.family);
        Some((
            &entry.login,
            newest.is_some_and(|(newest, _)| newest == place),
        ))
    }

    /// Returns the newest generation whose refresh token is live.
    pub(super) fn live(&self) -> Option<&Login> {
        self.find_last(|entry| entry.state == State::Live)
            .map(|(_, entry)| &entry.login)
    }

    fn push(&mut self, login: Login, family: usize) {
        self.entries.push(Entry {
            login,
            family,
            state: State::Live,
        });
    }

    fn find_last(&self, wanted: impl Fn(&Entry) -> bool) -> Option<(usize, &Entry)> {
        self.entries
            .iter()
            .enumerate()
            .rfind(|(_, entry)| wanted(entry))
    }
}
