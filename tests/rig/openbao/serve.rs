//! The commands that start a server, and their settings.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use super::{DEV_TOKEN, node::Node};

/// A development server.
pub(super) fn dev(node: &Node) -> Command {
    let mut command = node.bao();
    command
        .args(["server", "-dev", "-dev-no-store-token"])
        .arg(format!("-dev-listen-address=127.0.0.1:{}", node.port()))
        .env("BAO_DEV_ROOT_TOKEN_ID", DEV_TOKEN);
    command
}

/// A server with TLS and Raft, which joins the leader if there is one.
pub(super) fn raft(node: &Node, number: usize, leader: Option<&str>) -> Command {
    let pki = node.pki().expect("set up");
    let quoted = |path: &Path| json!(path).to_string();
    let [authority, certificate, key] =
        [&pki.authority, &pki.certificate, &pki.key].map(|path| quoted(path));
    let join = leader.map_or_else(String::new, |leader| {
        format!(
            "retry_join {{\n leader_api_addr = \"{leader}\"\n leader_ca_cert_file = {authority}\n }}"
        )
    });
    let data = node.folder().join("data");
    fs::create_dir_all(&data).expect("room");
    let (port, cluster_port) = (node.port(), node.port() + 1);
    let settings = format!(
        r#"
ui = false
api_addr = "https://127.0.0.1:{port}"
cluster_addr = "https://127.0.0.1:{cluster_port}"

storage "raft" {{
  path = {data}
  node_id = "node-{number}"
  # The least there is: a leader that is gone is missed soon.
  performance_multiplier = 1
  # What joins the cluster gets its vote soon.
  autopilot_reconcile_interval = "200ms"
  autopilot_update_interval = "200ms"
  {join}
}}

listener "tcp" {{
  address = "127.0.0.1:{port}"
  cluster_address = "127.0.0.1:{cluster_port}"
  tls_cert_file = {certificate}
  tls_key_file = {key}
}}

listener "unix" {{
  address = {socket}
  socket_mode = "600"
}}
"#,
        data = quoted(&data),
        socket = quoted(&node.socket()),
    );
    let file = node.folder().join("settings.hcl");
    fs::write(&file, settings).expect("room");
    let mut command = node.bao();
    command.arg("server").arg("-config").arg(file);
    command
}
