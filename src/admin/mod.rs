//! (room admin)
