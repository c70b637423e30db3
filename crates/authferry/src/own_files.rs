//! The files in which authferry keeps a login, or what it knows of one. No report and no log is
//! written over them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::args::Global;
use crate::env::Env;

/// Some files of one folder.
struct Place {
    folder: PathBuf,
    /// The names; each also with something after a dot. Empty: every file of the folder.
    names: Vec<String>,
    owner: String,
}

/// Returns to what a file belongs, if it is one of authferry's or would become one. The file need
/// not exist.
pub(crate) fn owner(path: &Path, global: &Global) -> Option<String> {
    let target = resolved(path, LINKS);
    places(global)
        .into_iter()
        .find(|place| place.has(&target) || place.has_link_to(path))
        .map(|place| place.owner)
}

impl Place {
    fn has(&self, target: &Path) -> bool {
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        target.parent() == Some(&folder)
            && target.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                self.names.is_empty()
                    || self.names.iter().any(|own| {
                        let rest = name.strip_prefix(own.as_str());
                        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    })
            })
    }

    /// Whether a file has a second name here, or lies here under another path.
    fn has_link_to(&self, path: &Path) -> bool {
        let Some(file) = fs::metadata(path).ok().filter(fs::Metadata::is_file) else {
            return false;
        };
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| self.has(&folder.join(entry.file_name())))
            .filter_map(|entry| entry.metadata().ok())
            .any(|own| (own.dev(), own.ino()) == (file.dev(), file.ino()))
    }
}

fn places(global: &Global) -> Vec<Place> {
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
    let place = |file: PathBuf, what| {
        let names = vec![file.file_name()?.to_string_lossy().into_owned()];
        Some(Place {
            owner: format!("{what} file://{}", file.display()),
            folder: file.parent()?.to_owned(),
            names,
        })
    };
    let store = store.and_then(|file| place(file, "the store"));
    let second = second.and_then(|file| place(file, "the second store"));
    let home = home.map(|folder| Place {
        owner: format!("the login in {}", folder.display()),
        folder,
        names: ["auth.json", "authferry-receipt.json"]
            .map(Into::into)
            .into(),
    });
    let rescue = rescue.map(|folder| Place {
        owner: format!("the rescue folder {}", folder.display()),
        folder,
        names: Vec::new(),
    });
    [store, second, home, rescue]
        .into_iter()
        .flatten()
        .collect()
}

/// As many links as a system follows.
const LINKS: u32 = 40;

/// The path without links, also if there is no such file yet.
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
