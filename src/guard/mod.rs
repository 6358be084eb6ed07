//! (room guard)
