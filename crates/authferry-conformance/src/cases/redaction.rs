//! No output contains the login.

use std::{error::Error, fmt::Write};

use authferry_core::{CLOCK_SKEW, CasError, LeaseError, StoreError};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    cases::{Failure, ensure},
    lease_client::{NOW, lease_clients},
    place::{Place, login, secret},
};

pub(super) async fn no_value_prints_the_login(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    let version = store
        .compare_and_swap(None, &secret(&login(1)), &place.stamp())
        .await?;
    let stored = store.read().await?;
    expect_no_login("the result of a write", &format!("{version} {version:?}"))?;
    expect_no_login("the result of a read", &format!("{stored:#?}"))?;
    expect_no_login("the handle", &format!("{store} {store:#?}"))?;
    expect_no_login("the store's notes", &store.notes().join(" "))
}

pub(super) async fn no_error_prints_the_login(place: Place) -> Result<(), Failure> {
    let store = place.open().await;
    place.seed(&login(1)).await?;
    let conflict = store
        .compare_and_swap(None, &secret(&login(2)), &place.stamp())
        .await;
    expect_no_login("a conflict", &swap_text(conflict.err().as_ref()))?;

    let mut too_long = login(2);
    too_long.resize(place.guarantees().max_len + 1, b' ');
    let too_long = store
        .compare_and_swap(None, &secret(&too_long), &place.stamp())
        .await;
    expect_no_login(
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
        expect_no_login(refusal.name, &text)?;
    }
    Ok(())
}

pub(super) async fn no_lease_prints_the_login(place: Place) -> Result<(), Failure> {
    let Some([first, second]) = lease_clients(&place).await? else {
        return Ok(());
    };
    place.seed(&login(1)).await?;
    let old = first.acquire(NOW).await?;
    expect_no_login("a lease", &format!("{old:#?}"))?;
    let held = second.leases().acquire(&second.request(NOW)).await;
    expect_no_login("a lease that is held", &lease_text(held.err().as_ref()))?;
    second.acquire(old.until + CLOCK_SKEW).await?;
    let lost = first.leases().release(&old).await;
    expect_no_login("a lease that is lost", &lease_text(lost.err().as_ref()))?;

    for refusal in place.fixture().refusals(&login(1)).await {
        if let Some(leases) = refusal.store.leases() {
            let refused = leases.acquire(&first.request(NOW)).await;
            expect_no_login(refusal.name, &lease_text(refused.err().as_ref()))?;
        }
    }
    Ok(())
}

fn lease_text(error: Option<&LeaseError>) -> String {
    match error {
        Some(LeaseError::Store(error)) => store_text(error),
        Some(error @ (LeaseError::Held { .. } | LeaseError::Lost)) => format!("{error} {error:?}"),
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

/// Returns everything that an error and its causes display.
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

/// Expects that `text` contains no part of a login in any usual encoding.
fn expect_no_login(source: &str, text: &str) -> Result<(), Failure> {
    let token = b"made-up-";
    let encodings = [
        String::from_utf8_lossy(token).into_owned(),
        token.map(|byte| format!("{byte}")).join(", "),
        token.map(|byte| format!("{byte:02x}")).concat(),
        // The beginning of the file, because base64 depends on the token's offset.
        STANDARD.encode(&login(1)[..12]),
    ];
    // Pretty-printed lists have one number per line.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for encoding in encodings {
        ensure!(
            !flat.to_lowercase().contains(&encoding.to_lowercase()),
            "{source} prints a part of the login, as {encoding:?}"
        );
    }
    Ok(())
}
