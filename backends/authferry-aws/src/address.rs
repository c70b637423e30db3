//! Parses `aws-sm://REGION/NAME` and rejects invalid addresses.

use std::{fmt, str::FromStr};

/// Where a login is kept: a secret's name in a region, and how to access it.
///
/// The parser decodes nothing, so that one secret has one address. An address contains no
/// confidential part. `Display` prints only the place: how to access a login does not change
/// where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    region: Option<String>,
    name: String,
    key: Option<String>,
    role: Option<String>,
    id_token: Option<String>,
}

const SCHEME: &str = "aws-sm://";

const KMS: &str = "kms";
const ROLE: &str = "role";
const ID_TOKEN: &str = "id_token";

/// The suffix of the name of the lease's secret.
const LEASE: &str = "-lease";

/// The longest name that Secrets Manager accepts.
const MAX_NAME_LEN: usize = 512;

impl Address {
    /// Returns the region; `None` if the environment or the profile names it.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Returns the secret's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the KMS key for a new secret; `None` for AWS's default key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the ARN of the role that the job assumes.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// Returns the name of the environment variable with the job's OIDC token, as on GitLab.
    #[must_use]
    pub fn id_token(&self) -> Option<&str> {
        self.id_token.as_deref()
    }

    /// Returns the address of the lease's secret.
    pub(crate) fn of_lease(&self) -> Self {
        Self {
            name: format!("{}{LEASE}", self.name),
            ..self.clone()
        }
    }
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix(SCHEME).ok_or(BadAddress::Scheme)?;
        let (place, query) = match rest.split_once('?') {
            Some((place, query)) => (place, Some(query)),
            None => (rest, None),
        };
        let (region, name) = place.split_once('/').ok_or(BadAddress::Name)?;
        let mut address = Self {
            region: parse_region(region)?,
            name: parse_name(name)?,
            key: None,
            role: None,
            id_token: None,
        };
        for pair in query.into_iter().flat_map(|query| query.split('&')) {
            let (key, value) = pair.split_once('=').ok_or(BadAddress::Option)?;
            let (option, slot, is_valid) = match key {
                KMS => (KMS, &mut address.key, is_key(value)),
                ROLE => (ROLE, &mut address.role, is_role(value)),
                ID_TOKEN => (ID_TOKEN, &mut address.id_token, is_variable(value)),
                _ => return Err(BadAddress::Option),
            };
            if !is_valid {
                return Err(BadAddress::Value(option));
            }
            if slot.replace(value.to_owned()).is_some() {
                return Err(BadAddress::Repeated(option));
            }
        }
        Ok(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let region = self.region.as_deref().unwrap_or_default();
        write!(f, "{SCHEME}{region}/{}", self.name)
    }
}

/// Why a text is not the address of a secret. The message never repeats the text: a mistyped
/// address may contain a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Another scheme, or none.
    #[error("the address of a secret begins with aws-sm://")]
    Scheme,
    /// An invalid region.
    #[error("a region consists of lowercase letters, digits and hyphens: aws-sm://REGION/NAME")]
    Region,
    /// No name.
    #[error("the name of the secret is missing: aws-sm://REGION/NAME")]
    Name,
    /// A character that Secrets Manager does not accept.
    #[error("the name of a secret cannot contain {0:?}")]
    Character(char),
    /// A name that is too long for Secrets Manager, or with the lease's suffix is.
    #[error("the name of the secret is too long")]
    Long,
    /// An unknown option.
    #[error("unknown option: the options are kms=KEY, role=ARN and id_token=VARIABLE")]
    Option,
    /// An invalid value of an option.
    #[error("invalid value of the option {0}")]
    Value(&'static str),
    /// A repeated option.
    #[error("the option {0} is given twice")]
    Repeated(&'static str),
}

fn parse_region(text: &str) -> Result<Option<String>, BadAddress> {
    let is_valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.bytes().all(is_valid) {
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    } else {
        Err(BadAddress::Region)
    }
}

fn parse_name(text: &str) -> Result<String, BadAddress> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
    if let Some(bad) = text.chars().find(|c| !is_valid(*c)) {
        return Err(BadAddress::Character(bad));
    }
    match text.len() {
        0 => Err(BadAddress::Name),
        len if len + LEASE.len() > MAX_NAME_LEN => Err(BadAddress::Long),
        _ => Ok(text.to_owned()),
    }
}

/// Accepts an ID, an ARN, or `alias/NAME`.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_arn_char)
}

fn is_role(text: &str) -> bool {
    let parts: Vec<_> = text.splitn(6, ':').collect();
    let [arn, partition, "iam", "", account, role] = parts[..] else {
        return false;
    };
    arn == "arn"
        && partition.starts_with("aws")
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && role
            .strip_prefix("role/")
            .is_some_and(|name| !name.is_empty())
        && text.chars().all(is_arn_char)
}

fn is_arn_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || ":/_+=,.@-".contains(c)
}

fn is_variable(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_region_a_secret_and_options() {
        let role = "arn:aws:iam::123456789012:role/ci/codex";
        let long = format!("aws-sm:///ci/codex?kms=alias/ci&role={role}&id_token=AWS_ID_TOKEN");
        for (text, region, name, options) in [
            (
                "aws-sm://eu-west-1/codex",
                Some("eu-west-1"),
                "codex",
                [None; 3],
            ),
            (
                "aws-sm://us-gov-west-1/ci/a_b+c=d.e@f-g",
                Some("us-gov-west-1"),
                "ci/a_b+c=d.e@f-g",
                [None; 3],
            ),
            ("aws-sm:///ci/codex", None, "ci/codex", [None; 3]),
            (
                "aws-sm://eu-west-1//codex",
                Some("eu-west-1"),
                "/codex",
                [None; 3],
            ),
            (
                &long,
                None,
                "ci/codex",
                [Some("alias/ci"), Some(role), Some("AWS_ID_TOKEN")],
            ),
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.region(), region, "{text}");
            assert_eq!(address.name(), name, "{text}");
            assert_eq!(
                [address.key(), address.role(), address.id_token()],
                options,
                "{text}"
            );
            let place = text.split('?').next();
            assert_eq!(Some(address.to_string().as_str()), place);
        }
    }

    #[test]
    fn the_lease_has_a_secret_next_to_the_login() {
        let address: Address = "aws-sm://eu-west-1/ci/codex?kms=k"
            .parse()
            .expect("an address");
        assert_eq!(
            address.of_lease().to_string(),
            "aws-sm://eu-west-1/ci/codex-lease"
        );
        assert_eq!(address.of_lease().key(), Some("k"));
    }

    #[test]
    fn an_invalid_address_is_rejected() {
        let too_long = format!("aws-sm:///{}", "n".repeat(507));
        for (text, why) in [
            ("", BadAddress::Scheme),
            ("aws-sm:/eu-west-1/codex", BadAddress::Scheme),
            (
                "arn:aws:secretsmanager:eu-west-1:123456789012:secret:codex",
                BadAddress::Scheme,
            ),
            ("aws-sm://", BadAddress::Name),
            ("aws-sm://codex", BadAddress::Name),
            ("aws-sm://eu-west-1/", BadAddress::Name),
            ("aws-sm://eu-west-1/?kms=k", BadAddress::Name),
            ("aws-sm://EU/codex", BadAddress::Region),
            ("aws-sm://user:made-up@eu-west-1/codex", BadAddress::Region),
            ("aws-sm:///a b", BadAddress::Character(' ')),
            ("aws-sm:///a%2fb", BadAddress::Character('%')),
            ("aws-sm:///a#b", BadAddress::Character('#')),
            ("aws-sm:///arn:aws", BadAddress::Character(':')),
            ("aws-sm:///j\u{fc}rgen", BadAddress::Character('\u{fc}')),
            ("aws-sm:///a\u{1b}[2J", BadAddress::Character('\u{1b}')),
            (&too_long, BadAddress::Long),
            ("aws-sm:///codex?", BadAddress::Option),
            ("aws-sm:///codex?kms", BadAddress::Option),
            ("aws-sm:///codex?secret_key=made-up", BadAddress::Option),
            ("aws-sm:///codex?kms=", BadAddress::Value("kms")),
            ("aws-sm:///codex?kms=a?b", BadAddress::Value("kms")),
            ("aws-sm:///codex?role=ci", BadAddress::Value("role")),
            (
                "aws-sm:///codex?role=arn:aws:iam::12:role/ci",
                BadAddress::Value("role"),
            ),
            (
                "aws-sm:///codex?role=arn:aws:iam::123456789012:user/ci",
                BadAddress::Value("role"),
            ),
            (
                "aws-sm:///codex?role=arn:aws:iam::123456789012:role/",
                BadAddress::Value("role"),
            ),
            ("aws-sm:///codex?id_token=$T", BadAddress::Value("id_token")),
            ("aws-sm:///codex?id_token=1T", BadAddress::Value("id_token")),
            ("aws-sm:///codex?kms=a&kms=b", BadAddress::Repeated("kms")),
        ] {
            assert_eq!(text.parse::<Address>().err(), Some(why), "{text:?}");
        }
    }

    #[test]
    fn no_error_repeats_the_text() {
        for text in [
            "vault://made-up@host/x",
            "aws-sm:///x?made-up=y",
            "aws-sm:///x?role=made-up",
        ] {
            let error = text.parse::<Address>().expect_err("no address");
            assert!(!format!("{error} {error:?}").contains("made-up"), "{error}");
        }
    }
}
