//! `aws-sm://REGION/NAME`, and what may not be in it.

use std::{fmt, str::FromStr};

/// Where a login is kept: a secret's name in a region, and how to get at it.
///
/// Nothing is decoded: a name is taken as it stands, so that one secret has one address. No
/// part of it is a secret. `Display` gives the place alone: how to get at it is no part of
/// where a login is.
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

/// What is put behind a login's name for the name of its claim.
const CLAIM: &str = "-claim";

/// The longest name that Secrets Manager takes.
const MAX_NAME: usize = 512;

impl Address {
    /// Returns the region; without one, it is for the environment to say.
    #[must_use]
    pub fn region(&self) -> Option<&str> {
        self.region.as_deref()
    }

    /// Returns the secret's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the KMS key for a secret that is to be created; without one, AWS takes its own.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Returns the ARN of the role that the job is to take.
    #[must_use]
    pub fn role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// Returns the name of the variable that holds the job's OIDC token, as on GitLab.
    #[must_use]
    pub fn id_token(&self) -> Option<&str> {
        self.id_token.as_deref()
    }

    /// Returns the address of the secret beside this one that holds the claim.
    pub(crate) fn of_claim(&self) -> Self {
        Self {
            name: format!("{}{CLAIM}", self.name),
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
            let (option, slot, fits) = match key {
                KMS => (KMS, &mut address.key, is_key(value)),
                ROLE => (ROLE, &mut address.role, is_role(value)),
                ID_TOKEN => (ID_TOKEN, &mut address.id_token, is_variable(value)),
                _ => return Err(BadAddress::Option),
            };
            if !fits {
                return Err(BadAddress::Value(option));
            }
            if slot.replace(value.to_owned()).is_some() {
                return Err(BadAddress::Twice(option));
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

/// Why a text is not the address of a secret. The text itself is not repeated: a mistyped
/// address may hold anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAddress {
    /// Another scheme, or none.
    #[error("the address of a secret begins with aws-sm://")]
    Scheme,
    /// What stands for the region is none.
    #[error("a region has lower-case letters, digits and hyphens: aws-sm://REGION/NAME")]
    Region,
    /// There is no name.
    #[error("the name of the secret is missing: aws-sm://REGION/NAME")]
    Name,
    /// A character that Secrets Manager does not take.
    #[error("the name of a secret cannot hold {0:?}")]
    Character(char),
    /// A name that Secrets Manager does not take, or that leaves no room for the claim's.
    #[error("the name of the secret is too long")]
    Long,
    /// An option that there is none of.
    #[error("an option is one of: kms=KEY, role=ARN, id_token=VARIABLE")]
    Option,
    /// An option's value makes no sense.
    #[error("what is given for {0} is none")]
    Value(&'static str),
    /// An option that is there already.
    #[error("{0} is given twice")]
    Twice(&'static str),
}

fn parse_region(text: &str) -> Result<Option<String>, BadAddress> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.bytes().all(fits) {
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    } else {
        Err(BadAddress::Region)
    }
}

fn parse_name(text: &str) -> Result<String, BadAddress> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "/_+=.@-".contains(c);
    if let Some(bad) = text.chars().find(|c| !fits(*c)) {
        return Err(BadAddress::Character(bad));
    }
    match text.len() {
        0 => Err(BadAddress::Name),
        len if len + CLAIM.len() > MAX_NAME => Err(BadAddress::Long),
        _ => Ok(text.to_owned()),
    }
}

/// An id, an ARN, or `alias/NAME`.
fn is_key(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_in_an_arn)
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
        && text.chars().all(is_in_an_arn)
}

fn is_in_an_arn(c: char) -> bool {
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
    fn an_address_names_a_region_a_secret_and_how_to_get_at_it() {
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
    fn the_claim_lies_beside_the_login() {
        let address: Address = "aws-sm://eu-west-1/ci/codex?kms=k"
            .parse()
            .expect("an address");
        assert_eq!(
            address.of_claim().to_string(),
            "aws-sm://eu-west-1/ci/codex-claim"
        );
        assert_eq!(address.of_claim().key(), Some("k"));
    }

    #[test]
    fn what_is_no_address_is_refused() {
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
            ("aws-sm:///codex?kms=a&kms=b", BadAddress::Twice("kms")),
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
