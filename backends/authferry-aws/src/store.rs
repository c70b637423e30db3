//! The store itself: the contract on one side, the service on the other.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use authferry_core::{
    CasError, Claims, ErrorKind, Guarantees, Reads, Secret, SecretStore, Stamp, StoreError, Stored,
    Swap, Version,
};

use crate::{
    address::Address,
    aws::Aws,
    claims::AwsClaims,
    classify::{self, Known},
    failure::Failure,
    net::{self, Misfit},
    settings::Settings,
    token,
};

/// A login in AWS Secrets Manager. See the [crate] for what it promises.
pub struct AwsStore {
    place: Place,
    claims: AwsClaims,
}

/// Opens the store at `address`. Nothing is asked of anybody yet: whether there is a region,
/// and a way to log in, is found out by the first read or swap.
///
/// [`Misfit`] when the settings make no sense.
pub fn open(address: Address, settings: Settings) -> Result<AwsStore, Misfit> {
    let net = net::client(&settings)?;
    let aws = Aws::new(address.clone(), settings, net);
    Ok(AwsStore::new(address, aws))
}

impl AwsStore {
    pub(crate) fn new(address: Address, aws: Aws) -> Self {
        let aws = Arc::new(aws);
        let claim = Place {
            address: address.of_claim(),
            aws: Arc::clone(&aws),
        };
        Self {
            place: Place { address, aws },
            claims: AwsClaims::new(claim),
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
            "a rotation makes two versions of the secret, and two of the claim's secret beside it: \
             AWS keeps some 100 of each, and none younger than a day makes room, so more than 50 \
             rotations in a day are refused sooner or later"
                .to_owned(),
            "a read may come late: a swap on what it showed is then a conflict, and never \
             overwrites"
                .to_owned(),
            "copies of the secret in other regions take no writes: the address names the region \
             of the secret itself"
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

    fn claims(&self) -> Option<&dyn Claims> {
        Some(&self.claims)
    }
}

/// What every secret is good for.
pub(crate) const GUARANTEES: Guarantees = Guarantees {
    swap: Swap::Atomic,
    stamps: true,
    // AWS documents no more.
    reads: Reads::Eventual,
    history: true,
    max_len: 64 * 1024,
};

/// One secret.
pub(crate) struct Place {
    pub(crate) address: Address,
    pub(crate) aws: Arc<Aws>,
}

impl Place {
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
                stamp: token::stamp(&version),
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
            return Err(self.refused(ErrorKind::Malformed, Some("it is no text")));
        };
        let token = token::of(stamp);
        match expected {
            Some(expected) => self.replace(expected, &token, value).await?,
            None => self.create(&token, value).await?,
        }
        Ok(Version::new(&token))
    }

    async fn replace(&self, expected: &Version, token: &str, value: &str) -> Result<(), CasError> {
        let put = self.aws.put(self.name(), token, value).await;
        put.map_err(|failure| self.known(classify::put(&failure), failure))?;
        let promoted = self
            .aws
            .promote(self.name(), token, expected.as_str())
            .await;
        promoted.map_err(|failure| self.known(classify::promote(&failure), failure))
    }

    /// Creates the secret, or fills one that somebody made without a value.
    ///
    /// The first version that is put becomes the current one, whatever is said of it, and
    /// nobody else's after that: so all that is left is to see whose was the first.
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
            Ok(()) => return self.settle(token).await,
            Err(failure) => match classify::put(&failure) {
                // There is no secret: that is what was to be found out.
                Known::Moved => {}
                known @ (Known::Not | Known::Unknown) => return Err(self.known(known, failure)),
            },
        }
        match self.aws.create(self.name(), token, value).await {
            Ok(version) if version == token => Ok(()),
            // Not AWS, but a server that speaks like it and names the first version itself.
            Ok(version) => self.replace(&Version::new(&version), token, value).await,
            Err(failure) if failure.code() == Some("ResourceExistsException") => {
                self.settle(token).await
            }
            Err(failure) => Err(self.known(classify::put(&failure), failure)),
        }
    }

    /// Looks whose version is the first one.
    async fn settle(&self, token: &str) -> Result<(), CasError> {
        match self.aws.read(self.name()).await {
            Ok(Some(held)) if held.version == token => Ok(()),
            // Nothing there yet is no answer either: who looks again will see.
            Ok(Some(_) | None) => Err(CasError::Conflict),
            Err(failure) => Err(CasError::Ambiguous(self.error("write", failure))),
        }
    }

    fn known(&self, known: Known, failure: Failure) -> CasError {
        match known {
            Known::Moved => CasError::Conflict,
            Known::Not => CasError::Refused(self.error("write", failure)),
            Known::Unknown => CasError::Ambiguous(self.error("write", failure)),
        }
    }

    fn refused(&self, kind: ErrorKind, why: Option<&'static str>) -> CasError {
        CasError::Refused(StoreError {
            kind,
            operation: "write",
            store: self.address.to_string(),
            source: why.map(Into::into),
        })
    }

    pub(crate) fn error(&self, operation: &'static str, failure: Failure) -> StoreError {
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
