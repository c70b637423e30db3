//! Secrets as places, with AWS's own library for manual changes.

use std::sync::Arc;

use async_trait::async_trait;
use authferry_aws::{Address, AwsStore, Settings};
use authferry_conformance::{Fixture, Refusal};
use authferry_core::{ErrorKind, Guarantees, Reads, SecretStore, Swap};
use authferry_http::JobToken;
use rig::{ACCOUNT, BotoClient, Issuer, REGION, github_claims};
use secrecy::SecretString;
use serde_json::{Value, json};

/// The server under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Moto,
    /// moto with enforced policies.
    Policies,
    Ministack,
}

impl Server {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Moto => "moto",
            Self::Policies => "policies",
            Self::Ministack => "ministack",
        }
    }
}

/// A server's secrets.
pub(crate) struct Secrets {
    pub(crate) hand: BotoClient,
    pub(crate) issuer: Issuer,
    server: Server,
}

/// The prefix of secrets that are scheduled for deletion: a person cannot read them.
const SCHEDULED_FOR_DELETION: &str = "refused-for-scheduled-deletion";

/// Any repository is fine: other tests cover the trust policies.
const REPOSITORY: &str = "acme/app";

impl Secrets {
    pub(crate) fn new(server: Server) -> Self {
        let secrets = Self {
            hand: BotoClient::from_env(),
            issuer: Issuer::start(),
            server,
        };
        if server != Server::Ministack {
            secrets.trust_the_issuer();
        }
        secrets
    }

    fn trust_the_issuer(&self) {
        let given = json!({
            "Url": self.issuer.url().replace("http:", "https:"),
            "ClientIDList": ["sts.amazonaws.com"],
        });
        self.hand
            .ask("iam", "create_open_id_connect_provider", &given)
            .expect("a new provider");
    }

    /// Creates a role that jobs of a repository may assume, and returns its ARN.
    pub(crate) fn role(&self, name: &str, repository: &str) -> String {
        let host = self.issuer.url().replace("http://", "");
        let trust = json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": {"Federated": format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{host}")},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {"StringLike": {format!("{host}:sub"): format!("repo:{repository}:*")}},
            }],
        });
        let given = json!({"RoleName": name, "AssumeRolePolicyDocument": trust.to_string()});
        let role = self
            .hand
            .ask("iam", "create_role", &given)
            .expect("a new role");
        role["Role"]["Arn"].as_str().expect("a name").to_owned()
    }

    /// The settings of a GitHub Actions job.
    pub(crate) fn job(&self, role: &str) -> Settings {
        Self::job_of(&self.issuer, role)
    }

    /// The settings of a job whose tokens come from this issuer.
    pub(crate) fn job_of(issuer: &Issuer, role: &str) -> Settings {
        let [(_, url), (_, token)] = issuer.allow_fetch(github_claims(REPOSITORY));
        Settings {
            role: Some(role.to_owned()),
            job_token: Some(JobToken::GitHub {
                url,
                token: SecretString::from(token),
            }),
            session: "https://ci.example/acme/app/runs/1".to_owned(),
            ..Settings::default()
        }
    }

    fn refusal(
        &self,
        name: &'static str,
        kind: ErrorKind,
        settings: Settings,
        login: &str,
    ) -> Refusal {
        let place = rig::unique(&format!("refused-for-{}", name.replace([' ', '\''], "-")));
        self.hand.put(&place, login);
        Refusal {
            name,
            store: Box::new(handle(&place, settings)),
            place,
            on_read: Some(kind),
            on_swap: kind,
        }
    }

    /// A secret that is scheduled for deletion.
    fn scheduled_for_deletion(&self, login: &str) -> Refusal {
        let place = rig::unique(SCHEDULED_FOR_DELETION);
        self.hand.put(&place, login);
        let delete = json!({"SecretId": place, "RecoveryWindowInDays": 7});
        self.hand
            .secrets("delete_secret", &delete)
            .expect("a secret");
        Refusal {
            name: "a secret that is scheduled for deletion",
            store: Box::new(handle(&place, Settings::default())),
            place,
            on_read: Some(ErrorKind::NotFound),
            on_swap: ErrorKind::NotFound,
        }
    }

    /// A replica of a secret in another region, which accepts no writes.
    fn replica(&self, login: &str) -> Refusal {
        let place = rig::unique("refused-for-replica");
        let given = json!({
            "Name": place,
            "SecretString": login,
            "AddReplicaRegions": [{"Region": "eu-central-1"}],
        });
        self.hand
            .secrets("create_secret", &given)
            .expect("a new secret");
        Refusal {
            name: "a replica in another region",
            store: Box::new(
                authferry_aws::open(address("eu-central-1", &place), Settings::default())
                    .expect("settings"),
            ),
            place,
            on_read: None,
            on_swap: ErrorKind::PermissionDenied,
        }
    }
}

#[async_trait]
impl Fixture for Secrets {
    fn guarantees(&self) -> Guarantees {
        Guarantees {
            swap: Swap::Atomic,
            stamps: true,
            reads: Reads::Eventual,
            history: true,
            max_len: 65_536,
        }
    }

    fn leases(&self) -> bool {
        true
    }

    fn writers(&self) -> bool {
        false
    }

    async fn open(&self, place: &str) -> Box<dyn SecretStore> {
        Box::new(handle(place, Settings::default()))
    }

    async fn put_by_hand(&self, place: &str, login: &[u8]) {
        self.hand.put(place, text(login));
    }

    async fn put_lease_by_hand(&self, place: &str, record: &[u8]) {
        self.hand.put(&format!("{place}-lease"), text(record));
    }

    async fn look_by_hand(&self, place: &str) -> Option<Vec<u8>> {
        if place.starts_with(SCHEDULED_FOR_DELETION) {
            return None;
        }
        self.hand.look(place).map(String::into_bytes)
    }

    async fn empty(&self, place: &str) {
        let delete = json!({"SecretId": place, "ForceDeleteWithoutRecovery": true});
        self.hand
            .secrets("delete_secret", &delete)
            .expect("a secret");
    }

    async fn refusals(&self, login: &[u8]) -> Vec<Refusal> {
        let login = text(login);
        let no_keys = |job_token| Settings {
            role: Some(format!("arn:aws:iam::{ACCOUNT}:role/any")),
            job_token: Some(job_token),
            ..Settings::default()
        };
        let unset = JobToken::Variable {
            name: "AWS_ID_TOKEN".to_owned(),
            value: None,
        };
        let mut refusals = vec![
            self.scheduled_for_deletion(login),
            self.refusal(
                "no token",
                ErrorKind::Unauthenticated,
                no_keys(unset),
                login,
            ),
            self.refusal(
                "no permission for a token",
                ErrorKind::Unauthenticated,
                no_keys(JobToken::NotPermitted),
                login,
            ),
        ];
        if self.server == Server::Moto {
            let role = self.role(&rig::unique("of-another-job"), "acme/another");
            refusals.push(self.replica(login));
            refusals.push(self.refusal(
                "another job's role",
                ErrorKind::Unauthenticated,
                self.job(&role),
                login,
            ));
        }
        refusals
    }
}

/// Opens a new handle on a place.
pub(crate) fn handle(place: &str, settings: Settings) -> AwsStore {
    authferry_aws::open(address(REGION, place), settings).expect("settings")
}

fn address(region: &str, place: &str) -> Address {
    format!("aws-sm://{region}/{place}")
        .parse()
        .expect("an address")
}

fn text(login: &[u8]) -> &str {
    str::from_utf8(login).expect("a text")
}

/// A test beyond the suite.
pub(crate) type Run = fn(Arc<Secrets>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Whether a version has a label.
pub(crate) fn has(labels: &Value, label: &str) -> bool {
    labels
        .as_array()
        .is_some_and(|all| all.iter().any(|one| one == label))
}
