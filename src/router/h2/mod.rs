//! HTTP/2 from clients: framing here, everything else as for HTTP/1.1.
//!
//! Each stream is put into the words of HTTP/1.1 (`inward`) and goes through the same request path
//! as any other request; the answer is taken apart again (`outward`). So one set of checks, limits,
//! log lines and timeouts holds for both, at the price of writing the few bytes of framing twice.
//! `to_dyno` does the same at the other end, for dynos that speak HTTP/2 (gRPC).
//!
//! Bounds per connection: [`STREAMS_MAX`] streams at once, [`STREAM_WINDOW`] bytes of each and
//! [`CONNECTION_WINDOW`] of all on their way in, [`SEND_MAX`] of each on their way out; what the h2
//! crate holds against rapid resets and tiny DATA frames; and `guard` against frames that cost us and
//! not the sender. `guard` also reads all heads (`hpack`, `block`) before the crate does.
//! Source: RFC 9113 sections 5, 8 and 10.5.

/// Reading from `reader` and writing to `writer`, together and each by itself, for what carries one
/// request; `cut` ends it in the middle.
macro_rules! pair {
    ($name:ty) => {
        impl AsyncRead for $name {
            fn poll_read(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.reader).poll_read(cx, buf)
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.writer).poll_write(cx, bytes)
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.writer).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.writer).poll_shutdown(cx)
            }
        }

        impl crate::router::wire::Wire for $name {
            type Reader<'a> = &'a mut Reader;
            type Writer<'a> = &'a mut Writer;

            fn split(&mut self) -> (&mut Reader, &mut Writer) {
                (&mut self.reader, &mut self.writer)
            }

            /// Nobody waits for the next request.
            async fn readable(&mut self) -> io::Result<()> {
                Ok(())
            }

            fn reset(&mut self) {
                self.cut();
            }
        }
    };
}
use pair;

mod block;
#[cfg(test)]
mod fuzz;
mod guard;
mod hpack;
mod inward;
mod message;
mod outward;
mod serve;
mod to_dyno;

use std::io;

use block::HEAD_MAX;
pub(super) use serve::serve;
pub(super) use to_dyno::ToDyno;

/// Streams of one connection at once; more are refused. Source: RFC 9113 section 6.5.2 wants at
/// least 100.
const STREAMS_MAX: u32 = 100;

/// Bytes of a stream's body that may come before somebody reads them.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same of a whole connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of a stream's body that wait for the other side's window.
const SEND_MAX: usize = 64 * 1024;

/// As sockets say it.
fn broken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into());
    }
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
