//! A restore from a real server, compared with other tools that read the same secret.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use rig::{Login, OpenBao};
use tempfile::TempDir;

use crate::{Effort, figures::Figures, in_turns, scene::Scene};

const MOUNT: &str = "secret";
const PATH: &str = "ci/codex";
const FIELD: &str = "auth_json";

/// Times whole commands. Each makes its own TLS connection and trusts one authority in a file.
pub(crate) fn restores(scene: &Scene, effort: &Effort, figures: &mut Figures) {
    let server = OpenBao::raft();
    let login = Login::fresh().auth_json();
    server.put_by_hand(MOUNT, PATH, FIELD, login.as_bytes(), None);
    let folder = TempDir::with_prefix("bench-").expect("a temporary folder");
    let tools = [Tool::Curl, Tool::Bao, Tool::Restore];
    let mut runs = 0;
    let [curl, bao, restore] = in_turns(effort.commands, tools, |tool| {
        runs += 1;
        // Each restore is the first one of its machine.
        let home = folder.path().join(runs.to_string());
        fs::create_dir(&home).expect("room");
        let mut command = match tool {
            Tool::Curl => curl(&server, folder.path()),
            Tool::Bao => server.bao(&[
                "kv",
                "get",
                &format!("-mount={MOUNT}"),
                &format!("-field={FIELD}"),
                PATH,
            ]),
            Tool::Restore => restore(scene, &server, &home),
        };
        command.stdout(Stdio::null());
        let began = Instant::now();
        let status = command.status().expect("a program");
        let took = began.elapsed();
        assert!(status.success(), "{command:?} failed");
        if matches!(tool, Tool::Restore) {
            let placed = fs::read_to_string(home.join(".codex/auth.json"));
            assert_eq!(placed.expect("placed"), login);
        }
        took
    });
    let curl = figures.add("curl of a login in OpenBao, ms", curl, "");
    figures.add_relative(
        curl,
        "authferry restore from this store, ms",
        restore.clone(),
        "< 0.4",
    );
    let bao = figures.add("bao kv get of that login, ms", bao, "");
    figures.add_relative(bao, "authferry restore, alternating, ms", restore, "< 0.05");
}

#[derive(Clone, Copy)]
enum Tool {
    Curl,
    Bao,
    Restore,
}

fn curl(server: &OpenBao, folder: &Path) -> Command {
    // A command line is visible to other users.
    let header = folder.join("header");
    if !header.exists() {
        let token = format!("X-Vault-Token: {}\n", server.root_token());
        fs::write(&header, token).expect("room");
    }
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--fail", "--cacert"])
        .arg(server.authority().expect("TLS"))
        .arg("--header")
        .arg(format!("@{}", header.display()))
        .arg(format!("{}/v1/{MOUNT}/data/{PATH}", server.address()));
    command
}

fn restore(scene: &Scene, server: &OpenBao, home: &Path) -> Command {
    let mut command = scene.authferry(&["-q", "restore", "--no-watch"]);
    command
        .env("HOME", home)
        .env("AUTHFERRY_STORE", format!("vault://{MOUNT}/{PATH}"))
        .env("VAULT_ADDR", server.address())
        .env("VAULT_CACERT", server.authority().expect("TLS"))
        .env("VAULT_TOKEN", server.root_token());
    command
}
