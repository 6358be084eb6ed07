//! How the house talks about itself.
