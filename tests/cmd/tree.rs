//! A folder as it is at one moment, and what became of it since.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Everything in a folder, by its path from there; the folder itself is `.`.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

/// One file or folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) kind: Kind,
    /// When its content was last written. Of a folder, everything in it tells more.
    written: Option<(i64, i64)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Vec<u8>),
    /// A file that does not let itself be read.
    Sealed,
    Link(PathBuf),
    Folder,
    Other,
}

impl Tree {
    /// Looks at a folder; a missing one has nothing in it.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let mut nodes = BTreeMap::new();
        if folder.symlink_metadata().is_ok() {
            grow(folder, ".", &mut nodes)?;
        }
        Ok(Self(nodes))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    /// Whether nothing is in the folder.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.keys().all(|path| path == ".")
    }

    /// Returns what is different, by its path.
    pub(crate) fn changes_since(&self, before: &Self) -> BTreeMap<String, Change> {
        let paths = self.0.keys().chain(before.0.keys());
        paths
            .filter_map(|path| {
                let change = match (before.get(path), self.get(path)) {
                    (None, _) => Change::Made,
                    (_, None) => Change::Gone,
                    (Some(old), Some(new)) if old.kind != new.kind => Change::Rewritten,
                    (Some(old), Some(new)) if old.mode != new.mode => Change::Opened,
                    (Some(old), Some(new)) if old.written != new.written => Change::Replaced,
                    _ => return None,
                };
                Some((path.clone(), change))
            })
            .collect()
    }
}

impl Node {
    /// The bytes, if it is a file that only its owner can read and write.
    pub(crate) fn private_file(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::File(bytes) if self.mode == 0o600 => Some(bytes),
            Kind::File(_) | Kind::Sealed | Kind::Link(_) | Kind::Folder | Kind::Other => None,
        }
    }
}

/// How something changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Made,
    Gone,
    Rewritten,
    Opened,
    Replaced,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "was made",
            Self::Gone => "is gone",
            Self::Rewritten => "has another content",
            Self::Opened => "has another mode",
            Self::Replaced => "was written anew with the same content",
        })
    }
}

fn grow(at: &Path, name: &str, nodes: &mut BTreeMap<String, Node>) -> io::Result<()> {
    let metadata = at.symlink_metadata()?;
    let kind = if metadata.is_symlink() {
        Kind::Link(fs::read_link(at)?)
    } else if metadata.is_dir() {
        Kind::Folder
    } else if metadata.is_file() {
        match fs::read(at) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Kind::Sealed,
            bytes => Kind::File(bytes?),
        }
    } else {
        Kind::Other
    };
    let is_folder = kind == Kind::Folder;
    let written = (!is_folder).then(|| (metadata.mtime(), metadata.mtime_nsec()));
    let mode = metadata.mode() & 0o7777;
    nodes.insert(
        name.to_owned(),
        Node {
            mode,
            kind,
            written,
        },
    );
    if is_folder {
        for entry in fs::read_dir(at)? {
            let entry = entry?;
            let own = entry.file_name().display().to_string();
            let below = if name == "." {
                own
            } else {
                format!("{name}/{own}")
            };
            grow(&entry.path(), &below, nodes)?;
        }
    }
    Ok(())
}
