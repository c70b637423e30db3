use std::{env, ffi::OsStr, process::Command};

/// Returns Cargo with the environment of a plain shell.
///
/// Otherwise the build script of `ring` sees variables of the running test, and cargo rebuilds
/// `ring` and all its dependents.
#[must_use]
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os().filter(|(name, _)| describes_this_test(name)) {
        cargo.env_remove(name);
    }
    cargo
}

/// Returns whether cargo, or another test runner, has set this variable to describe the running
/// test.
fn describes_this_test(variable: &OsStr) -> bool {
    let variable = variable.to_string_lossy();
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"];
    let names = [
        "CARGO_CRATE_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_TARGET_TMPDIR",
        "OUT_DIR",
    ];
    prefixes.iter().any(|prefix| variable.starts_with(prefix)) || names.contains(&variable.as_ref())
}
