//! Slugs: packing a built app, and unpacking untrusted archives.
//!
//! An archive is hostile input. It is unpacked by a process of its own (role `__unpack`): in a
//! chroot of the target directory, as the `dyno` user, without capabilities, network or a way
//! back. The tar crate only parses; every write goes through descriptors that follow no link.
//!
//! A slug that a build packs needs none of that: its tree is made of the same bytes at the same time
//! (`twin`, by the thread of `beside`), by descriptors, too, and its blocks are those of the slug before where they are the same
//! (`blocks`). Trees are on disk a little later than they are in their place (`mark`).

mod beside;
mod blocks;
mod digest;
mod error;
mod extract;
mod gzip;
mod mark;
mod pack;
mod same;
mod trees;
mod twin;
mod walk;
mod worker;

pub use blocks::Lately;
pub use digest::digest_of;
pub use error::SlugError;
pub use pack::{Packed, pack};
pub use same::is_unpacked;
pub use trees::{Made, Trees};
pub use worker::{extract_source, unpack_main};
