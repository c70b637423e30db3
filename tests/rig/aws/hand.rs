//! Somebody at AWS's own tools, of whom the store knows nothing.

use std::{
    fmt,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

use super::{Keys, keys};

/// AWS's own library for Python, in a process that waits to be asked.
pub struct Hand {
    process: Child,
    ends: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

/// What the service said no with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct No {
    /// The service's name for it.
    pub code: String,
    /// What it says to people.
    pub message: String,
}

impl Hand {
    /// Starts one in the environment of this process.
    ///
    /// # Panics
    ///
    /// If there is no Python.
    #[must_use]
    pub fn here() -> Self {
        Self::start(&mut Command::new("python3"))
    }

    pub(super) fn start(python: &mut Command) -> Self {
        let mut process = python
            .arg(super::script("hand.py"))
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

    /// Makes a call of a service, as the library names both, and returns the answer.
    ///
    /// # Panics
    ///
    /// If the library itself fails.
    pub fn ask(&self, service: &str, call: &str, given: &Value) -> Result<Value, No> {
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let (input, output) = &mut *ends;
        let line = json!([service, call, given]);
        writeln!(input, "{line}").expect("a hand");
        let mut answer = String::new();
        output.read_line(&mut answer).expect("a hand");
        let mut answer: Value = serde_json::from_str(&answer).expect("an answer");
        if let Some(code) = answer["error"].as_str() {
            return Err(No {
                code: code.to_owned(),
                message: answer["message"].as_str().unwrap_or_default().to_owned(),
            });
        }
        Ok(answer["ok"].take())
    }

    /// Makes a call of Secrets Manager.
    pub fn secrets(&self, call: &str, given: &Value) -> Result<Value, No> {
        self.ask("secretsmanager", call, given)
    }

    /// Puts a value as a person does: the secret is created if it is not there.
    ///
    /// # Panics
    ///
    /// If the service says no.
    #[track_caller]
    pub fn put(&self, name: &str, value: &str) {
        let put = self.secrets(
            "put_secret_value",
            &json!({"SecretId": name, "SecretString": value}),
        );
        match put {
            Ok(_) => {}
            Err(no) if no.code == "ResourceNotFoundException" => {
                let new = json!({"Name": name, "SecretString": value});
                self.secrets("create_secret", &new).expect("a new secret");
            }
            Err(no) => panic!("{no:?}"),
        }
    }

    /// Returns what is current; `None` if nothing is.
    ///
    /// # Panics
    ///
    /// If the service says no in another way.
    #[track_caller]
    #[must_use]
    pub fn look(&self, name: &str) -> Option<String> {
        let current = json!({"SecretId": name, "VersionStage": "AWSCURRENT"});
        match self.secrets("get_secret_value", &current) {
            Ok(answer) => Some(answer["SecretString"].as_str()?.to_owned()),
            Err(no) if no.code == "ResourceNotFoundException" => None,
            Err(no) => panic!("{no:?}"),
        }
    }

    /// Returns the labels of each version that has one or more.
    ///
    /// # Panics
    ///
    /// If the service says no.
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

    /// Makes a user with one policy, and returns the credentials.
    ///
    /// # Panics
    ///
    /// If the service says no.
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

    /// Asks at the side door of the server that is moto: see `as_documented.py`.
    ///
    /// # Panics
    ///
    /// If it is another server.
    #[track_caller]
    pub fn rig(&self, path: &str, given: &str) -> Value {
        let path = format!("/rig/{path}");
        self.ask("rig", &path, &json!(given)).expect("moto")
    }

    /// Lets the next requests for an action on a secret run into a fault.
    #[track_caller]
    pub fn fault(&self, action: &str, name: &str, fault: &str, times: u32) {
        self.rig("fault", &json!([action, name, fault, times]).to_string());
    }

    /// Takes back the faults that did not happen, and returns how many those are.
    #[track_caller]
    pub fn heal(&self, name: &str) -> usize {
        self.rig("heal", name)["left"]
            .as_array()
            .map_or(0, Vec::len)
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        // If it has ended already, all the better.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl fmt::Debug for Hand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hand({})", self.process.id())
    }
}
