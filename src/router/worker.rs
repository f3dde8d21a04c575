//! What one router thread has for itself: no lock, no atomic.
//!
//! Log lines are gathered and handed over once per turn of the thread's loop, so that a busy
//! thread takes the hub's lock once for many. Buffers are lent to connections only while bytes
//! move, so that an idle one holds none.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use bytes::BytesMut;

use crate::logs::{Hub, Line};
use crate::model::AppId;

/// Lines are handed over at the latest when so many wait.
const LINES_MAX: usize = 64;

/// Buffers kept for later; more are freed.
const SPARE_MAX: usize = 64;

/// Room of a lent buffer in bytes.
pub(super) const BUFFER: usize = 16 * 1024;

/// A buffer that grew past this is freed rather than kept.
const BUFFER_MAX: usize = 64 * 1024;

thread_local! {
    static LINES: RefCell<Vec<(AppId, Line)>> = const { RefCell::new(Vec::new()) };
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
    static STOP: Cell<bool> = const { Cell::new(false) };
    static PART: Cell<bool> = const { Cell::new(false) };
    /// Who is to be told to end.
    static LISTENING: RefCell<Listening> = const { RefCell::new(Listening::new()) };
}

/// Gathers a line of the router.
pub(super) fn log(hub: &Hub, app: AppId, text: String) {
    let is_full = LINES.with_borrow_mut(|lines| {
        lines.push((app, Line::platform("router", text)));
        lines.len() >= LINES_MAX
    });
    if is_full {
        flush(hub);
    }
}

/// Hands the gathered lines over: before the thread sleeps, and before an answer that its client
/// may compare with the log.
pub(super) fn flush(hub: &Hub) {
    LINES.with_borrow_mut(|lines| {
        if !lines.is_empty() {
            hub.append_all(lines);
        }
    });
}

/// An empty buffer with room.
pub(super) fn lend() -> BytesMut {
    let spare = SPARE.with_borrow_mut(Vec::pop);
    let mut buffer = spare.unwrap_or_default();
    buffer.reserve(BUFFER);
    buffer
}

/// Takes a buffer back; what is in it is lost.
pub(super) fn give_back(mut buffer: BytesMut) {
    buffer.clear();
    // Parts of it may still be read elsewhere: then its room is not ours to reuse.
    if !buffer.try_reclaim(BUFFER) || buffer.capacity() > BUFFER_MAX {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < SPARE_MAX {
            spare.push(buffer);
        }
    });
}

/// True once connections are to end after their request.
pub(super) fn is_stopping() -> bool {
    STOP.get()
}

/// Ends this thread's idle connections, and the others after their request.
pub(super) fn stop() {
    STOP.set(true);
    wake();
}

/// Tells this thread's connections that are no HTTP any more that the router ends.
pub(super) fn part() {
    PART.set(true);
    wake();
}

/// True once they are told.
pub(super) fn is_parting() -> bool {
    PART.get()
}

fn wake() {
    LISTENING.with_borrow_mut(|listening| {
        for place in &mut listening.places {
            place.wake();
        }
    });
}

/// Ends the one of this thread's connections that has been idle for longest.
pub(super) fn make_room() {
    LISTENING.with_borrow_mut(|listening| {
        let places = listening.places.iter_mut();
        let idle = places.filter(|place| place.turn > 0 && !place.is_called);
        if let Some(place) = idle.min_by_key(|place| place.turn) {
            place.is_called = true;
            place.wake();
        }
    });
}

struct Listening {
    places: Vec<Place>,
    free: Vec<usize>,
    turns: u64,
}

/// What is known of one connection.
struct Place {
    waker: Option<Waker>,
    /// The lower, the longer it has been idle; 0: it is not.
    turn: u64,
    /// Its place is needed.
    is_called: bool,
}

impl Place {
    const fn new() -> Self {
        Self {
            waker: None,
            turn: 0,
            is_called: false,
        }
    }

    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl Listening {
    const fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            turns: 0,
        }
    }
}

/// One connection's way to hear that it must end: cheaper to ask again and again than a token,
/// which takes a lock that all threads share.
#[derive(Debug)]
pub(super) struct Ear {
    place: usize,
}

impl Ear {
    pub(super) fn new() -> Self {
        let place = LISTENING.with_borrow_mut(|listening| {
            listening.free.pop().unwrap_or_else(|| {
                listening.places.push(Place::new());
                listening.places.len() - 1
            })
        });
        Self { place }
    }

    /// Resolves at the stop; while the connection `is_idle`, also when its place is needed. Only on
    /// the thread that made it.
    pub(super) async fn called(&self, is_idle: bool) {
        let _idle = is_idle.then(|| Idle::begin(self.place));
        poll_fn(|context| self.poll(context, |place| is_stopping() || place.is_called)).await;
    }

    /// Resolves when the router [parts](part).
    pub(super) async fn parted(&self) {
        poll_fn(|context| self.poll(context, |_| is_parting())).await;
    }

    fn poll(&self, context: &Context<'_>, is_over: impl Fn(&Place) -> bool) -> Poll<()> {
        LISTENING.with_borrow_mut(|listening| {
            let place = &mut listening.places[self.place];
            if is_over(place) {
                return Poll::Ready(());
            }
            match &mut place.waker {
                Some(waker) => waker.clone_from(context.waker()),
                None => place.waker = Some(context.waker().clone()),
            }
            Poll::Pending
        })
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        // At the thread's end the list may be gone before the last connection.
        let _ = LISTENING.try_with(|listening| {
            let mut listening = listening.borrow_mut();
            listening.places[self.place] = Place::new();
            listening.free.push(self.place);
        });
    }
}

/// While it lives, its connection is idle.
struct Idle {
    place: usize,
}

impl Idle {
    fn begin(place: usize) -> Self {
        LISTENING.with_borrow_mut(|listening| {
            listening.turns += 1;
            listening.places[place].turn = listening.turns;
        });
        Self { place }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        let _ = LISTENING.try_with(|listening| {
            let place = &mut listening.borrow_mut().places[self.place];
            (place.turn, place.is_called) = (0, false);
        });
    }
}

/// Takes [`part`] back: the thread's next test is another one.
#[cfg(test)]
pub(super) fn stay() {
    PART.set(false);
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_buffer_comes_back_unless_somebody_still_reads_it() {
        let mut buffer = lend();
        buffer.extend_from_slice(b"head");
        let start = buffer.as_ptr();
        let head = buffer.split_to(4).freeze();
        give_back(buffer);
        assert_ne!(lend().as_ptr(), start, "the head lies there");
        drop(head);
        let mut buffer = lend();
        buffer.extend_from_slice(b"head");
        let start = buffer.as_ptr();
        drop(buffer.split_to(4).freeze());
        give_back(buffer);
        assert_eq!(lend().as_ptr(), start);
    }

    #[tokio::test]
    async fn who_was_idle_for_longest_makes_room() {
        let (busy, first, second) = (Ear::new(), Ear::new(), Ear::new());
        let mut busy_one = pin!(busy.called(false));
        let mut first_one = pin!(first.called(true));
        let mut second_one = pin!(second.called(true));
        assert!(busy_one.as_mut().now_or_never().is_none());
        assert!(first_one.as_mut().now_or_never().is_none());
        assert!(second_one.as_mut().now_or_never().is_none());
        make_room();
        assert!(first_one.as_mut().now_or_never().is_some());
        assert!(second_one.as_mut().now_or_never().is_none());
        make_room();
        assert!(second_one.as_mut().now_or_never().is_some());
        make_room();
        assert!(busy_one.as_mut().now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_stop_wakes_whoever_waits_for_it() {
        let (gone, ear) = (Ear::new(), Ear::new());
        let place = gone.place;
        drop(gone);
        assert_eq!(Ear::new().place, place, "places are used again");
        tokio::join!(ear.called(false), async { stop() });
        assert!(is_stopping());
        STOP.set(false);
        let mut parted = pin!(ear.parted());
        assert!(parted.as_mut().now_or_never().is_none());
        tokio::join!(parted, async { part() });
        stay();
    }
}
