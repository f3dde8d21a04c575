//! A connection to a dyno that speaks HTTP/2 in clear text: one request each.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, Uri};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::inward::Inward;
use super::message;
use super::outward::{Kind, Outward};
use super::{CONNECTION_WINDOW, HEAD_MAX, SEND_MAX, STREAM_WINDOW};
use crate::router::chunks::Decoder;
use crate::router::wire::Source;

/// A dyno's end of the request loop.
pub(in crate::router) struct ToDyno {
    reader: Reader,
    writer: Writer,
    connection: JoinHandle<()>,
}

impl ToDyno {
    /// Shakes hands on a fresh connection.
    ///
    /// # Errors
    /// The dyno is gone, or says nothing for so long.
    pub(in crate::router) async fn connect(stream: TcpStream, limit: Duration) -> io::Result<Self> {
        let handshake = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEAD_MAX)
            .max_send_buffer_size(SEND_MAX)
            .handshake(stream);
        let shaken = tokio::time::timeout(limit, async {
            let (send, connection) = handshake.await?;
            Ok::<_, h2::Error>((send, connection))
        });
        let shaken = shaken.await.map_err(|_| io::ErrorKind::TimedOut)?;
        let (send, connection) = shaken.map_err(super::broken)?;
        let connection = tokio::task::spawn_local(async move {
            // What goes wrong is told by the stream.
            connection.await.ok();
        });
        let answer = Rc::new(RefCell::new(Awaited::default()));
        Ok(Self {
            reader: Reader {
                awaited: Rc::clone(&answer),
                head: BytesMut::new(),
                body: None,
            },
            writer: Writer {
                send,
                awaited: answer,
                head: BytesMut::new(),
                body: None,
            },
            connection,
        })
    }
}

impl Drop for ToDyno {
    fn drop(&mut self) {
        // The dyno sees the end of the connection, whatever it is doing.
        self.connection.abort();
    }
}

/// The answer that was asked for, handed from one half to the other.
#[derive(Default)]
struct Awaited {
    answer: Option<ResponseFuture>,
    is_head: bool,
    reader: Option<Waker>,
}

pub(in crate::router) struct Reader {
    awaited: Rc<RefCell<Awaited>>,
    head: BytesMut,
    body: Option<Inward>,
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.body.is_none() {
            let mut awaited = this.awaited.borrow_mut();
            let Some(answer) = &mut awaited.answer else {
                awaited.reader = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let answer = ready!(Pin::new(answer).poll(cx)).map_err(super::broken)?;
            let (head, is_chunked) = head(&answer, awaited.is_head);
            this.head = head;
            this.body = Some(Inward::new(answer.into_body(), is_chunked));
        }
        if !this.head.is_empty() {
            let count = this.head.len().min(buf.remaining());
            buf.put_slice(&this.head.split_to(count));
            return Poll::Ready(Ok(()));
        }
        match &mut this.body {
            Some(body) => body.poll_read(cx, buf).map_ok(drop),
            None => Poll::Pending,
        }
    }
}

/// The answer's head in the words of HTTP/1.1, and whether its body comes in chunks.
fn head(answer: &Response<RecvStream>, is_head: bool) -> (BytesMut, bool) {
    let mut out = BytesMut::with_capacity(512);
    let status = answer.status();
    out.put_slice(format!("HTTP/1.1 {} ", status.as_str()).as_bytes());
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    message::lines(&mut out, answer.headers(), |_| false);
    let is_bodiless = is_head || matches!(status.as_u16(), 204 | 304);
    let has_length = answer.headers().contains_key("content-length");
    let is_chunked = !is_bodiless && !has_length && !answer.body().is_end_stream();
    if is_chunked {
        message::line(&mut out, b"transfer-encoding", b"chunked");
    } else if !is_bodiless && !has_length {
        message::line(&mut out, b"content-length", b"0");
    }
    out.put_slice(b"\r\n");
    (out, is_chunked)
}

pub(in crate::router) struct Writer {
    send: SendRequest<Bytes>,
    awaited: Rc<RefCell<Awaited>>,
    /// The request's head, as far as it is here.
    head: BytesMut,
    body: Option<Outward>,
}

impl Writer {
    /// Sends the request if its head is all here.
    fn ask(&mut self) -> io::Result<()> {
        let Some((request, kind)) = self.request()? else {
            return Ok(());
        };
        let is_head = request.method() == Method::HEAD;
        let is_end = matches!(kind, Kind::Ended);
        let asked = self.send.send_request(request, is_end);
        let (answer, body) = asked.map_err(super::broken)?;
        let rest = std::mem::take(&mut self.head);
        self.body = Some(Outward::new(body, kind, rest));
        let mut awaited = self.awaited.borrow_mut();
        awaited.answer = Some(answer);
        awaited.is_head = is_head;
        if let Some(reader) = awaited.reader.take() {
            reader.wake();
        }
        Ok(())
    }

    /// The request, if its head is all here. We wrote it ourselves: it is well-formed.
    fn request(&mut self) -> io::Result<Option<(Request<()>, Kind)>> {
        const BAD: io::ErrorKind = io::ErrorKind::InvalidInput;
        let mut space = vec![httparse::EMPTY_HEADER; crate::router::head::HEADERS_MAX + 64];
        let mut parsed = httparse::Request::new(&mut space);
        let Ok(httparse::Status::Complete(end)) = parsed.parse(&self.head) else {
            return Ok(None);
        };
        let mut request = Request::new(());
        let lines = parsed.headers.iter();
        let mut fields = message::fields(lines.map(|field| (field.name, field.value)));
        let host = fields.remove("host").ok_or(BAD)?;
        let method = parsed.method.unwrap_or_default();
        *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| BAD)?;
        let uri = Uri::builder()
            .scheme("http")
            .authority(host.as_bytes())
            .path_and_query(parsed.path.unwrap_or("/"));
        *request.uri_mut() = uri.build().map_err(|_| BAD)?;
        // gRPC asks for it, and we pass trailers on.
        fields.insert("te", HeaderValue::from_static("trailers"));
        let is_chunked = parsed
            .headers
            .iter()
            .any(|field| field.name.eq_ignore_ascii_case("transfer-encoding"));
        let length = fields.get("content-length");
        let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
        *request.headers_mut() = fields;
        self.head.advance(end);
        let kind = match (is_chunked, length) {
            (true, _) => Kind::Chunked(Decoder::new()),
            (false, None | Some(0)) => Kind::Ended,
            (false, Some(length)) => Kind::Length(length),
        };
        Ok(Some((request, kind)))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(body) = &mut self.body {
            return body.poll_write(cx, bytes);
        }
        // Before the head is out, the connection must take streams: nothing is kept till then.
        ready!(self.send.poll_ready(cx)).map_err(super::broken)?;
        self.head.put_slice(bytes);
        self.ask()?;
        if let Some(body) = &mut self.body {
            body.hold(bytes);
            return body.poll_write(cx, bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.body {
            Some(body) => body.poll_drain(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

super::pair!(ToDyno);

impl Source for &mut Reader {}

impl ToDyno {
    fn cut(&mut self) {
        self.connection.abort();
    }
}
