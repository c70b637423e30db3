//! Implements the store contract on top of the API calls.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use authferry_core::{
    CasError, ErrorKind, Guarantees, Leases, Reads, Secret, SecretStore, Stamp, StoreError, Stored,
    Swap, Version,
};

use crate::{
    address::Address,
    aws::Aws,
    classify::{self, WriteOutcome},
    failure::AwsError,
    leases::AwsLeases,
    net::{self, ConfigError},
    settings::Settings,
    token,
};

/// A login in AWS Secrets Manager. The [crate] documentation lists the guarantees.
pub struct AwsStore {
    place: SecretPlace,
    leases: AwsLeases,
}

/// Opens the store at `address`. Makes no request: the first read or swap reports a missing
/// region or missing credentials.
///
/// Returns [`ConfigError`] if the settings are invalid.
///
/// # Examples
///
/// ```
/// use authferry_aws::Settings;
///
/// let settings = Settings {
///     role: None,
///     job_token: None,
///     has_keys: true,
///     session: "job 1".to_owned(),
///     ca_bundle: None,
///     proxy: None,
///     no_proxy: None,
/// };
/// let store = authferry_aws::open("aws-sm://eu-west-1/ci/codex".parse()?, settings)?;
/// assert_eq!(store.to_string(), "aws-sm://eu-west-1/ci/codex");
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub fn open(address: Address, settings: Settings) -> Result<AwsStore, ConfigError> {
    let net = net::client(&settings)?;
    let aws = Aws::new(address.clone(), settings, net);
    Ok(AwsStore::new(address, aws))
}

impl AwsStore {
    pub(crate) fn new(address: Address, aws: Aws) -> Self {
        let aws = Arc::new(aws);
        let lease = SecretPlace {
            address: address.of_lease(),
            aws: Arc::clone(&aws),
        };
        Self {
            place: SecretPlace { address, aws },
            leases: AwsLeases::new(lease),
        }
    }
}

impl fmt::Display for AwsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.address.fmt(f)
    }
}

impl fmt::Debug for AwsStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwsStore({self})")
    }
}

#[async_trait]
impl SecretStore for AwsStore {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn notes(&self) -> Vec<String> {
        vec![
            "a rotation creates two versions of the secret, and two of the lease's secret; AWS keeps \
             some 100 versions of each and removes none younger than a day, so it eventually refuses \
             more than 50 rotations a day"
                .to_owned(),
            "a read may be stale; a swap based on a stale read is a conflict and overwrites nothing"
                .to_owned(),
            "replicas of the secret in other regions accept no writes: the address names the region \
             of the primary secret"
                .to_owned(),
        ]
    }

    async fn read(&self) -> Result<Option<Stored>, StoreError> {
        self.place.read().await
    }

    async fn compare_and_swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        self.place.swap(expected, new, stamp).await
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(&self.leases)
    }
}

/// The guarantees of every secret.
pub(crate) const GUARANTEES: Guarantees = Guarantees {
    swap: Swap::Atomic,
    stamps: true,
    // AWS documents no stronger consistency.
    reads: Reads::Eventual,
    history: true,
    max_len: 64 * 1024,
};

/// One secret.
pub(crate) struct SecretPlace {
    pub(crate) address: Address,
    pub(crate) aws: Arc<Aws>,
}

impl SecretPlace {
    pub(crate) fn name(&self) -> &str {
        self.address.name()
    }

    pub(crate) async fn read(&self) -> Result<Option<Stored>, StoreError> {
        let current = self.aws.read(self.name()).await;
        let current = current.map_err(|failure| self.error("read", failure))?;
        Ok(current.map(|current| {
            let version = Version::new(&current.version);
            Stored {
                secret: current.value,
                stamp: token::decode(&version),
                version,
            }
        }))
    }

    pub(crate) async fn swap(
        &self,
        expected: Option<&Version>,
        new: &Secret,
        stamp: &Stamp,
    ) -> Result<Version, CasError> {
        let bytes = new.expose();
        if bytes.len() > GUARANTEES.max_len {
            return Err(self.refused(ErrorKind::TooLarge, None));
        }
        let Ok(value) = str::from_utf8(bytes) else {
            return Err(self.refused(
                ErrorKind::Malformed,
                Some("the new value is not UTF-8 text"),
            ));
        };
        let token = token::encode(stamp);
        match expected {
            Some(expected) => self.replace(expected, &token, value).await?,
            None => self.create(&token, value).await?,
        }
        Ok(Version::new(&token))
    }

    async fn replace(&self, expected: &Version, token: &str, value: &str) -> Result<(), CasError> {
        let put = self.aws.put(self.name(), token, value).await;
        put.map_err(|failure| self.cas_error(classify::put(&failure), failure))?;
        let promoted = self
            .aws
            .promote(self.name(), token, expected.as_str())
            .await;
        promoted.map_err(|failure| self.cas_error(classify::promote(&failure), failure))
    }

    /// Creates the secret, or fills an existing secret without a value.
    ///
    /// The first version of a secret becomes the current one, regardless of the labels in the put.
    /// No later version does, so a read shows which writer was first.
    async fn create(&self, token: &str, value: &str) -> Result<(), CasError> {
        let held = self.aws.read(self.name()).await;
        let held = held.map_err(|failure| CasError::Refused(self.error("write", failure)))?;
        if let Some(held) = held {
            return if held.version == token && held.value.expose() == value.as_bytes() {
                Ok(())
            } else {
                Err(CasError::Conflict)
            };
        }
        match self.aws.put(self.name(), token, value).await {
            Ok(()) => return self.confirm(token).await,
            Err(failure) => match classify::put(&failure) {
                // The secret does not exist: create it below.
                WriteOutcome::Conflict => {}
                outcome @ (WriteOutcome::Refused | WriteOutcome::Unknown) => {
                    return Err(self.cas_error(outcome, failure));
                }
            },
        }
        match self.aws.create(self.name(), token, value).await {
            Ok(version) if version == token => Ok(()),
            // A server compatible with AWS that chooses the first version's ID itself.
            Ok(version) => self.replace(&Version::new(&version), token, value).await,
            Err(failure) if failure.code() == Some("ResourceExistsException") => {
                self.confirm(token).await
            }
            Err(failure) => Err(self.cas_error(classify::put(&failure), failure)),
        }
    }

    /// Checks whether our version is the current one.
    async fn confirm(&self, token: &str) -> Result<(), CasError> {
        match self.aws.read(self.name()).await {
            Ok(Some(held)) if held.version == token => Ok(()),
            // A missing value is a stale read: a conflict makes the caller read again.
            Ok(Some(_) | None) => Err(CasError::Conflict),
            Err(failure) => Err(CasError::Ambiguous(self.error("write", failure))),
        }
    }

    fn cas_error(&self, outcome: WriteOutcome, failure: AwsError) -> CasError {
        match outcome {
            WriteOutcome::Conflict => CasError::Conflict,
            WriteOutcome::Refused => CasError::Refused(self.error("write", failure)),
            WriteOutcome::Unknown => CasError::Ambiguous(self.error("write", failure)),
        }
    }

    fn refused(&self, kind: ErrorKind, cause: Option<&'static str>) -> CasError {
        CasError::Refused(StoreError {
            kind,
            operation: "write",
            store: self.address.to_string(),
            source: cause.map(Into::into),
        })
    }

    pub(crate) fn error(&self, operation: &'static str, failure: AwsError) -> StoreError {
        StoreError {
            kind: classify::kind(&failure),
            operation,
            store: self.address.to_string(),
            source: Some(Box::new(failure)),
        }
    }
}

#[cfg(test)]
mod tests;
