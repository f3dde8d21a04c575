//! WHAT a dyno is: the launch plan, its environment, how it ends.
//!
//! A launch is data first: an ordered list of steps to print, snapshot and review. The keeper
//! applies it in a short loop. Pure: no I/O here.

mod command;
mod env;
mod plan;
mod shown;

pub use command::{BY_BASH, PROFILE, PROFILE_DIRS, argv, plain_words};
pub use env::{EnvironmentRequest, environment, shown};
pub use plan::{
    APP_GID, APP_UID, AppStep, Attributes, Exec, IDS_PER_DYNO, LaunchPlan, Layer, OPEN_FILES_MAX,
    PlanRequest, Resource, SHM_BYTES, SetUpStep, UserRange,
};
pub use shown::ShownSize;
