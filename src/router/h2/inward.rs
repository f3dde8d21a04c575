//! A stream's body on its way in, in the words of HTTP/1.1.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use tokio::io::ReadBuf;

use super::message;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Data,
    Trailers,
    Done,
}

/// Yields a body: bare, or in chunks with trailers.
#[derive(Debug)]
pub(super) struct Inward {
    body: RecvStream,
    is_chunked: bool,
    /// What was taken out of the stream and not read yet.
    framing: BytesMut,
    data: Bytes,
    /// Stands behind the data.
    is_chunk_open: bool,
    state: State,
}

impl Inward {
    pub(super) fn new(body: RecvStream, is_chunked: bool) -> Self {
        Self {
            body,
            is_chunked,
            framing: BytesMut::new(),
            data: Bytes::new(),
            is_chunk_open: false,
            state: State::Data,
        }
    }

    /// Puts something into `buf`; `false`: that was all.
    ///
    /// The sender may send as much again as was read here: it is not read before there is room for
    /// it at the other side, so nobody's window is larger than what can go on.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        while buf.remaining() > 0 {
            if !self.framing.is_empty() {
                let count = self.framing.len().min(buf.remaining());
                buf.put_slice(&self.framing.split_to(count));
                continue;
            }
            if !self.data.is_empty() {
                let count = self.data.len().min(buf.remaining());
                buf.put_slice(&self.data.split_to(count));
                continue;
            }
            if std::mem::take(&mut self.is_chunk_open) {
                self.framing.put_slice(b"\r\n");
                continue;
            }
            match self.poll_more(cx) {
                Poll::Ready(Ok(true)) => {}
                // What is here goes first; the end and errors come again.
                _ if buf.filled().len() > before => break,
                other => return other,
            }
        }
        Poll::Ready(Ok(true))
    }

    /// Takes the next piece out of the stream; `false`: there is none.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match self.state {
            State::Data => match ready!(self.body.poll_data(cx)) {
                Some(data) => {
                    let data = data.map_err(super::broken)?;
                    let room = self.body.flow_control();
                    room.release_capacity(data.len()).map_err(super::broken)?;
                    if self.is_chunked && !data.is_empty() {
                        let size = format!("{:x}\r\n", data.len());
                        self.framing.put_slice(size.as_bytes());
                        self.is_chunk_open = true;
                    }
                    self.data = data;
                }
                None => self.state = State::Trailers,
            },
            State::Trailers => {
                let trailers = ready!(self.body.poll_trailers(cx)).map_err(super::broken)?;
                if self.is_chunked {
                    self.framing.put_slice(b"0\r\n");
                    if let Some(trailers) = trailers {
                        message::lines(&mut self.framing, &trailers, |_| false);
                    }
                    self.framing.put_slice(b"\r\n");
                }
                self.state = State::Done;
            }
            State::Done => return Poll::Ready(Ok(false)),
        }
        Poll::Ready(Ok(true))
    }
}
