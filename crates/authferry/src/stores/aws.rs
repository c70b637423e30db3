//! The settings of an AWS store from the environment that the SDK does not read.

use authferry_aws::{Address, Settings};
use authferry_core::BoxError;
use authferry_http::JobToken;

use super::Opened;
use crate::env::{self, Env};

/// The variables in which the SDK finds credentials.
const CREDENTIALS: [&str; 9] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// The variables with which a job on GitHub requests its OIDC token.
const ID_TOKENS: [&str; 2] = [
    "ACTIONS_ID_TOKEN_REQUEST_URL",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
];

pub(super) fn open(address: &str, env: &Env) -> Result<Opened, BoxError> {
    let address: Address = address.parse()?;
    let aws = &env.aws;
    let mut credentials: Vec<_> = CREDENTIALS.map(str::to_owned).into();
    credentials.extend(address.id_token().map(str::to_owned));
    if address.role().is_some() || aws.role_arn.is_some() {
        credentials.extend(ID_TOKENS.map(str::to_owned));
    }
    let settings = Settings {
        role: aws.role_arn.clone(),
        job_token: job_token(&address, env),
        has_keys: aws.has_keys,
        session: aws.session_name.clone().unwrap_or_else(|| env.writer()),
        ca_bundle: aws.ca_bundle.clone(),
        proxy: env.proxy.clone(),
        no_proxy: env.no_proxy.clone(),
    };
    Ok(Opened {
        store: Box::new(authferry_aws::open(address, settings)?),
        credentials,
    })
}

/// The job's OIDC token: from the variable in the address, or else from the file that the AWS CLI
/// reads, or else from GitHub.
fn job_token(address: &Address, env: &Env) -> Option<JobToken> {
    if let Some(name) = address.id_token() {
        let value = env::user_variable(name).map(|value| value.to_string_lossy().into_owned());
        return Some(JobToken::Variable {
            name: name.to_owned(),
            value: value.map(Into::into),
        });
    }
    if let Some(file) = &env.aws.web_identity_token_file {
        return Some(JobToken::File(file.clone()));
    }
    if let (Some(url), Some(token)) = (&env.id_token_url, &env.id_token_token) {
        return Some(JobToken::GitHub {
            url: url.clone(),
            token: token.clone(),
        });
    }
    // GitHub sets the two `ID_TOKENS` only for jobs with `id-token: write`.
    let on_github = env.job.contains_key("GITHUB_ACTIONS");
    on_github.then_some(JobToken::NotPermitted)
}
