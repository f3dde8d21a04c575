//! What a dyno's root is made of: stacks, the skeleton of the `host` stack, masked paths.
//!
//! Data and directories only; mounting is the keeper's.

mod error;
mod layers;
mod skeleton;
mod stack;

pub use error::RootfsError;
pub use layers::{READ_ONLY, dyno_files, masked};
pub use stack::{StackRoot, Stacks};
