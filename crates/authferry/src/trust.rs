//! Whether a job may be trusted with a login.
//!
//! Code that a job runs can read the auth file. So a login is not for public repositories, and not
//! for changes from a fork. Outside of CI, or where an event lacks a field, the job is trusted.

use std::{fs::File, io::Read};

use serde_json::Value;

use crate::env::Env;

/// Longer than any event, in bytes: GitHub's limit is 25 MB.
const MAX_EVENT_LEN: u64 = 32 << 20;

/// Returns why the job is untrusted, or `None` if it is trusted.
pub(crate) fn distrust_reason(env: &Env) -> Option<&'static str> {
    let job = |name| env.job.get(name).map(String::as_str);
    if job("CI_PROJECT_VISIBILITY") == Some("public") {
        return Some("the project is public (CI_PROJECT_VISIBILITY)");
    }
    let source = job("CI_MERGE_REQUEST_SOURCE_PROJECT_ID");
    if source.is_some() && source != job("CI_PROJECT_ID") {
        return Some("the merge request comes from a fork (CI_MERGE_REQUEST_SOURCE_PROJECT_ID)");
    }
    let mut event = Vec::new();
    let read = File::open(job("GITHUB_EVENT_PATH")?)
        .and_then(|file| file.take(MAX_EVENT_LEN).read_to_end(&mut event));
    read.ok();
    match serde_json::from_slice(&event) {
        Ok(event) => event_distrust_reason(&event),
        Err(_) => Some("the event of this job cannot be read (GITHUB_EVENT_PATH)"),
    }
}

fn event_distrust_reason(event: &Value) -> Option<&'static str> {
    let repository = &event["repository"];
    if repository["private"] == false || repository["visibility"] == "public" {
        return Some("the repository is public (GITHUB_EVENT_PATH)");
    }
    let own = &repository["full_name"];
    // The repository is `null` if the fork was deleted.
    let foreign = |repository: Option<&Value>| repository.is_some_and(|r| r["full_name"] != *own);
    if foreign(event.pointer("/pull_request/head/repo")) {
        return Some("the pull request comes from a fork (GITHUB_EVENT_PATH)");
    }
    if foreign(event.pointer("/workflow_run/head_repository")) {
        return Some("a fork triggered the workflow run (GITHUB_EVENT_PATH)");
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_of_public_repositories_and_forks_are_untrusted() {
        let own = json!({"full_name": "us/repo", "private": true, "visibility": "private"});
        let fork = json!({"full_name": "them/repo"});
        let from =
            |head: &Value| json!({"repository": own, "pull_request": {"head": {"repo": head}}});
        let run =
            |head: &Value| json!({"repository": own, "workflow_run": {"head_repository": head}});
        let trusted = [
            json!({"repository": own}),
            json!({}),
            json!({"schedule": "0 3 * * *"}),
            from(&own),
            run(&own),
        ];
        for event in trusted {
            assert_eq!(event_distrust_reason(&event), None, "{event}");
        }
        let untrusted = [
            json!({"repository": {"private": false}}),
            json!({"repository": {"visibility": "public"}}),
            from(&fork),
            from(&Value::Null),
            run(&fork),
        ];
        for event in untrusted {
            assert!(event_distrust_reason(&event).is_some(), "{event}");
        }
    }
}
