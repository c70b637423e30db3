use super::*;

const BLOB_OPTION: &str = "coordinator=blob://acct/logins/codex";

fn parsed(text: &str) -> Address {
    text.parse().unwrap_or_else(|why| panic!("{text}: {why}"))
}

#[test]
fn a_vault_is_a_name_or_a_host() {
    let rows = [
        ("ci-vault", "https://ci-vault.vault.azure.net/"),
        ("CI-Vault", "https://ci-vault.vault.azure.net/"),
        ("ci.vault.azure.cn", "https://ci.vault.azure.cn/"),
        ("127.0.0.1:8443", "https://127.0.0.1:8443/"),
        ("[::1]:8443", "https://[::1]:8443/"),
    ];
    for (vault, url) in rows {
        let address = parsed(&format!("azure-kv://{vault}/codex?{BLOB_OPTION}"));
        assert_eq!(address.vault().as_str(), url);
        assert_eq!(parsed(&address.to_string()), address);
    }
}

#[test]
fn a_blob_is_in_an_account_or_on_a_host() {
    let rows = [
        (
            "acct/logins/codex",
            "https://acct.blob.core.windows.net/logins/codex",
        ),
        (
            "acct.blob.core.usgovcloudapi.net/logins/ci/codex",
            "https://acct.blob.core.usgovcloudapi.net/logins/ci/codex",
        ),
        (
            "127.0.0.1:10000/devstoreaccount1/logins/codex",
            "https://127.0.0.1:10000/devstoreaccount1/logins/codex",
        ),
    ];
    for (blob, url) in rows {
        let address = parsed(&format!("azure-kv://v/codex?coordinator=blob://{blob}"));
        let found = &address.coordinator;
        assert_eq!(found.url().as_str(), url);
        assert_eq!(found.lease().url().as_str(), format!("{url}-lease"));
        assert_eq!(found.to_string(), format!("blob://{blob}"));
        assert_eq!(parsed(&address.to_string()), address);
    }
}

#[test]
fn the_place_is_displayed_without_the_authentication() {
    let place = format!("azure-kv://v/codex?{BLOB_OPTION}");
    let address = parsed(&format!(
        "azure-kv://v/codex?auth=workload&id_token=CI_TOKEN&{BLOB_OPTION}"
    ));
    assert_eq!(address.to_string(), place);
    let from = IdToken::Variable("CI_TOKEN".to_owned());
    assert_eq!(address.auth(), Some(&Auth::Workload(from)));
    assert_eq!(parsed(&place).auth(), None);
}

#[test]
fn an_invalid_address_is_rejected_and_not_repeated() {
    let rows = [
        ("vault://v/codex", BadAddress::Scheme),
        ("azure-kv://v?coordinator=blob://acct/a/b", BadAddress::Path),
        (
            "azure-kv://user:made-up@v/codex?coordinator=blob://acct/a/b",
            BadAddress::User,
        ),
        (
            "azure-kv://v/made-up#x?coordinator=blob://acct/a/b",
            BadAddress::Character,
        ),
        (
            "azure-kv://v/made up?coordinator=blob://acct/a/b",
            BadAddress::Character,
        ),
        (
            "azure-kv://v/made%2dup?coordinator=blob://acct/a/b",
            BadAddress::Character,
        ),
        (
            "azure-kv:///codex?coordinator=blob://acct/a/b",
            BadAddress::KeyVault,
        ),
        (
            "azure-kv://made_up/codex?coordinator=blob://acct/a/b",
            BadAddress::KeyVault,
        ),
        (
            "azure-kv://v:made-up/codex?coordinator=blob://acct/a/b",
            BadAddress::KeyVault,
        ),
        (
            "azure-kv://v/made_up?coordinator=blob://acct/a/b",
            BadAddress::Name,
        ),
        (
            "azure-kv://v/?coordinator=blob://acct/a/b",
            BadAddress::Name,
        ),
        (
            "azure-kv://v/a/b?coordinator=blob://acct/a/b",
            BadAddress::Name,
        ),
        (
            "azure-kv://v/codex?coordinator=blob://acct",
            BadAddress::Blob,
        ),
        (
            "azure-kv://v/codex?coordinator=blob://acct/made-up",
            BadAddress::Blob,
        ),
        (
            "azure-kv://v/codex?coordinator=blob://acct/a//b",
            BadAddress::Blob,
        ),
        (
            "azure-kv://v/codex?coordinator=blob://acct/a/../b",
            BadAddress::Blob,
        ),
        (
            "azure-kv://v/codex?coordinator=blob://127.0.0.1:1/a/b",
            BadAddress::Blob,
        ),
        (
            "azure-kv://v/codex?coordinator=blob://u@acct/a/b",
            BadAddress::User,
        ),
    ];
    assert_rejected(&rows);
    let long = "a".repeat(260);
    let address = format!("azure-kv://v/codex?coordinator=blob://acct/a/{long}");
    assert_eq!(address.parse::<Address>(), Err(BadAddress::Long));
    for (len, is_name) in [(MAX_NAME_LEN, true), (MAX_NAME_LEN + 1, false)] {
        let name = "a".repeat(len);
        let address = format!("azure-kv://v/{name}?{BLOB_OPTION}").parse::<Address>();
        assert_eq!(address.is_ok(), is_name, "{address:?}");
    }
}

#[test]
fn an_invalid_option_is_rejected_and_not_repeated() {
    let rows = [
        (
            "azure-kv://v/codex?coordinator=blob://acct/a/b&token=made-up",
            BadAddress::Option,
        ),
        (
            "azure-kv://v/codex?coordinator=",
            BadAddress::Value("coordinator"),
        ),
        (
            "azure-kv://v/codex?coordinator=blob://acct/a/b&auth=made-up",
            BadAddress::Auth,
        ),
        (
            "azure-kv://v/codex?coordinator=blob://acct/a/b&id_token=A",
            BadAddress::NotApplicable("id_token"),
        ),
        (
            "azure-kv://v/codex?coordinator=blob://acct/a/b&auth=workload&id_token=eyJmade-up",
            BadAddress::Variable,
        ),
        (
            "azure-kv://v/codex?coordinator=blob://acct/a/b&auth=workload&id_token=A&id_token_file=/b",
            BadAddress::TwoTokenSources,
        ),
    ];
    assert_rejected(&rows);
}

#[track_caller]
fn assert_rejected(rows: &[(&str, BadAddress)]) {
    for (text, why) in rows {
        let found = text.parse::<Address>().expect_err(text);
        assert_eq!(found, *why, "{text}");
        assert!(!found.to_string().contains("made-up"), "{found}");
    }
}

#[test]
fn an_address_without_a_coordinator_is_rejected_and_suggests_one() {
    let rows = [
        ("acme-codex", Some("acme-codex"), Some("acmecodex"), None),
        (
            "ACME-codex.vault.azure.net",
            Some("acme-codex"),
            Some("acmecodex"),
            None,
        ),
        (
            "ci-vault.vault.azure.cn",
            Some("ci-vault"),
            Some("civault"),
            Some("blob.core.chinacloudapi.cn"),
        ),
        ("v", Some("v"), None, None),
        ("127.0.0.1:8443", None, None, None),
        ("acme.privatelink.vault.azure.net", None, None, None),
    ];
    for (authority, vault, account, domain) in rows {
        let new = NewCoordinator {
            vault: vault.map(str::to_owned),
            account: account.map(str::to_owned),
            domain,
            blob: "codex.json".to_owned(),
        };
        let why = BadAddress::Coordinator(new);
        for query in ["", "?coordinator=none", "?coordinator=table://made-up"] {
            let text = format!("azure-kv://{authority}/codex{query}");
            let found = text.parse::<Address>().expect_err(&text);
            assert_eq!(found, why, "{text}");
            assert!(!found.to_string().contains("made-up"), "{found}");
        }
    }
}
