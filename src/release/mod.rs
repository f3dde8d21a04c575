//! Room `release`.
