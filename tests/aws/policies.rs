//! The refresher policy in `deploy/policies/aws` is sufficient and minimal.

use std::{fs, path::Path, sync::Arc};

use authferry_core::{CLOCK_SKEW, LeaseError, LeaseRequest, Secret, SecretStore};
use serde_json::{Value, json};

use crate::{
    aws_specific::{login, now, stamp},
    fixture::{Run, Secrets, handle},
};

pub(crate) const TRIALS: &[(&str, Run)] = &[("a_refresher_needs_each_action", |it| {
    Box::pin(a_refresher_needs_each_action(it))
})];

const ROLE: &str = "refresher";

async fn a_refresher_needs_each_action(secrets: Arc<Secrets>) {
    secrets.hand.put("ci/codex", "made-up");
    let lease = json!({"Name": "ci/codex-lease"});
    secrets
        .hand
        .secrets("create_secret", &lease)
        .expect("a new secret");
    let role = secrets.role(ROLE, "acme/app");
    let whole = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policies/aws/refresher.json");
    let whole = fs::read_to_string(whole).expect("a file that is shipped");
    let whole: Value = serde_json::from_str(&whole).expect("JSON");

    let_do(&secrets, &whole);
    all_works(&secrets, &role, 0)
        .await
        .expect("with the whole policy");
    let mut count = 0;
    let statements = whole["Statement"].as_array().expect("statements");
    for (statement, it) in statements.iter().enumerate() {
        for action in 0..it["Action"].as_array().expect("actions").len() {
            let mut policy = whole.clone();
            let actions = policy["Statement"][statement]["Action"].as_array_mut();
            let without = actions.expect("actions").remove(action);
            let_do(&secrets, &policy);
            count += 1;
            let why = all_works(&secrets, &role, count).await;
            let why = why
                .err()
                .unwrap_or_else(|| panic!("the job succeeds without {without}"));
            let denied = format!(
                "is not authorized to perform: {}",
                without.as_str().expect("a name")
            );
            assert!(why.contains(&denied), "without {without}: {why}");
        }
    }
    assert_eq!(count, 8);
}

fn let_do(secrets: &Secrets, policy: &Value) {
    let given = json!({
        "RoleName": ROLE,
        "PolicyName": "codex",
        "PolicyDocument": policy.to_string(),
    });
    secrets
        .hand
        .ask("iam", "put_role_policy", &given)
        .expect("a policy");
}

/// Acquires the lease, renews it, swaps the login, and releases the lease, as a refresher does.
async fn all_works(secrets: &Secrets, role: &str, number: u64) -> Result<(), String> {
    let store = handle("ci/codex", secrets.job(role));
    let leases = store.leases().expect("leases");
    // A new owner each time, at a time when the previous lease has expired.
    let now = now() + number * 100_000;
    let lease_request = |holder: u64, now: u64| LeaseRequest {
        owner: format!("job {holder}"),
        holder,
        now,
        until: now + 600,
        expired: None,
    };
    let describe = |error: &dyn std::error::Error| format!("{error}: {:?}", error.source());
    let lease = leases
        .acquire(&lease_request(number + 1, now))
        .await
        .map_err(|error| describe(&error))?;
    let lease = leases
        .renew(&lease, now + 1200)
        .await
        .map_err(|error| describe(&error))?;
    let other = leases
        .acquire(&lease_request(1000, now + 600 + CLOCK_SKEW))
        .await;
    match other {
        Err(LeaseError::Held { until, .. }) if until == lease.until => {}
        Err(error) => return Err(describe(&error)),
        Ok(_) => return Err("a lease that is held was granted".to_owned()),
    }
    let read = store.read().await.map_err(|error| describe(&error))?;
    let base = read.map(|stored| stored.version);
    let next: Secret = login(number);
    let swap = store
        .compare_and_swap(base.as_ref(), &next, &stamp(100 + number))
        .await;
    swap.map_err(|error| match error {
        authferry_core::CasError::Refused(error) => describe(&error),
        other @ (authferry_core::CasError::Conflict | authferry_core::CasError::Ambiguous(_)) => {
            describe(&other)
        }
    })?;
    leases
        .release(&lease)
        .await
        .map_err(|error| describe(&error))
}
