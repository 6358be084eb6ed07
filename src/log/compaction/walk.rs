//! Reads a segment from its beginning to its end, some whole batches at a time.

use std::path::PathBuf;

use super::Halt;
use crate::{
    base::disk::{Disk, File, Open},
    log::batch::{Damage, Header},
};

/// Read at once, where no batch is longer: what stands between two looks at whether to go on.
const CHUNK_BYTES: usize = 512 * 1024;

/// A walk through a segment.
#[derive(Debug)]
pub(super) struct Walk {
    path: PathBuf,
    file: Box<dyn File>,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
}

/// Whole batches, one at least, and where in the file they begin.
#[derive(Debug)]
pub(super) struct Chunk<'a> {
    pub(super) position: u64,
    pub(super) bytes: &'a [u8],
}

impl Walk {
    /// A walk through the first `end` bytes of a file.
    pub(super) fn new(disk: &dyn Disk, path: PathBuf, end: u64) -> Result<Self, Halt> {
        let file = disk
            .open(&path, Open::Read)
            .map_err(|error| Halt::Io(path.clone(), error))?;
        Ok(Self {
            path,
            file,
            position: 0,
            end,
            buffer: Vec::new(),
        })
    }

    /// The next batches; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Chunk<'_>>, Halt> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        if left == 0 {
            return Ok(None);
        }
        self.read(left.min(CHUNK_BYTES))?;
        let mut whole = whole_bytes(&self.buffer);
        if whole == 0 {
            let size = Header::read(&self.buffer).map(|header| header.size());
            let size = size.and_then(|size| match size <= left {
                true => Ok(size),
                false => Err(Damage::TooShort),
            });
            whole = size.map_err(|damage| self.damaged(self.position, damage))?;
            self.read(whole)?;
        }
        let position = self.position;
        self.position += whole as u64;
        Ok(Some(Chunk {
            position,
            bytes: self.buffer.get(..whole).unwrap_or_default(),
        }))
    }

    /// Says of the batch at `position` that it is damaged.
    pub(super) fn damaged(&self, position: u64, damage: Damage) -> Halt {
        Halt::Damaged {
            path: self.path.clone(),
            position,
            damage,
        }
    }

    fn read(&mut self, bytes: usize) -> Result<(), Halt> {
        self.buffer.resize(bytes, 0);
        self.file
            .read_exact_at(&mut self.buffer, self.position)
            .map_err(|error| Halt::Io(self.path.clone(), error))
    }
}

/// How many bytes the whole batches at the front take.
fn whole_bytes(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(rest) = bytes.get(whole..)
        && let Ok(header) = Header::read(rest)
        && header.size() <= rest.len()
    {
        whole += header.size();
    }
    whole
}
