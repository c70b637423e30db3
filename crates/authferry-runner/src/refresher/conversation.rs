//! The conversation with Codex's app server: which requests make it rotate the login.

use std::{
    io::{self, BufRead, Write},
    thread::sleep,
    time::Duration,
};

use authferry_codex::LoginStatus;
use authferry_codex::app_server::{self, Request, ServerReply};
use tokio::time::Instant;

/// No request follows an answer that took longer than this: the next answer would exceed the limit
/// too, and the provider may already have accepted the token.
pub(super) const SLOW_ANSWER: Duration = Duration::from_secs(10);

/// How much longer than its timeout a request of Codex may take until its result is in the file.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often to look for the new login.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the conversation has to know of Codex and its login.
#[derive(Clone, Copy, Debug)]
pub(super) struct Circumstances {
    /// The login is due, so that Codex rotates it unasked.
    pub(super) is_due: bool,
    /// How long this Codex waits for the provider before it sends the refresh token again.
    pub(super) answer_timeout: Duration,
    /// No request follows an answer that took this long.
    pub(super) slow: Duration,
}

/// An exchange of the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// Says hello.
    Initialize,
    /// Reads the login: Codex rotates one that is due.
    Read,
    /// Rotates the login.
    Rotate,
    /// Rotates the login once more, after a failure. `account/read` comes first, because it also
    /// shows whether the provider refused the login for good.
    Retry,
}

/// The exchanges that rotate a login. A version that considers the login due rotates it at the
/// read, and would rotate it twice if it was asked to rotate at once.
pub(super) const ROTATE: &[Exchange] = &[
    Exchange::Initialize,
    Exchange::Read,
    Exchange::Rotate,
    Exchange::Retry,
];

/// The exchanges on an ended copy, which every version rotates unasked. A further request would
/// show a refused token to the provider once more.
pub(super) const ASK_WHY: &[Exchange] = &[Exchange::Initialize, Exchange::Read];

impl Exchange {
    /// The requests for this exchange, in the order to try: a version may not know the first one.
    fn requests(self) -> &'static [Request] {
        match self {
            Self::Initialize => &[Request::Initialize],
            Self::Read => &[Request::ReadStatus, Request::ReadAccount],
            Self::Rotate => &[Request::Rotate, Request::RotateByAccount],
            Self::Retry => &[Request::RotateByAccount, Request::Rotate],
        }
    }
}

/// The result of a conversation with the app server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conversation {
    pub(super) not_understood: bool,
    /// After a refresh, Codex reported no account, although it uses the login.
    pub(super) account_is_null: bool,
    /// The longest time until an answer before which Codex may have refreshed.
    pub(super) slowest_refresh: Duration,
}

/// Goes through the exchanges until the login is rotated. Sends no request after a slow answer.
///
/// The server exits at the end of its input. Then it would lose the answer to the request that a
/// version sends again after its timeout, so this waits for that answer.
pub(super) fn converse<I: Write, O: BufRead>(
    mut server: Server<I, O>,
    exchanges: &[Exchange],
    rotated: impl Fn() -> bool,
    circumstances: Circumstances,
) -> Conversation {
    let Circumstances {
        is_due,
        answer_timeout,
        slow,
    } = circumstances;
    let mut conversation = Conversation::default();
    let mut was_slow = false;
    for &exchange in exchanges {
        if was_slow {
            break;
        }
        // A server that rotates a due login at its start may do so again at each request.
        if exchange != Exchange::Initialize && rotated() {
            break;
        }
        let started = Instant::now();
        let answered = server.take(exchange);
        // The server may rotate a due login before its first answer.
        if is_due || matches!(exchange, Exchange::Rotate | Exchange::Retry) {
            let elapsed = started.elapsed();
            conversation.slowest_refresh = conversation.slowest_refresh.max(elapsed);
            was_slow = elapsed >= slow;
        }
        // A version without an app server exits at once, or reads on without an answer.
        if !answered.is_ok_and(|is_known| is_known) {
            conversation.not_understood = !rotated();
            break;
        }
        if was_slow && matches!(exchange, Exchange::Initialize | Exchange::Read) {
            wait_for_write(&rotated, answer_timeout.saturating_add(WRITE_TIMEOUT));
        }
    }
    conversation.account_is_null = server.account_is_null && !server.ignores_login;
    conversation
}

/// Waits until Codex has written a new login.
fn wait_for_write(rotated: impl Fn() -> bool, timeout: Duration) {
    let started = Instant::now();
    while started.elapsed() < timeout && !rotated() {
        sleep(LOOK_INTERVAL);
    }
}

/// A running app server.
pub(super) struct Server<I, O> {
    input: I,
    output: O,
    number: u32,
    /// The last answer about the account named none.
    account_is_null: bool,
    /// Codex does not use the login in its home.
    ignores_login: bool,
}

impl<I: Write, O: BufRead> Server<I, O> {
    pub(super) fn new(input: I, output: O) -> Self {
        Self {
            input,
            output,
            number: 0,
            account_is_null: false,
            ignores_login: false,
        }
    }

    /// Makes an exchange; returns whether the server knows a request for it.
    fn take(&mut self, exchange: Exchange) -> io::Result<bool> {
        for request in exchange.requests() {
            match self.send(*request)? {
                ServerReply::UnknownMethod => {}
                ServerReply::Done | ServerReply::Unrelated => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Sends a request and waits for the answer.
    fn send(&mut self, request: Request) -> io::Result<ServerReply> {
        self.number += 1;
        self.input.write_all(request.line(self.number).as_bytes())?;
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.output.read_until(b'\n', &mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match ServerReply::of(&line, self.number) {
                ServerReply::Unrelated => {}
                reply @ (ServerReply::Done | ServerReply::UnknownMethod) => {
                    self.note(request, &line);
                    if request == Request::Initialize {
                        let initialized = Request::Initialized.line(self.number);
                        self.input.write_all(initialized.as_bytes())?;
                    }
                    return Ok(reply);
                }
            }
        }
    }

    fn note(&mut self, request: Request, reply: &[u8]) {
        match request {
            Request::ReadStatus => {
                let status = LoginStatus::of_reply(reply, self.number);
                self.ignores_login = status == Some(LoginStatus::NotUsed);
            }
            Request::RotateByAccount => {
                self.account_is_null = app_server::has_no_account(reply);
            }
            Request::Initialize | Request::Initialized | Request::Rotate | Request::ReadAccount => {
            }
        }
    }
}

impl<I: Clone, O> Server<I, O> {
    /// Returns the input, to be closed at the end of the conversation.
    pub(super) fn input(&self) -> I {
        self.input.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Converses with a server that rotates nothing and gives these answers, each a result or an
    /// error; returns the methods that were asked, with an exclamation mark if they rotate.
    fn converse_with(answers: &[&str], slow: Duration) -> (Vec<String>, Conversation) {
        let answers = answers.iter().zip(1..);
        let answers = answers.map(|(answer, id)| format!("{{\"id\":{id},{answer}}}\n"));
        let answers: String = answers.collect();
        let mut input = Vec::new();
        let server = Server::new(&mut input, answers.as_bytes());
        let circumstances = Circumstances {
            is_due: false,
            answer_timeout: Duration::ZERO,
            slow,
        };
        let conversation = converse(server, ROTATE, || false, circumstances);
        let asked = input.split(|byte| *byte == b'\n');
        let asked = asked.filter_map(|line| serde_json::from_slice(line).ok());
        let asked = asked.map(|line: serde_json::Value| {
            let rotates = line["params"]["refreshToken"] == true;
            let method = line["method"].as_str().expect("a method");
            format!("{method}{}", if rotates { "!" } else { "" })
        });
        (asked.skip(2).collect(), conversation)
    }

    const DONE: &str = r#""result":{}"#;
    const UNKNOWN: &str = r#""error":{"code":-32600,"message":"unknown variant"}"#;
    const NO_ACCOUNT: &str = r#""result":{"account":null}"#;

    #[test]
    fn a_failed_rotation_is_retried_unless_it_was_slow() {
        let (asked, conversation) = converse_with(&[DONE; 4], Duration::MAX);
        assert_eq!(asked, ["getAuthStatus", "getAuthStatus!", "account/read!"]);
        assert!(!conversation.not_understood && !conversation.account_is_null);
        let (asked, conversation) = converse_with(&[DONE; 4], Duration::ZERO);
        assert_eq!(asked, ["getAuthStatus", "getAuthStatus!"]);
        assert!(!conversation.not_understood);
    }

    #[test]
    fn a_missing_account_after_a_failure_is_reported() {
        let used = r#""result":{"authMethod":"chatgpt"}"#;
        let ignored = r#""result":{"authMethod":null}"#;
        for (status, is_reported) in [(used, true), (ignored, false)] {
            let answers = [DONE, status, DONE, NO_ACCOUNT];
            let (_, conversation) = converse_with(&answers, Duration::MAX);
            assert_eq!(conversation.account_is_null, is_reported, "{status}");
        }
    }

    #[test]
    fn an_unknown_request_is_replaced_by_the_other_one() {
        let answers = [DONE, UNKNOWN, DONE, UNKNOWN, DONE, NO_ACCOUNT];
        let (asked, conversation) = converse_with(&answers, Duration::MAX);
        let expected = [
            "getAuthStatus",
            "account/read",
            "getAuthStatus!",
            "account/read!",
            "account/read!",
        ];
        assert_eq!(asked, expected);
        assert!(!conversation.not_understood && conversation.account_is_null);

        let answers = [DONE, DONE, DONE, UNKNOWN, DONE];
        let (asked, conversation) = converse_with(&answers, Duration::MAX);
        let expected = [
            "getAuthStatus",
            "getAuthStatus!",
            "account/read!",
            "getAuthStatus!",
        ];
        assert_eq!(asked, expected);
        assert!(!conversation.not_understood);
    }

    #[test]
    fn a_server_that_knows_no_request_or_ends_is_not_understood() {
        for answers in [&[DONE, UNKNOWN, UNKNOWN] as &[&str], &[DONE], &[]] {
            let (_, conversation) = converse_with(answers, Duration::MAX);
            assert!(conversation.not_understood, "{answers:?}");
        }
    }
}
