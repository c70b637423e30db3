//! An independent AWS client, boto3, which the store under test does not know.

use std::{
    fmt,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::{Keys, keys};

/// A Python process with boto3 that waits for requests.
pub struct BotoClient {
    process: Child,
    ends: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

/// A refusal of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AwsRefusal {
    /// The service's error code.
    pub code: String,
    /// The error message.
    pub message: String,
}

impl BotoClient {
    /// Starts a client in the environment of this process.
    ///
    /// # Panics
    ///
    /// If there is no Python.
    #[must_use]
    pub fn from_env() -> Self {
        Self::start(&mut Command::new("python3"))
    }

    pub(super) fn start(python: &mut Command) -> Self {
        let mut process = python
            .arg(super::script("boto_client.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let input = process.stdin.take().expect("piped");
        let output = BufReader::new(process.stdout.take().expect("piped"));
        Self {
            process,
            ends: Mutex::new((input, output)),
        }
    }

    /// Makes a call of a service, both named as in boto3, and returns the answer.
    ///
    /// # Panics
    ///
    /// If boto3 itself fails.
    pub fn ask(&self, service: &str, call: &str, params: &Value) -> Result<Value, AwsRefusal> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let (input, output) = &mut *ends;
        let line = json!([service, call, params]);
        writeln!(input, "{line}").expect("a running client");
        let mut answer = String::new();
        output.read_line(&mut answer).expect("a running client");
        let mut answer: Value = serde_json::from_str(&answer).expect("an answer");
        if let Some(code) = answer["error"].as_str() {
            return Err(AwsRefusal {
                code: code.to_owned(),
                message: answer["message"].as_str().unwrap_or_default().to_owned(),
            });
        }
        Ok(answer["ok"].take())
    }

    /// Makes a call of Secrets Manager.
    pub fn secrets(&self, call: &str, params: &Value) -> Result<Value, AwsRefusal> {
        self.ask("secretsmanager", call, params)
    }

    /// Writes a value as a person does: creates the secret if it is missing.
    ///
    /// # Panics
    ///
    /// If the service refuses the call.
    #[track_caller]
    pub fn put(&self, name: &str, value: &str) {
        let put = self.secrets(
            "put_secret_value",
            &json!({"SecretId": name, "SecretString": value}),
        );
        match put {
            Ok(_) => {}
            Err(refusal) if refusal.code == "ResourceNotFoundException" => {
                let new = json!({"Name": name, "SecretString": value});
                self.secrets("create_secret", &new).expect("a new secret");
            }
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    /// Returns the current value; `None` if there is none.
    ///
    /// # Panics
    ///
    /// If the service refuses the call for another reason.
    #[track_caller]
    #[must_use]
    pub fn look(&self, name: &str) -> Option<String> {
        let current = json!({"SecretId": name, "VersionStage": "AWSCURRENT"});
        match self.secrets("get_secret_value", &current) {
            Ok(answer) => Some(answer["SecretString"].as_str()?.to_owned()),
            Err(refusal) if refusal.code == "ResourceNotFoundException" => None,
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    /// Returns the labels of each version that has any.
    ///
    /// # Panics
    ///
    /// If the service refuses the call.
    #[track_caller]
    #[must_use]
    pub fn versions(&self, name: &str) -> serde_json::Map<String, Value> {
        let described = self.secrets("describe_secret", &json!({"SecretId": name}));
        let versions = described.expect("a secret")["VersionIdsToStages"].take();
        let versions = versions.as_object().cloned().unwrap_or_default();
        let has_labels = |labels: &Value| labels.as_array().is_some_and(|all| !all.is_empty());
        versions
            .into_iter()
            .filter(|(_, labels)| has_labels(labels))
            .collect()
    }

    /// Creates a user with one policy and returns its credentials.
    ///
    /// # Panics
    ///
    /// If the service refuses the call.
    #[track_caller]
    #[must_use]
    pub fn user(&self, name: &str, policy: &Value) -> Keys {
        let named = json!({"UserName": name});
        self.ask("iam", "create_user", &named).expect("a new user");
        let policy = json!({
            "UserName": name,
            "PolicyName": "all-that-it-may",
            "PolicyDocument": policy.to_string(),
        });
        self.ask("iam", "put_user_policy", &policy)
            .expect("a new policy");
        let key = self
            .ask("iam", "create_access_key", &named)
            .expect("a new key");
        let text = |field: &str| key["AccessKey"][field].as_str().expect("a text").to_owned();
        keys(&text("AccessKeyId"), &text("SecretAccessKey"))
    }

    /// Calls the control endpoint that the rig adds to moto: see `as_documented.py`.
    ///
    /// # Panics
    ///
    /// If the server is not moto.
    #[track_caller]
    pub fn rig(&self, path: &str, params: &str) -> Value {
        let path = format!("/rig/{path}");
        self.ask("rig", &path, &json!(params)).expect("moto")
    }

    /// Injects a fault into the next requests for an action on a secret.
    #[track_caller]
    pub fn fault(&self, action: &str, name: &str, fault: &str, times: u32) {
        self.rig("fault", &json!([action, name, fault, times]).to_string());
    }

    /// Removes the faults that did not happen, and returns their number.
    #[track_caller]
    pub fn heal(&self, name: &str) -> usize {
        self.rig("heal", name)["left"]
            .as_array()
            .map_or(0, Vec::len)
    }
}

impl Drop for BotoClient {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl fmt::Debug for BotoClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BotoClient({})", self.process.id())
    }
}
