//! Snapshots of a folder, and their differences.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A snapshot of a folder, by relative path; the folder itself is `.`.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

/// One file or folder.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) kind: Kind,
    /// The modification time; `None` for a folder, whose entries are compared instead.
    written: Option<(i64, i64)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Vec<u8>),
    /// A file without read permission.
    Unreadable,
    Link(PathBuf),
    Folder,
    Other,
}

impl Tree {
    /// Takes a snapshot of a folder; a missing folder is empty.
    pub(crate) fn of(folder: &Path) -> io::Result<Self> {
        let mut nodes = BTreeMap::new();
        if folder.symlink_metadata().is_ok() {
            collect_nodes(folder, ".", &mut nodes)?;
        }
        Ok(Self(nodes))
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.0.get(path)
    }

    /// Whether the folder is empty or missing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.keys().all(|path| path == ".")
    }

    /// Returns the differences, by path.
    pub(crate) fn changes_since(&self, before: &Self) -> BTreeMap<String, Change> {
        let paths = self.0.keys().chain(before.0.keys());
        paths
            .filter_map(|path| {
                let change = match (before.get(path), self.get(path)) {
                    (None, _) => Change::Created,
                    (_, None) => Change::Removed,
                    (Some(old), Some(new)) if old.kind != new.kind => Change::Rewritten,
                    (Some(old), Some(new)) if old.mode != new.mode => Change::ModeChanged,
                    (Some(old), Some(new)) if old.written != new.written => Change::Replaced,
                    _ => return None,
                };
                Some((path.clone(), change))
            })
            .collect()
    }
}

impl Node {
    /// The bytes of a file of mode 0600.
    pub(crate) fn private_file(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::File(bytes) if self.mode == 0o600 => Some(bytes),
            Kind::File(_) | Kind::Unreadable | Kind::Link(_) | Kind::Folder | Kind::Other => None,
        }
    }
}

/// The change of a file or folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Created,
    Removed,
    Rewritten,
    ModeChanged,
    Replaced,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "was created",
            Self::Removed => "was removed",
            Self::Rewritten => "has other content",
            Self::ModeChanged => "has another mode",
            Self::Replaced => "was rewritten with the same content",
        })
    }
}

fn collect_nodes(at: &Path, name: &str, nodes: &mut BTreeMap<String, Node>) -> io::Result<()> {
    let metadata = at.symlink_metadata()?;
    let kind = if metadata.is_symlink() {
        Kind::Link(fs::read_link(at)?)
    } else if metadata.is_dir() {
        Kind::Folder
    } else if metadata.is_file() {
        match fs::read(at) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Kind::Unreadable,
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
            collect_nodes(&entry.path(), &below, nodes)?;
        }
    }
    Ok(())
}
