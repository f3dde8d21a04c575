//! gzip on all cores: one member, made of blocks that are deflated side by side.
//!
//! Each block knows the 32 KiB before it, so that little is lost by the cuts, and ends at a whole
//! byte, so that the results are put behind one another. Where the cuts are depends on the input
//! alone: whatever the number of threads, the same input gives the same output. Some cuts depend on
//! names alone, so that most blocks of a tree that changed somewhere are those of the tree before:
//! those are not deflated again (`blocks`).
//! Source: pigz(1), whose way this is; RFC 1951 and 1952.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZero;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress};

use super::blocks::{Block, Blocks, Key, Source};

/// Most bytes of a block.
const BLOCK: usize = 128 << 10;

/// Fewest bytes of a block that ends where an entry does.
const BLOCK_MIN: usize = 16 << 10;

/// Of so many entries, about one begins a block.
const ENTRIES: u32 = 32;

/// Bytes before a block that it may refer to.
const WINDOW: usize = 32 << 10;

/// Most threads.
const THREADS_MAX: usize = 4;

/// How hard to try. The usual 6 takes nearly three times as long to make a slug of Python a tenth smaller,
/// and every push waits for it.
const LEVEL: Compression = Compression::new(2);

/// No name, no time, made on Unix: the same input gives the same bytes.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];

/// A block, deflated, and what is to be known of it.
struct Deflated {
    bytes: Vec<u8>,
    key: Key,
    crc: Arc<Crc>,
}

/// A block to deflate, and where the result goes.
struct Job {
    before: Arc<Vec<u8>>,
    block: Arc<Vec<u8>>,
    is_last: bool,
    done: SyncSender<io::Result<Deflated>>,
}

/// Writes gzip to `out`; ended by [`Gzip::finish`].
pub(super) struct Gzip<W> {
    out: W,
    /// The block before this one.
    before: Arc<Vec<u8>>,
    block: Vec<u8>,
    crc: Crc,
    /// What was written so far.
    blocks: Blocks,
    /// In the order of their blocks; bounded by the number of threads.
    waiting: VecDeque<Receiver<io::Result<Deflated>>>,
    threads: Threads,
}

/// Those that deflate; ended when dropped.
struct Threads {
    jobs: Option<SyncSender<Job>>,
    handles: Vec<JoinHandle<()>>,
}

impl<W: Write> Gzip<W> {
    /// With a thread for each core, at most four. What `before` has is taken from there.
    pub(super) fn new(out: W, before: Option<Source>) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::with(out, cores.min(THREADS_MAX), before)
    }

    fn with(mut out: W, threads: usize, before: Option<Source>) -> io::Result<Self> {
        out.write_all(&HEADER)?;
        Ok(Self {
            out,
            before: Arc::default(),
            block: Vec::with_capacity(BLOCK),
            crc: Crc::new(),
            blocks: Blocks::after(HEADER.len() as u64),
            waiting: VecDeque::new(),
            threads: Threads::start(threads, before)?,
        })
    }

    /// An entry with this name begins: there may be a cut here.
    pub(super) fn entry(&mut self, name: &[u8]) -> io::Result<()> {
        let mut sum = Crc::new();
        sum.update(name);
        if self.block.len() >= BLOCK_MIN && sum.sum().is_multiple_of(ENTRIES) {
            return self.cut(false);
        }
        Ok(())
    }

    /// Writes what is left and the trailer, and gives the output back and what it is made of.
    pub(super) fn finish(mut self) -> io::Result<(W, Blocks)> {
        self.cut(true)?;
        while !self.waiting.is_empty() {
            self.take()?;
        }
        let (sum, length) = (self.crc.sum(), self.crc.amount());
        self.out.write_all(&sum.to_le_bytes())?;
        self.out.write_all(&length.to_le_bytes())?;
        Ok((self.out, self.blocks))
    }

    /// Hands the block over, after the oldest result if enough are on their way.
    fn cut(&mut self, is_last: bool) -> io::Result<()> {
        if self.waiting.len() >= 2 * self.threads.handles.len() {
            self.take()?;
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let block = Arc::new(block);
        let (done, result) = sync_channel(1);
        let job = Job {
            before: std::mem::replace(&mut self.before, Arc::clone(&block)),
            block,
            is_last,
            done,
        };
        self.threads.hand_over(job)?;
        self.waiting.push_back(result);
        Ok(())
    }

    /// Writes the oldest result.
    fn take(&mut self) -> io::Result<()> {
        let Some(result) = self.waiting.pop_front() else {
            return Ok(());
        };
        let deflated = result.recv().map_err(|_| gone())??;
        self.crc.combine(&deflated.crc);
        self.blocks.add(deflated.key, &deflated.bytes, deflated.crc);
        self.out.write_all(&deflated.bytes)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() == BLOCK {
            self.cut(false)?;
        }
        let room = BLOCK - self.block.len();
        let bytes = &bytes[..bytes.len().min(room)];
        self.block.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Threads {
    fn start(count: usize, before: Option<Source>) -> io::Result<Self> {
        let (jobs, taken) = sync_channel(2 * count);
        let taken = Arc::new(Mutex::new(taken));
        let before = before.map(Arc::new);
        let start = |_| {
            let (taken, before) = (Arc::clone(&taken), before.clone());
            let builder = std::thread::Builder::new().name("gzip".to_owned());
            builder.spawn(move || work(&taken, before.as_deref()))
        };
        Ok(Self {
            jobs: Some(jobs),
            handles: (0..count).map(start).collect::<io::Result<_>>()?,
        })
    }

    fn hand_over(&self, job: Job) -> io::Result<()> {
        let jobs = self.jobs.as_ref().ok_or_else(gone)?;
        jobs.send(job).map_err(|_| gone())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.jobs = None;
        for handle in self.handles.drain(..) {
            // A panic there was told as a result that never came.
            let _ = handle.join();
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread that packs has ended")
}

/// One thread: blocks as long as there are any.
fn work(jobs: &Mutex<Receiver<Job>>, before: Option<&Source>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else {
            return;
        };
        let result = one(&job, before);
        // Nobody waits for it once packing has failed.
        let _ = job.done.send(result);
    }
}

/// As it is in the slug before, or deflated.
fn one(job: &Job, before: Option<&Source>) -> io::Result<Deflated> {
    let window = &job.before[job.before.len().saturating_sub(WINDOW)..];
    let key = Key::of(window, &job.block, job.is_last);
    if let Some(Block { bytes, crc }) = before.and_then(|before| before.find(&key)) {
        return Ok(Deflated { bytes, key, crc });
    }
    let bytes = deflate(window, &job.block, job.is_last)?;
    let mut crc = Crc::new();
    crc.update(&job.block);
    let crc = Arc::new(crc);
    Ok(Deflated { bytes, key, crc })
}

fn deflate(window: &[u8], block: &[u8], is_last: bool) -> io::Result<Vec<u8>> {
    let mut deflate = Compress::new(LEVEL, false);
    if !window.is_empty() {
        deflate.set_dictionary(window)?;
    }
    let flush = if is_last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let mut bytes = Vec::with_capacity(block.len() / 2 + 1024);
    loop {
        let taken = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        deflate.compress_vec(&block[taken..], &mut bytes, flush)?;
        let all = deflate.total_in() == block.len() as u64;
        // With room left after all was taken, all was written, too.
        if all && bytes.len() < bytes.capacity() {
            return Ok(bytes);
        }
        bytes.reserve(block.len() / 4 + 1024);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn packed(bytes: &[u8], threads: usize, piece: usize) -> Vec<u8> {
        let mut gzip = Gzip::with(Vec::new(), threads, None).expect("started");
        for piece in bytes.chunks(piece) {
            gzip.write_all(piece).expect("written");
        }
        gzip.finish().expect("finished").0
    }

    fn some(length: usize) -> Vec<u8> {
        let mut state = 7_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_le_bytes()[3]
        };
        (0..length)
            .map(|at| {
                if at % 3 == 0 {
                    b' '
                } else {
                    (next() & 15) + b'a'
                }
            })
            .collect()
    }

    #[test]
    fn what_is_packed_is_one_member_and_unpacks_the_same() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 77] {
            let bytes = some(length);
            let gzip = packed(&bytes, 3, 10_000);
            let mut back = Vec::new();
            // Of a single member: a second one would be left over.
            let mut decoder = flate2::bufread::GzDecoder::new(&gzip[..]);
            decoder.read_to_end(&mut back).expect("unpacked");
            assert_eq!(back, bytes, "{length}");
            assert!(decoder.into_inner().is_empty(), "{length}");
        }
    }

    #[test]
    fn neither_threads_nor_pieces_change_the_bytes() {
        let bytes = some(7 * BLOCK + 5);
        let one = packed(&bytes, 1, 1 << 20);
        for (threads, piece) in [(2, 512), (4, 77_777)] {
            assert_eq!(packed(&bytes, threads, piece), one);
        }
        let incompressible: Vec<u8> = (0..3 * BLOCK)
            .map(|at| at.wrapping_mul(2_654_435_761).to_le_bytes()[2])
            .collect();
        assert_eq!(
            packed(&incompressible, 2, 999),
            packed(&incompressible, 4, BLOCK)
        );
    }

    #[test]
    fn an_output_that_fails_ends_the_work() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 += bytes.len();
                if self.0 > 100_000 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gzip = Gzip::with(Full(0), 2, None).expect("started");
        let error = gzip.write_all(&some(20 * BLOCK)).expect_err("full");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    /// Entries with names, of some thousands of bytes each.
    fn entries(gzip: &mut Gzip<Vec<u8>>, change: &[u8]) {
        for at in 0..400_usize {
            gzip.entry(format!("./app/file{at}").as_bytes())
                .expect("begun");
            let bytes = some(3000 + at);
            gzip.write_all(&bytes).expect("written");
            gzip.write_all(&at.to_le_bytes()).expect("written");
            if at == 100 {
                gzip.write_all(change).expect("written");
            }
        }
    }

    #[test]
    fn what_did_not_change_is_found_again_and_the_bytes_are_the_same() {
        use crate::model::Digest;
        use crate::slug::Lately;

        let make = |change: &[u8], before| {
            let mut gzip = Gzip::with(Vec::new(), 2, before).expect("started");
            entries(&mut gzip, change);
            gzip.finish().expect("finished")
        };
        let (old, blocks) = make(b"", None);
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&old).expect("written");
        let lately = Lately::default();
        lately.keep(Digest([1; 32]), blocks, None);
        let source = || {
            let file = file.try_clone().expect("cloned");
            lately.source(&Digest([1; 32]), file).expect("known")
        };
        let (fresh, blocks) = make(b"changed", None);
        let (again, _) = make(b"changed", Some(source()));
        assert_eq!(fresh, again);
        assert_ne!(fresh, old);
        let (all, known) = (blocks.len(), blocks.common(&source()));
        assert!(all > 10 && known + 6 > all, "{known} of {all}");
        let mut back = Vec::new();
        let mut decoder = flate2::bufread::GzDecoder::new(&again[..]);
        decoder.read_to_end(&mut back).expect("unpacked");
        assert!(decoder.into_inner().is_empty());
    }
}
