//! A login in AWS Secrets Manager, for jobs that share nothing but an account.
//!
//! At `aws-sm://eu-west-1/ci/codex` the login is the secret `ci/codex` in that region, byte
//! for byte: `aws secretsmanager get-secret-value --secret-id ci/codex --query SecretString
//! --output text` gives a file that Codex can use, and `aws secretsmanager put-secret-value
//! --secret-id ci/codex --secret-string file://auth.json` seeds it. Without a region
//! (`aws-sm:///ci/codex`) it is `AWS_REGION` or the profile that names one.
//!
//! | in the address | |
//! |---|---|
//! | `role=ARN` | the role to take with the job's own OIDC token, if `AWS_ROLE_ARN` names none |
//! | `id_token=NAME` | the environment variable that holds that token, as on GitLab |
//! | `kms=KEY` | the key for a secret that is created, if not AWS's own |
//!
//! # How it logs in
//!
//! With a role in the address the job takes it with its own token: from the variable that the
//! address names, or the file in `AWS_WEB_IDENTITY_TOKEN_FILE`, or GitHub. So it does with
//! `AWS_ROLE_ARN`, unless `AWS_ACCESS_KEY_ID` says that somebody has logged in already. The
//! session is named after the job, and another one is begun before it ends. Otherwise the SDK
//! looks for credentials in the environment, the profile, a process that the profile names,
//! the container's endpoint and the instance's, as it does everywhere. It reads the
//! environment and the files in `~/.aws` by itself, also for the region and the endpoint
//! (`AWS_ENDPOINT_URL` and its like). Left out is IAM Identity Center (`sso_…` in a profile).
//!
//! # What it promises
//!
//! - **One winner.** A swap puts a version aside, under the label `AUTHFERRY_PENDING`, and
//!   then moves the label `AWSCURRENT` to it from the version that was expected; the service
//!   refuses if the label is elsewhere by then. Until that second call nobody sees anything.
//! - **No version twice, and no stamp without its login.** A version's name is chosen by who
//!   writes it, together with the value, and for good: it is the write's id with the count
//!   and the origin behind it. A value that was put by hand has another kind of name.
//! - **What is sent again changes nothing.** The first call has the same name each time, so
//!   that the SDK may repeat it. The second one is sent once: who has no answer looks.
//! - **A swap that broke off is never finished by somebody else.** Nobody promotes a version
//!   but who has put it there. Killed between the two calls, a job leaves a version that is
//!   not current; the next writer takes the label from it, and the service removes it.
//! - **Nothing is lost at once.** What was replaced is `AWSPREVIOUS`, and older versions are
//!   there for a day at least: `aws secretsmanager list-secret-version-ids --secret-id
//!   ci/codex --include-deprecated` names them, losers' too.
//!
//! - **Nothing leaves without TLS**, unless it is for this host (`AWS_ENDPOINT_URL`) or asks
//!   the host for its own credentials, and neither goes through a proxy. Proxies are taken
//!   from `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, the certificates to trust from
//!   `AWS_CA_BUNDLE` or else the system.
//!
//! # What it costs
//!
//! A restore is one call. A persist is two and makes one version; a writer that loses makes one
//! as well. A rotation ahead of a job makes two of the login, which is written over itself
//! first to see that it can be, and two of the claim, in the secret `ci/codex-claim`, which is
//! taken and given back; to renew it in time makes none. AWS keeps some hundred versions of a
//! secret and removes none that is younger than a day: more than fifty rotations in a day, day
//! after day, are refused as [`Full`](authferry_core::ErrorKind::Full) sooner or later. A login
//! that lives ten days is rotated once or twice a week.
//!
//! # What it does not
//!
//! - Reads may lag ([`Reads::Eventual`](authferry_core::Reads::Eventual)): AWS promises
//!   nothing else. A swap on what was read too late is a conflict.
//! - The writer's name does not come back with a login: a version has no room for it, tags
//!   belong to the whole secret, and a secret has room for 20 labels. The account's records
//!   of calls name the session, and that is named after the job.
//! - Who moves `AWSCURRENT` back to an older version by hand makes that version's name the
//!   current one once more.
//! - A secret without any value takes the first version that is put, whoever expects what: so
//!   if somebody deletes a secret during a job and creates it anew, empty, the job fills it.
//! - A claim is renewed by a tag as long as it has not ended: see
//!   [`Claims`](authferry_core::Claims) for what clocks may do to that.
//! - Copies of a secret in other regions take no writes. A value is text; one that was put as
//!   binary is read, and becomes text with the next rotation. Nothing is longer than 64 KiB.

mod address;
mod aws;
#[cfg(test)]
mod canned;
mod claims;
mod classify;
mod failure;
mod login;
mod net;
mod settings;
mod store;
mod token;

pub use address::{Address, BadAddress};
pub use failure::{Failure, Obstacle};
pub use net::Misfit;
pub use settings::Settings;
pub use store::{AwsStore, open};
