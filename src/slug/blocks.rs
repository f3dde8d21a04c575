//! Blocks of the slugs that were packed lately: what did not change is copied, not deflated again.
//!
//! A block is what deflating the same bytes after the same bytes would give, so that a slug does not
//! depend on what was packed before it. Kept in memory: another version of this program, which may
//! deflate otherwise, starts with none.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};

use flate2::Crc;
use sha2::{Digest as _, Sha256};

use crate::model::Digest;

/// Most blocks that are known, of all slugs together: about 6 MB.
const BLOCKS_MAX: usize = 50_000;

/// sha256 of what a block was deflated from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// Of a block, after bytes that it may refer to.
    pub(super) fn of(window: &[u8], block: &[u8], is_last: bool) -> Self {
        let mut hash = Sha256::new();
        hash.update([u8::from(is_last)]);
        hash.update((window.len() as u64).to_le_bytes());
        hash.update(window);
        hash.update(block);
        Self(hash.finalize().into())
    }
}

/// Where a block is in its slug.
#[derive(Debug)]
struct Place {
    at: u64,
    length: usize,
    /// Of what is there.
    sum: u32,
    /// Of what it was.
    crc: Arc<Crc>,
}

/// What a slug is made of.
#[derive(Debug)]
pub(super) struct Blocks {
    places: HashMap<Key, Place>,
    end: u64,
}

impl Blocks {
    /// None yet, after a header of so many bytes.
    pub(super) fn after(header: u64) -> Self {
        Self {
            places: HashMap::new(),
            end: header,
        }
    }

    /// The next one.
    pub(super) fn add(&mut self, key: Key, bytes: &[u8], crc: Arc<Crc>) {
        let place = Place {
            at: self.end,
            length: bytes.len(),
            sum: sum(bytes),
            crc,
        };
        self.end += bytes.len() as u64;
        // Of more than are kept, nobody will ask.
        if self.places.len() < BLOCKS_MAX {
            self.places.insert(key, place);
        }
    }
}

#[cfg(test)]
impl Blocks {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// How many the other slug has, too.
    pub(super) fn common(&self, other: &Source) -> usize {
        let keys = self.places.keys();
        keys.filter(|key| other.find(key).is_some()).count()
    }
}

fn sum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// A slug, and what it is made of.
#[derive(Debug)]
pub(super) struct Source {
    slug: File,
    blocks: Arc<Blocks>,
}

/// A deflated block, and the sum of what it was.
pub(super) struct Block {
    pub(super) bytes: Vec<u8>,
    pub(super) crc: Arc<Crc>,
}

impl Source {
    /// The block, if it is there and still what was written.
    pub(super) fn find(&self, key: &Key) -> Option<Block> {
        let place = self.blocks.places.get(key)?;
        let mut bytes = vec![0; place.length];
        self.slug.read_exact_at(&mut bytes, place.at).ok()?;
        (sum(&bytes) == place.sum).then(|| Block {
            bytes,
            crc: Arc::clone(&place.crc),
        })
    }
}

/// What is known of the slugs that were packed lately. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Lately(Arc<Mutex<VecDeque<Known>>>);

/// A slug, and what it is made of.
type Known = (Digest, Arc<Blocks>);

impl Lately {
    /// The blocks of a slug, which is read while they are used.
    pub(super) fn source(&self, digest: &Digest, slug: File) -> Option<Source> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, blocks) = known.iter().find(|(own, _)| own == digest)?;
        let blocks = Arc::clone(blocks);
        Some(Source { slug, blocks })
    }

    /// Those that are known, the latest first.
    pub(super) fn digests(&self) -> Vec<Digest> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().map(|(digest, _)| *digest).collect()
    }

    /// Keeps what a slug is made of, in place of the one before it.
    pub(super) fn keep(&self, digest: Digest, blocks: Blocks, before: Option<&Digest>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(own, _)| *own != digest && before != Some(own));
        known.push_front((digest, Arc::new(blocks)));
        let mut sum = 0;
        known.retain(|(_, blocks)| {
            sum += blocks.places.len();
            sum <= BLOCKS_MAX
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest([byte; 32])
    }

    #[test]
    fn a_block_is_found_by_what_it_was_unless_its_bytes_changed() {
        let mut slug = tempfile::tempfile().expect("a file");
        slug.write_all(b"headONETWO").expect("written");
        let mut blocks = Blocks::after(4);
        let (one, two) = (Key::of(b"", b"one", false), Key::of(b"one", b"two", true));
        blocks.add(one, b"ONE", Arc::default());
        blocks.add(two, b"TWO", Arc::default());
        let lately = Lately::default();
        lately.keep(digest(1), blocks, None);
        let find = |key: &Key| {
            let slug = slug.try_clone().expect("cloned");
            let source = lately.source(&digest(1), slug).expect("known");
            source.find(key).map(|block| block.bytes)
        };
        assert_eq!(find(&one), Some(b"ONE".to_vec()));
        assert_eq!(find(&two), Some(b"TWO".to_vec()));
        assert_eq!(find(&Key::of(b"", b"two", true)), None);
        assert_eq!(find(&Key::of(b"one", b"two", false)), None);
        slug.write_all_at(b"X", 5).expect("written");
        assert_eq!(find(&one), None);
        slug.set_len(9).expect("cut");
        assert_eq!(find(&two), None);
    }

    #[test]
    fn only_so_many_are_kept_and_the_latest_of_each_app() {
        let lately = Lately::default();
        let is_known = |byte| {
            let file = tempfile::tempfile().expect("a file");
            lately.source(&digest(byte), file).is_some()
        };
        let many = |count: usize| {
            let mut blocks = Blocks::after(0);
            for at in 0..count {
                blocks.add(Key::of(b"", &at.to_le_bytes(), false), b"", Arc::default());
            }
            blocks
        };
        lately.keep(digest(1), many(BLOCKS_MAX / 2), None);
        lately.keep(digest(2), many(BLOCKS_MAX / 2), None);
        assert!(is_known(1) && is_known(2));
        lately.keep(digest(3), many(BLOCKS_MAX / 2), Some(&digest(2)));
        assert!(is_known(1) && !is_known(2) && is_known(3));
        lately.keep(digest(4), many(1), None);
        assert!(!is_known(1) && is_known(3) && is_known(4));
    }
}
