//! A provider with single-use refresh tokens, and the logins that it issues.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The provider's answer to a spent token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Refuses it.
    Strict,
    /// Accepts it during a reuse interval, which never ends here.
    Lenient,
    /// Refuses it, and revokes the whole family.
    Revoking,
}

/// The lifetime of an access token, in seconds.
const LIFETIME: i64 = 864_000;

/// One generation of a login.
#[derive(Clone, Debug)]
struct Token {
    /// The generation that a person logged in with.
    family: usize,
    parent: Option<usize>,
    person: char,
    issued: i64,
    /// The runner's clock at the refresh.
    refreshed: i64,
    opaque: bool,
    spent: bool,
}

/// All generations that were ever issued, by number.
#[derive(Clone, Debug)]
pub(crate) struct Provider {
    mode: Mode,
    tokens: Vec<Token>,
    revoked: Vec<usize>,
    pub(crate) now: i64,
}

impl Provider {
    /// A provider whose story begins so many seconds before the time of this machine.
    pub(crate) fn new(mode: Mode, ago: i64) -> Self {
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        Self {
            mode,
            tokens: Vec::new(),
            revoked: Vec::new(),
            now: now - ago,
        }
    }

    /// A person logs in.
    pub(crate) fn login(&mut self, person: char, opaque: bool) -> usize {
        let number = self.tokens.len();
        self.tokens.push(Token {
            family: number,
            parent: None,
            person,
            issued: self.now,
            refreshed: self.now,
            opaque,
            spent: false,
        });
        number
    }

    /// Codex refreshes a login on a runner whose clock is off by `skew` seconds. `None` if the
    /// provider refuses.
    pub(crate) fn refresh(&mut self, number: usize, skew: i64) -> Option<usize> {
        let Token { family, spent, .. } = self.tokens[number];
        if self.revoked.contains(&family) {
            return None;
        }
        if spent {
            match self.mode {
                Mode::Strict => return None,
                Mode::Revoking => {
                    self.revoked.push(family);
                    return None;
                }
                Mode::Lenient => {}
            }
        }
        self.tokens[number].spent = true;
        let next = Token {
            parent: Some(number),
            issued: self.now,
            refreshed: self.now + skew,
            spent: false,
            ..self.tokens[number].clone()
        };
        self.tokens.push(next);
        Some(self.tokens.len() - 1)
    }

    /// Whether the provider accepts the login's refresh token.
    pub(crate) fn is_live(&self, number: usize) -> bool {
        let token = &self.tokens[number];
        !token.spent && !self.revoked.contains(&token.family)
    }

    /// Whether some version of Codex rotates the login unasked, by the clock of this machine.
    pub(crate) fn is_due(&self, number: usize) -> bool {
        let token = &self.tokens[number];
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let ends = !token.opaque && token.issued + LIFETIME - 300 <= now;
        ends || token.refreshed + 8 * 86_400 <= now
    }

    /// Whether the provider accepts a spent token.
    pub(crate) fn is_lenient(&self) -> bool {
        self.mode == Mode::Lenient
    }

    pub(crate) fn family(&self, number: usize) -> usize {
        self.tokens[number].family
    }

    /// Whether `later` descends from `earlier`.
    pub(crate) fn is_ancestor(&self, earlier: usize, later: usize) -> bool {
        let mut parent = self.tokens[later].parent;
        while let Some(number) = parent {
            if number == earlier {
                return true;
            }
            parent = self.tokens[number].parent;
        }
        false
    }

    /// The auth file of a login.
    pub(crate) fn auth_file(&self, number: usize) -> String {
        let token = &self.tokens[number];
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let jwt = |claims: &str| format!("e30.{}.made-up-{number}", encode(claims));
        let id_token = jwt(&format!(r#"{{"sub":"{}"}}"#, token.person));
        let access_token = if token.opaque {
            format!("made-up-opaque-{number}")
        } else {
            let (iat, exp) = (token.issued, token.issued + LIFETIME);
            let session = token.family;
            jwt(&format!(
                r#"{{"iat":{iat},"exp":{exp},"session_id":"{session}"}}"#
            ))
        };
        let refreshed = time::OffsetDateTime::from_unix_timestamp(token.refreshed)
            .expect("a time")
            .format(&time::format_description::well_known::Rfc3339)
            .expect("a year");
        format!(
            r#"{{"tokens":{{"id_token":"{id_token}","access_token":"{access_token}","refresh_token":"made-up-refresh-{number}-","account_id":"workspace"}},"last_refresh":"{refreshed}"}}"#
        )
    }
}

/// Returns which login these bytes are.
pub(crate) fn number_of(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (_, rest) = text.split_once("made-up-refresh-")?;
    rest.split('-').next()?.parse().ok()
}
