//! The files in which authferry keeps a login or its receipt. No report and no log overwrites
//! them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::args::Global;
use crate::env::Env;

/// Files of authferry in one folder.
struct OwnFiles {
    folder: PathBuf,
    /// The file names, each also with any suffix after a dot. Empty: every file in the folder.
    names: Vec<String>,
    owner: String,
}

/// Returns the owner of a path, if authferry uses or would create the file there.
pub(crate) fn owner(path: &Path, global: &Global) -> Option<String> {
    let target = resolved(path, MAX_LINKS);
    all(global)
        .into_iter()
        .find(|files| files.contains(&target) || files.has_link_to(path))
        .map(|files| files.owner)
}

impl OwnFiles {
    fn contains(&self, target: &Path) -> bool {
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        target.parent() == Some(&folder)
            && target.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                self.names.is_empty()
                    || self.names.iter().any(|own| {
                        let suffix = name.strip_prefix(own.as_str());
                        suffix.is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('.'))
                    })
            })
    }

    /// Whether `path` leads to one of these files, by a hard link or another path.
    fn has_link_to(&self, path: &Path) -> bool {
        let Some(file) = fs::metadata(path).ok().filter(fs::Metadata::is_file) else {
            return false;
        };
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| self.contains(&folder.join(entry.file_name())))
            .filter_map(|entry| entry.metadata().ok())
            .any(|own| (own.dev(), own.ino()) == (file.dev(), file.ino()))
    }
}

fn all(global: &Global) -> Vec<OwnFiles> {
    let env = Env::read();
    let state = env
        .state_home
        .clone()
        .or_else(|| Some(env.home.as_ref()?.join(".local/state")))
        .map(|state| state.join("authferry"));
    let home = global.codex_home.clone().or(env.codex_home);
    let home = home.or_else(|| Some(env.home.as_ref()?.join(".codex")));
    let rescue = global.rescue_dir.clone().or(env.rescue_dir);
    let rescue = rescue.or_else(|| Some(state.as_ref()?.join("rescue")));
    let store = match global.store.as_ref().or(env.store.as_ref()) {
        Some(address) => address.strip_prefix("file://").map(PathBuf::from),
        None => state.as_ref().map(|state| state.join("login.json")),
    };
    let second = global.rescue_store.clone().or(env.rescue_store);
    let second = second.and_then(|address| address.strip_prefix("file://").map(PathBuf::from));
    let of_file = |file: PathBuf, problem| {
        let names = vec![file.file_name()?.to_string_lossy().into_owned()];
        Some(OwnFiles {
            owner: format!("{problem} file://{}", file.display()),
            folder: file.parent()?.to_owned(),
            names,
        })
    };
    let store = store.and_then(|file| of_file(file, "the store"));
    let second = second.and_then(|file| of_file(file, "the second store"));
    let home = home.map(|folder| OwnFiles {
        owner: format!("the login in {}", folder.display()),
        folder,
        names: ["auth.json", "authferry-receipt.json"]
            .map(Into::into)
            .into(),
    });
    let rescue = rescue.map(|folder| OwnFiles {
        owner: format!("the rescue folder {}", folder.display()),
        folder,
        names: Vec::new(),
    });
    [store, second, home, rescue]
        .into_iter()
        .flatten()
        .collect()
}

/// The number of symbolic links that Linux follows.
const MAX_LINKS: u32 = 40;

/// Resolves the symbolic links in a path; the file need not exist.
fn resolved(path: &Path, links: u32) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return path;
    };
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    match fs::read_link(&path) {
        Ok(to) if links > 0 => resolved(&folder.join(to), links - 1),
        Ok(_) | Err(_) => folder.join(name),
    }
}
