//! A disk in memory that forgets, tears and fails as real ones do, always the same for the same seed.
//!
//! What was not synced is, after [`Sim::power_cut`], there or not, sector by sector; names in directories
//! likewise. A sync that fails has lost what it should have made safe, and the next one succeeds. Faults
//! are planned by the number of the operation ([`Sim::plan`]), or come of a disk that is full.

mod names;
mod node;
mod tests;

use std::{
    collections::BTreeSet,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use self::{
    names::{Edit, Names, NodeId},
    node::Node,
};
use super::{Disk, File, Open};
use crate::base::fuzz::Dice;

/// A simulated disk; a clone is the same disk.
#[derive(Debug, Clone)]
pub(crate) struct Sim(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    names: Names,
    nodes: Vec<Node>,
    locks: BTreeSet<PathBuf>,
    dice: Dice,
    capacity: u64,
    plan: Option<Plan>,
    operations: u64,
    /// Whether somebody only looks: nothing fails then, and nothing is counted.
    is_watched: bool,
    /// The operation before which the machine stops.
    stops_at: Option<u64>,
    /// The machine it was in has stopped: nobody there can use it any more.
    is_gone: bool,
}

/// What goes wrong with an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The disk is broken.
    Eio,
    /// The disk is full; only what takes room fails.
    Enospc,
    /// A signal came in between; only reading and writing fail.
    Eintr,
    /// Not now; only reading and writing fail.
    Eagain,
    /// Only a part is read or written.
    Short,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [
        Self::Eio,
        Self::Enospc,
        Self::Eintr,
        Self::Eagain,
        Self::Short,
    ];
}

/// Operations that fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// The first of them, counted as [`Sim::operations`] does.
    pub(crate) from: u64,
    /// How many from there on.
    pub(crate) count: u64,
    pub(crate) fault: Fault,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    /// Reads or writes bytes of a file.
    Transfer {
        takes_room: bool,
    },
    TakesRoom,
    Other,
}

impl Sim {
    /// An empty disk without bound, on which `dir` and those above it are there and safe.
    pub(crate) fn new(seed: u64, dir: &Path) -> Self {
        let mut names = Names::default();
        for dir in dir.ancestors() {
            names.edit(Edit::MakeDir(dir.to_path_buf()));
        }
        names.settle();
        Self::of(State {
            names,
            nodes: Vec::new(),
            locks: BTreeSet::new(),
            dice: Dice::seeded(seed),
            capacity: u64::MAX,
            plan: None,
            operations: 0,
            is_watched: false,
            stops_at: None,
            is_gone: false,
        })
    }

    fn of(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The disk as the machine finds it when the power is back. This one, and the files open on it, fail
    /// from now on.
    pub(crate) fn power_cut(&self, seed: u64) -> Self {
        let mut dice = Dice::seeded(seed);
        let mut state = self.state();
        let tree = state.names.survivors(&mut dice);
        let mut nodes = vec![Node::default(); state.nodes.len()];
        for node in tree.files.values() {
            nodes[*node] = Node::settled(state.nodes[*node].survivor(&mut dice));
        }
        let names = Names::settled(tree);
        state.is_gone = true;
        Self::of(State {
            names,
            nodes,
            locks: BTreeSet::new(),
            dice,
            capacity: state.capacity,
            plan: None,
            operations: state.operations,
            is_watched: false,
            stops_at: None,
            is_gone: false,
        })
    }

    /// The disk as the next process finds it when this one was killed: nothing is lost, and nothing made
    /// safe either. This one, and the files open on it, fail from now on.
    pub(crate) fn kill(&self) -> Self {
        let mut state = self.state();
        let mut nodes = state.nodes.clone();
        for node in &mut nodes {
            node.handles = 0;
        }
        state.is_gone = true;
        Self::of(State {
            names: state.names.clone(),
            nodes,
            locks: BTreeSet::new(),
            dice: state.dice.clone(),
            capacity: state.capacity,
            plan: None,
            operations: state.operations,
            is_watched: false,
            stops_at: None,
            is_gone: false,
        })
    }

    /// Operations so far, those that failed with them, and those before the machine stopped.
    pub(crate) fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Plans what fails from now on. Returns what was planned before.
    pub(crate) fn plan(&self, plan: Option<Plan>) -> Option<Plan> {
        std::mem::replace(&mut self.state().plan, plan)
    }

    /// Lets the machine stop before so many more operations are done: they fail, all of them, and what they
    /// lead to happens to nobody.
    pub(crate) fn stop_after(&self, operations: Option<u64>) {
        let mut state = self.state();
        state.stops_at = operations.map(|more| state.operations + more);
    }

    /// Whether the machine has stopped.
    pub(crate) fn is_gone(&self) -> bool {
        self.state().is_gone
    }

    /// Whether nothing that is planned happens, because somebody only looks.
    pub(crate) fn watch(&self, is_watched: bool) {
        self.state().is_watched = is_watched;
    }

    /// How many bytes all files together have.
    pub(crate) fn used(&self) -> u64 {
        self.state().used()
    }

    /// How many bytes all files together may have.
    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// All files, by name.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.state().names.now.files.keys().cloned().collect()
    }

    /// The bytes of a file; `None` where it is not there.
    pub(crate) fn bytes(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        let node = *state.names.now.files.get(path)?;
        Some(state.nodes[node].cache.clone())
    }

    /// Makes a file what it shall be, at once and safely.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let mut state = self.state();
        let node = match state.names.now.files.get(path) {
            Some(node) => *node,
            None => state.link(path),
        };
        let handles = state.nodes[node].handles;
        state.nodes[node] = Node::settled(bytes.to_vec());
        state.nodes[node].handles = handles;
        state.names.settle();
    }

    /// Takes a file away, at once and safely.
    pub(crate) fn take(&self, path: &Path) {
        let mut state = self.state();
        state.unlink(path).unwrap();
        state.names.settle();
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

fn enospc() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl State {
    /// Counts an operation; `Ok(true)` where it shall do only a part.
    fn operate(&mut self, act: Act) -> io::Result<bool> {
        if self.is_watched && !self.is_gone {
            return Ok(false);
        }
        let number = self.operations;
        self.is_gone |= self.stops_at.is_some_and(|at| number >= at);
        if self.is_gone {
            return Err(eio());
        }
        self.operations += 1;
        let Some(plan) = self.plan else {
            return Ok(false);
        };
        if number < plan.from || number - plan.from >= plan.count {
            return Ok(false);
        }
        let is_transfer = matches!(act, Act::Transfer { .. });
        match plan.fault {
            Fault::Eio => Err(eio()),
            Fault::Enospc if matches!(act, Act::TakesRoom | Act::Transfer { takes_room: true }) => {
                Err(enospc())
            }
            Fault::Eintr if is_transfer => Err(io::ErrorKind::Interrupted.into()),
            Fault::Eagain if is_transfer => Err(io::ErrorKind::WouldBlock.into()),
            Fault::Short => Ok(is_transfer),
            Fault::Enospc | Fault::Eintr | Fault::Eagain => Ok(false),
        }
    }

    /// A new file, empty.
    fn link(&mut self, path: &Path) -> NodeId {
        let node = self.nodes.len();
        self.nodes.push(Node::default());
        self.names.edit(Edit::Link(path.to_path_buf(), node));
        node
    }

    fn unlink(&mut self, path: &Path) -> io::Result<()> {
        let files = &self.names.now.files;
        let node = *files.get(path).ok_or_else(not_found)?;
        self.names.edit(Edit::Unlink(path.to_path_buf(), node));
        Ok(())
    }

    fn check_parent(&self, path: &Path) -> io::Result<()> {
        let is_there = path
            .parent()
            .is_some_and(|dir| self.names.now.dirs.contains(dir));
        is_there.then_some(()).ok_or_else(not_found)
    }

    /// Files that have a name or are open take room.
    fn used(&self) -> u64 {
        let named: BTreeSet<NodeId> = self.names.now.files.values().copied().collect();
        let nodes = self.nodes.iter().enumerate();
        let taking = nodes.filter(|(id, node)| node.handles > 0 || named.contains(id));
        taking.map(|(_, node)| node.cache.len() as u64).sum()
    }

    fn free(&self) -> u64 {
        if self.capacity == u64::MAX {
            return u64::MAX;
        }
        self.capacity.saturating_sub(self.used())
    }

    /// How many of the bytes up to `end` there is room for; none where that is not one more than there are.
    fn room(&self, node: NodeId, end: usize) -> io::Result<usize> {
        let len = self.nodes[node].cache.len();
        if end <= len {
            return Ok(end);
        }
        let free = usize::try_from(self.free()).unwrap_or(usize::MAX);
        match end.min(len.saturating_add(free)) {
            reached if reached > len => Ok(reached),
            _ => Err(enospc()),
        }
    }
}

impl Disk for Sim {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate(Act::TakesRoom)?;
        let mut missing: Vec<_> = dir
            .ancestors()
            .filter(|dir| !state.names.now.dirs.contains(*dir))
            .collect();
        missing.reverse();
        for dir in missing {
            state.names.edit(Edit::MakeDir(dir.to_path_buf()));
        }
        Ok(())
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut state = self.state();
        state.operate(Act::Other)?;
        let tree = &state.names.now;
        if !tree.dirs.contains(dir) {
            return Err(not_found());
        }
        let all = tree.files.keys().chain(&tree.dirs);
        let inside = all.filter(|path| path.parent() == Some(dir));
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        Ok(inside.map(name).collect())
    }

    fn open(&self, path: &Path, how: Open) -> io::Result<Box<dyn File>> {
        let mut state = self.state();
        let found = state.names.now.files.get(path).copied();
        let makes = found.is_none() && matches!(how, Open::Create | Open::CreateNew);
        state.operate(if makes { Act::TakesRoom } else { Act::Other })?;
        state.check_parent(path)?;
        if state.names.now.dirs.contains(path) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let node = match (found, how) {
            (Some(_), Open::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(node), Open::Read | Open::Write | Open::Create) => node,
            (None, Open::Read | Open::Write) => return Err(not_found()),
            (None, Open::Create | Open::CreateNew) => state.link(path),
        };
        state.nodes[node].handles += 1;
        Ok(Box::new(Opened {
            disk: self.clone(),
            node,
            is_written: how != Open::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate(Act::TakesRoom)?;
        state.check_parent(to)?;
        if state.names.now.dirs.contains(from) {
            let tree = &state.names.now;
            let all = || tree.files.keys().chain(&tree.dirs);
            if all().any(|path| path.starts_with(to)) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            let edit = Edit::RenameDir(from.to_path_buf(), to.to_path_buf());
            state.names.edit(edit);
            return Ok(());
        }
        let files = &state.names.now.files;
        let node = *files.get(from).ok_or_else(not_found)?;
        let edit = Edit::Rename(from.to_path_buf(), to.to_path_buf(), node);
        state.names.edit(edit);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate(Act::Other)?;
        state.unlink(path)
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate(Act::Other)?;
        let tree = &state.names.now;
        if !tree.dirs.contains(dir) {
            return Err(not_found());
        }
        let mut all = tree.files.keys().chain(&tree.dirs);
        if all.any(|path| path.parent() == Some(dir)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.names.edit(Edit::RemoveDir(dir.to_path_buf()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.operate(Act::Other)?;
        if !state.names.now.dirs.contains(dir) {
            return Err(not_found());
        }
        state.names.sync_dir(dir);
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        let mut state = self.state();
        state.operate(Act::Other)?;
        Ok(state.free())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn fmt::Debug + Send + Sync>> {
        let mut state = self.state();
        state.operate(Act::TakesRoom)?;
        state.check_parent(path)?;
        if !state.locks.insert(path.to_path_buf()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !state.names.now.files.contains_key(path) {
            let node = state.link(path);
            state.nodes[node].write(0, b"1");
        }
        Ok(Box::new(Lock(self.clone(), path.to_path_buf())))
    }
}

/// Held until it is dropped.
#[derive(Debug)]
struct Lock(Sim, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.state().locks.remove(&self.1);
    }
}

/// An open file.
#[derive(Debug)]
struct Opened {
    disk: Sim,
    node: NodeId,
    is_written: bool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.disk.state().nodes[self.node].handles -= 1;
    }
}

impl Opened {
    fn check_written(&self) -> io::Result<()> {
        let refused = || io::ErrorKind::PermissionDenied.into();
        self.is_written.then_some(()).ok_or_else(refused)
    }
}

fn position(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

impl File for Opened {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        let is_short = state.operate(Act::Transfer { takes_room: false })?;
        let cache = &state.nodes[self.node].cache;
        let rest = cache.get(position(offset)..).unwrap_or_default();
        let mut read = rest.len().min(into.len());
        if is_short {
            read = read.div_ceil(2);
        }
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.check_written()?;
        let mut state = self.disk.state();
        let is_short = state.operate(Act::Transfer { takes_room: true })?;
        let start = position(offset);
        let end = state.room(self.node, start + bytes.len())?;
        if end <= start {
            return Err(enospc());
        }
        let mut written = end - start;
        if is_short {
            written = written.div_ceil(2);
        }
        state.nodes[self.node].write(start, &bytes[..written]);
        Ok(written)
    }

    fn size(&self) -> io::Result<u64> {
        let mut state = self.disk.state();
        state.operate(Act::Other)?;
        Ok(state.nodes[self.node].cache.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_written()?;
        let mut state = self.disk.state();
        state.operate(Act::TakesRoom)?;
        let len = position(len);
        if state.room(self.node, len)? < len {
            return Err(enospc());
        }
        state.nodes[self.node].set_len(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let state = &mut *state;
        let is_allowed = state.operate(Act::Other);
        let node = &mut state.nodes[self.node];
        match is_allowed {
            Ok(_) => node.sync(),
            Err(_) => node.fail_sync(&mut state.dice),
        }
        is_allowed.map(|_| ())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.check_written()?;
        let mut state = self.disk.state();
        state.operate(Act::TakesRoom)?;
        let len = position(len).max(state.nodes[self.node].cache.len());
        if state.room(self.node, len)? < len {
            return Err(enospc());
        }
        state.nodes[self.node].set_len(len);
        Ok(())
    }

    fn forget(&self, _offset: u64, _len: u64) {}
}
