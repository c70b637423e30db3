//! What `deploy/policies/aws` lets a refresher do is enough, and nothing in it is too much.

use std::{fs, path::Path, sync::Arc};

use authferry_core::{Bid, CLOCK_SKEW, ClaimError, Secret, SecretStore};
use serde_json::{Value, json};

use crate::{
    alone::{login, now, stamp},
    fixture::{Run, Secrets, handle},
};

pub(crate) const TRIALS: &[(&str, Run)] = &[("a_refresher_needs_each_action", |it| {
    Box::pin(a_refresher_needs_each_action(it))
})];

const ROLE: &str = "refresher";

async fn a_refresher_needs_each_action(secrets: Arc<Secrets>) {
    secrets.hand.put("ci/codex", "made-up");
    let claim = json!({"Name": "ci/codex-claim"});
    secrets
        .hand
        .secrets("create_secret", &claim)
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
                .unwrap_or_else(|| panic!("it works without {without}"));
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

/// Does what a refresher does: takes the claim, rotates, renews the claim, gives it back.
async fn all_works(secrets: &Secrets, role: &str, number: u64) -> Result<(), String> {
    let store = handle("ci/codex", secrets.job(role));
    let claims = store.claims().expect("claims");
    // Each time somebody else, to whom the claim of the one before is long over.
    let now = now() + number * 100_000;
    let bid = |holder: u64, now: u64| Bid {
        owner: format!("job {holder}"),
        holder,
        now,
        until: now + 600,
        expired: None,
    };
    let told = |error: &dyn std::error::Error| format!("{error}: {:?}", error.source());
    let claim = claims
        .acquire(&bid(number + 1, now))
        .await
        .map_err(|error| told(&error))?;
    let claim = claims
        .renew(&claim, now + 1200)
        .await
        .map_err(|error| told(&error))?;
    let other = claims.acquire(&bid(1000, now + 600 + CLOCK_SKEW)).await;
    match other {
        Err(ClaimError::Held { until, .. }) if until == claim.until => {}
        Err(error) => return Err(told(&error)),
        Ok(_) => return Err("a claim that is held was granted".to_owned()),
    }
    let read = store.read().await.map_err(|error| told(&error))?;
    let base = read.map(|stored| stored.version);
    let next: Secret = login(number);
    let swap = store
        .compare_and_swap(base.as_ref(), &next, &stamp(100 + number))
        .await;
    swap.map_err(|error| match error {
        authferry_core::CasError::Refused(error) => told(&error),
        other @ (authferry_core::CasError::Conflict | authferry_core::CasError::Ambiguous(_)) => {
            told(&other)
        }
    })?;
    claims.release(&claim).await.map_err(|error| told(&error))
}
