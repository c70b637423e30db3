//! A fake service that returns canned responses and records the requests. Tests use it for
//! responses that a real service cannot be made to send.

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
pub(crate) struct Canned(Arc<Mutex<CannedState>>);

struct CannedState {
    responses: VecDeque<CannedResponse>,
    requests: Vec<ReceivedRequest>,
}

/// A JSON response.
pub(crate) struct CannedResponse {
    status: u16,
    body: String,
    delay: Duration,
}

/// A request that the service received.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    /// The action, without the service's name.
    pub(crate) action: String,
    /// The parameters, as JSON.
    pub(crate) body: String,
}

impl Canned {
    pub(crate) fn new(responses: impl IntoIterator<Item = CannedResponse>) -> Self {
        Self(Arc::new(Mutex::new(CannedState {
            responses: responses.into_iter().collect(),
            requests: Vec::new(),
        })))
    }

    /// Opens a store on this service, for a job that assumes a role.
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

    /// Returns the requests so far, except those that assume the role.
    pub(crate) fn requests(&self) -> Vec<ReceivedRequest> {
        self.state().requests.clone()
    }

    /// Returns the action of each request so far.
    pub(crate) fn actions(&self) -> Vec<String> {
        let requests = self.requests();
        requests.into_iter().map(|request| request.action).collect()
    }

    fn client(&self) -> SharedHttpClient {
        let service = self.clone();
        http_client_fn(move |_, _| SharedHttpConnector::new(service.clone()))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, CannedState> {
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
        state.requests.push(ReceivedRequest {
            action: target.split('.').next_back().expect("a part").to_owned(),
            body,
        });
        let Some(canned) = state.responses.pop_front() else {
            let error = ConnectorError::user("no canned response is left".into());
            return HttpConnectorFuture::ready(Err(error));
        };
        HttpConnectorFuture::new(async move {
            sleep(canned.delay).await;
            Ok(response(canned.status, &canned.body))
        })
    }
}

impl fmt::Debug for Canned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Canned")
    }
}

impl CannedResponse {
    /// Delays the response.
    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

/// A success; `body` is JSON.
pub(crate) fn success(body: &str) -> CannedResponse {
    CannedResponse {
        status: 200,
        body: body.to_owned(),
        delay: Duration::ZERO,
    }
}

/// The response to a read of the current version.
pub(crate) fn current(version: &str, value: &str) -> CannedResponse {
    let value = value.replace('\n', "\\n").replace('"', "\\\"");
    success(&format!(
        r#"{{"VersionId":"{version}","SecretString":"{value}"}}"#
    ))
}

/// An error response.
pub(crate) fn error_response(status: u16, code: &str) -> CannedResponse {
    CannedResponse {
        status,
        ..success(&format!(r#"{{"__type":"{code}","message":"a reason"}}"#))
    }
}

fn response(status: u16, body: &str) -> HttpResponse {
    let status = StatusCode::try_from(status).expect("a status");
    HttpResponse::new(status, SdkBody::from(body))
}

/// The response of STS when the role is assumed.
const ROLE: &str = "<AssumeRoleWithWebIdentityResponse>\
    <AssumeRoleWithWebIdentityResult><Credentials>\
    <AccessKeyId>made-up-id</AccessKeyId><SecretAccessKey>made-up-key</SecretAccessKey>\
    <SessionToken>made-up-session</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>\
    </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";
