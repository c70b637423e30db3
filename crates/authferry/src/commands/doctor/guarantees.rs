//! What a store guarantees, and the alternative to a carried login.

use authferry_core::{Guarantees, Reads, SecretStore, Swap};
use serde_json::{Value, json};

/// The guarantees and the notes of the store, as lines of text. `history`: whether the store keeps
/// replaced logins, as checked.
pub(super) fn lines(store: &dyn SecretStore, history: bool) -> Vec<String> {
    let Guarantees {
        swap,
        stamps,
        reads,
        history: _,
        max_len,
    } = store.guarantees();
    let rows = [
        (
            "swap",
            match swap {
                Swap::Atomic => {
                    "atomic compare-and-swap: exactly one of several concurrent writers wins"
                }
                Swap::CheckThenWrite => {
                    "best effort: two concurrent writers can both win, unless each holds the lease"
                }
            },
        ),
        (
            "reads",
            match reads {
                Reads::Strong => "strong: a read returns the last acknowledged write",
                Reads::Eventual => "eventual: a read may be stale for a while",
            },
        ),
        (
            "history",
            if history {
                "kept: the store still holds a login that was replaced"
            } else {
                "none: authferry saves a login in the rescue folder before it replaces it"
            },
        ),
        (
            "stamps",
            if stamps {
                "kept: the store records the writer of the login"
            } else {
                "none: the writer of the login is unknown"
            },
        ),
        (
            "leases",
            if store.leases().is_some() {
                "available: one job at a time rotates the login"
            } else {
                "none: two jobs can spend the same token"
            },
        ),
    ];
    let size = format!("up to {} KiB", max_len / 1024);
    let rows = rows.into_iter().chain([("size", &*size)]);
    let mut lines = vec![format!("guarantees of {store}")];
    lines.extend(rows.map(|(name, text)| format!("  {name:<9}{text}")));
    lines.extend(store.notes().iter().map(|note| format!("  note: {note}")));
    lines
}

/// The guarantees as JSON.
pub(super) fn json(store: &dyn SecretStore, history: bool) -> Value {
    let Guarantees {
        swap,
        stamps,
        reads,
        history: _,
        max_len,
    } = store.guarantees();
    json!({
        "swap": match swap {
            Swap::Atomic => "atomic",
            Swap::CheckThenWrite => "best-effort",
        },
        "reads": match reads {
            Reads::Strong => "strong",
            Reads::Eventual => "eventual",
        },
        "history": history,
        "stamps": stamps,
        "leases": store.leases().is_some(),
        "max_bytes": max_len,
    })
}

/// The alternative for an account of this plan, which needs no carried login.
pub(super) fn alternative(plan: Option<&str>) -> String {
    match plan.filter(|plan| is_workspace_plan(plan)) {
        Some(plan) => format!(
            "better, if your workspace has it: this login has the plan `{plan}`, whose \
             administrators can create Codex access tokens (CODEX_ACCESS_TOKEN) or enable workload \
             identity (OPENAI_FEDERATION_RULE_ID); then no login has to be carried"
        ),
        None => {
            "better, if you can pay by use: an API key (CODEX_API_KEY); then no login has to be \
                 carried"
                .to_owned()
        }
    }
}

/// Whether the plan has administrators. Some plans by usage and by contract have longer names.
fn is_workspace_plan(plan: &str) -> bool {
    let plan = plan.to_ascii_lowercase();
    plan == "team"
        || ["business", "enterprise"]
            .iter()
            .any(|name| plan.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alternative_depends_on_the_plan() {
        for plan in ["team", "business", "enterprise", "some_business_by_usage"] {
            assert!(
                alternative(Some(plan)).contains(&format!("`{plan}`")),
                "{plan}"
            );
        }
        for plan in [
            Some("plus"),
            Some("pro"),
            Some("teams"),
            Some("made_up"),
            None,
        ] {
            assert!(alternative(plan).contains("CODEX_API_KEY"), "{plan:?}");
        }
    }
}
