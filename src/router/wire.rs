//! The seam between the request loop and what carries its bytes. The loop is compiled once per
//! carrier, so plain TCP pays nothing for the others.

use std::borrow::Cow;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use smol_str::SmolStr;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::head::Head;
use super::headers;
use super::name::Name;
use crate::settings::Block;

/// A connection whose two directions one task uses side by side.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// The way in.
    type Reader<'a>: Source
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

/// A way in.
pub(super) trait Source: AsyncRead + Unpin {
    /// Tells the sender now that its bytes have come.
    fn acknowledge(&self) {}

    /// True if the other side sends no more, whatever of it is still to be read, or is gone.
    fn has_ended(&self) -> bool {
        false
    }

    /// True if [`Source::torn`] resolves as soon as the other side leaves, whatever is said to it.
    fn tells_of_leaving(&self) -> bool {
        false
    }

    /// Behind that end: says something to the other side, as far as that goes out at once. So many
    /// bytes did.
    fn hail(&mut self, _words: &[u8]) -> impl Future<Output = io::Result<usize>> {
        std::future::ready(Ok(0))
    }

    /// Behind that end: resolves when the other side cannot be told anything either.
    fn torn(&mut self) -> impl Future<Output = ()> {
        std::future::pending()
    }
}

impl Source for ReadHalf<'_> {
    fn acknowledge(&self) {
        let stream: &TcpStream = self.as_ref();
        if let Err(error) = stream.set_quickack(true) {
            tracing::debug!(%error, "not acknowledged");
        }
    }

    fn has_ended(&self) -> bool {
        has_ended(self.as_ref())
    }

    async fn hail(&mut self, words: &[u8]) -> io::Result<usize> {
        let stream: &TcpStream = self.as_ref();
        match stream.try_write(words) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            done => done,
        }
    }

    async fn torn(&mut self) {
        let stream: &TcpStream = self.as_ref();
        // An error of the wait itself is an end, too.
        let _ = stream.ready(Interest::ERROR).await;
    }
}

/// See [`Source::has_ended`].
pub(super) fn has_ended(stream: &TcpStream) -> bool {
    match stream
        .ready(Interest::READABLE | Interest::ERROR)
        .now_or_never()
    {
        Some(Ok(ready)) => ready.is_read_closed() || ready.is_error(),
        Some(Err(_)) => true,
        None => false,
    }
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
    /// The client's address, as text.
    pub(super) peer: SmolStr,
    /// Its own port.
    pub(super) peer_port: u16,
    /// The port it came to.
    pub(super) port: u16,
    /// `X-Forwarded-Proto`: `http` or `https`.
    pub(super) scheme: &'static str,
    /// Field of the log line: `http`, `https`, `http2.0`.
    pub(super) protocol: &'static str,
    /// The name asked for in the handshake, in lower case.
    pub(super) tls_name: Option<Arc<str>>,
    pub(super) hearsay: Hearsay,
}

/// What the peer's `X-Forwarded-For`, `-Proto` and `-Port` are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearsay {
    /// No proxies are known: the addresses are passed on, the rest is not.
    Passed,
    /// The peer is a trusted proxy.
    Believed,
    /// There are trusted proxies, and the peer is none of them.
    Dropped,
}

impl Hearsay {
    /// Of this peer.
    pub(super) fn of(peer: IpAddr, trusted: &[Block]) -> Self {
        if trusted.is_empty() {
            Self::Passed
        } else if trusted.iter().any(|block| block.contains(peer)) {
            Self::Believed
        } else {
            Self::Dropped
        }
    }
}

impl Origin {
    /// Plain TCP.
    pub(super) fn plain(peer: SocketAddr, port: u16, hearsay: Hearsay) -> Self {
        Self {
            peer: smol_str::format_smolstr!("{}", peer.ip()),
            peer_port: peer.port(),
            port,
            scheme: "http",
            protocol: "http",
            tls_name: None,
            hearsay,
        }
    }

    /// The version of HTTP that a request came in; `is_old`: it says so itself.
    pub(super) fn version(&self, is_old: bool) -> &'static str {
        match self.protocol {
            "http2.0" => "2.0",
            _ if is_old => "1.0",
            _ => "1.1",
        }
    }

    /// `X-Forwarded-For` with the peer's address at its end.
    pub(super) fn forwarded_for(&self, head: &Head) -> SmolStr {
        match self.hearsay {
            Hearsay::Passed | Hearsay::Believed => headers::forwarded_for(head, &self.peer),
            Hearsay::Dropped => self.peer.clone(),
        }
    }

    /// How the client came to a trusted proxy, which may have ended its TLS, by the words of this
    /// request.
    pub(super) fn told(&self, head: &Head) -> Cow<'_, Self> {
        if self.hearsay != Hearsay::Believed {
            return Cow::Borrowed(self);
        }
        let last = |name| {
            head.values(name)
                .last()
                .and_then(|v| str::from_utf8(v).ok())
        };
        let scheme = match last(Name::XForwardedProto) {
            Some(name) if name.eq_ignore_ascii_case("https") => "https",
            Some(name) if name.eq_ignore_ascii_case("http") => "http",
            _ => self.scheme,
        };
        let port = last(Name::XForwardedPort).and_then(|port| port.parse().ok());
        let port = port.unwrap_or(match scheme {
            _ if scheme == self.scheme => self.port,
            "https" => 443,
            _ => 80,
        });
        Cow::Owned(Self {
            port,
            scheme,
            protocol: if self.protocol == "http2.0" {
                self.protocol
            } else {
                scheme
            },
            // The handshake was the proxy's own.
            tls_name: None,
            ..self.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::router::head;

    #[test]
    fn only_a_trusted_proxy_speaks_for_its_clients() {
        let check = |hearsay, lines: &str, fwd: &str, wanted: (&str, u16, &str)| {
            let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            let request = head::request(&Bytes::from(head)).expect("a request");
            let origin = Origin::plain(([9, 9, 9, 9], 1234).into(), 80, hearsay);
            assert_eq!(origin.forwarded_for(&request.head), fwd);
            let told = origin.told(&request.head);
            assert_eq!((told.scheme, told.port, told.protocol), wanted, "{lines}");
        };
        let lines =
            "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 8443\r\n";
        let plain = ("http", 80, "http");
        check(Hearsay::Passed, lines, "1.2.3.4, 9.9.9.9", plain);
        check(Hearsay::Dropped, lines, "9.9.9.9", plain);
        let tls = ("https", 8443, "https");
        check(Hearsay::Believed, lines, "1.2.3.4, 9.9.9.9", tls);
        let lines = "X-Forwarded-Proto: HTTPS\r\n";
        check(Hearsay::Believed, lines, "9.9.9.9", ("https", 443, "https"));
        check(Hearsay::Believed, "", "9.9.9.9", plain);
        let odd = "X-Forwarded-Proto: gopher\r\nX-Forwarded-Port: 99999\r\n";
        check(Hearsay::Believed, odd, "9.9.9.9", plain);
    }
}
