//! Replaces single values of an auth file, and keeps the rest of its bytes.

use authferry_core::Secret;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The values of an auth file that authferry replaces, as they are written.
#[derive(Deserialize)]
pub(crate) struct RawAuthFile<'a> {
    #[serde(borrow)]
    pub(crate) tokens: RawTokens<'a>,
    /// `None` also for `null`.
    #[serde(borrow, default)]
    pub(crate) last_refresh: Option<&'a RawValue>,
}

#[derive(Deserialize)]
pub(crate) struct RawTokens<'a> {
    #[serde(borrow)]
    pub(crate) access_token: &'a RawValue,
    #[serde(borrow)]
    pub(crate) refresh_token: &'a RawValue,
    #[serde(borrow, default)]
    pub(crate) account_id: Option<&'a RawValue>,
}

impl<'a> RawAuthFile<'a> {
    /// Returns the values; `None` if a token is missing.
    pub(crate) fn of(secret: &'a Secret) -> Option<Self> {
        serde_json::from_slice(secret.expose()).ok()
    }
}

/// Returns the file with other JSON in place of these values, which are parts of it.
pub(crate) fn replace<'a>(
    file: &Secret,
    values: impl IntoIterator<Item = (&'a RawValue, &'a str)>,
) -> Secret {
    let bytes = file.expose();
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by_key(|(value, _)| value.get().as_ptr().addr());
    let added: usize = values.iter().map(|(_, new)| new.len()).sum();
    // A buffer that grows leaves copies of the secret in memory.
    let mut result = Vec::with_capacity(bytes.len() + added);
    let mut done = 0;
    for (value, new) in values {
        // Locate the value by its address: a search could find the same text elsewhere in the file.
        let start = value.get().as_ptr().addr() - bytes.as_ptr().addr();
        result.extend_from_slice(&bytes[done..start]);
        result.extend_from_slice(new.as_bytes());
        done = start + value.get().len();
    }
    result.extend_from_slice(&bytes[done..]);
    Secret::new(result)
}
