//! The stand-in does what its table says, and Microsoft's own client works with it as with the real
//! service.

mod blobs;
mod deleted;
mod faults;
mod identities;
mod versions;

use std::{
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{KeyVault, Rules};
use crate::{PythonClient, Refusal};

/// Timeout for an expected event.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A vault and two clients that are signed in there.
struct Scene {
    vault: KeyVault,
    client: PythonClient,
    other: PythonClient,
}

/// Returns the shared scene with the default rules: starting a client is slow. Each test uses its
/// own secrets.
fn scene() -> MutexGuard<'static, Scene> {
    static SCENE: LazyLock<Mutex<Scene>> = LazyLock::new(|| {
        let vault = KeyVault::start();
        let [client, other] = [(), ()].map(|()| PythonClient::of(&vault));
        Mutex::new(Scene {
            vault,
            client,
            other,
        })
    });
    let scene = SCENE.lock().unwrap_or_else(PoisonError::into_inner);
    scene.vault.rules(|rules| *rules = Rules::default());
    scene
}

/// Sends a request that must be refused.
#[track_caller]
fn refused(client: &mut PythonClient, request: &Value) -> Refusal {
    let answer = client.ask(request);
    answer.expect_err("this should have been refused")
}

#[track_caller]
fn done(client: &mut PythonClient, request: &Value) -> Value {
    client
        .ask(request)
        .unwrap_or_else(|refusal| panic!("{request}: {refusal:?}"))
}

#[track_caller]
fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !happened() {
        assert!(Instant::now() < deadline, "timeout waiting until {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The status and codes of a refusal.
fn kind(refusal: &Refusal) -> (Option<u64>, Option<&str>, Option<&str>) {
    (
        refusal.status,
        refusal.code.as_deref(),
        refusal.inner.as_deref(),
    )
}

/// The names of versions in listing order.
fn ids(listed: &Value) -> Vec<&str> {
    let listed = listed.as_array().into_iter().flatten();
    listed.filter_map(|it| it["version"].as_str()).collect()
}

fn get(name: &str) -> Value {
    json!({"op": "get", "name": name})
}

fn list(name: &str) -> Value {
    json!({"op": "versions", "name": name})
}

/// Sends one plain request and returns the status, headers and body of the answer.
fn http(
    vault: &KeyVault,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (u16, reqwest::header::HeaderMap, String) {
    let net = authferry_http::Net {
        roots: authferry_http::Roots {
            file: Some(vault.authority().to_owned()),
            ..authferry_http::Roots::default()
        },
        ..authferry_http::Net::default()
    };
    let url = vault.url();
    let client = net
        .client(&[url.parse().expect("an address")])
        .expect("an authority");
    let method = method.parse().expect("a method");
    let mut request = client
        .request(method, format!("{url}{target}"))
        .body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let answer = request.send().await.expect("an answer");
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        (status, headers, answer.text().await.expect("a text"))
    })
}
