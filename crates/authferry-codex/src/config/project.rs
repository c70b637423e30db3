//! The settings of a project that the user trusts.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{CONFIG_FILE, file::ConfigFile};

/// Which folders are trusted, by `[projects."PATH"]` of the settings.
#[derive(Debug, Default)]
pub(super) struct Trust(Vec<(PathBuf, bool)>);

impl Trust {
    /// Adds the projects of a file of higher precedence.
    pub(super) fn add(&mut self, file: &ConfigFile) {
        let resolve = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
        let projects = file.projects.iter();
        self.0
            .extend(projects.map(|(path, trusted)| (resolve(path), *trusted)));
    }

    /// Returns the settings of the trusted folders from the project's root to the working
    /// directory, in the order of their precedence.
    pub(super) fn files(&self, work: &Path, home: Option<&Path>) -> Vec<PathBuf> {
        let Ok(work) = work.canonicalize() else {
            return Vec::new();
        };
        let home = home.and_then(|home| home.canonicalize().ok());
        // Without a work tree, the working directory is the whole project.
        let root = work.ancestors().find(|it| it.join(".git").exists());
        let root = root.unwrap_or(&work);
        let main = main_work_tree(root);
        let is_trusted = |folder: &Path| {
            let own = self.of(folder).or_else(|| self.of(root));
            let own = own.or_else(|| self.of(main.as_deref()?));
            own.unwrap_or(false)
        };
        let folders = work.ancestors().take_while(|it| it.starts_with(root));
        let mut files: Vec<_> = folders
            .filter(|folder| is_trusted(folder))
            .map(|folder| folder.join(".codex"))
            // The home of Codex may be in the project.
            .filter(|folder| folder.canonicalize().ok() != home || home.is_none())
            .map(|folder| folder.join(CONFIG_FILE))
            .collect();
        files.reverse();
        files
    }

    fn of(&self, folder: &Path) -> Option<bool> {
        let mut known = self.0.iter().rev();
        known
            .find(|(path, _)| path == folder)
            .map(|(_, trusted)| *trusted)
    }
}

/// Returns the main work tree of a linked one, from which that inherits the trust. The `.git` of a
/// linked work tree is a file with the path of a folder in the `.git` of the main one.
fn main_work_tree(root: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(root.join(".git")).ok()?;
    let folder = root.join(text.strip_prefix("gitdir:")?.trim());
    let git = folder.ancestors().find(|it| it.ends_with(".git"))?;
    git.parent()?.canonicalize().ok()
}
