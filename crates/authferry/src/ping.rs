//! The ping to a monitor that raises the alarm if a scheduled job fails or does not run.

use authferry_http::{Ping, PingError};
use secrecy::SecretString;

use crate::commands::run_alone;
use crate::env;
use crate::outcome::Ending;

/// Pings the URL of `--ping`, or of `AUTHFERRY_PING_URL`, about the end of a command: a success is
/// the exit code 0.
///
/// A ping that is not delivered is a warning: the exit code describes the login.
pub(crate) fn report(option: Option<&str>, mut ending: Ending) -> Ending {
    let Some(url) = option.map(SecretString::from).or_else(env::ping_url) else {
        return ending;
    };
    let sent = run_alone(async { Ping::new(&url)?.send(ending.code == 0).await });
    let problem = match sent {
        Ok(Ok(())) => return ending,
        Ok(Err(error)) => describe(&error),
        Err(no_runtime) => no_runtime.reason().to_owned(),
    };
    ending
        .warnings
        .push(format!("the ping to the monitor failed: {problem}"));
    ending
}

/// The error and its causes, in one line.
fn describe(error: &PingError) -> String {
    let mut text = error.to_string();
    let mut below: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(error) = below {
        text.push_str(": ");
        text.push_str(&error.to_string());
        below = error.source();
    }
    text
}
