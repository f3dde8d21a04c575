//! Room `router`.
