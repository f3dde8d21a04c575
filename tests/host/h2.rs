//! HTTP/2 at the router, as clients see it: requests and answers, resets, bounds, gRPC.

use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use hyper::{HeaderMap, Method, Request, Response};
use manifold::settings::Timings;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::host::{Host, short};
use crate::tls::{client, with_tls};

fn line(host: &Host, app: &str) -> String {
    host.ok(&["logs", "-a", app, "-d", "router", "-n", "1"])
}

/// An HTTP/2 connection for a name, driven beside the test.
async fn connect(host: &Host, name: &str, builder: &Builder) -> SendRequest<Bytes> {
    driven(host, name, builder).await.0
}

/// The same with what drives it.
async fn driven(
    host: &Host,
    name: &str,
    builder: &Builder,
) -> (SendRequest<Bytes>, JoinHandle<()>) {
    let config = client(&host.ok(&["certs:ca"]), &["h2"]);
    let stream = TcpStream::connect(host.https.expect("TLS"))
        .await
        .expect("connected");
    let server = ServerName::try_from(name.to_owned()).expect("a name");
    let stream = TlsConnector::from(config)
        .connect(server, stream)
        .await
        .expect("trusted");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (send, connection) = builder.handshake(stream).await.expect("HTTP/2");
    let driver = tokio::spawn(async move {
        connection.await.ok();
    });
    (send.ready().await.expect("ready"), driver)
}

fn request(method: Method, name: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://{name}{path}"));
    for (key, value) in fields {
        request = request.header(*key, *value);
    }
    request.body(()).expect("a request")
}

/// The answer to a request without a body.
async fn get(send: &mut SendRequest<Bytes>, name: &str, path: &str) -> Response<RecvStream> {
    let (answer, _) = send
        .send_request(request(Method::GET, name, path, &[]), true)
        .expect("sent");
    answer.await.expect("an answer")
}

/// Everything that comes, with room made for more.
async fn read(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok(all)
}

/// Sends as much as the other side takes.
async fn write(send: &mut SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        send.reserve_capacity(data.len());
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx)).await;
        let room = room.expect("open").expect("room").min(data.len());
        send.send_data(data.split_to(room), false).expect("sent");
    }
}

fn on<T>(work: impl Future<Output = T>) -> T {
    // The connection is driven beside what the test waits for.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let limited = async { tokio::time::timeout(Duration::from_mins(1), work).await };
    runtime.block_on(limited).expect("in time")
}

#[test]
fn requests_keep_their_meaning_in_http_2() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    on(async {
        let name = "odd.localhost";
        let mut send = connect(&host, name, &Builder::new()).await;
        let fields = [
            ("cookie", "a=1"),
            ("x-mine", "1"),
            ("cookie", "b=2"),
            ("te", "trailers"),
        ];
        let asked = request(Method::GET, name, "/head?q", &fields);
        let (answer, _) = send.send_request(asked, true).expect("sent");
        let mut answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 200);
        for gone in ["connection", "transfer-encoding", "keep-alive"] {
            assert!(
                !answer.headers().contains_key(gone),
                "{:?}",
                answer.headers()
            );
        }
        let body = String::from_utf8(read(answer.body_mut()).await.expect("read")).expect("text");
        for wanted in [
            "GET /head?q HTTP/1.1\r\n",
            "host: odd.localhost\r\n",
            "cookie: a=1; b=2\r\n",
            "X-Forwarded-Proto: https\r\n",
            "Via: 2.0 vegur\r\n",
        ] {
            assert!(body.contains(wanted), "{wanted} in {body}");
        }
        assert!(!body.contains("te:") && !body.contains("chunked"), "{body}");
        assert!(
            line(&host, "odd").contains(" status=200 bytes="),
            "{}",
            line(&host, "odd")
        );
        assert!(
            line(&host, "odd").contains(" protocol=http2.0"),
            "{}",
            line(&host, "odd")
        );
        // No body where there is none.
        let asked = request(Method::HEAD, name, "/", &[]);
        let (answer, _) = send.send_request(asked, true).expect("sent");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.headers()["content-length"], "5");
        assert!(answer.body().is_end_stream());
        // Errors of the router's own look the same.
        assert_eq!(get(&mut send, "other.localhost", "/").await.status(), 404);
        host.ok(&["create", "blank"]);
        host.until("the app is known", || {
            host.get("blank.localhost", "/").0 == 502
        });
        assert_eq!(get(&mut send, "blank.localhost", "/").await.status(), 421);
        assert!(
            line(&host, "blank").contains("code=H31"),
            "{}",
            line(&host, "blank")
        );
        assert_eq!(get(&mut send, name, "/").await.status(), 200);
    });
}

#[test]
fn bodies_and_trailers_stream_both_ways() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    on(async {
        let name = "odd.localhost";
        let mut send = connect(&host, name, &Builder::new()).await;
        // Larger than every window on its way.
        let data = Bytes::from(vec![b'x'; 3_000_000]);
        let fields = [("content-length", "3000000")];
        let asked = request(Method::POST, name, "/echo", &fields);
        let (answer, mut body) = send.send_request(asked, false).expect("sent");
        write(&mut body, data.clone()).await;
        body.send_data(Bytes::new(), true).expect("sent");
        let mut answer = answer.await.expect("an answer");
        assert_eq!(read(answer.body_mut()).await.expect("read"), data);
        // Without a length it comes in chunks, trailers behind it; so does the answer.
        let asked = request(Method::POST, name, "/trailers", &[]);
        let (answer, mut body) = send.send_request(asked, false).expect("sent");
        write(&mut body, Bytes::from_static(b"hello")).await;
        let mut trailers = HeaderMap::new();
        trailers.insert("x-check", "abc".parse().expect("a value"));
        trailers.insert("host", "evil".parse().expect("a value"));
        body.send_trailers(trailers).expect("sent");
        let mut answer = answer.await.expect("an answer");
        let got = String::from_utf8(read(answer.body_mut()).await.expect("read")).expect("text");
        assert_eq!(got, "5\r\nhello\r\n0\r\nx-check: abc\r\n\r\n");
        let trailers = answer
            .body_mut()
            .trailers()
            .await
            .expect("read")
            .expect("trailers");
        assert_eq!(trailers["x-sum"], "7");
    });
}

#[test]
fn an_answer_waits_for_its_readers_window_and_nobody_elses() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    on(async {
        let name = "odd.localhost";
        let mut send = connect(&host, name, Builder::new().initial_window_size(1000)).await;
        let mut slow = get(&mut send, name, "/large").await;
        // Others go on beside it.
        for _ in 0..20 {
            let mut answer = get(&mut send, name, "/").await;
            assert_eq!(read(answer.body_mut()).await.expect("read"), b"hello");
        }
        assert_eq!(read(slow.body_mut()).await.expect("read").len(), 2 << 20);
    });
}

#[test]
fn a_reader_that_stops_is_cut_and_named() {
    let host = Host::start_with(short(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    on(async {
        let name = "odd.localhost";
        let mut send = connect(&host, name, Builder::new().initial_window_size(1000)).await;
        let mut slow = get(&mut send, name, "/large").await;
        // It takes nothing any more: after a second of silence its stream is reset.
        let mut got = 0;
        let end = loop {
            match slow.body_mut().data().await {
                Some(Ok(data)) => got += data.len(),
                Some(Err(error)) => break error,
                None => panic!("whole after {got} bytes"),
            }
        };
        assert_eq!(end.reason(), Some(Reason::INTERNAL_ERROR));
        assert_eq!(got, 1000);
        host.until("a line", || line(&host, "odd").contains("Idle"));
        assert_eq!(get(&mut send, name, "/").await.status(), 200);
    });
}

#[test]
fn a_sender_that_stops_is_cut_and_named() {
    let host = Host::start_with(short(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    on(async {
        let name = "odd.localhost";
        let mut send = connect(&host, name, &Builder::new()).await;
        let asked = request(Method::POST, name, "/echo", &[("content-length", "100")]);
        let (answer, mut body) = send.send_request(asked, false).expect("sent");
        body.send_data(Bytes::from_static(b"some"), false)
            .expect("sent");
        let end = answer.await.expect_err("no answer");
        assert!(end.is_reset(), "{end}");
        assert!(
            line(&host, "odd").contains("code=H28"),
            "{}",
            line(&host, "odd")
        );
        assert_eq!(get(&mut send, name, "/").await.status(), 200);
    });
}

#[test]
fn resets_pass_in_both_directions() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    on(async {
        let name = "odd.localhost";
        let (mut send, driver) = driven(&host, name, &Builder::new()).await;
        // The dyno tears its answer.
        let mut torn = get(&mut send, name, "/torn").await;
        let error = read(torn.body_mut()).await.expect_err("torn");
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
        host.until("H18", || line(&host, "odd").contains("code=H18"));
        // The client leaves in the middle of an upload.
        let asked = request(Method::POST, name, "/echo", &[("content-length", "100")]);
        let (_, mut body) = send.send_request(asked, false).expect("sent");
        body.send_data(Bytes::from_static(b"some"), false)
            .expect("sent");
        body.send_reset(Reason::CANCEL);
        host.until("H27", || {
            let line = line(&host, "odd");
            line.contains("code=H27") && line.contains("status=499") && line.contains("method=POST")
        });
        // Or while its dyno takes no more of that.
        let asked = request(
            Method::POST,
            name,
            "/stuck",
            &[("content-length", "1000000000")],
        );
        let (_, mut body) = send.send_request(asked, false).expect("sent");
        let data = Bytes::from(vec![b'x'; 32 << 20]);
        let filled = tokio::time::timeout(Duration::from_secs(1), write(&mut body, data));
        filled.await.expect_err("nobody takes so much");
        body.send_reset(Reason::CANCEL);
        let start = "code=H27 desc=\"Client Request Interrupted\" method=POST path=\"/stuck\"";
        host.until("H27", || line(&host, "odd").contains(start));
        // Or while its dyno works.
        let asked = request(Method::GET, name, "/watch", &[]);
        let (answer, stream) = send.send_request(asked, true).expect("sent");
        host.until("it works", || host.logs("odd").contains("asked by GET"));
        drop((answer, stream));
        host.until("H27", || line(&host, "odd").contains("path=\"/watch\""));
        assert!(line(&host, "odd").contains("code=H27"));
        host.until("the dyno's news", || {
            host.logs("odd").contains("left by GET")
        });
        // The connection is as good as before.
        assert_eq!(get(&mut send, name, "/").await.status(), 200);
        // Or the connection goes with it.
        let asked = request(Method::DELETE, name, "/watch", &[]);
        let (answer, _) = send.send_request(asked, true).expect("sent");
        host.until("it works", || host.logs("odd").contains("asked by DELETE"));
        driver.abort();
        drop((answer, send));
        host.until("the dyno's news", || {
            host.logs("odd").contains("left by DELETE")
        });
        assert!(line(&host, "odd").contains("code=H27"));
    });
}

#[test]
fn interim_answers_come_before_the_final_one() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    on(async {
        let name = "odd.localhost";
        let mut send = connect(&host, name, &Builder::new()).await;
        assert_eq!(get(&mut send, name, "/early").await.status(), 200);
        let fields = [("expect", "100-continue"), ("content-length", "2")];
        let asked = request(Method::POST, name, "/echo", &fields);
        let (answer, mut body) = send.send_request(asked, false).expect("sent");
        body.send_data(Bytes::from_static(b"ok"), true)
            .expect("sent");
        let mut answer = answer.await.expect("an answer");
        assert_eq!(read(answer.body_mut()).await.expect("read"), b"ok");
    });
}

#[test]
fn grpc_passes_where_the_dyno_speaks_http_2() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.ok(&["create", "calls"]);
    host.ok(&["features:enable", "http2-to-dyno", "-a", "calls"]);
    host.release(
        "calls",
        "grpc",
        &[("web", "exec /usr/bin/python3 server.py")],
    );
    host.until_up("calls", &["web.1"]);
    let roots = host.dir.path().join("ca.pem");
    std::fs::write(&roots, host.ok(&["certs:ca"])).expect("written");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/grpc/client.py");
    let address = host.https.expect("TLS").to_string();
    let output = Command::new("/usr/bin/python3")
        .args([script, &address, "calls.localhost"])
        .arg(&roots)
        .stdin(Stdio::null())
        .output()
        .expect("Debian's python3 runs (package `python3-grpcio`)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        said.ends_with("all well\n"),
        "{output:?}\n{}",
        host.logs("calls")
    );
    // The dyno hears that a caller left.
    host.until("the news", || {
        host.logs("calls").contains("the caller left")
    });
    let logs = host.logs("calls");
    assert!(logs.contains("path=\"/test.Test/Unary\""), "{logs}");
    // Clients of HTTP/1.1 reach it too: it answers in its own words.
    let (status, head, _) = host.get("calls.localhost", "/");
    let head = head.to_ascii_lowercase();
    assert!(
        status != 503 && head.contains("\r\ngrpc-status: ") && head.contains("\r\nvia: 2.0 vegur"),
        "{head}"
    );
}

#[test]
fn h2load_finds_no_fault() {
    let host = Host::start_with(Timings::default(), with_tls);
    host.web("odd", "odd", "python3 server.py");
    let port = host.https.expect("TLS").port();
    // `localhost` names resolve to loopback; h2load does not check certificates.
    let output = Command::new("h2load")
        .args(["-n", "2000", "-c", "4", "-m", "20", "--connect-to"])
        .arg(format!("127.0.0.1:{port}"))
        .arg(format!("https://odd.localhost:{port}/"))
        .output()
        .expect("h2load is installed (Debian package `nghttp2-client`)");
    let said = String::from_utf8_lossy(&output.stdout);
    let wanted =
        "2000 total, 2000 started, 2000 done, 2000 succeeded, 0 failed, 0 errored, 0 timeout";
    assert!(
        said.contains(wanted),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("Application protocol: h2"), "{said}");
}
