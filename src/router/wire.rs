//! The seam between the request loop and what carries its bytes. The loop is compiled once per
//! carrier, so plain TCP pays nothing for the others.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

/// A connection whose two directions one task uses side by side.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// The way in.
    type Reader<'a>: AsyncRead + Unpin
    where
        Self: 'a;
    /// The way out.
    type Writer<'a>: AsyncWrite + Unpin
    where
        Self: 'a;

    /// Both ways at once. They belong to one task: no lock is taken.
    fn split(&mut self) -> (Self::Reader<'_>, Self::Writer<'_>);

    /// Waits until a read would not wait, without a buffer to read into.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>>;

    /// Makes the coming end look like the failure it is: nobody takes a torn answer for whole.
    fn reset(&mut self);
}

impl Wire for TcpStream {
    type Reader<'a> = ReadHalf<'a>;
    type Writer<'a> = WriteHalf<'a>;

    fn split(&mut self) -> (ReadHalf<'_>, WriteHalf<'_>) {
        Self::split(self)
    }

    fn readable(&mut self) -> impl Future<Output = io::Result<()>> {
        // The way reads wait, too: `TcpStream::readable` would enter a list for every wait.
        std::future::poll_fn(|context| self.poll_read_ready(context))
    }

    /// The end will be a RST, not a FIN.
    fn reset(&mut self) {
        let socket = socket2::SockRef::from(&*self);
        if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
            tracing::debug!(%error, "connection not reset");
        }
    }
}

/// Where a connection comes from and what it speaks.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) peer: IpAddr,
    /// The port it came to.
    pub(super) port: u16,
    /// `X-Forwarded-Proto`: `http` or `https`.
    pub(super) scheme: &'static str,
    /// Field of the log line: `http`, `https`, `http2.0`.
    pub(super) protocol: &'static str,
    /// The name asked for in the handshake, in lower case.
    pub(super) tls_name: Option<Arc<str>>,
}

impl Origin {
    /// Plain TCP.
    pub(super) fn plain(peer: IpAddr, port: u16) -> Self {
        Self {
            peer,
            port,
            scheme: "http",
            protocol: "http",
            tls_name: None,
        }
    }
}
