//! A message's body on its way out: from the words of HTTP/1.1 into a stream.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};

use super::message;
use crate::router::chunks::{Decoder, Step};

/// How the body's end is found.
#[derive(Debug)]
pub(super) enum Kind {
    /// So many bytes are left.
    Length(u64),
    Chunked(Decoder),
    /// At the end of the connection.
    UntilClose,
    /// It was there with the head, or the body has ended.
    Ended,
}

/// Address and length of a writer's bytes.
type Place = (usize, usize);

fn place(bytes: &[u8]) -> Place {
    (bytes.as_ptr() as usize, bytes.len())
}

/// Takes a body.
#[derive(Debug)]
pub(super) struct Outward {
    send: SendStream<Bytes>,
    kind: Kind,
    /// What waits for the other side's window: never more than one write.
    buffer: BytesMut,
    /// Where the write lies that waits: it is done when all of it is gone.
    held: Option<Place>,
}

impl Outward {
    /// `rest`: what came behind the head.
    pub(super) fn new(send: SendStream<Bytes>, kind: Kind, rest: BytesMut) -> Self {
        Self {
            send,
            kind,
            buffer: rest,
            held: None,
        }
    }

    /// Says that `bytes` are in the buffer already: their writer waits for them.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.held = Some(place(bytes));
    }

    /// Takes bytes, and is done when they are gone: nobody would drain them later.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.held != Some(place(bytes)) {
            ready!(self.poll_drain(cx))?;
            self.buffer.extend_from_slice(bytes);
            self.held = Some(place(bytes));
        }
        ready!(self.poll_drain(cx))?;
        self.held = None;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Done when nothing waits any more.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let (count, is_last) = match &mut self.kind {
                Kind::Length(left) => {
                    let whole = usize::try_from(*left).unwrap_or(usize::MAX);
                    (self.buffer.len().min(whole), self.buffer.len() >= whole)
                }
                Kind::UntilClose => (self.buffer.len(), false),
                Kind::Ended => {
                    // A HEAD's body, or bytes behind the end: nobody asked for them.
                    self.buffer.clear();
                    return Poll::Ready(Ok(()));
                }
                Kind::Chunked(decoder) => {
                    let step = decoder.step(&mut self.buffer);
                    match step.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))? {
                        Step::Data(count) => (count, false),
                        Step::More => return Poll::Ready(Ok(())),
                        Step::End(trailers) => return Poll::Ready(self.end(&trailers)),
                    }
                }
            };
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            let room = ready!(self.poll_room(cx, count))?;
            let taken = room.min(count);
            let is_end = is_last && taken == count;
            let data = self.buffer.split_to(taken).freeze();
            self.send.send_data(data, is_end).map_err(super::broken)?;
            match &mut self.kind {
                Kind::Length(left) => *left -= taken as u64,
                Kind::Chunked(decoder) => decoder.taken(taken),
                Kind::UntilClose | Kind::Ended => {}
            }
            if is_end {
                self.kind = Kind::Ended;
            }
        }
    }

    /// How much of `count` bytes the other side takes now.
    fn poll_room(&mut self, cx: &mut Context<'_>, count: usize) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(count);
        loop {
            let room = self.send.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(super::broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        self.kind = Kind::Ended;
        let trailers = message::trailers(trailers);
        let ended = if trailers.is_empty() {
            self.send.send_data(Bytes::new(), true)
        } else {
            self.send.send_trailers(trailers)
        };
        ended.map_err(super::broken)
    }

    /// Ends what has no end of its own; what should have had one is reset.
    pub(super) fn close(&mut self) {
        match std::mem::replace(&mut self.kind, Kind::Ended) {
            Kind::Ended => {}
            Kind::UntilClose => {
                // An error means that nobody listens any more.
                self.send.send_data(Bytes::new(), true).ok();
            }
            Kind::Length(_) | Kind::Chunked(_) => self.reset(),
        }
    }

    pub(super) fn reset(&mut self) {
        self.kind = Kind::Ended;
        self.send.send_reset(Reason::INTERNAL_ERROR);
    }

    /// Resolves when the other side resets the stream.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reason, h2::Error>> {
        self.send.poll_reset(cx)
    }
}
