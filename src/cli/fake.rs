//! A server of our own making for tests, and outputs that remember.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::Value;
use tokio::net::UnixListener;

use super::client::Client;
use super::dispatch;
use super::exit::Done;
use super::output::Screen;

/// An output that remembers.
#[derive(Clone, Debug, Default)]
pub(super) struct Sink(Arc<Mutex<Vec<u8>>>);

impl Sink {
    pub(super) fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a [`Fake`] answers: status, body, `Next-Range`.
type Answer = (u16, String, Option<&'static str>);

/// Answers by `METHOD PATH` (several in turn, the last for ever) and remembers what was asked.
#[derive(Debug)]
pub(super) struct Fake {
    directory: tempfile::TempDir,
    shared: Arc<Mutex<Shared>>,
    pub(super) out: Sink,
    pub(super) err: Sink,
}

#[derive(Debug, Default)]
struct Shared {
    answers: HashMap<String, Vec<Answer>>,
    calls: Vec<String>,
}

impl Fake {
    /// Starts on a socket of its own.
    pub(super) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let shared = Arc::<Mutex<Shared>>::default();
        let listener = UnixListener::bind(directory.path().join("s")).expect("bound");
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            directory,
            shared,
            out: Sink::default(),
            err: Sink::default(),
        }
    }

    fn add(&self, call: &str, answer: Answer) -> &Self {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let answers = shared.answers.entry(call.to_owned()).or_default();
        answers.push(answer);
        drop(shared);
        self
    }

    /// Answers a call with JSON.
    pub(super) fn on(&self, call: &str, status: u16, body: &Value) -> &Self {
        self.add(call, (status, body.to_string(), None))
    }

    /// Answers a call with a part of a list.
    pub(super) fn on_part(&self, call: &str, body: &Value, next: &'static str) -> &Self {
        self.add(call, (206, body.to_string(), Some(next)))
    }

    /// Answers a call with text.
    pub(super) fn on_text(&self, call: &str, text: &str) -> &Self {
        self.add(call, (200, text.to_owned(), None))
    }

    pub(super) fn client(&self) -> Client {
        Client::new(self.directory.path().join("s"))
    }

    pub(super) fn screen(&self) -> Screen {
        Screen::to(self.out.clone(), self.err.clone())
    }

    /// Runs a whole command against this server.
    pub(super) async fn run(&self, words: &[&str]) -> Done<u8> {
        let socket = self.directory.path().join("s");
        let arguments = ["manifold", "--socket", socket.to_str().expect("text")];
        let arguments = arguments.iter().chain(words).map(OsString::from);
        let cli = dispatch::parse(&arguments.collect::<Vec<_>>()).expect("a command");
        dispatch::carry_out(cli, &mut self.screen()).await
    }

    /// Each call as `METHOD PATH [RANGE] [BODY]`.
    pub(super) fn calls(&self) -> Vec<String> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.calls.clone()
    }
}

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let call = format!("{} {}", parts.method, parts.uri);
    let body = axum::body::to_bytes(body, usize::MAX)
        .await
        .expect("a body");
    let mut told = call.clone();
    if let Some(range) = parts.headers.get("range") {
        told = format!("{told} [{}]", range.to_str().expect("text"));
    }
    if !body.is_empty() && body.len() < 1000 {
        told.push(' ');
        told.push_str(&String::from_utf8_lossy(&body));
    }
    let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
    shared.calls.push(told);
    let (status, body, next) = match shared.answers.get_mut(&call) {
        Some(answers) if answers.len() > 1 => answers.remove(0),
        Some(answers) => answers[0].clone(),
        None => {
            let body = r#"{"id":"not_found","message":"Couldn't find that app."}"#;
            (404, body.to_owned(), None)
        }
    };
    let mut response = Response::builder().status(status);
    if let Some(next) = next {
        response = response.header("next-range", next);
    }
    response.body(Body::from(body)).expect("a response")
}

/// Objects as the API sends them.
pub(super) mod objects {
    use serde_json::{Value, json};

    const ID: &str = "01234567-89ab-4def-8123-456789abcdef";
    const TIME: &str = "2026-01-01T10:00:00Z";

    fn named(name: &str) -> Value {
        json!({"id": ID, "name": name})
    }

    pub(in crate::cli) fn app(name: &str) -> Value {
        json!({
            "id": ID, "name": name, "web_url": format!("http://{name}.localhost:8080/"),
            "git_url": "", "stack": named("host"), "build_stack": named("host"),
            "owner": {"id": ID, "email": "ann@host"}, "region": named("local"),
            "team": null, "organization": null, "space": null, "acm": false,
            "internal_routing": false, "archived_at": null,
            "buildpack_provided_description": "Python", "created_at": TIME,
            "released_at": TIME, "updated_at": TIME, "maintenance": false, "repo_size": 0,
            "slug_size": 38_063_309, "generation": named("cedar"), "create_status": "complete",
            "process_tier": "production", "a_key_of_tomorrow": 1,
        })
    }

    pub(in crate::cli) fn dyno(name: &str, state: &str, command: &str) -> Value {
        let (process, _) = name.split_once('.').expect("a dyno name");
        json!({
            "id": ID, "name": name, "type": process, "state": state, "size": "Standard-1X",
            "command": command, "attach_url": null, "release": {"id": ID, "version": 3},
            "app": named("shop"), "created_at": TIME, "updated_at": TIME,
        })
    }

    pub(in crate::cli) fn formation(process: &str, quantity: u32, size: &str) -> Value {
        json!({
            "id": ID, "type": process, "quantity": quantity, "size": size,
            "dyno_size": named(size), "command": "x", "app": named("shop"),
            "created_at": TIME, "updated_at": TIME,
        })
    }

    pub(in crate::cli) fn release(version: u32, description: &str, status: &str) -> Value {
        json!({
            "id": format!("01234567-89ab-4def-8123-{version:012}"), "version": version,
            "description": description, "user": {"id": ID, "email": "ann@host"},
            "status": status, "current": false, "app": named("shop"), "slug": {"id": ID},
            "output_stream_url": null, "eligible_for_rollback": status == "succeeded",
            "addon_plan_names": [], "created_at": TIME, "updated_at": TIME,
        })
    }

    pub(in crate::cli) fn build(status: &str) -> Value {
        json!({
            "id": ID, "app": {"id": ID}, "status": status,
            "output_stream_url": "/builds/1/output", "source_blob": {"url": "/sources/1"},
            "slug": null, "stack": "host", "user": {"id": ID, "email": "ann@host"},
            "release": if status == "succeeded" { json!({"id": ID}) } else { Value::Null },
            "created_at": TIME, "updated_at": TIME,
        })
    }

    pub(in crate::cli) fn domain(hostname: &str, kind: &str) -> Value {
        json!({
            "id": ID, "hostname": hostname, "kind": kind, "status": "succeeded",
            "cname": if kind == "custom" { json!("shop.localhost") } else { Value::Null },
            "acm_status": null, "acm_status_reason": null, "sni_endpoint": null,
            "app": named("shop"), "created_at": TIME, "updated_at": TIME,
        })
    }

    pub(in crate::cli) fn network_rule(target: &str, kind: &str, at: &str, port: u16) -> Value {
        json!({
            "id": ID, "app": named("shop"), "target": target, "kind": kind, "address": at,
            "port": port, "protocol": "tcp", "user": {"id": ID, "email": "ann@host"},
            "created_at": TIME, "updated_at": TIME,
        })
    }

    pub(in crate::cli) fn stack(name: &str, is_default: bool) -> Value {
        json!({
            "id": ID, "name": name, "state": "public", "default": is_default,
            "created_at": TIME, "updated_at": TIME,
        })
    }
}
