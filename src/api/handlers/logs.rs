//! `/apps/A/log-sessions`, and the session's stream.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::body::{Body as Bytes, Bytes as Chunk};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use futures_util::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use uuid::Uuid;

use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key};
use crate::api::reply::{self, Answer};
use crate::api::sessions::Session;
use crate::api::state::Api;
use crate::api::{convert, types};
use crate::logs::{Filter, Line, Source, Tail};

/// Lines of a session that does not say. Source: logplex.
const LINES_DEFAULT: u32 = 100;
/// Lines of history there are. Source: Dev Center, "Logging".
const LINES_MAX: u32 = 1500;
/// A quiet event stream gets a comment so often, to notice clients that are gone.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

pub(super) async fn create(
    State(api): State<Api>,
    App(app): App,
    Body(body): Body<types::LogSessionCreate>,
) -> Answer {
    let lines = body.lines.unwrap_or(LINES_DEFAULT);
    if !(1..=LINES_MAX).contains(&lines) {
        return Err(ApiError::invalid(format!(
            "lines is a number from 1 to {LINES_MAX}"
        )));
    }
    let source = match body.source.as_deref() {
        None | Some("") => None,
        Some("app") => Some(Source::App),
        Some("heroku") => Some(Source::Heroku),
        Some(other) => {
            let message = format!("There is no log source {other}: use `app` or `heroku`.");
            return Err(ApiError::invalid(message));
        }
    };
    let session = Session {
        app: app.id,
        filter: Filter {
            dyno: body.dyno.filter(|dyno| !dyno.is_empty()),
            source,
        },
        lines: lines as usize,
        tail: body.tail,
    };
    let now = convert::second(Timestamp::now());
    let secret = api.sessions.add(session, Instant::now());
    reply::created(&types::LogSession {
        id: Uuid::new_v4(),
        logplex_url: format!("/logs/{secret}"),
        created_at: now,
        updated_at: now,
    })
}

/// Plain lines, or an event stream if `Accept` asks for one. Ends after the history unless the
/// session tails.
pub(super) async fn stream(State(api): State<Api>, Key(secret): Key, headers: HeaderMap) -> Answer {
    let session = api.sessions.get(&secret, Instant::now());
    let session = session.ok_or_else(|| ApiError::not_found("log session"))?;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let is_events = text("accept").is_some_and(|accept| accept.contains("text/event-stream"));
    if is_events {
        // A client that comes again has what was sent up to that event.
        let after: Option<i64> = text("last-event-id").and_then(|id| id.parse().ok());
        let lines = lines(&api, &session).filter_map(move |line| async move {
            match line {
                Some(line) if after.is_some_and(|after| line.time.as_microsecond() <= after) => {
                    None
                }
                Some(line) => Some(event(&line)),
                None => Some(":\n\n".into()),
            }
        });
        // Without it the client would keep its three-second timer before it exits.
        let start = stream::once(async { Chunk::from_static(b"retry: 50\n\n") });
        let body = Bytes::from_stream(start.chain(lines).map(Ok::<_, Infallible>));
        return Ok(([(header::CONTENT_TYPE, "text/event-stream")], body).into_response());
    }
    let lines = lines(&api, &session);
    let lines = lines.filter_map(|line| async { line.map(|line| plain(&line)) });
    let body = Bytes::from_stream(lines.map(Ok::<_, Infallible>));
    let kind = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
    Ok(([kind], body).into_response())
}

/// History, then new lines if the session tails; `None` whenever nothing came for a while.
fn lines(api: &Api, session: &Session) -> impl Stream<Item = Option<Line>> + Send + use<> {
    let (app, filter) = (session.app, session.filter.clone());
    if session.tail {
        let tail = api.hub.tail(app, filter, session.lines);
        let stop = api.stop.clone();
        stream::unfold((tail, stop), |(mut tail, stop)| async move {
            tokio::select! {
                item = next(&mut tail) => item.map(|line| (line, (tail, stop))),
                () = stop.cancelled() => None,
            }
        })
        .left_stream()
    } else {
        let history = api.hub.history(app, &filter, session.lines);
        stream::iter(history.into_iter().map(Some)).right_stream()
    }
}

/// `Some(None)` when the time for a sign of life came.
async fn next(tail: &mut Tail) -> Option<Option<Line>> {
    match tokio::time::timeout(KEEP_ALIVE, tail.next()).await {
        Ok(line) => line.map(Some),
        Err(_) => Some(None),
    }
}

/// `TIME SOURCE[PROCESS]: MESSAGE` and a newline.
fn plain(line: &Line) -> Chunk {
    let mut bytes = head(line).into_bytes();
    bytes.extend_from_slice(&line.message);
    bytes.push(b'\n');
    bytes.into()
}

fn head(line: &Line) -> String {
    let time = line.time.strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00");
    let source = match line.source {
        Source::App => "app",
        Source::Heroku => "heroku",
    };
    format!("{time} {source}[{}]: ", line.process)
}

/// One event per line, numbered by its time. Event streams are UTF-8 and end a field at CR.
fn event(line: &Line) -> Chunk {
    let message = String::from_utf8_lossy(&line.message).replace(['\r', '\n'], " ");
    let id = line.time.as_microsecond();
    format!("id: {id}\ndata: {}{message}\n\n", head(line)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &[u8]) -> Line {
        Line {
            time: "2013-11-04T21:31:32.125756Z".parse().expect("a time"),
            source: Source::App,
            process: "web.1".to_owned(),
            message: message.to_vec(),
        }
    }

    #[test]
    fn plain_lines_keep_the_bytes_of_the_app() {
        let expected = b"2013-11-04T21:31:32.125756+00:00 app[web.1]: a\xff\r\n";
        assert_eq!(&plain(&line(b"a\xff\r"))[..], expected);
    }

    #[test]
    fn an_event_is_one_data_field() {
        let expected =
            "id: 1383600692125756\ndata: 2013-11-04T21:31:32.125756+00:00 app[web.1]: a b\n\n";
        assert_eq!(&event(&line(b"a\rb"))[..], expected.as_bytes());
    }
}
