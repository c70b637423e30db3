//! The next step that works, for each way in which AWS says no.

use std::error::Error;

use authferry_aws::{Failure, Misfit, Obstacle};

/// Why no store could be opened.
pub(super) fn for_opening(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref::<Misfit>()? {
        Misfit::Unreadable { .. } | Misfit::NoCertificates(_) => {
            "let AWS_CA_BUNDLE name a file of certificates, as PEM"
        }
        Misfit::Proxy => "see whether HTTPS_PROXY or ALL_PROXY holds an address",
    };
    Some(hint.to_owned())
}

/// Why a store did not do as asked.
pub(super) fn for_store(error: &(dyn Error + 'static)) -> Option<String> {
    let hint = match error.downcast_ref::<Failure>()?.obstacle()? {
        Obstacle::NoRegion => {
            "name it in the address, as in aws-sm://eu-west-1/NAME, or in AWS_REGION"
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
        Obstacle::NotAToken => {
            "it is to hold the token itself, as what `id_tokens` declares on GitLab does"
        }
        Obstacle::Unreadable => {
            "let AWS_WEB_IDENTITY_TOKEN_FILE name the file that the platform writes"
        }
        Obstacle::Trust => {
            "compare `sub` and `aud` in the role's trust policy with the job's: \
             deploy/policies/aws has one for each platform"
        }
        Obstacle::Audience => {
            "add sts.amazonaws.com to the audiences of the identity provider in the account"
        }
        Obstacle::Provider => {
            "add the platform as an OpenID Connect provider to the account: deploy/policies/aws \
             says how"
        }
        Obstacle::Ended => {
            "see that the token lives as long as the job: on GitLab that is the job's `timeout`"
        }
        Obstacle::NoCredentials => {
            "let the job take a role with `role=ARN` in the address, or give it credentials as \
             AWS's own tools take them"
        }
        Obstacle::BadCredentials => {
            "take new ones, or let the job take a role by itself with `role=ARN` in the address"
        }
        Obstacle::Untrusted => {
            "name a file with the certificates to trust in AWS_CA_BUNDLE, as PEM"
        }
        Obstacle::Plain => "let AWS_ENDPOINT_URL, and what is like it, begin with https://",
        Obstacle::Denied("secretsmanager:CreateSecret") => {
            "its policy has to allow secretsmanager:CreateSecret, as the seeder's in \
             deploy/policies/aws does, or somebody else creates the secret, without a value: \
             `aws secretsmanager create-secret --name NAME`"
        }
        Obstacle::Denied(action) => {
            return Some(format!(
                "its policy has to allow {action} on this secret, as those in deploy/policies/aws \
                 do; AWS says the same of a secret that is not there"
            ));
        }
        Obstacle::Key => {
            "let the policies of the job and of the key allow kms:Decrypt and kms:GenerateDataKey, \
             and see that the key is enabled"
        }
        Obstacle::Marked => "`aws secretsmanager restore-secret --secret-id NAME`",
        Obstacle::Replica => "name the region of the secret itself in the address",
        Obstacle::Full => {
            "Secrets Manager removes old versions a day after they were made: try again then"
        }
    };
    Some(hint.to_owned())
}
