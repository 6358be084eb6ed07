//! Bytes that have been read and not yet used.

/// A byte queue in one piece of memory: filled at the end, used up from the front.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    /// Where the unused bytes begin; at most `data.len()`.
    start: usize,
}

/// What an idle connection may keep, in bytes; a larger buffer is given back.
const KEPT_WHEN_EMPTY: usize = 16 * 1024;

impl Buffer {
    /// The unused bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.data.get(self.start..).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.data.len() - self.start
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `count` unused bytes, or all when there are fewer.
    #[inline]
    pub(crate) fn front(&self, count: usize) -> &[u8] {
        let bytes = self.bytes();
        bytes.get(..count).unwrap_or(bytes)
    }

    /// Uses up the first `count` bytes.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.len(), "consumed more than was read");
        self.start = (self.start + count).min(self.data.len());
        if self.start == self.data.len() {
            self.data.clear();
            self.start = 0;
        }
    }

    /// Room for about `count` further bytes; a read fills what spare capacity there is.
    #[inline]
    pub(crate) fn room(&mut self, count: usize) -> &mut Vec<u8> {
        if self.data.capacity() - self.data.len() < count {
            if self.start > 0 {
                self.data.drain(..self.start);
                self.start = 0;
            }
            self.data.reserve(count);
        }
        &mut self.data
    }

    /// Gives memory back: all of it from an empty buffer when `idle`, else what is beyond the usual.
    pub(crate) fn shrink(&mut self, idle: bool) {
        if self.is_empty() && (idle || self.data.capacity() > KEPT_WHEN_EMPTY) {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_consumed_is_gone_and_the_rest_stays_in_order() {
        let mut buffer = Buffer::default();
        buffer.room(8).extend_from_slice(b"abcdef");
        buffer.consume(2);
        buffer.room(64).extend_from_slice(b"gh");
        assert_eq!(buffer.bytes(), b"cdefgh");
        assert_eq!(buffer.front(3), b"cde");
        assert_eq!(buffer.front(99), b"cdefgh");
        buffer.consume(6);
        assert!(buffer.is_empty());
    }
}
