//! Whether Codex uses the login in its auth file: by the settings, and by Codex's own answer.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use authferry_codex::app_server::Request;
use authferry_codex::{
    CodexAnswer, Home, HomeError, LoginStatus, Look, SettingSources, error_line,
    obedient_app_server, parse, stand_in,
};
use authferry_core::Secret;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::rehearse::{POLL_INTERVAL, first_part};
use crate::rotate::unix_now;
use crate::rotations::create_private_folder;
use crate::sanitized::sanitized_line;
use crate::{Codex, StartError};

/// The timeout of each question to Codex. A quiet machine needs 0.3 s.
pub const LOGIN_STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an app server that has answered may take to exit.
const EXIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The proxy of a Codex that must send no request: nothing listens on this port.
const UNREACHABLE: &str = "http://127.0.0.1:1";

/// Codex's answer to the question whether it uses the login.
#[derive(Debug)]
pub struct LoginAnswer {
    /// The answer.
    pub status: LoginStatus,
    /// Codex's own line about it, sanitized.
    pub line: Option<String>,
}

/// Refuses a login that Codex would ignore or delete. Codex is asked last, because its answer does
/// not name the setting. If Codex cannot answer, the login is not refused.
pub(crate) fn check(
    codex: &Codex,
    temp: &Path,
    sources: &SettingSources,
    login: &Secret,
) -> Result<(), HomeError> {
    let settings = sources.read()?;
    settings.check()?;
    if let Ok(generation) = parse(login) {
        settings.check_workspace(&generation.identity)?;
    }
    // A private home that cannot be created is an error of the rotation that follows.
    let answer = codex.query_login_status(temp, sources, Some(login), LOGIN_STATUS_TIMEOUT);
    match answer.ok().and_then(|answer| answer.error(codex)) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl LoginAnswer {
    /// Returns the error if Codex does not use the login.
    #[must_use]
    pub fn error(self, codex: &Codex) -> Option<HomeError> {
        match self.status {
            LoginStatus::Used | LoginStatus::Unknown => None,
            LoginStatus::NotUsed => Some(HomeError::LoginNotUsed {
                program: codex.locate().unwrap_or_else(|| codex.program.clone()),
                source: self.line.map(CodexAnswer),
            }),
        }
    }
}

impl Codex {
    /// Asks Codex whether it would use the login. Codex runs in a private home in `temp` with a
    /// made-up login, which it does not rotate, and with the settings of the sources.
    ///
    /// Fails if the private home cannot be created. `timeout` limits each of two questions.
    pub fn query_login_status(
        &self,
        temp: &Path,
        sources: &SettingSources,
        login: Option<&Secret>,
        timeout: Duration,
    ) -> Result<LoginAnswer, StartError> {
        let folder = create_private_folder(temp)?;
        // Not the name of a rotation's home: the made-up login is no copy of a login.
        let home = Home::new(&folder.path().join("question"))?;
        DirBuilder::new().mode(0o700).create(home.dir())?;
        home.place(&stand_in(login, unix_now()), |look| {
            matches!(look, Look::Missing)
        })?;
        if let Some(real) = sources.home() {
            copy_settings(real, home.dir());
        }
        let question = Question {
            codex: self,
            home: &home,
            sources,
            folder: folder.path(),
        };
        let (status, line) = match question.ask_app_server(timeout)? {
            // An old version may have no app server, or one without the request.
            Answer::Exited(None | Some(LoginStatus::Unknown)) => {
                question.ask_by_command(timeout)?
            }
            Answer::Exited(Some(status)) => (status, question.error_line("app-server")),
            Answer::TimedOut => (LoginStatus::Unknown, None),
        };
        // `app-server` and `login` accept no profile, and that of the job may turn the login on.
        let status = match status {
            LoginStatus::NotUsed if sources.has_profile() => LoginStatus::Unknown,
            LoginStatus::Used | LoginStatus::NotUsed | LoginStatus::Unknown => status,
        };
        Ok(LoginAnswer { status, line })
    }
}

/// Copies the settings. If that fails, Codex is asked without them: they are judged already.
fn copy_settings(from: &Path, to: &Path) {
    const NAME: &str = "config.toml";
    fs::copy(from.join(NAME), to.join(NAME)).ok();
}

struct Question<'a> {
    codex: &'a Codex,
    home: &'a Home,
    sources: &'a SettingSources,
    folder: &'a Path,
}

enum Answer {
    Exited(Option<LoginStatus>),
    TimedOut,
}

impl Question<'_> {
    /// The number of the request for the login status.
    const NUMBER: u32 = 2;

    fn ask_app_server(&self, timeout: Duration) -> io::Result<Answer> {
        let mut command = self.command("app-server", obedient_app_server())?;
        let started = Instant::now();
        let Ok(mut child) = command.stdin(Stdio::piped()).spawn() else {
            return Ok(Answer::Exited(None));
        };
        let mut input = child.stdin.take();
        for (request, number) in [
            (Request::Initialize, 1),
            (Request::Initialized, 1),
            (Request::ReadStatus, Self::NUMBER),
        ] {
            // A program that has exited reads no request.
            let write = |input: &mut _| Write::write_all(input, request.line(number).as_bytes());
            input.as_mut().map(write).transpose().ok();
        }
        loop {
            let has_exited = child.try_wait()?.is_some();
            let answer = self.answer();
            if answer.is_some() || has_exited {
                drop(input);
                end(&mut child, EXIT_TIMEOUT)?;
                return Ok(Answer::Exited(answer));
            }
            if started.elapsed() > timeout {
                end(&mut child, Duration::ZERO)?;
                return Ok(Answer::TimedOut);
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// The app server's answer, if it has answered.
    fn answer(&self) -> Option<LoginStatus> {
        let text = first_part(&self.output("app-server"));
        let mut lines = text.lines();
        lines.find_map(|line| LoginStatus::of_reply(line.as_bytes(), Self::NUMBER))
    }

    fn ask_by_command(&self, timeout: Duration) -> io::Result<(LoginStatus, Option<String>)> {
        const NAME: &str = "login";
        let mut command = self.command(NAME, &["login", "status"])?;
        command.stdin(Stdio::null());
        let Ok(mut child) = command.spawn() else {
            return Ok((LoginStatus::Unknown, None));
        };
        let Some(code) = end(&mut child, timeout)? else {
            return Ok((LoginStatus::Unknown, None));
        };
        // Versions print the answer on either stream.
        let text = first_part(&self.output(NAME)) + &first_part(&self.errors(NAME));
        Ok((LoginStatus::of_command(code, &text), self.error_line(NAME)))
    }

    /// Builds a command in the working directory of the job, whose project may have settings.
    fn command(&self, name: &str, arguments: &[&str]) -> io::Result<Command> {
        // Without a supervisor: no token is at stake.
        let unsupervised = Codex {
            supervisor: None,
            ..self.codex.clone()
        };
        let mut command = unsupervised.command(self.home.dir(), None);
        let home = self.home.dir().to_string_lossy();
        if let Some(work) = self.sources.work().filter(|work| work.is_dir()) {
            command.current_dir(work);
        }
        for set in self.sources.overrides() {
            command.args(["-c", set]);
        }
        // The settings may name folders of the user for these files.
        for set in ["sqlite_home", "log_dir"] {
            command.args(["-c", &format!("{set}={home:?}")]);
        }
        // Codex would ask for models and plugins, which needs no login that we have.
        for proxy in ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"] {
            let lower_case = proxy.to_ascii_lowercase();
            command.env(proxy, UNREACHABLE).env(lower_case, UNREACHABLE);
        }
        command.env_remove("NO_PROXY").env_remove("no_proxy");
        // Files, not pipes: a leftover process could keep a pipe open.
        command
            .args(arguments)
            .stdout(File::create(self.output(name))?)
            .stderr(File::create(self.errors(name))?);
        Ok(command)
    }

    fn output(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.stdout"))
    }

    fn errors(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.stderr"))
    }

    fn error_line(&self, name: &str) -> Option<String> {
        let text = first_part(&self.errors(name));
        let line = error_line(&text).map(|line| sanitized_line(line, []));
        line.filter(|line| !line.is_empty())
    }
}

/// Waits for the program to exit, then kills its process group. Returns its exit code if it has
/// exited by itself.
fn end(child: &mut Child, timeout: Duration) -> io::Result<Option<u8>> {
    let started = Instant::now();
    let mut status = child.try_wait()?;
    while status.is_none() && started.elapsed() < timeout {
        sleep(POLL_INTERVAL);
        status = child.try_wait()?;
    }
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    group.map(|group| kill_process_group(group, Signal::KILL));
    if status.is_none() {
        child.wait()?;
    }
    Ok(status.map(crate::child::code_of))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// The answer of a program in place of Codex.
    fn answer(script: &str, timeout: Duration) -> LoginAnswer {
        answer_for(&[], script, timeout)
    }

    /// The answer for a job with this command.
    fn answer_for(command: &[&str], script: &str, timeout: Duration) -> LoginAnswer {
        let command: Vec<_> = command.iter().map(Into::into).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("codex");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("room");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("our file");
        let real = folder.path().join("real");
        fs::create_dir(&real).expect("room");
        fs::write(real.join("config.toml"), "model = \"marked\"").expect("room");
        let codex = Codex {
            program,
            path: None,
            withheld: Vec::new(),
            supervisor: None,
            is_tracked: false,
        };
        let real = Home::new(&real).expect("a home");
        let sources = SettingSources::of_job(&real, Some(folder.path()), &command);
        let temp = folder.path().join("temp");
        fs::create_dir(&temp).expect("room");
        let answer = codex.query_login_status(&temp, &sources, None, timeout);
        assert_eq!(
            fs::read_dir(&temp).expect("a folder").count(),
            0,
            "left behind"
        );
        answer.expect("a private home")
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn the_app_server_answers_first() {
        let script = |method: &str| {
            format!(
                "grep -q marked $CODEX_HOME/config.toml && grep -q stand-in $CODEX_HOME/auth.json || exit 2
                 case \"$*\" in *app-server) ;; *) exit 2;; esac
                 echo '{{\"id\":2,\"result\":{{\"authMethod\":{method}}}}}'; cat >/dev/null"
            )
        };
        let used = answer(&script("\"chatgpt\""), LONG);
        assert_eq!(used.status, LoginStatus::Used, "{used:?}");
        let not_used = answer(&script("null"), LONG);
        assert_eq!(not_used.status, LoginStatus::NotUsed, "{not_used:?}");
    }

    #[test]
    fn login_status_answers_without_an_app_server() {
        let script =
            "case \"$*\" in *'login status') echo 'Not logged in' >&2; exit 1;; esac; exit 2";
        let not_used = answer(script, LONG);
        assert_eq!(not_used.status, LoginStatus::NotUsed);
        assert_eq!(not_used.line.as_deref(), Some("Not logged in"));
    }

    #[test]
    fn a_profile_may_turn_the_login_on() {
        let script = "echo '{\"id\":2,\"result\":{\"authMethod\":null}}'; cat >/dev/null";
        for (command, status) in [
            (&["codex", "exec"][..], LoginStatus::NotUsed),
            (&["codex", "-p", "ci", "exec"], LoginStatus::Unknown),
        ] {
            let answer = answer_for(command, script, LONG);
            assert_eq!(answer.status, status, "{command:?}");
        }
    }

    /// The answer of a version that does not know the request is no reason to wait.
    #[test]
    fn an_unknown_request_is_asked_by_command() {
        let script = "case \"$*\" in *'login status') echo 'Logged in using ChatGPT'; exit;; esac
            echo '{\"id\":2,\"error\":{\"code\":-32600,\"message\":\"m\"}}'; cat >/dev/null";
        assert_eq!(answer(script, LONG).status, LoginStatus::Used);
    }

    /// A program that fails or hangs says nothing about the login.
    #[test]
    fn no_answer_is_unknown() {
        for script in ["exit 1", "echo none of this >&2; exit 1", "exec sleep 600"] {
            let unknown = answer(script, Duration::from_millis(300));
            assert_eq!(unknown.status, LoginStatus::Unknown, "{script}");
        }
    }
}
