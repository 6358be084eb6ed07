//! Where a body ends, and its bytes one read after another.

use super::{
    buffer::Buffer,
    chunked::{BadChunk, Decoder, Found},
    deadline::{Stage, Wait},
    socket::{Side, WireError},
};

/// How the end of a body is known (RFC 9112 section 6.3).
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is no body.
    #[default]
    None,
    /// So many bytes.
    Length(u64),
    Chunked,
    /// All until the connection's end; answers only.
    UntilClose,
}

/// What comes next in a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many bytes at the front of the buffer, at least one.
    Data(usize),
    End,
}

/// Why a body came to no good end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Longer than the reader's limit.
    TooLarge,
    /// The chunked coding was broken.
    BadChunk(&'static str),
    /// The sender stopped before the end.
    Incomplete,
    /// The sender was silent for too long.
    Late(Stage),
}

impl From<BadChunk> for BodyError {
    fn from(bad: BadChunk) -> Self {
        Self::BadChunk(bad.0)
    }
}

/// Reads one body from one side.
#[derive(Debug)]
pub(crate) struct BodyReader {
    framing: Framing,
    /// Bytes left of [`Framing::Length`].
    left: u64,
    decoder: Decoder,
    /// Bytes of body that have been found so far.
    taken: u64,
    /// Bytes of body at most.
    limit: u64,
    ended: bool,
}

/// Small bodies are read in small pieces, so that an idle connection holds little.
const SMALL_READ: usize = 8 * 1024;
const LARGE_READ: usize = 64 * 1024;

impl BodyReader {
    /// A reader of a body of `framing`, of at most `limit` bytes.
    pub(crate) fn new(framing: Framing, limit: u64) -> Self {
        let left = match framing {
            Framing::Length(length) => length,
            Framing::None | Framing::Chunked | Framing::UntilClose => 0,
        };
        Self {
            framing,
            left,
            decoder: Decoder::default(),
            taken: 0,
            limit,
            ended: matches!(framing, Framing::None | Framing::Length(0)),
        }
    }

    /// Whether the whole body has been read.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes of body found so far.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes that are still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.framing {
            Framing::None => Some(0),
            Framing::Length(_) => Some(self.left),
            Framing::Chunked | Framing::UntilClose => None,
        }
    }

    /// The trailer section, once the body has ended.
    pub(crate) fn trailers(&self) -> &[u8] {
        self.decoder.trailers()
    }

    /// Finds the next piece of the body in `buffer` without reading; `None` when there is none yet.
    #[inline]
    pub(crate) fn find(&mut self, buffer: &mut Buffer) -> Result<Option<Piece>, BodyError> {
        let available = buffer.len();
        let found = match self.framing {
            _ if self.ended => return Ok(Some(Piece::End)),
            Framing::None => return Ok(Some(Piece::End)),
            Framing::Length(_) => available.min(usize::try_from(self.left).unwrap_or(usize::MAX)),
            Framing::UntilClose => available,
            Framing::Chunked => match self.decoder.find(buffer)? {
                Found::Data(count) => count,
                Found::NeedMore => 0,
                Found::End => {
                    self.ended = true;
                    return Ok(Some(Piece::End));
                }
            },
        };
        if found == 0 {
            return Ok(None);
        }
        if self.taken + found as u64 > self.limit {
            return Err(BodyError::TooLarge);
        }
        Ok(Some(Piece::Data(found)))
    }

    /// Says that `count` bytes of the last piece have been used, and uses them up in `buffer`.
    #[inline]
    pub(crate) fn took(&mut self, buffer: &mut Buffer, count: usize) {
        buffer.consume(count);
        self.taken += count as u64;
        match self.framing {
            Framing::Length(_) => {
                self.left = self.left.saturating_sub(count as u64);
                self.ended = self.left == 0;
            }
            Framing::Chunked => self.decoder.took(count),
            Framing::None | Framing::UntilClose => {}
        }
    }

    /// Reads more from `side` into `buffer`, after [`Self::find`] found nothing.
    ///
    /// # Errors
    /// When the body is cut short, or `wait` is over first.
    pub(crate) async fn fill(
        &mut self,
        side: &Side,
        buffer: &mut Buffer,
        wait: &Wait,
    ) -> Result<(), BodyError> {
        let is_small = match self.left() {
            Some(left) => left <= SMALL_READ as u64,
            None => self.taken < SMALL_READ as u64,
        };
        let room = if is_small { SMALL_READ } else { LARGE_READ };
        match side.fill(buffer, room, wait).await {
            Ok(0) if self.framing == Framing::UntilClose => self.ended = true,
            Ok(0) | Err(WireError::Broken) => return Err(BodyError::Incomplete),
            Ok(_) => {}
            Err(WireError::Late(stage)) => return Err(BodyError::Late(stage)),
        }
        Ok(())
    }

    /// The next piece of the body, read from `side` if none is in `buffer`. `wait` goes on from one
    /// piece to the next, so that it bounds the whole.
    ///
    /// # Errors
    /// When the body is too large, broken or cut short, or `wait` is over before its end.
    pub(crate) async fn next(
        &mut self,
        side: &Side,
        buffer: &mut Buffer,
        wait: &Wait,
    ) -> Result<Piece, BodyError> {
        loop {
            if let Some(piece) = self.find(buffer)? {
                return Ok(piece);
            }
            self.fill(side, buffer, wait).await?;
        }
    }
}
