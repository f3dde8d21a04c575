//! TLS in front of the request loop.
//!
//! The name that the client asks for decides the app (by the same table as `Host`), and the app
//! decides the certificate; both are looked up in every handshake, so a change counts from the next
//! one on and touches no connection that is there. Source: RFC 6066 section 3 (SNI), RFC 8737.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::server::{Acceptor, ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncBufRead as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::h2;
use super::listener::Shared;
use super::proxy;
use super::table::Table;
use super::wire::{self, Origin, Source, Wire};
use crate::certs::Certs;

/// From the connection to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Protocol of the proof by TLS-ALPN-01.
const ACME: &[u8] = b"acme-tls/1";

/// How handshakes are answered.
#[derive(Debug)]
pub(super) struct Tls {
    serving: Arc<ServerConfig>,
    proving: Arc<ServerConfig>,
}

impl Tls {
    /// # Errors
    /// rustls does not take the configuration (its defaults changed).
    pub(super) fn new(certs: &Certs, table: &Arc<ArcSwap<Table>>) -> Result<Self, rustls::Error> {
        let by_app = ByApp {
            certs: certs.clone(),
            table: Arc::clone(table),
        };
        let mut serving = config(Arc::new(by_app))?;
        serving.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        serving.ticketer = rustls::crypto::ring::Ticketer::new()?;
        let mut proving = config(Arc::new(Proof(certs.clone())))?;
        proving.alpn_protocols = vec![ACME.to_vec()];
        Ok(Self {
            serving: Arc::new(serving),
            proving: Arc::new(proving),
        })
    }
}

fn config(resolver: Arc<dyn ResolvesServerCert>) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder =
        builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    Ok(builder.with_no_client_auth().with_cert_resolver(resolver))
}

/// The certificate of the app that the name belongs to.
#[derive(Debug)]
struct ByApp {
    certs: Certs,
    table: Arc<ArcSwap<Table>>,
}

impl ResolvesServerCert for ByApp {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        let app = self.table.load().find(&name)?.id;
        self.certs.key_for(app, &name)
    }
}

/// The certificate that proves a name to an ACME server.
#[derive(Debug)]
struct Proof(Certs);

impl ResolvesServerCert for Proof {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.alpn_key(&hello.server_name()?.to_ascii_lowercase())
    }
}

/// Serves a client that begins with a handshake.
pub(super) async fn serve(shared: Arc<Shared>, stream: TcpStream, mut origin: Origin) {
    let shaken = tokio::time::timeout(HANDSHAKE, shake(&shared.tls, stream)).await;
    let mut stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(peer = %origin.peer, %error, "no TLS");
            return;
        }
        Err(_) => return,
    };
    let session = stream.get_ref().1;
    let name = session.server_name().map(str::to_ascii_lowercase);
    origin.tls_name = name.map(Arc::from);
    origin.scheme = "https";
    if session.alpn_protocol() == Some(ACME) {
        // The handshake was the proof; an end that is told is polite, not needed.
        stream.shutdown().await.ok();
        return;
    }
    if session.alpn_protocol() == Some(b"h2") {
        return h2::serve(shared, stream, origin).await;
    }
    origin.protocol = "https";
    proxy::serve(shared, TlsWire::new(stream), origin).await;
}

async fn shake(tls: &Tls, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let wants_proof = {
        let hello = start.client_hello();
        hello
            .alpn()
            .is_some_and(|mut offered| offered.any(|one| one == ACME))
    };
    let config = if wants_proof {
        &tls.proving
    } else {
        &tls.serving
    };
    start.into_stream(Arc::clone(config)).await
}

/// A TLS connection for the request loop.
#[derive(Debug)]
pub(super) struct TlsWire {
    /// Both halves belong to one task, which polls one at a time.
    half: RefCell<Inner>,
}

#[derive(Debug)]
struct Inner {
    stream: TlsStream<TcpStream>,
    /// A write that rustls took but the socket has not: where it lies, how long it is, and how
    /// much of it was taken.
    held: Option<(usize, usize, usize)>,
    is_cut: bool,
}

impl TlsWire {
    fn new(stream: TlsStream<TcpStream>) -> Self {
        let inner = Inner {
            stream,
            held: None,
            is_cut: false,
        };
        Self {
            half: RefCell::new(inner),
        }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(self.half.get_mut())
    }
}

impl Half<'_> {
    fn with<R>(&mut self, act: impl FnOnce(&mut Inner) -> R) -> R {
        act(&mut self.0.borrow_mut())
    }
}

impl Inner {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }

    /// Done only when the socket has it: rustls would keep what does not fit and tell nobody, and
    /// the request loop, made for sockets, does not flush.
    fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let place = (buf.as_ptr() as usize, buf.len());
        let held = self.held.take();
        let taken = match held {
            Some((at, length, taken)) if (at, length) == place => taken,
            _ => ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?,
        };
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(done) => Poll::Ready(done.map(|()| taken)),
            Poll::Pending => {
                self.held = Some((place.0, place.1, taken));
                Poll::Pending
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_cut {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

macro_rules! delegate {
    ($name:ty) => {
        impl AsyncRead for $name {
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                self.get_mut().with(|inner| inner.poll_read(cx, buf))
            }
        }

        impl AsyncWrite for $name {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                self.get_mut().with(|inner| inner.poll_write(cx, buf))
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.get_mut().with(|inner| inner.poll_flush(cx))
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                self.get_mut().with(|inner| inner.poll_shutdown(cx))
            }
        }
    };
}

delegate!(TlsWire);
delegate!(Half<'_>);

/// One way of a [`TlsWire`].
#[derive(Debug)]
pub(super) struct Half<'a>(&'a RefCell<Inner>);

impl Source for Half<'_> {
    fn has_ended(&self) -> bool {
        wire::has_ended(self.0.borrow().stream.get_ref().0)
    }

    async fn hail(&mut self, words: &[u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| {
            let said = self.with(|inner| inner.poll_write(cx, words));
            // What did not fit goes out with what follows it.
            Poll::Ready(match said {
                Poll::Ready(said) => said,
                Poll::Pending => Ok(words.len()),
            })
        })
        .await
    }

    async fn torn(&mut self) {
        // The other half needs the stream meanwhile.
        let own = self
            .0
            .borrow()
            .stream
            .get_ref()
            .0
            .as_fd()
            .try_clone_to_owned();
        match own.and_then(|own| TcpStream::from_std(own.into())) {
            // An error of the wait itself is an end, too.
            Ok(own) => drop(own.ready(Interest::ERROR).await),
            // Out of descriptors: the answer will find out.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Wire for TlsWire {
    type Reader<'a> = Half<'a>;
    type Writer<'a> = Half<'a>;

    fn split(&mut self) -> (Half<'_>, Half<'_>) {
        (Half(&self.half), Half(&self.half))
    }

    async fn readable(&mut self) -> io::Result<()> {
        let stream = &mut self.half.get_mut().stream;
        std::future::poll_fn(|cx| Pin::new(&mut *stream).poll_fill_buf(cx).map_ok(drop)).await
    }

    /// No `close_notify`, and a RST.
    fn reset(&mut self) {
        let inner = self.half.get_mut();
        inner.is_cut = true;
        inner.stream.get_mut().0.reset();
    }
}
