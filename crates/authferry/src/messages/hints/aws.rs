//! The hint for each error of AWS.

use std::error::Error;

use authferry_aws::{AwsError, ConfigError, Obstacle};

/// The hint for a store that cannot be opened.
pub(super) fn for_opening(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref::<ConfigError>()? {
        ConfigError::Unreadable { .. } | ConfigError::NoCertificates(_) => {
            "set AWS_CA_BUNDLE to a PEM file with certificates"
        }
        ConfigError::Proxy => "check that HTTPS_PROXY or ALL_PROXY holds an address",
    };
    Some(hint.to_owned())
}

/// The hint for an error of an open store.
pub(super) fn for_store(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref::<AwsError>()?.obstacle()? {
        Obstacle::NoRegion => {
            "set it in the address, as in aws-sm://eu-west-1/NAME, or in AWS_REGION"
        }
        Obstacle::NoToken => {
            "on GitHub, add `id-token: write` to the `permissions` of the job; on GitLab, declare \
             `id_tokens` and name the variable with `id_token=VARIABLE` in the address"
        }
        Obstacle::NotPermitted => {
            "add `id-token: write` to the `permissions` of the job in the workflow"
        }
        Obstacle::Unset(name) => {
            return Some(format!(
                "declare it in the job: `id_tokens: {{ {name}: {{ aud: sts.amazonaws.com }} }}` on GitLab"
            ));
        }
        Obstacle::NotAToken => "set it to the token itself, as `id_tokens` does on GitLab",
        Obstacle::Unreadable => {
            "set AWS_WEB_IDENTITY_TOKEN_FILE to the file that the platform writes"
        }
        Obstacle::Trust => {
            "compare `sub` and `aud` in the role's trust policy with the job's: \
             deploy/policies/aws has a policy for each platform"
        }
        Obstacle::Audience => {
            "add sts.amazonaws.com to the audiences of the identity provider in the account"
        }
        Obstacle::Provider => {
            "add the platform as an OpenID Connect provider to the account, as deploy/policies/aws \
             shows"
        }
        Obstacle::TokenExpired => {
            "make the token valid as long as the job runs: on GitLab, set the job's `timeout`"
        }
        Obstacle::NoCredentials => {
            "let the job assume a role with `role=ARN` in the address, or give it credentials as \
             the AWS CLI reads them"
        }
        Obstacle::BadCredentials => {
            "renew the credentials, or let the job assume a role with `role=ARN` in the address"
        }
        Obstacle::Untrusted => "set AWS_CA_BUNDLE to a PEM file with the certificates to trust",
        Obstacle::Plain => {
            "use https:// in AWS_ENDPOINT_URL and in the endpoint variables of the services"
        }
        Obstacle::Denied("secretsmanager:CreateSecret") => {
            "its policy has to allow secretsmanager:CreateSecret, as the seeder's in \
             deploy/policies/aws does, or an administrator creates the secret without a value: \
             `aws secretsmanager create-secret --name NAME`"
        }
        Obstacle::Denied(action) => {
            return Some(format!(
                "its policy has to allow {action} on this secret, as those in deploy/policies/aws \
                 do; AWS returns the same error for a missing secret"
            ));
        }
        Obstacle::Key => {
            "let the policies of the job and of the key allow kms:Decrypt and kms:GenerateDataKey, \
             and check that the key is enabled"
        }
        Obstacle::DeletionScheduled => {
            "cancel the deletion: `aws secretsmanager restore-secret --secret-id NAME`"
        }
        Obstacle::Replica => "use the region of the primary secret in the address",
        Obstacle::Full => {
            "Secrets Manager removes old versions a day after their creation: try again then"
        }
    };
    Some(hint.to_owned())
}
