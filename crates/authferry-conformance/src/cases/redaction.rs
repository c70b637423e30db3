//! Whatever gets printed, it is not the login.

use std::{error::Error, fmt::Write};

use authferry_core::{CLOCK_SKEW, CasError, ClaimError, StoreError};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    bidder::{NOW, bidders},
    cases::{Failure, ensure},
    place::{Place, login, secret},
};

pub(super) async fn no_value_prints_the_login(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let version = store
        .compare_and_swap(None, &secret(&login(1)), &place.stamp())
        .await?;
    let stored = store.read().await?;
    silent("the answer to a write", &format!("{version} {version:?}"))?;
    silent("what a read gives", &format!("{stored:#?}"))?;
    silent("the handle", &format!("{store} {store:#?}"))?;
    silent("what the store notes", &store.notes().join(" "))
}

pub(super) async fn no_error_prints_the_login(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    place.seed(&login(1)).await?;
    let conflict = store
        .compare_and_swap(None, &secret(&login(2)), &place.stamp())
        .await;
    silent("a conflict", &swap_text(conflict.err().as_ref()))?;

    let mut too_long = login(2);
    too_long.resize(place.guarantees().max_len + 1, b' ');
    let too_long = store
        .compare_and_swap(None, &secret(&too_long), &place.stamp())
        .await;
    silent(
        "the refusal of a value that is too long",
        &swap_text(too_long.err().as_ref()),
    )?;

    for refusal in place.fixture().refusals(&login(1)).await {
        let read = refusal.store.read().await;
        let swap = refusal
            .store
            .compare_and_swap(None, &secret(&login(2)), &place.stamp())
            .await;
        let text = format!(
            "{}{}{refusal:#?}",
            read.err().as_ref().map(store_text).unwrap_or_default(),
            swap_text(swap.err().as_ref()),
        );
        silent(refusal.name, &text)?;
    }
    Ok(())
}

pub(super) async fn no_claim_prints_the_login(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = bidders(&place).await? else {
        return Ok(());
    };
    place.seed(&login(1)).await?;
    let old = first.wins(NOW).await?;
    silent("a claim", &format!("{old:#?}"))?;
    let held = second.claims().acquire(&second.bid(NOW)).await;
    silent("a claim that is held", &claim_text(held.err().as_ref()))?;
    second.wins(old.until + CLOCK_SKEW).await?;
    let lost = first.claims().release(&old).await;
    silent("a claim that is lost", &claim_text(lost.err().as_ref()))?;

    for refusal in place.fixture().refusals(&login(1)).await {
        if let Some(claims) = refusal.store.claims() {
            let refused = claims.acquire(&first.bid(NOW)).await;
            silent(refusal.name, &claim_text(refused.err().as_ref()))?;
        }
    }
    Ok(())
}

fn claim_text(error: Option<&ClaimError>) -> String {
    match error {
        Some(ClaimError::Store(error)) => store_text(error),
        Some(error @ (ClaimError::Held { .. } | ClaimError::Lost)) => format!("{error} {error:?}"),
        None => String::new(),
    }
}

fn swap_text(error: Option<&CasError>) -> String {
    match error {
        Some(CasError::Ambiguous(error) | CasError::Refused(error)) => store_text(error),
        Some(conflict @ CasError::Conflict) => format!("{conflict} {conflict:?}"),
        None => String::new(),
    }
}

/// Returns all that an error can be made to say.
fn store_text(error: &StoreError) -> String {
    let mut text = format!("{error} {error:#?}");
    let mut below = error.source();
    while let Some(error) = below {
        // Writing to a string cannot fail.
        write!(text, " {error} {error:#?}").ok();
        below = error.source();
    }
    text
}

/// Requires that `text` holds no part of a login in any of the usual spellings.
fn silent(whose: &str, text: &str) -> Result<(), Failure> {
    let token = b"made-up-";
    let spellings = [
        String::from_utf8_lossy(token).into_owned(),
        token.map(|byte| format!("{byte}")).join(", "),
        token.map(|byte| format!("{byte:02x}")).concat(),
        // The beginning of the file, since base64 depends on where the token stands.
        STANDARD.encode(&login(1)[..12]),
    ];
    // Pretty-printed lists have one number to a line.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for spelling in spellings {
        ensure!(
            !flat.to_lowercase().contains(&spelling.to_lowercase()),
            "{whose} prints a part of the login, as {spelling:?}"
        );
    }
    Ok(())
}
