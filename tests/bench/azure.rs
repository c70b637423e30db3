//! A restore from a stand-in of Key Vault, compared with other tools that read the same secret.

use std::{
    fs,
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use rig::{ADMIN, Azurite, KeyVault, Login, PythonClient, TENANT};
use tempfile::TempDir;

use crate::{Effort, figures::Figures, in_turns, scene::Scene};

const NAME: &str = "codex-login";

const RESOURCE: &str = "https://vault.azure.net";

/// Times whole commands. Each makes its own TLS connections and trusts one authority in a file. All
/// but curl sign in first; curl gets a token.
pub(crate) fn restores(scene: &Scene, effort: &Effort, figures: &mut Figures) {
    let azurite = Arc::new(Azurite::start());
    let vault = KeyVault::with_blobs(&azurite);
    let host = vault.host();
    let login = Login::fresh().auth_json();
    PythonClient::of(&vault).set(NAME, &login);
    let blob = format!(
        "blob://{host}/devstoreaccount1/{}/login.json",
        azurite.container()
    );
    let folder = TempDir::with_prefix("bench-").expect("a temporary folder");
    let header = folder.path().join("header");
    let bearer = format!("Authorization: Bearer {}\n", vault.token(ADMIN.0, RESOURCE));
    fs::write(&header, bearer).expect("room");

    let mut runs = 0;
    let store = format!("azure-kv://{host}/{NAME}?coordinator={blob}&auth=secret");
    let tools = [Tool::Curl, Tool::Python, Tool::Restore];
    let [curl, python, restore] = in_turns(effort.commands, tools, |tool| {
        runs += 1;
        // Each restore is the first one of its machine.
        let home = folder.path().join(runs.to_string());
        fs::create_dir(&home).expect("room");
        let began = Instant::now();
        match tool {
            Tool::Curl => {
                let mut curl = Command::new("curl");
                curl.args(["--silent", "--fail", "--cacert"])
                    .arg(vault.authority())
                    // A command line is visible to other users.
                    .arg("--header")
                    .arg(format!("@{}", header.display()))
                    .arg(format!(
                        "{}/secrets/{NAME}?api-version=2025-07-01",
                        vault.url()
                    ));
                succeeds(&mut curl);
            }
            Tool::Python => {
                let read = PythonClient::of(&vault).get(NAME);
                assert_eq!(read.as_deref(), Some(login.as_str()));
            }
            Tool::Restore => {
                let mut restore = scene.authferry(&["-q", "restore", "--no-watch"]);
                restore
                    .env("HOME", &home)
                    .env("AUTHFERRY_STORE", &store)
                    .env("AZURE_AUTHORITY_HOST", vault.url())
                    .env("AZURE_TENANT_ID", TENANT)
                    .env("AZURE_CLIENT_ID", ADMIN.0)
                    .env("AZURE_CLIENT_SECRET", ADMIN.1)
                    .env("SSL_CERT_FILE", vault.authority());
                succeeds(&mut restore);
            }
        }
        let took = began.elapsed();
        if matches!(tool, Tool::Restore) {
            let placed = fs::read_to_string(home.join(".codex/auth.json"));
            assert_eq!(placed.expect("placed"), login);
        }
        took
    });
    let curl = figures.add("curl of a login in Key Vault, ms", curl, "");
    figures.add_relative(
        curl,
        "authferry restore from this store, ms",
        restore.clone(),
        "< 2",
    );
    let python = figures.add("Microsoft's Python client, ms", python, "");
    figures.add_relative(
        python,
        "authferry restore, alternating, ms",
        restore,
        "< 0.1",
    );
}

#[derive(Clone, Copy)]
enum Tool {
    Curl,
    Python,
    Restore,
}

fn succeeds(command: &mut Command) {
    let status = command.stdout(Stdio::null()).status();
    assert!(status.is_ok_and(|it| it.success()), "{command:?} failed");
}
