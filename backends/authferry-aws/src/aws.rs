//! The API calls and their parameters.

use std::time::Duration;

use authferry_core::{ErrorKind, Secret};
use aws_config::{BehaviorVersion, Region, SdkConfig, timeout::TimeoutConfig};
use aws_sdk_secretsmanager::{
    Client, config,
    operation::get_secret_value::{GetSecretValueError, GetSecretValueOutput},
    types::Tag,
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use tokio::sync::OnceCell;

use crate::{
    address::Address,
    failure::{AwsError, ErrorSource, Obstacle, chain},
    login::{JobRole, session_name},
    settings::Settings,
};

/// The client of the service. It connects on the first call.
#[derive(Debug)]
pub(crate) struct Aws {
    address: Address,
    settings: Settings,
    net: SharedHttpClient,
    client: OnceCell<Client>,
}

/// The current version of a secret.
pub(crate) struct Current {
    pub(crate) value: Secret,
    pub(crate) version: String,
}

/// Why the client could not be built.
#[derive(Debug, thiserror::Error)]
enum NoClient {
    #[error("no region is set: not in the address, AWS_REGION or the profile")]
    Region,
    #[error("cannot assume the role {0}: the job has no OIDC token")]
    NoToken(String),
}

/// The staging label of a version that is not current yet. All writers share it: the next pending
/// version takes the label, so that no version keeps it for good.
const PENDING: &str = "AUTHFERRY_PENDING";
const CURRENT: &str = "AWSCURRENT";

/// The timeouts of the connection, of one attempt, and of all attempts together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);
const CALL_TIMEOUT: Duration = Duration::from_secs(40);

impl Aws {
    pub(crate) fn new(address: Address, settings: Settings, net: SharedHttpClient) -> Self {
        Self {
            address,
            settings,
            net,
            client: OnceCell::new(),
        }
    }

    /// Reads the current version of a secret; `None` if the secret or its value does not exist.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Current>, AwsError> {
        const ACTION: &str = "secretsmanager:GetSecretValue";
        let client = self.client(ACTION).await?;
        // `AWSCURRENT` is the default stage of AWS, but not of every compatible server.
        let call = client
            .get_secret_value()
            .secret_id(name)
            .version_stage(CURRENT);
        match call.send().await {
            Ok(answer) => current(answer).map(Some).ok_or(AwsError {
                action: ACTION,
                cause: ErrorSource::Unintelligible(200),
            }),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(GetSecretValueError::is_resource_not_found_exception) =>
            {
                Ok(None)
            }
            Err(error) => Err(AwsError::new(ACTION, &error)),
        }
    }

    /// Puts a version without making it current; AWS makes only a secret's first version current.
    /// The call is idempotent, so the SDK may retry it.
    pub(crate) async fn put(&self, name: &str, token: &str, value: &str) -> Result<(), AwsError> {
        const ACTION: &str = "secretsmanager:PutSecretValue";
        let client = self.client(ACTION).await?;
        let call = client
            .put_secret_value()
            .secret_id(name)
            .client_request_token(token)
            .version_stages(PENDING)
            .secret_string(value);
        let answer = call
            .send()
            .await
            .map_err(|error| AwsError::new(ACTION, &error))?;
        if answer.version_id() == Some(token) {
            Ok(())
        } else {
            Err(AwsError {
                action: ACTION,
                cause: ErrorSource::Unintelligible(200),
            })
        }
    }

    /// Makes a version current if the expected one still is: the compare-and-swap. Sent once.
    pub(crate) async fn promote(
        &self,
        name: &str,
        token: &str,
        expected: &str,
    ) -> Result<(), AwsError> {
        const ACTION: &str = "secretsmanager:UpdateSecretVersionStage";
        let client = self.client(ACTION).await?;
        let once = config::Builder::new().retry_config(RetryConfig::disabled());
        let call = client
            .update_secret_version_stage()
            .secret_id(name)
            .version_stage(CURRENT)
            .move_to_version_id(token)
            .remove_from_version_id(expected);
        let answer = call.customize().config_override(once).send().await;
        answer
            .map(drop)
            .map_err(|error| AwsError::new(ACTION, &error))
    }

    /// Creates a secret and returns the version ID of its value. Idempotent.
    pub(crate) async fn create(
        &self,
        name: &str,
        token: &str,
        value: &str,
    ) -> Result<String, AwsError> {
        const ACTION: &str = "secretsmanager:CreateSecret";
        let client = self.client(ACTION).await?;
        let call = client
            .create_secret()
            .name(name)
            .client_request_token(token)
            .secret_string(value)
            .set_kms_key_id(self.address.key().map(str::to_owned));
        let answer = call
            .send()
            .await
            .map_err(|error| AwsError::new(ACTION, &error))?;
        answer.version_id.ok_or(AwsError {
            action: ACTION,
            cause: ErrorSource::Unintelligible(200),
        })
    }

    /// Returns the value of a tag.
    pub(crate) async fn tag(&self, name: &str, key: &str) -> Result<Option<String>, AwsError> {
        const ACTION: &str = "secretsmanager:DescribeSecret";
        let client = self.client(ACTION).await?;
        let answer = client.describe_secret().secret_id(name).send().await;
        let answer = answer.map_err(|error| AwsError::new(ACTION, &error))?;
        let tags = answer.tags.unwrap_or_default();
        let tag = tags.into_iter().find(|tag| tag.key() == Some(key));
        Ok(tag.and_then(|tag| tag.value))
    }

    /// Sets or overwrites a tag.
    pub(crate) async fn set_tag(&self, name: &str, key: &str, value: &str) -> Result<(), AwsError> {
        const ACTION: &str = "secretsmanager:TagResource";
        let client = self.client(ACTION).await?;
        let tag = Tag::builder().key(key).value(value).build();
        let answer = client.tag_resource().secret_id(name).tags(tag).send().await;
        answer
            .map(drop)
            .map_err(|error| AwsError::new(ACTION, &error))
    }

    async fn client(&self, action: &'static str) -> Result<&Client, AwsError> {
        self.client
            .get_or_try_init(|| self.connect())
            .await
            .map_err(|error| AwsError {
                action,
                cause: ErrorSource::NoCredentials {
                    kind: error.kind(),
                    obstacle: Some(error.obstacle()),
                    text: chain(&error),
                },
            })
    }

    async fn connect(&self) -> Result<Client, NoClient> {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .operation_timeout(CALL_TIMEOUT);
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.net.clone())
            .timeout_config(timeouts.build())
            .retry_config(RetryConfig::standard());
        if let Some(region) = self.address.region() {
            loader = loader.region(Region::new(region.to_owned()));
        }
        let found = loader.load().await;
        if found.region().is_none() {
            return Err(NoClient::Region);
        }
        let mut config = config::Builder::from(&found);
        if let Some(role) = self.job_role(&found)? {
            config = config.credentials_provider(role);
        }
        Ok(Client::from_conf(config.build()))
    }

    /// Returns the role to assume; `None` if the SDK finds the credentials.
    fn job_role(&self, config: &SdkConfig) -> Result<Option<JobRole>, NoClient> {
        let Settings {
            role,
            job_token,
            has_keys,
            session,
            ..
        } = &self.settings;
        let role = match (self.address.role(), role) {
            (Some(role), _) => role,
            (None, Some(role)) if !has_keys && job_token.is_some() => role,
            (None, _) => return Ok(None),
        };
        let Some(token) = job_token else {
            return Err(NoClient::NoToken(role.to_owned()));
        };
        Ok(Some(JobRole {
            sts: aws_sdk_sts::Client::new(config),
            role: role.to_owned(),
            session: session_name(session),
            token: token.clone(),
        }))
    }
}

impl NoClient {
    fn obstacle(&self) -> Obstacle {
        match self {
            Self::Region => Obstacle::NoRegion,
            Self::NoToken(_) => Obstacle::NoToken,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            Self::Region => ErrorKind::NotFound,
            Self::NoToken(_) => ErrorKind::Unauthenticated,
        }
    }
}

/// Accepts a value that was put as text or as binary.
fn current(answer: GetSecretValueOutput) -> Option<Current> {
    let value = match (answer.secret_string, answer.secret_binary) {
        (Some(text), _) => text.into_bytes(),
        (None, Some(binary)) => binary.into_inner(),
        (None, None) => return None,
    };
    Some(Current {
        value: Secret::new(value),
        version: answer.version_id?,
    })
}
