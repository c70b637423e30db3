//! Every bad shape of an auth file that is known, with what it is called.

use authferry_core::Secret;

use crate::{
    Fault, MAX_LEN, Member, Unusable,
    auth_file::OTHER_MODES,
    made_up::{self, MARK, with, with_value, without},
    parse,
};

#[test]
fn every_bad_shape_has_its_name() {
    for (at, (file, why)) in bad_shapes().into_iter().enumerate() {
        assert_eq!(parse(&Secret::new(file)), Err(why), "shape {at}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let good = made_up::auth_file(1);
    for len in 1..good.len() {
        let cut = Secret::new(good.as_bytes()[..len].to_vec());
        assert_eq!(parse(&cut), Err(Unusable::Truncated), "{len}");
    }
}

#[test]
fn no_error_quotes_the_file() {
    for (file, _) in bad_shapes() {
        let why = parse(&Secret::new(file)).expect_err("a bad file");
        for text in [why.to_string(), format!("{why:?}")] {
            assert!(!text.contains(MARK) && !text.contains("eyJ"), "{text}");
        }
    }
}

fn bad_shapes() -> Vec<(Vec<u8>, Unusable)> {
    let mut bad = Vec::new();
    bad.extend(not_an_object());
    bad.extend(not_chatgpt());
    bad.extend(bad_members());
    bad
}

fn not_an_object() -> Vec<(Vec<u8>, Unusable)> {
    let good = made_up::auth_file(1);
    let not_json = |line, column| Unusable::NotJson { line, column };
    vec![
        (b"".into(), Unusable::Empty),
        (b" \r\n".into(), Unusable::Empty),
        (vec![b' '; MAX_LEN + 1], Unusable::TooLarge),
        (format!("\u{feff}{good}").into(), Unusable::Bom),
        (b"{\"auth_mode\":\"\xFF\"}".into(), Unusable::NotUtf8),
        (b"{\"auth_mode\":\"\xC3".into(), Unusable::Truncated),
        (good[..good.len() - 1].into(), Unusable::Truncated),
        (format!("{good}{MARK}").into(), not_json(11, 2)),
        (format!("{MARK}{good}").into(), not_json(1, 1)),
        (vec![0; 9], not_json(1, 1)),
        (format!("[{good}]").into(), Unusable::NotAnObject),
        (format!("\"{MARK}\"").into(), Unusable::NotAnObject),
        (b"null".into(), Unusable::NotAnObject),
        (b"7".into(), Unusable::NotAnObject),
        (
            with("\"OPENAI_API_KEY\"", "\"last_refresh\"").into(),
            Unusable::RepeatedMember,
        ),
        (
            with("\"account_id\"", "\"id_token\"").into(),
            Unusable::RepeatedMember,
        ),
    ]
}

fn not_chatgpt() -> Vec<(Vec<u8>, Unusable)> {
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
    let text = format!("\"{MARK}\"");
    let other = Unusable::OtherMode;
    let mut bad = vec![
        (mode(MARK), Unusable::UnknownMode),
        (mode(""), Unusable::UnknownMode),
        (mode("ChatGPT"), Unusable::UnknownMode),
        (mode("apikey"), Unusable::ApiKeyMode),
        (mode("chatgptAuthTokens"), Unusable::ExternalTokens),
        (api_key(&text), Unusable::ApiKeyMode),
        (api_key("\"\""), Unusable::ApiKeyMode),
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

fn bad_members() -> Vec<(Vec<u8>, Unusable)> {
    let fault = |member, fault| Unusable::Member { member, fault };
    let wrong = |member| fault(member, Fault::WrongType);
    let text = |member: &str, text: &str| with_value(member, &format!("\"{text}\"")).into();
    let tokens = |json: &str| format!(r#"{{"tokens": {json}}}"#).into();
    let mut bad = vec![
        (
            with_value("auth_mode", "{}").into(),
            wrong(Member::AuthMode),
        ),
        (
            with_value("OPENAI_API_KEY", &format!("[\"{MARK}\"]")).into(),
            wrong(Member::ApiKey),
        ),
        (
            with_value("last_refresh", "1780000000").into(),
            wrong(Member::LastRefresh),
        ),
        (text("last_refresh", ""), Unusable::BadLastRefresh),
        (text("last_refresh", MARK), Unusable::BadLastRefresh),
        (
            text("last_refresh", "2026-11-23T10:20:30"),
            Unusable::BadLastRefresh,
        ),
        (text("id_token", MARK), Unusable::IdTokenNotAJwt),
        (
            text("id_token", &format!("{MARK}.{MARK}.{MARK}")),
            Unusable::IdTokenNotAJwt,
        ),
        (b"{}".into(), fault(Member::Tokens, Fault::Missing)),
        (tokens("null"), fault(Member::Tokens, Fault::Null)),
        (tokens(&format!("\"{MARK}\"")), wrong(Member::Tokens)),
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
