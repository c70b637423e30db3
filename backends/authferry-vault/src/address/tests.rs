use super::*;

#[test]
fn an_address_names_a_mount_a_path_and_a_field() {
    for (text, mount, path, field, shown) in [
        (
            "vault://secret/ci/codex",
            "secret",
            "ci/codex",
            "auth_json",
            "",
        ),
        (
            "vault://secret/codex?",
            "secret",
            "codex",
            "auth_json",
            "vault://secret/codex",
        ),
        (
            "vault://kv/a?field=auth_json",
            "kv",
            "a",
            "auth_json",
            "vault://kv/a",
        ),
        ("vault://kv/a?field=my%20login", "kv", "a", "my login", ""),
        ("vault://team%2Fkv/a", "team/kv", "a", "auth_json", ""),
        (
            "vault://kv/J%C3%BCrgen/a+b",
            "kv",
            "Jürgen/a+b",
            "auth_json",
            "vault://kv/Jürgen/a+b",
        ),
        (
            "vault://kv/50%25/a%3Fb%23c%40d",
            "kv",
            "50%/a?b#c@d",
            "auth_json",
            "",
        ),
        ("vault://kv/%252e%252e/x", "kv", "%2e%2e/x", "auth_json", ""),
    ] {
        let address: Address = text.parse().expect(text);
        assert_eq!(address.mount, mount, "{text}");
        assert_eq!(address.path, path, "{text}");
        assert_eq!(address.field, field, "{text}");
        let shown = if shown.is_empty() { text } else { shown };
        assert_eq!(address.to_string().to_lowercase(), shown.to_lowercase());
        // The displayed text parses back to the same address.
        let again: Address = address.to_string().parse().expect(text);
        assert_eq!(again, address);
    }
}

#[test]
fn an_address_names_the_authentication_method() {
    let auth = |query: &str| {
        let address: Address = format!("vault://kv/a?{query}").parse().expect(query);
        // The authentication method does not change the place.
        assert_eq!(address.to_string(), "vault://kv/a");
        address.auth
    };
    let jwt = |from| Auth::Jwt {
        mount: "jwt".into(),
        role: None,
        audience: None,
        from,
    };
    assert_eq!(auth(""), Auth::Token);
    assert_eq!(auth("auth=token"), Auth::Token);
    assert_eq!(
        auth("auth=approle"),
        Auth::AppRole {
            mount: "approle".into()
        }
    );
    assert_eq!(
        auth("auth_mount=team/approle&auth=approle"),
        Auth::AppRole {
            mount: "team/approle".into()
        }
    );
    assert_eq!(auth("auth=jwt"), jwt(IdToken::Platform));
    assert_eq!(
        auth("auth=jwt&id_token=CI_ID"),
        jwt(IdToken::Variable("CI_ID".into()))
    );
    assert_eq!(
        auth("auth=jwt&id_token_file=%2Frun%2Fid"),
        jwt(IdToken::File("/run/id".into()))
    );
    assert_eq!(
        auth("role=ci&audience=https://vault.example&auth_mount=github&auth=jwt"),
        Auth::Jwt {
            mount: "github".into(),
            role: Some("ci".into()),
            audience: Some("https://vault.example".into()),
            from: IdToken::Platform,
        }
    );
}

#[test]
fn an_ambiguous_address_is_rejected() {
    for (text, why) in [
        ("", BadAddress::Scheme),
        ("vault:/kv/a", BadAddress::Scheme),
        ("file:///kv/a", BadAddress::Scheme),
        ("vault://", BadAddress::Path),
        ("vault://kv", BadAddress::Path),
        ("vault://kv?field=a", BadAddress::Path),
        ("vault://kv/", BadAddress::Segment),
        ("vault:///a", BadAddress::Segment),
        ("vault://kv/a/", BadAddress::Segment),
        ("vault://kv//a", BadAddress::Segment),
        ("vault://kv/./a", BadAddress::Segment),
        ("vault://kv/a/..", BadAddress::Segment),
        ("vault://kv/%2e%2E/sys", BadAddress::Segment),
        ("vault://../a", BadAddress::Segment),
        ("vault://kv%2F..%2Fsys/a", BadAddress::Segment),
        ("vault://kv%2F/a", BadAddress::Segment),
        ("vault://kv/a%2Fb", BadAddress::Segment),
        ("vault://kv/a%5Cb", BadAddress::Character),
        ("vault://kv/a\\b", BadAddress::Character),
        ("vault://kv/a#b", BadAddress::Character),
        ("vault://kv/a\nb", BadAddress::Character),
        ("vault://kv/a%00", BadAddress::Character),
        ("vault://kv/a?role=%0a&auth=jwt", BadAddress::Character),
        ("vault://kv/a%", BadAddress::Percent),
        ("vault://kv/a%2", BadAddress::Percent),
        ("vault://kv/a%g0", BadAddress::Percent),
        ("vault://kv/a%+1", BadAddress::Percent),
        ("vault://kv/a%ff", BadAddress::Percent),
        ("vault://user:made-up@kv/a", BadAddress::User),
        ("vault://made-up@kv/a", BadAddress::User),
        ("vault://vault.example:8200/kv/a", BadAddress::User),
        ("vault://kv/a?token=made-up", BadAddress::Option),
        ("vault://kv/a?made-up", BadAddress::Option),
        ("vault://kv/a?Field=b", BadAddress::Option),
        ("vault://kv/a?field=", BadAddress::Value("field")),
        ("vault://kv/a?field", BadAddress::Value("field")),
        ("vault://kv/a?field=b&field=b", BadAddress::Value("field")),
        ("vault://kv/a?field=b.authferry", BadAddress::Field),
        ("vault://kv/a?auth=made-up", BadAddress::Auth),
        ("vault://kv/a?role=ci", BadAddress::NotApplicable("role")),
        (
            "vault://kv/a?auth=approle&role=ci",
            BadAddress::NotApplicable("role"),
        ),
        (
            "vault://kv/a?auth=token&auth_mount=x",
            BadAddress::NotApplicable("auth_mount"),
        ),
        (
            "vault://kv/a?auth=jwt&auth_mount=../sys",
            BadAddress::Segment,
        ),
        (
            "vault://kv/a?auth=jwt&id_token=A&id_token_file=b",
            BadAddress::TwoTokenSources,
        ),
        (
            "vault://kv/a?auth=jwt&id_token=eyJmade-up.x.y",
            BadAddress::Variable,
        ),
    ] {
        assert_eq!(text.parse::<Address>().err(), Some(why), "{text:?}");
        assert!(!format!("{why} {why:?}").contains("made-up"), "{why}");
    }
}

#[test]
fn the_lease_has_a_secret_next_to_the_login() {
    let address: Address = "vault://kv/ci/codex?field=x".parse().expect("an address");
    let lease = address.of_lease();
    assert_eq!(lease.to_string(), "vault://kv/ci/codex-lease?field=lease");
    assert_eq!(lease.mount, address.mount);
}
