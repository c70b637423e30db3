//! From whom a server's certificate may come.

use std::{
    fs,
    process::{Command, Output},
};

use rig::{OpenBao, finish};
use tempfile::TempDir;

use crate::ferry::{assert_code, under_test};

#[test]
fn a_private_authority_is_named_in_each_of_the_usual_ways() {
    let server = OpenBao::raft();
    let authority = server.authority().expect("a server with TLS");
    let folder = TempDir::with_prefix("authority-").expect("a temporary folder");
    fs::copy(authority, folder.path().join("authority.pem")).expect("room");

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
        // The server was reached, and knows the token.
        let said = said(&output);
        assert!(said.contains("holds no login yet"), "{variable}: {said}");
    }
}

#[test]
fn a_server_that_nobody_vouches_for_gets_no_token() {
    let [server, other] = [OpenBao::raft(), OpenBao::raft()];
    let stranger = other.authority().expect("a server with TLS").to_owned();
    for variable in ["BAO_CACERT", "SSL_CERT_FILE"] {
        let output = status(&server, |command| {
            command.env(variable, &stranger);
        });
        assert_code(&output, 125);
        let said = said(&output);
        assert!(
            said.contains("invalid peer certificate"),
            "{variable}: {said}"
        );
        assert!(said.contains("hint: name the file with the CA"), "{said}");
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

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
