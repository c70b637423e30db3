//! What a store is worth, and what would be better than any.

use authferry_core::{Guarantees, Reads, SecretStore, Swap};
use serde_json::{Value, json};

/// What the store promises and what else its user should know, for people.
/// `history` is whether the store was seen to have one.
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
                Swap::Atomic => "atomic: of any number of writers at once exactly one wins",
                Swap::CheckThenWrite => {
                    "best effort: two writers at once can both win, unless each holds the claim"
                }
            },
        ),
        (
            "reads",
            match reads {
                Reads::Strong => "strong: each shows every write that was answered before",
                Reads::Eventual => "eventual: one may show an earlier login for a while",
            },
        ),
        (
            "history",
            if history {
                "kept: a login that was replaced can still be had from the store"
            } else {
                "none: a login that is to be replaced is kept in the rescue folder first"
            },
        ),
        (
            "stamps",
            if stamps {
                "kept: who wrote the login stands beside it"
            } else {
                "none: who wrote the login is not known"
            },
        ),
        (
            "claims",
            if store.claims().is_some() {
                "kept: one job at a time rotates the login"
            } else {
                "none: two jobs can spend the same token"
            },
        ),
    ];
    let size = format!("up to {} KiB", max_len / 1024);
    let rows = rows.into_iter().chain([("size", &*size)]);
    let mut lines = vec![format!("what {store} promises")];
    lines.extend(rows.map(|(name, text)| format!("  {name:<9}{text}")));
    lines.extend(store.notes().iter().map(|note| format!("  note: {note}")));
    lines
}

/// The same for programs.
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
        "claims": store.claims().is_some(),
        "max_bytes": max_len,
    })
}

/// What is better for an account of this plan: it needs no login that is carried.
pub(super) fn instead(plan: Option<&str>) -> String {
    match plan.filter(|plan| is_of_a_workspace(plan)) {
        Some(plan) => format!(
            "better, if your workspace has it: this login is of the plan `{plan}`, whose \
             administrators can make Codex access tokens (CODEX_ACCESS_TOKEN) or let jobs in by \
             workload identity (OPENAI_FEDERATION_RULE_ID); nothing has to be carried then"
        ),
        None => "better, if you can pay by use: an API key (CODEX_API_KEY); nothing has to be \
                 carried then"
            .to_owned(),
    }
}

/// Whether the plan is one of those that have administrators. There are several by usage and
/// by contract, with longer names.
fn is_of_a_workspace(plan: &str) -> bool {
    let plan = plan.to_ascii_lowercase();
    plan == "team"
        || ["business", "enterprise"]
            .iter()
            .any(|word| plan.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_is_told_of_what_it_has() {
        for plan in ["team", "business", "enterprise", "some_business_by_usage"] {
            assert!(instead(Some(plan)).contains(&format!("`{plan}`")), "{plan}");
        }
        for plan in [
            Some("plus"),
            Some("pro"),
            Some("teams"),
            Some("made_up"),
            None,
        ] {
            assert!(instead(plan).contains("CODEX_API_KEY"), "{plan:?}");
        }
    }
}
