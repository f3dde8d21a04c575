//! Room `cgroup`.
