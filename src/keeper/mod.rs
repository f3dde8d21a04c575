//! Room `keeper`.
