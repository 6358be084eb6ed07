//! Names in directories: what they are now, and what they would be after a power cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::base::fuzz::Dice;

pub(super) type NodeId = usize;

/// Directories and files by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<PathBuf, NodeId>,
    pub(super) dirs: BTreeSet<PathBuf>,
}

/// One thing that was done to a directory.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    Link(PathBuf, NodeId),
    Unlink(PathBuf, NodeId),
    Rename(PathBuf, PathBuf, NodeId),
    MakeDir(PathBuf),
    RenameDir(PathBuf, PathBuf),
    RemoveDir(PathBuf),
}

impl Edit {
    fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Link(path, _)
            | Self::Unlink(path, _)
            | Self::MakeDir(path)
            | Self::RemoveDir(path) => {
                vec![path]
            }
            Self::Rename(from, to, _) | Self::RenameDir(from, to) => vec![from, to],
        }
    }

    fn node(&self) -> Option<NodeId> {
        match self {
            Self::Link(_, node) | Self::Unlink(_, node) | Self::Rename(_, _, node) => Some(*node),
            Self::MakeDir(_) | Self::RenameDir(..) | Self::RemoveDir(_) => None,
        }
    }

    /// The same where a directory on the way has the name `to`, and not `from`.
    fn moved(&mut self, from: &Path, to: &Path) {
        let paths = match self {
            Self::Link(path, _)
            | Self::Unlink(path, _)
            | Self::MakeDir(path)
            | Self::RemoveDir(path) => vec![path],
            Self::Rename(old, new, _) | Self::RenameDir(old, new) => vec![old, new],
        };
        for path in paths {
            *path = moved(path, from, to);
        }
    }

    /// Whether the disk cannot have one of them, the later, without the other.
    fn is_bound_to(&self, other: &Self) -> bool {
        let is_of_same_file = self.node().is_some() && self.node() == other.node();
        let own = self.paths();
        // What is done in a directory is done in the one that has its name then.
        let is_inside = if let Self::RenameDir(from, to) = other {
            let mut own = own.iter();
            own.any(|path| path.starts_with(from) || path.starts_with(to))
        } else {
            false
        };
        is_of_same_file || is_inside || other.paths().iter().any(|path| own.contains(path))
    }
}

/// The path as it is when `from` is called `to`.
fn moved(path: &Path, from: &Path, to: &Path) -> PathBuf {
    match path.strip_prefix(from) {
        Ok(inside) if inside.as_os_str().is_empty() => to.to_path_buf(),
        Ok(inside) => to.join(inside),
        Err(_) => path.to_path_buf(),
    }
}

impl Tree {
    fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::Link(path, node) => drop(self.files.insert(path.clone(), *node)),
            Edit::Unlink(path, _) => drop(self.files.remove(path)),
            Edit::Rename(from, to, node) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *node);
            }
            Edit::MakeDir(path) => drop(self.dirs.insert(path.clone())),
            Edit::RenameDir(from, to) => {
                let files = std::mem::take(&mut self.files).into_iter();
                self.files = files
                    .map(|(path, id)| (moved(&path, from, to), id))
                    .collect();
                let dirs = std::mem::take(&mut self.dirs).into_iter();
                self.dirs = dirs.map(|path| moved(&path, from, to)).collect();
            }
            Edit::RemoveDir(path) => drop(self.dirs.remove(path)),
        }
    }

    /// Forgets what is in no directory any more.
    fn prune(&mut self) {
        let all = self.dirs.clone();
        let is_reached = |path: &Path| path.ancestors().skip(1).all(|dir| all.contains(dir));
        self.dirs.retain(|path| is_reached(path));
        self.files.retain(|path, _| is_reached(path));
    }
}

/// The names that everybody sees, and those that are safe.
#[derive(Debug, Clone, Default)]
pub(super) struct Names {
    pub(super) now: Tree,
    safe: Tree,
    /// What was done and is not safe, the oldest first.
    since: Vec<Edit>,
}

impl Names {
    pub(super) fn settled(tree: Tree) -> Self {
        Self {
            safe: tree.clone(),
            now: tree,
            since: Vec::new(),
        }
    }

    pub(super) fn edit(&mut self, edit: Edit) {
        self.now.apply(&edit);
        self.since.push(edit);
    }

    /// Makes everything safe.
    pub(super) fn settle(&mut self) {
        self.safe = self.now.clone();
        self.since.clear();
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let is_in = |edit: &Edit| edit.paths().iter().any(|path| path.parent() == Some(dir));
        let kept = with_what_they_need(&self.since, is_in);
        let mut left = Vec::<Edit>::new();
        for (edit, is_kept) in std::mem::take(&mut self.since).into_iter().zip(kept) {
            if !is_kept {
                left.push(edit);
                continue;
            }
            self.safe.apply(&edit);
            if let Edit::RenameDir(from, to) = edit {
                // What was done in it before, and is not safe, was done in what has the new name now.
                left.iter_mut().for_each(|edit| edit.moved(&from, &to));
            }
        }
        self.since = left;
    }

    /// After a power cut: what was made safe, and of the rest the first things done, or any of them.
    pub(super) fn survivors(&self, dice: &mut Dice) -> Tree {
        let first = dice.below(self.since.len() + 1);
        let kept = if dice.below(2) == 0 {
            (0..self.since.len()).map(|index| index < first).collect()
        } else {
            with_what_they_need(&self.since, |_| dice.below(2) == 0)
        };
        let mut tree = self.safe.clone();
        for (edit, _) in self.since.iter().zip(kept).filter(|(_, is_kept)| *is_kept) {
            tree.apply(edit);
        }
        tree.prune();
        tree
    }
}

/// Which edits are chosen, or are before a chosen one that is bound to them.
fn with_what_they_need(edits: &[Edit], mut is_chosen: impl FnMut(&Edit) -> bool) -> Vec<bool> {
    let mut kept: Vec<bool> = edits.iter().map(&mut is_chosen).collect();
    for later in (0..edits.len()).rev() {
        if kept[later] {
            for earlier in 0..later {
                kept[earlier] |= edits[later].is_bound_to(&edits[earlier]);
            }
        }
    }
    kept
}
