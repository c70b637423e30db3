//! A service that gives the answers it was told to, and keeps what it was asked. It stands in
//! where a real one cannot be made to answer like that.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use authferry_http::JobToken;
use aws_smithy_runtime_api::{
    client::{
        http::{
            HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector,
            http_client_fn,
        },
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    http::StatusCode,
};
use aws_smithy_types::body::SdkBody;
use tokio::time::sleep;

use crate::{Settings, aws::Aws, store::AwsStore};

/// The service.
#[derive(Clone)]
pub(crate) struct Canned(Arc<Mutex<State>>);

struct State {
    answers: VecDeque<Answer>,
    asked: Vec<Asked>,
}

/// What a request is answered with, as JSON.
pub(crate) struct Answer {
    status: u16,
    body: String,
    after: Duration,
}

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The action, without the service's name.
    pub(crate) action: String,
    /// What was given, as JSON.
    pub(crate) body: String,
}

impl Canned {
    pub(crate) fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self(Arc::new(Mutex::new(State {
            answers: answers.into_iter().collect(),
            asked: Vec::new(),
        })))
    }

    /// Opens a store there, for a job that takes a role.
    pub(crate) fn store(&self) -> AwsStore {
        let address = "aws-sm://eu-west-1/ci/codex?role=arn:aws:iam::123456789012:role/ci";
        let settings = Settings {
            job_token: Some(JobToken::Variable {
                name: "AWS_ID_TOKEN".to_owned(),
                value: Some("bWFk.ZS11.cA".into()),
            }),
            ..Settings::default()
        };
        let address: crate::Address = address.parse().expect("an address");
        AwsStore::new(address.clone(), Aws::new(address, settings, self.client()))
    }

    /// Returns what was asked, but for the role.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state().asked.clone()
    }

    /// Returns the action of each request so far.
    pub(crate) fn actions(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.action).collect()
    }

    fn client(&self) -> SharedHttpClient {
        let service = self.clone();
        http_client_fn(move |_, _| SharedHttpConnector::new(service.clone()))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpConnector for Canned {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = request.body().bytes().expect("a body in memory");
        let body = String::from_utf8_lossy(body).into_owned();
        let Some(target) = request.headers().get("x-amz-target") else {
            return HttpConnectorFuture::ready(Ok(response(200, ROLE)));
        };
        let mut state = self.state();
        state.asked.push(Asked {
            action: target.split('.').next_back().expect("a part").to_owned(),
            body,
        });
        let Some(answer) = state.answers.pop_front() else {
            let end = ConnectorError::user("nobody was told what to answer".into());
            return HttpConnectorFuture::ready(Err(end));
        };
        HttpConnectorFuture::new(async move {
            sleep(answer.after).await;
            Ok(response(answer.status, &answer.body))
        })
    }
}

impl fmt::Debug for Canned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canned")
    }
}

impl Answer {
    /// Comes so much later.
    pub(crate) fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

/// Done as asked; `body` is JSON.
pub(crate) fn yes(body: &str) -> Answer {
    Answer {
        status: 200,
        body: body.to_owned(),
        after: Duration::ZERO,
    }
}

/// What is current.
pub(crate) fn held(version: &str, value: &str) -> Answer {
    let value = value.replace('\n', "\\n").replace('"', "\\\"");
    yes(&format!(
        r#"{{"VersionId":"{version}","SecretString":"{value}"}}"#
    ))
}

/// Not done, and why.
pub(crate) fn no(status: u16, code: &str) -> Answer {
    Answer {
        status,
        ..yes(&format!(r#"{{"__type":"{code}","message":"a reason"}}"#))
    }
}

fn response(status: u16, body: &str) -> HttpResponse {
    let status = StatusCode::try_from(status).expect("a status");
    HttpResponse::new(status, SdkBody::from(body))
}

/// What STS says to whoever may take the role.
const ROLE: &str = "<AssumeRoleWithWebIdentityResponse>\
    <AssumeRoleWithWebIdentityResult><Credentials>\
    <AccessKeyId>made-up-id</AccessKeyId><SecretAccessKey>made-up-key</SecretAccessKey>\
    <SessionToken>made-up-session</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>\
    </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
