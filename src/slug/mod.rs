//! Room `slug`.
