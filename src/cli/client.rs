//! Calls of the Platform API: HTTP/1.1 over the Unix socket, one connection per call.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{self, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::exit::{Done, Exit, Fault};
use crate::api::types;
use crate::api::types::attach::PROTOCOL;

/// Longest wait for a connection: the supervisor takes them at once, unless it hangs.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Longest wait for the answer to an ordinary call.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_mins(2);

/// Longest wait for calls that move many bytes or stop many dynos.
pub(super) const LONG_DEADLINE: Duration = Duration::from_mins(15);

/// Largest JSON answer in bytes.
const ANSWER_MAX: usize = 64 << 20;

/// The version of the API we speak.
const ACCEPT: &str = "application/vnd.heroku+json; version=3";

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// Talks to one supervisor.
#[derive(Clone, Debug)]
pub(super) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(super) fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
        }
    }

    /// Reads one object.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Done<T> {
        self.call(Method::GET, path, None::<&()>, ANSWER_DEADLINE)
            .await
    }

    /// Sends an object and reads the answer.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Done<T> {
        self.call(Method::POST, path, Some(body), ANSWER_DEADLINE)
            .await
    }

    /// Replaces something and reads the answer.
    pub(super) async fn put_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Done<T> {
        self.call(Method::PUT, path, Some(body), ANSWER_DEADLINE)
            .await
    }

    /// Sends changes and reads the answer.
    pub(super) async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Done<T> {
        self.call(Method::PATCH, path, Some(body), ANSWER_DEADLINE)
            .await
    }

    /// Removes (or restarts) something.
    pub(super) async fn delete(&self, path: &str) -> Done {
        let _: serde_json::Value = self
            .call(Method::DELETE, path, None::<&()>, LONG_DEADLINE)
            .await?;
        Ok(())
    }

    /// Reads a whole list, part by part.
    pub(super) async fn list<T: DeserializeOwned>(&self, path: &str) -> Done<Vec<T>> {
        let mut rows = Vec::new();
        let mut range: Option<HeaderValue> = None;
        loop {
            let (mut part, next) = self.part(path, range.take()).await?;
            rows.append(&mut part);
            match next {
                Some(next) => range = Some(next),
                None => return Ok(rows),
            }
        }
    }

    /// Reads the part of a list that `range` names.
    pub(super) async fn page<T: DeserializeOwned>(&self, path: &str, range: &str) -> Done<Vec<T>> {
        let range = HeaderValue::try_from(range)
            .map_err(|_| Fault::usage(format!("`{range}` is not a range")))?;
        Ok(self.part(path, Some(range)).await?.0)
    }

    async fn part<T: DeserializeOwned>(
        &self,
        path: &str,
        range: Option<HeaderValue>,
    ) -> Done<(Vec<T>, Option<HeaderValue>)> {
        let work = async {
            let mut request = request(Method::GET, path, empty())?;
            if let Some(range) = range {
                request.headers_mut().insert(header::RANGE, range);
            }
            let response = self.send(request).await?;
            let next = response.headers().get("next-range").cloned();
            Ok((read_json(response, path).await?, next))
        };
        within(ANSWER_DEADLINE, work).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        deadline: Duration,
    ) -> Done<T> {
        let work = async {
            let body = match body {
                None => empty(),
                Some(value) => {
                    let bytes = serde_json::to_vec(value)
                        .map_err(|error| Fault::general(format!("cannot write JSON: {error}")))?;
                    full(bytes)
                }
            };
            let mut request = request(method, path, body)?;
            let kind = HeaderValue::from_static("application/json");
            request.headers_mut().insert(header::CONTENT_TYPE, kind);
            let response = self.send(request).await?;
            read_json(response, path).await
        };
        within(deadline, work).await
    }

    /// Sends bytes as they come.
    pub(super) async fn put(
        &self,
        path: &str,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Done {
        let work = async {
            let body = StreamBody::new(bytes.map_ok(Frame::data)).boxed_unsync();
            let response = self.send(request(Method::PUT, path, body)?).await?;
            let _: serde_json::Value = read_json(response, path).await?;
            Ok(())
        };
        within(LONG_DEADLINE, work).await
    }

    /// Opens a stream; it is followed to its end, however long that takes.
    pub(super) async fn follow(&self, path: &str) -> Done<Follow> {
        let work = async {
            let response = self.send(request(Method::GET, path, empty())?).await?;
            Ok(Follow(response.into_body()))
        };
        within(ANSWER_DEADLINE, work).await
    }

    /// Turns a connection into one of attach frames.
    pub(super) async fn attach(&self, path: &str) -> Done<TokioIo<Upgraded>> {
        self.upgrade(path, PROTOCOL, &[]).await
    }

    /// Turns a connection into one that speaks `protocol`.
    pub(super) async fn upgrade(
        &self,
        path: &str,
        protocol: &'static str,
        more: &[(&'static str, HeaderValue)],
    ) -> Done<TokioIo<Upgraded>> {
        let work = async {
            let mut request = request(Method::GET, path, empty())?;
            let headers = request.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
            for (name, value) in more {
                headers.insert(*name, value.clone());
            }
            let response = self.send(request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let message = format!(
                    "the supervisor did not switch to {protocol}: {}",
                    response.status()
                );
                return Err(Fault::new(Exit::Server, message));
            }
            let upgraded = hyper::upgrade::on(response).await;
            Ok(TokioIo::new(upgraded.map_err(|error| broken(&error))?))
        };
        within(ANSWER_DEADLINE, work).await
    }

    async fn send(&self, request: Request<Body>) -> Done<Response<Incoming>> {
        let mut sender = self.connect().await?;
        let sent = sender.send_request(request).await;
        let response = sent.map_err(|error| broken(&error))?;
        if response.status().is_success() || response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        Err(refusal(response).await)
    }

    async fn connect(&self) -> Done<SendRequest<Body>> {
        let connected = timeout(CONNECT_DEADLINE, UnixStream::connect(&self.socket)).await;
        let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let stream = connected.map_err(|error| unreachable(&self.socket, &error))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        tokio::spawn(async move {
            // What goes wrong here is told by the call that waits for the answer.
            connection.with_upgrades().await.ok();
        });
        Ok(sender)
    }
}

/// A stream of bytes from the server.
#[derive(Debug)]
pub(super) struct Follow(Incoming);

impl Follow {
    /// The next bytes; `None` at the proper end.
    pub(super) async fn next(&mut self) -> Done<Option<Bytes>> {
        loop {
            match self.0.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Ok(Some(bytes)),
                    _ => {}
                },
            }
        }
    }
}

fn empty() -> Body {
    full(Vec::new())
}

fn full(bytes: Vec<u8>) -> Body {
    let body = Full::new(Bytes::from(bytes));
    body.map_err(|never| match never {}).boxed_unsync()
}

fn request(method: Method, path: &str, body: Body) -> Done<Request<Body>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, ACCEPT)
        .header(
            header::USER_AGENT,
            concat!("manifold/", env!("CARGO_PKG_VERSION")),
        )
        .body(body)
        .map_err(|error| Fault::general(format!("cannot ask for {path}: {error}")))
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Done<T>>) -> Done<T> {
    let result = timeout(deadline, work).await;
    result.unwrap_or_else(|_| {
        let message = format!(
            "no answer from the supervisor within {} s",
            deadline.as_secs_f64()
        );
        Err(Fault::new(Exit::Connection, message).hint("see what its journal says"))
    })
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>, path: &str) -> Done<T> {
    let body = Limited::new(response.into_body(), ANSWER_MAX);
    let body = body.collect().await.map_err(|error| broken(&*error))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        let message = format!("the answer to {path} is not what this version expects: {error}");
        Fault::new(Exit::Server, message).hint("is the supervisor of another version than this?")
    })
}

/// The error that a response is.
async fn refusal(response: Response<Incoming>) -> Fault {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_MAX)
        .collect()
        .await;
    let body = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    match serde_json::from_slice::<types::Error>(&body) {
        Ok(error) => Fault::answer(status.as_u16(), &error.id, &error.message),
        Err(_) => Fault::answer(
            status.as_u16(),
            "",
            &format!("the supervisor answered {status}"),
        ),
    }
}

/// The socket cannot be connected to.
fn unreachable(socket: &Path, error: &io::Error) -> Fault {
    let path = socket.display();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            let message = format!("no supervisor listens on {path}: {error}");
            Fault::new(Exit::NotRunning, message).hint(
                "start it with `sudo manifold supervise`, or name its socket with --socket or MANIFOLD_SOCKET",
            )
        }
        io::ErrorKind::PermissionDenied => {
            let message = format!("you may not use the supervisor's socket {path}: {error}");
            Fault::new(Exit::Permission, message)
                .hint("let root run `usermod -aG manifold $USER` and log in again, or use sudo")
        }
        _ => Fault::general(format!("cannot connect to {path}: {error}")),
    }
}

/// The connection broke off.
pub(super) fn broken(error: &(dyn std::error::Error + 'static)) -> Fault {
    let mut reason = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        reason = format!("{reason}: {source}");
        next = source.source();
    }
    let message = format!("the connection to the supervisor broke off ({reason})");
    Fault::new(Exit::Connection, message).hint("is it still running? See what its journal says")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixListener;

    use super::*;
    use crate::cli::fake::Fake;

    #[tokio::test]
    async fn without_a_supervisor_it_says_how_to_start_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("s");
        let nowhere = Client::new(&path).get::<Value>("/apps").await;
        drop(UnixListener::bind(&path).expect("bound"));
        let refused = Client::new(&path).get::<Value>("/apps").await;
        for result in [nowhere, refused] {
            let fault = result.expect_err("nobody listens");
            assert_eq!(fault.exit, Exit::NotRunning, "{fault}");
            assert!(
                fault.message.contains(path.to_str().expect("text")),
                "{fault}"
            );
            let hint = fault.hint.unwrap_or_default();
            assert!(hint.contains("manifold supervise"), "{hint}");
        }
    }

    #[tokio::test]
    async fn refusals_carry_the_servers_words() {
        let fake = Fake::start();
        let error = |id: &str| json!({"id": id, "message": "No."});
        fake.on("GET /a", 422, &error("invalid_params"));
        fake.on("GET /b", 507, &error("disk_full"));
        fake.on("GET /c", 500, &Value::Null);
        let client = fake.client();
        let fault = async |path: &str| client.get::<Value>(path).await.expect_err("refused");
        assert_eq!(fault("/a").await, Fault::new(Exit::Invalid, "No."));
        assert_eq!(fault("/b").await, Fault::new(Exit::Server, "No."));
        let odd = fault("/c").await;
        assert_eq!(odd.exit, Exit::Server);
        assert!(odd.message.contains("500 Internal Server Error"), "{odd}");
        let missing = fault("/apps/nobody").await;
        assert_eq!(missing.exit, Exit::NotFound);
        assert_eq!(missing.message, "Couldn't find that app.");
    }

    #[tokio::test]
    async fn an_answer_of_another_shape_is_a_fault_and_not_a_panic() {
        let fake = Fake::start();
        fake.on("GET /apps", 200, &json!({"not": "a list"}));
        let fault = fake.client().list::<types::App>("/apps").await;
        assert_eq!(fault.expect_err("refused").exit, Exit::Server);
    }

    /// A server that answers one connection with `bytes` and hangs up.
    fn once(bytes: &'static [u8]) -> (tempfile::TempDir, Client) {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("s")).expect("bound");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut head = [0; 4096];
            let count = stream.read(&mut head).await.expect("a request");
            assert_ne!(count, 0);
            stream.write_all(bytes).await.expect("written");
        });
        let client = Client::new(dir.path().join("s"));
        (dir, client)
    }

    #[tokio::test]
    async fn a_stream_that_breaks_off_is_no_proper_end() {
        let (_dir, client) =
            once(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let mut stream = client.follow("/logs/x").await.expect("a stream");
        let bytes = stream.next().await.expect("bytes").expect("some");
        assert_eq!(&bytes[..], b"hello");
        let fault = stream.next().await.expect_err("broken");
        assert_eq!(fault.exit, Exit::Connection, "{fault}");
    }

    #[tokio::test]
    async fn a_server_that_hangs_up_is_told_apart_from_one_that_is_not_there() {
        let (_dir, client) = once(b"");
        let fault = client.get::<Value>("/apps").await.expect_err("broken");
        assert_eq!(fault.exit, Exit::Connection, "{fault}");
        let (_dir, client) = once(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        let fault = client.attach("/attach/x").await.expect_err("no upgrade");
        assert_eq!(fault.exit, Exit::Server, "{fault}");
    }

    #[tokio::test]
    async fn a_server_that_never_answers_is_given_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let _listener = UnixListener::bind(dir.path().join("s")).expect("bound");
        let client = Client::new(dir.path().join("s"));
        let work = client.get::<Value>("/apps");
        let fault = within(Duration::from_millis(50), work).await;
        let fault = fault.expect_err("no answer");
        assert_eq!(fault.exit, Exit::Connection, "{fault}");
        assert!(fault.message.contains("no answer"), "{fault}");
    }
}
