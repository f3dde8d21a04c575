//! manifold: your own Heroku on one Linux machine.
//!
//! One crate, one folder per room; the arrows between rooms point down this list only
//! (a host test, `tidy`, holds every `use crate::` to it).

pub mod compose;

pub mod cli;

pub mod api;
pub mod metrics;
pub mod router;

pub mod build;
pub mod git;
pub mod release;

pub mod supervisor;

pub mod keeper;

pub mod dyno;

pub mod certs;

pub mod cgroup;
pub mod disk;
pub mod logs;
pub mod network;
pub mod rootfs;
pub mod slug;
pub mod store;
pub mod traffic;

pub mod model;
pub mod settings;

pub mod sys;
