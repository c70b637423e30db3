//! Every known invalid auth file, with its error.

use authferry_core::Secret;

use crate::{
    AuthFileError, Fault, MAX_LEN, Member,
    auth_file::OTHER_MODES,
    made_up::{self, MARKER, with, with_value, without},
    parse,
};

#[test]
fn every_invalid_file_has_its_error() {
    for (at, (file, why)) in bad_shapes().into_iter().enumerate() {
        assert_eq!(parse(&Secret::new(file)), Err(why), "shape {at}");
    }
}

#[test]
fn every_truncation_is_detected() {
    let good = made_up::auth_file(1);
    for len in 1..good.len() {
        let cut = Secret::new(good.as_bytes()[..len].to_vec());
        assert_eq!(parse(&cut), Err(AuthFileError::Truncated), "{len}");
    }
}

#[test]
fn no_error_quotes_the_file() {
    for (file, _) in bad_shapes() {
        let why = parse(&Secret::new(file)).expect_err("a bad file");
        for text in [why.to_string(), format!("{why:?}")] {
            assert!(!text.contains(MARKER) && !text.contains("eyJ"), "{text}");
        }
    }
}

fn bad_shapes() -> Vec<(Vec<u8>, AuthFileError)> {
    let mut bad = Vec::new();
    bad.extend(not_an_object());
    bad.extend(not_chatgpt());
    bad.extend(bad_members());
    bad
}

fn not_an_object() -> Vec<(Vec<u8>, AuthFileError)> {
    let good = made_up::auth_file(1);
    let not_json = |line, column| AuthFileError::NotJson { line, column };
    vec![
        (b"".into(), AuthFileError::Empty),
        (b" \r\n".into(), AuthFileError::Empty),
        (vec![b' '; MAX_LEN + 1], AuthFileError::TooLarge),
        (format!("\u{feff}{good}").into(), AuthFileError::Bom),
        (b"{\"auth_mode\":\"\xFF\"}".into(), AuthFileError::NotUtf8),
        (b"{\"auth_mode\":\"\xC3".into(), AuthFileError::Truncated),
        (good[..good.len() - 1].into(), AuthFileError::Truncated),
        (format!("{good}{MARKER}").into(), not_json(11, 2)),
        (format!("{MARKER}{good}").into(), not_json(1, 1)),
        (vec![0; 9], not_json(1, 1)),
        (format!("[{good}]").into(), AuthFileError::NotAnObject),
        (format!("\"{MARKER}\"").into(), AuthFileError::NotAnObject),
        (b"null".into(), AuthFileError::NotAnObject),
        (b"7".into(), AuthFileError::NotAnObject),
        (
            with("\"OPENAI_API_KEY\"", "\"last_refresh\"").into(),
            AuthFileError::RepeatedMember,
        ),
        (
            with("\"account_id\"", "\"id_token\"").into(),
            AuthFileError::RepeatedMember,
        ),
    ]
}

fn not_chatgpt() -> Vec<(Vec<u8>, AuthFileError)> {
    let mode = |mode: &str| with_value("auth_mode", &format!("\"{mode}\"")).into();
    let instead = |json: &str| with(r#""auth_mode": "chatgpt""#, json).into();
    let api_key = |json: &str| {
        with(
            r#""auth_mode": "chatgpt","#,
            &format!(r#""auth_mode": null, "OPENAI_API_KEY": {json}, "unknown":{{}},"#),
        )
        .replace("\"OPENAI_API_KEY\": null,", "")
        .into()
    };
    let text = format!("\"{MARKER}\"");
    let other = AuthFileError::OtherMode;
    let mut bad = vec![
        (mode(MARKER), AuthFileError::UnknownMode),
        (mode(""), AuthFileError::UnknownMode),
        (mode("ChatGPT"), AuthFileError::UnknownMode),
        (mode("apikey"), AuthFileError::ApiKeyMode),
        (mode("chatgptAuthTokens"), AuthFileError::ExternalTokens),
        (api_key(&text), AuthFileError::ApiKeyMode),
        (api_key("\"\""), AuthFileError::ApiKeyMode),
        (
            api_key(&format!("{text}, \"bedrock_access_keys\": {{}}")),
            other("bedrockAccessKeys"),
        ),
        (
            api_key(&format!("{text}, \"bedrock_api_key\": {text}")),
            other("bedrockApiKey"),
        ),
        (
            instead(&format!(
                r#""bedrock_api_key": {text}, "personal_access_token": {text}"#
            )),
            other("personalAccessToken"),
        ),
    ];
    bad.extend(OTHER_MODES.map(|name| (mode(name), other(name))));
    bad
}

fn bad_members() -> Vec<(Vec<u8>, AuthFileError)> {
    let fault = |member, fault| AuthFileError::Member { member, fault };
    let wrong = |member| fault(member, Fault::WrongType);
    let text = |member: &str, text: &str| with_value(member, &format!("\"{text}\"")).into();
    let tokens = |json: &str| format!(r#"{{"tokens": {json}}}"#).into();
    let mut bad = vec![
        (
            with_value("auth_mode", "{}").into(),
            wrong(Member::AuthMode),
        ),
        (
            with_value("OPENAI_API_KEY", &format!("[\"{MARKER}\"]")).into(),
            wrong(Member::ApiKey),
        ),
        (
            with_value("last_refresh", "1780000000").into(),
            wrong(Member::LastRefresh),
        ),
        (text("last_refresh", ""), AuthFileError::BadLastRefresh),
        (text("last_refresh", MARKER), AuthFileError::BadLastRefresh),
        (
            text("last_refresh", "2026-11-23T10:20:30"),
            AuthFileError::BadLastRefresh,
        ),
        (text("id_token", MARKER), AuthFileError::IdTokenNotAJwt),
        (
            text("id_token", &format!("{MARKER}.{MARKER}.{MARKER}")),
            AuthFileError::IdTokenNotAJwt,
        ),
        (b"{}".into(), fault(Member::Tokens, Fault::Missing)),
        (tokens("null"), fault(Member::Tokens, Fault::Null)),
        (tokens(&format!("\"{MARKER}\"")), wrong(Member::Tokens)),
        (tokens("[]"), wrong(Member::Tokens)),
        (tokens("true"), wrong(Member::Tokens)),
    ];
    for (name, member) in [
        ("id_token", Member::IdToken),
        ("access_token", Member::AccessToken),
        ("refresh_token", Member::RefreshToken),
        ("account_id", Member::AccountId),
    ] {
        bad.push((without(name).into(), fault(member, Fault::Missing)));
        bad.push((with_value(name, "null").into(), fault(member, Fault::Null)));
        bad.push((text(name, ""), fault(member, Fault::Empty)));
        for json in ["7", "-7", "0.5", "true", "[[]]", "{}"] {
            bad.push((with_value(name, json).into(), wrong(member)));
        }
    }
    bad
}
