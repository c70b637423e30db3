//! Which certificate authorities are trusted.

use std::{
    fs,
    process::{Command, Output},
};

use rig::{OpenBao, finish};
use tempfile::TempDir;

use crate::ferry::{assert_code, under_test};

#[test]
fn a_private_ca_is_read_from_each_usual_variable() {
    let server = OpenBao::raft();
    let authority = server.authority().expect("a server with TLS");
    let folder = TempDir::with_prefix("authority-").expect("a temporary folder");
    fs::copy(authority, folder.path().join("authority.pem")).expect("disk space");

    for (variable, path) in [
        ("BAO_CACERT", authority),
        ("VAULT_CACERT", authority),
        ("BAO_CAPATH", folder.path()),
        ("VAULT_CAPATH", folder.path()),
        ("SSL_CERT_FILE", authority),
        ("SSL_CERT_DIR", folder.path()),
    ] {
        let output = status(&server, |command| {
            command.env(variable, path);
        });
        // The server was reached and accepted the token.
        let stderr = stderr(&output);
        assert!(
            stderr.contains("holds no login yet"),
            "{variable}: {stderr}"
        );
    }
}

#[test]
fn an_untrusted_server_receives_no_token() {
    let [server, other] = [OpenBao::raft(), OpenBao::raft()];
    let untrusted = other.authority().expect("a server with TLS").to_owned();
    for variable in ["BAO_CACERT", "SSL_CERT_FILE"] {
        let output = status(&server, |command| {
            command.env(variable, &untrusted);
        });
        assert_code(&output, 125);
        let stderr = stderr(&output);
        assert!(
            stderr.contains("invalid peer certificate"),
            "{variable}: {stderr}"
        );
        assert!(stderr.contains("to a PEM file with the CA"), "{stderr}");
    }
}

fn status(server: &OpenBao, change: impl FnOnce(&mut Command)) -> Output {
    let mut command = Command::new(under_test());
    command
        .args(["status", "--store", "vault://secret/nothing/here"])
        .env_clear()
        .env("BAO_ADDR", server.address())
        .env("BAO_TOKEN", server.root_token());
    change(&mut command);
    finish(&mut command)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
