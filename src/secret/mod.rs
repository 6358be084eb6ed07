//! (room secret)
