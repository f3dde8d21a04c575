//! The tree of a slug is made by a thread of its own, while others read, deflate and hash: mostly it
//! waits for the file system to make files.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::twin::{Kept, Twin};

/// Bytes that are handed over at once, if no file is larger: a thread is not woken for each file.
const BATCH: usize = 256 << 10;

/// Most batches that wait. With files of at most 4 MiB in them that bounds the memory.
const WAITING: usize = 2;

/// What is next in the order of the slug.
pub(super) enum Piece {
    /// A directory; what follows is in it until its end.
    Directory(OsString),
    /// The end of the directory, and its mode.
    End(u32),
    /// A link and its target.
    Link(OsString, OsString),
    /// A file of these bytes.
    Small(OsString, Kept, Vec<u8>),
    /// A file that is read once more.
    Large(OsString, Kept, File),
}

/// The thread. Ended when dropped, with what is made by then.
pub(super) struct Beside {
    batch: Vec<Piece>,
    bytes: usize,
    queue: Option<SyncSender<Vec<Piece>>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Beside {
    /// Begins in an empty directory.
    pub(super) fn start(top: Twin) -> io::Result<Self> {
        let (queue, batches) = sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("tree".to_owned());
        let thread = thread.spawn(move || make(top, batches))?;
        Ok(Self {
            batch: Vec::new(),
            bytes: 0,
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    pub(super) fn add(&mut self, piece: Piece) {
        self.bytes += match &piece {
            Piece::Small(_, _, bytes) => bytes.len(),
            _ => 0,
        };
        self.batch.push(piece);
        if self.bytes >= BATCH || self.batch.len() >= BATCH / 1024 {
            self.hand_over();
        }
    }

    fn hand_over(&mut self) {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if let Some(queue) = &self.queue {
            // A thread that is gone is told of at the end.
            let _ = queue.send(batch);
        }
    }

    /// Waits until all is made; the first thing that could not be.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.hand_over();
        self.join()
    }

    fn join(&mut self) -> io::Result<()> {
        self.queue = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(io::Error::other("the thread that makes a tree has ended")),
        }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Whoever gives up removes the tree, too: nobody may write there any more.
        let _ = self.join();
    }
}

/// The thread's work. After a failure nothing more is made, and all is taken.
fn make(top: Twin, batches: Receiver<Vec<Piece>>) -> io::Result<()> {
    let mut open = vec![top];
    let mut result = Ok(());
    for batch in batches {
        if result.is_ok() {
            result = batch
                .into_iter()
                .try_for_each(|piece| one(&mut open, piece));
        }
    }
    result
}

/// `open`: the directories that we are in, the innermost last.
fn one(open: &mut Vec<Twin>, piece: Piece) -> io::Result<()> {
    let Some(here) = open.last() else {
        return Err(io::Error::other("there is more than one top"));
    };
    match piece {
        Piece::Directory(name) => {
            let below = here.directory(&name)?;
            open.push(below);
            Ok(())
        }
        Piece::End(mode) => open.pop().map_or(Ok(()), |twin| twin.finish(mode)),
        Piece::Link(name, target) => here.link(&name, &target),
        Piece::Small(name, kept, bytes) => here.small(&name, kept, &bytes),
        Piece::Large(name, kept, mut file) => here.large(&name, kept, &mut file),
    }
}
