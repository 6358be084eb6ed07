//! (room sink)
