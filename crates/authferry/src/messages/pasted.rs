//! The commands in hints: each works when pasted into another shell.

use std::{fmt::Display, path::Path};

/// The command that puts a rescued login into its store. It repeats `--store`, because the next
/// shell may not set it, and `--rescue-dir` unless that is the default.
pub(crate) fn rescue_put(
    store: impl Display,
    folder: &Path,
    options: &str,
    login: &(impl Display + ?Sized),
) -> String {
    let folder = if folder.ends_with("authferry/rescue") {
        String::new()
    } else {
        format!(" --rescue-dir {}", path(folder))
    };
    let login = quoted(&login.to_string());
    format!("`authferry rescue put --store '{store}'{folder}{options} {login}`")
}

/// The command that overwrites the store's login with a file.
pub(crate) fn seed(store: impl Display, file: &Path) -> String {
    let file = path(file);
    format!("`authferry seed --store '{store}' --replace {file}`")
}

/// The command that rotates the store's login, or adopts a login that an earlier rotation left on
/// this machine.
pub(crate) fn refresh(store: impl Display) -> String {
    format!("`authferry refresh --store '{store}'`")
}

/// The command that puts the login of a home into its store.
pub(crate) fn persist(store: impl Display, home: &Path) -> String {
    let home = path(home);
    format!("`authferry persist --store '{store}' --codex-home {home}`")
}

/// Quotes a path for a shell.
pub(crate) fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// Quotes an argument for a shell, if it needs quotes.
pub(crate) fn quoted(argument: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/._-+:@%,=".contains(it);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pasted_commands_are_quoted_for_a_shell() {
        let folder = Path::new("/home/a b/rescue");
        assert_eq!(
            rescue_put("file:///s", folder, " --replace", "it's"),
            "`authferry rescue put --store 'file:///s' --rescue-dir '/home/a b/rescue' --replace \
             'it'\\''s'`"
        );
        let default = Path::new("/home/.local/state/authferry/rescue");
        assert_eq!(
            rescue_put("file:///s", default, "", "/a/1.json"),
            "`authferry rescue put --store 'file:///s' /a/1.json`"
        );
        assert_eq!(
            persist("file:///s", Path::new("/a b")),
            "`authferry persist --store 'file:///s' --codex-home '/a b'`"
        );
        assert_eq!(
            refresh("file:///s"),
            "`authferry refresh --store 'file:///s'`"
        );
        assert_eq!(
            seed("file:///s", Path::new("/a b")),
            "`authferry seed --store 'file:///s' --replace '/a b'`"
        );
    }
}
