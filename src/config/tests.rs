//! What operators meet: whole files, good and bad.
