//! One harmless line of another program's output.

use authferry_codex::for_each_token;
use authferry_core::Secret;

/// How many characters of the line are kept.
const MAX_CHARS: usize = 200;

/// A word of at least this many characters that has letters and digits may be a token.
const MIN_TOKEN_LEN: usize = 40;

/// What replaces a token.
const HIDDEN: &str = "[hidden]";

/// Sanitizes a line of another program's output: no token, no control character, no command for
/// GitHub's runner, at most 200 characters.
///
/// It hides the tokens of `logins`, and every word that could be a token: the line may quote a
/// server's response, with a token that this process has never seen.
pub(crate) fn sanitized_line<'a>(
    line: &str,
    logins: impl IntoIterator<Item = &'a Secret>,
) -> String {
    // First, because a control character may divide a token or a command.
    let mut line: String = line.chars().filter(|c| !c.is_control()).collect();
    for login in logins {
        for_each_token(login, |token| {
            if !token.is_empty() {
                line = line.replace(token, HIDDEN);
            }
        });
    }
    let line = hide_possible_tokens(&line);
    // The runner finds `##[` anywhere in a line, and `::` at its beginning.
    let line = line.replace("##[", "# #[");
    let line = line.trim().trim_start_matches(':');
    line.chars().take(MAX_CHARS).collect()
}

fn hide_possible_tokens(line: &str) -> String {
    // A path or an address has separators between its words.
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.+=~".contains(c);
    let mut safe = String::with_capacity(line.len());
    let mut rest = line;
    while !rest.is_empty() {
        let word = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, tail) = rest.split_at(word);
        let has = |is: fn(&u8) -> bool| word.as_bytes().iter().any(is);
        let may_be_token =
            word.len() >= MIN_TOKEN_LEN && has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
        safe.push_str(if may_be_token { HIDDEN } else { word });
        let separator = tail.find(is_part).unwrap_or(tail.len());
        let (separator, next) = tail.split_at(separator);
        safe.push_str(separator);
        rest = next;
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_no_control_character_and_no_command() {
        for (line, safe) in [
            ("", ""),
            ("codex-cli 0.171.0", "codex-cli 0.171.0"),
            ("one\x1b[31m two", "one[31m two"),
            (" ::error::made up", "error::made up"),
            ("a ##[error]made up", "a # #[error]made up"),
            ("a #\u{1}#[error]made up", "a # #[error]made up"),
        ] {
            assert_eq!(sanitized_line(line, []), safe);
        }
        assert_eq!(sanitized_line(&"a".repeat(5000), []).len(), MAX_CHARS);
    }

    #[test]
    fn a_token_is_hidden_although_it_is_unknown() {
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJtYWRlLXVwIn0.c2lnbmF0dXJl";
        let quoted = format!("500: {{\"access_token\":\"{token}\",\"a\":1}}");
        assert_eq!(
            sanitized_line(&quoted, []),
            "500: {\"access_token\":\"[hidden]\",\"a\":1}"
        );
        let path = "/opt/x86_64-unknown-linux-musl/0.171.0/node_modules/@openai/codex/bin/codex.js";
        assert_eq!(sanitized_line(path, []), path);
    }

    #[test]
    fn the_tokens_of_a_login_are_hidden_whatever_they_look_like() {
        let login = Secret::new(
            br#"{"tokens":{"id_token":"id one","access_token":"short","refresh_token":"rt:1","account_id":"a"}}"#
                .to_vec(),
        );
        let line = "spent rt:1 of short and id one";
        assert_eq!(
            sanitized_line(line, [&login]),
            "spent [hidden] of [hidden] and [hidden]"
        );
    }
}
