//! What a dyno's root is made of: stacks and their versions, the skeleton of the `host` stack,
//! masked paths.
//!
//! Data and directories only; mounting is the keeper's.

mod bootstrap;
mod error;
mod image;
mod import;
mod layers;
mod recipe;
mod skeleton;
mod stack;
mod version;

pub use bootstrap::{Mirrors, build};
pub use error::RootfsError;
pub use import::import;
pub use layers::{READ_ONLY, dyno_files, masked};
pub use recipe::{Alias, Recipe, default_routing};
pub use stack::{StackRoot, Stacks};
pub use version::{ImageRecord, Scratch, StackVersion, Versions};
