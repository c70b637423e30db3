//! Commands in hints, as they work when pasted into another shell.

use std::{fmt::Display, path::Path};

/// What puts a kept login into its store. It names the store, for the next shell may have none,
/// and the rescue folder unless that is the default.
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

/// What puts a file into a store in the place of what that holds.
pub(crate) fn seed(store: impl Display, file: &Path) -> String {
    let file = path(file);
    format!("`authferry seed --store '{store}' --replace {file}`")
}

/// What rotates the login of a store, or adopts what an earlier rotation left on this machine.
pub(crate) fn refresh(store: impl Display) -> String {
    format!("`authferry refresh --store '{store}'`")
}

/// What puts the login of a home into its store.
pub(crate) fn persist(store: impl Display, home: &Path) -> String {
    let home = path(home);
    format!("`authferry persist --store '{store}' --codex-home {home}`")
}

/// A path as a shell reads it.
pub(crate) fn path(path: &Path) -> String {
    quoted(&path.display().to_string())
}

/// A word as a shell reads it: in quotes only if it has to be.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |it: char| it.is_ascii_alphanumeric() || "/._-+:@%,=".contains(it);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_can_be_pasted() {
        let folder = Path::new("/home/a b/rescue");
        assert_eq!(
            rescue_put("file:///s", folder, " --replace", "it's"),
            "`authferry rescue put --store 'file:///s' --rescue-dir '/home/a b/rescue' --replace \
             'it'\\''s'`"
        );
        let usual = Path::new("/home/.local/state/authferry/rescue");
        assert_eq!(
            rescue_put("file:///s", usual, "", "/a/1.json"),
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
