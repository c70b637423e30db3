//! A restore and a persist against an AWS server, compared with other tools.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use rig::{ACCESS_LIFETIME, Aws, Login, REGION};
use tempfile::TempDir;
use time::OffsetDateTime;

use crate::{Effort, figures::Figures, in_turns, scene::Scene};

const NAME: &str = "ci/codex";

/// A script that reads the secret without authferry.
const SCRIPT: &str = r#"
import boto3
print(boto3.client("secretsmanager").get_secret_value(SecretId="ci/codex")["SecretString"])
"#;

/// Times whole commands. Each makes its own TLS connection and trusts one authority in a file. The
/// server is a Python program, and its time counts too.
pub(crate) fn round_trips(scene: &Scene, effort: &Effort, figures: &mut Figures) {
    let place = Place::set(scene);
    place.restores(effort, figures);
    place.persists(effort, figures);
}

struct Place<'a> {
    scene: &'a Scene,
    server: Aws,
    folder: TempDir,
    login: Login,
}

#[derive(Clone, Copy)]
enum Tool {
    Curl,
    Aws,
    Boto,
    Authferry,
}

impl<'a> Place<'a> {
    fn set(scene: &'a Scene) -> Self {
        let server = Aws::moto_with_tls();
        let now = OffsetDateTime::now_utc();
        let login = Login::new("account-1", 1, now, ACCESS_LIFETIME);
        server.boto().put(NAME, &login.auth_json());
        Self {
            scene,
            server,
            folder: TempDir::with_prefix("bench-").expect("a temporary folder"),
            login,
        }
    }

    fn restores(&self, effort: &Effort, figures: &mut Figures) {
        let tools = [Tool::Curl, Tool::Aws, Tool::Boto, Tool::Authferry];
        let mut runs = 0;
        let [curl, aws, boto, restore] = in_turns(effort.commands, tools, |tool| {
            runs += 1;
            // Each restore is the first one of its machine.
            let home = self.home(runs);
            let command = match tool {
                Tool::Curl => self.curl(),
                Tool::Aws => self.cli("get-secret-value", &[]),
                Tool::Boto => {
                    let mut python = self.server.python();
                    python.args(["-c", SCRIPT]);
                    python
                }
                Tool::Authferry => self.restore(&home),
            };
            let took = timed(command);
            if matches!(tool, Tool::Authferry) {
                let placed = fs::read_to_string(home.join(".codex/auth.json"));
                assert_eq!(placed.expect("placed"), self.login.auth_json());
            }
            took
        });
        let curl = figures.add("curl of a login in moto, ms", curl, "");
        let name = "authferry restore from this store, ms";
        figures.add_relative(curl, name, restore.clone(), "< 0.4");
        let aws = figures.add("aws get-secret-value of that login, ms", aws, "");
        figures.add_relative(
            aws,
            "authferry restore, alternating, ms",
            restore.clone(),
            "< 0.02",
        );
        let boto = figures.add("a script with boto3, ms", boto, "");
        figures.add_relative(boto, "authferry restore, alternating, ms", restore, "");
    }

    fn persists(&self, effort: &Effort, figures: &mut Figures) {
        let mut runs = effort.commands * 10;
        let mut serial = 1;
        let tools = [Tool::Aws, Tool::Authferry];
        let [put, persist] = in_turns(effort.commands, tools, |tool| {
            runs += 1;
            serial += 1;
            let next = Login {
                serial,
                issued: self.login.issued + time::Duration::seconds(serial.into()),
                ..self.login.clone()
            };
            let home = self.home(runs);
            timed(self.restore(&home));
            let file = home.join(".codex/auth.json");
            fs::write(&file, next.auth_json()).expect("room");
            match tool {
                Tool::Authferry => {
                    let took = timed(self.authferry("persist", &home));
                    assert_eq!(self.server.boto().look(NAME), Some(next.auth_json()));
                    took
                }
                Tool::Aws | Tool::Curl | Tool::Boto => {
                    let value = format!("file://{}", file.display());
                    timed(self.cli("put-secret-value", &["--secret-string", &value]))
                }
            }
        });
        let put = figures.add("aws put-secret-value of a login, ms", put, "");
        figures.add_relative(put, "authferry persist to this store, ms", persist, "");
    }

    fn home(&self, number: u32) -> PathBuf {
        let home = self.folder.path().join(number.to_string());
        fs::create_dir(&home).expect("room");
        home
    }

    fn curl(&self) -> Command {
        // A command line is visible to other users.
        let config = self.folder.path().join("curl");
        if !config.exists() {
            let [(_, id), (_, secret)] = self.server.keys();
            fs::write(&config, format!("user = \"{id}:{secret}\"\n")).expect("room");
        }
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--fail", "--cacert"])
            .arg(self.server.authority().expect("TLS"))
            .arg("--config")
            .arg(config)
            .arg("--aws-sigv4")
            .arg(format!("aws:amz:{REGION}:secretsmanager"))
            .args(["--header", "Content-Type: application/x-amz-json-1.1"])
            .args(["--header", "X-Amz-Target: secretsmanager.GetSecretValue"])
            .arg("--data")
            .arg(format!(
                r#"{{"SecretId":"{NAME}","VersionStage":"AWSCURRENT"}}"#
            ))
            .arg(self.server.url());
        command
    }

    fn cli(&self, call: &str, more: &[&str]) -> Command {
        let mut arguments = vec!["secretsmanager", call, "--secret-id", NAME];
        arguments.extend(more);
        self.server.cli(&arguments)
    }

    fn restore(&self, home: &Path) -> Command {
        let mut restore = self.authferry("restore", home);
        restore.arg("--no-watch");
        restore
    }

    fn authferry(&self, subcommand: &str, home: &Path) -> Command {
        let mut command = self.scene.authferry(&["-q", subcommand]);
        command
            .env("HOME", home)
            .env("AUTHFERRY_STORE", format!("aws-sm://{REGION}/{NAME}"))
            .envs(self.server.place())
            .envs(self.server.keys());
        command
    }
}

fn timed(mut command: Command) -> Duration {
    command.stdout(Stdio::null());
    let began = Instant::now();
    let status = command.status().expect("a program");
    let took = began.elapsed();
    assert!(status.success(), "{command:?} failed");
    took
}
