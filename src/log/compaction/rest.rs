//! What is left of segments, on its way to take their place.

use std::io;

use super::{Halt, Job, Source, judge::Verdict, walk::Walk};
use crate::{
    base::disk::Disk,
    log::{batch::View, cleaned::Cleaned},
};

/// Written at once.
const WRITE_BYTES: usize = 256 * 1024;

/// What is left of one segment, or of neighbours.
#[derive(Debug)]
pub(super) struct Rest {
    /// The segments that it is left of, neighbours; it takes the name of the first.
    pub(super) of: Vec<Source>,
    /// Bytes of the batches that stay, without `tail`.
    pub(super) bytes: u64,
    /// Where they are written; none while they are the first bytes of the one segment.
    pub(super) cleaned: Option<Cleaned>,
    /// What is not written yet of what `cleaned` shall have.
    pending: Vec<u8>,
    /// The last batch, when no record of it stays. It is kept without them, unless a further segment's
    /// rest is put behind it: so that what takes the place of segments ends where they do.
    pub(super) tail: Option<Vec<u8>>,
}

impl Rest {
    /// Nothing yet of a segment.
    pub(super) fn new(source: Source) -> Self {
        Self {
            of: vec![source],
            bytes: 0,
            cleaned: None,
            pending: Vec::new(),
            tail: None,
        }
    }

    fn base_offset(&self) -> i64 {
        self.of.first().map_or(0, |first| first.base_offset)
    }

    fn end_offset(&self) -> i64 {
        self.of.last().map_or(0, |last| last.end_offset)
    }

    /// Bytes of all that stays.
    pub(super) fn size(&self) -> u64 {
        self.bytes + self.tail.as_ref().map_or(0, Vec::len) as u64
    }

    /// Whether what is left of the following segments can be in one file with this.
    pub(super) fn can_take(&self, next: &Self, segment_bytes: u64) -> bool {
        // Indexes tell offsets from the segment's first, and positions, in 31 bits.
        let span = next.end_offset().saturating_sub(self.base_offset());
        let size = self.bytes.saturating_add(next.size());
        let fits = i32::try_from(span).is_ok() && i32::try_from(size).is_ok();
        fits && (size <= segment_bytes || self.bytes == 0 || next.bytes == 0)
    }

    /// Does with the next batch of the segment what was decided.
    pub(super) fn take(
        &mut self,
        view: &View<'_>,
        verdict: &Verdict,
        job: &Job,
        disk: &dyn Disk,
    ) -> Result<(), Halt> {
        let stays = match verdict {
            Verdict::Stays => view.bytes(),
            Verdict::Becomes(batch) => {
                self.begin(job, disk)?;
                batch.bytes()
            }
            Verdict::Goes(emptied) => {
                let is_last = view.last_offset() + 1 == self.end_offset();
                // The last batch of a segment that was emptied by an earlier pass stays as it is.
                if !is_last || view.count() > 0 {
                    self.begin(job, disk)?;
                }
                self.tail = is_last.then(|| emptied.bytes().to_vec());
                return Ok(());
            }
        };
        self.bytes += stays.len() as u64;
        if self.cleaned.is_some() {
            self.pending.extend_from_slice(stays);
        }
        match self.pending.len() {
            ..WRITE_BYTES => Ok(()),
            _ => self.write_out(),
        }
    }

    fn write_out(&mut self) -> Result<(), Halt> {
        if let Some(cleaned) = &mut self.cleaned {
            let written = cleaned.write(&self.pending);
            written.map_err(|error| failed(cleaned, error))?;
        }
        self.pending.clear();
        Ok(())
    }

    /// From here on it differs from the segment. Up to here it did not, so it begins as that does.
    fn begin(&mut self, job: &Job, disk: &dyn Disk) -> Result<(), Halt> {
        if self.cleaned.is_none() {
            let base_offset = self.base_offset();
            let beside = job.path(base_offset);
            let cleaned = Cleaned::begin(&job.partition, disk, base_offset);
            let cleaned = self
                .cleaned
                .insert(cleaned.map_err(|error| Halt::Io(beside.clone(), error))?);
            copy(cleaned, Walk::new(disk, beside, self.bytes)?)?;
        }
        Ok(())
    }

    /// Puts what is left of the following segments behind this.
    pub(super) fn merge(
        &mut self,
        next: &mut Self,
        job: &Job,
        disk: &dyn Disk,
    ) -> Result<(), Halt> {
        self.begin(job, disk)?;
        self.write_out()?;
        next.write_out()?;
        let path = match &next.cleaned {
            Some(cleaned) => cleaned.path.clone(),
            None => job.path(next.base_offset()),
        };
        if let Some(cleaned) = &mut self.cleaned {
            copy(cleaned, Walk::new(disk, path, next.bytes)?)?;
        }
        next.abandon(disk);
        self.bytes += next.bytes;
        self.of.append(&mut next.of);
        self.tail = next.tail.take();
        Ok(())
    }

    /// What takes the place of the segments, safe on disk; none where it is the one that is there.
    pub(super) fn finish(&mut self, disk: &dyn Disk) -> Result<Option<Cleaned>, Halt> {
        let Some(mut cleaned) = self.cleaned.take() else {
            return Ok(None);
        };
        let path = cleaned.path.clone();
        self.pending.extend(self.tail.iter().flatten());
        let written = cleaned.write(&self.pending);
        let written = written.and_then(|()| cleaned.finish());
        written.map(Some).map_err(|error| {
            remove(disk, &path);
            Halt::Io(path, error)
        })
    }

    /// Removes what was written of it.
    pub(super) fn abandon(&mut self, disk: &dyn Disk) {
        if let Some(cleaned) = self.cleaned.take() {
            remove(disk, &cleaned.path);
        }
    }
}

fn remove(disk: &dyn Disk, path: &std::path::Path) {
    // What cannot be removed now is when the log is opened.
    let _ = disk.remove(path);
}

fn copy(to: &mut Cleaned, mut from: Walk) -> Result<(), Halt> {
    while let Some(chunk) = from.next()? {
        to.write(chunk.bytes).map_err(|error| failed(to, error))?;
    }
    Ok(())
}

fn failed(cleaned: &Cleaned, error: io::Error) -> Halt {
    Halt::Io(cleaned.path.clone(), error)
}
