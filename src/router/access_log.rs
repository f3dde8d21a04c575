//! One line per request, in the platform's exact order of fields.
//! Source: Dev Center, "HTTP Routing", Heroku router log format.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::failure::{At, Failure};
use super::headers;
use crate::traffic::Report;

/// What is known about a request when it ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Record<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) host: &'a str,
    pub(super) request_id: String,
    pub(super) fwd: SmolStr,
    pub(super) dyno: Option<Arc<str>>,
    pub(super) connect: Option<Duration>,
    pub(super) service: Option<Duration>,
    pub(super) status: u16,
    pub(super) bytes: Option<u64>,
    pub(super) failure: Option<Failure>,
    /// `http`, `https`, `http2.0`.
    pub(super) protocol: &'static str,
    /// Waited for a dyno; behind the platform's own fields.
    pub(super) queue: Option<Duration>,
    /// Who ended a connection that had switched protocols; behind them too.
    pub(super) closed_by: Option<&'static str>,
}

impl Record<'_> {
    /// The text of the line.
    pub(super) fn line(&self) -> String {
        let mut out = String::with_capacity(384);
        match &self.failure {
            None => out.push_str("at=info"),
            Some(failure) => {
                if let Some(sock) = failure.sock {
                    let _ = write!(out, "sock={sock} ");
                }
                let at = match failure.at {
                    At::Info => "info",
                    At::Warning => "warning",
                    At::Error => "error",
                };
                let _ = write!(
                    out,
                    "at={at} code={} desc=\"{}\"",
                    failure.code, failure.desc
                );
                if let Some(cause) = failure.cause {
                    let _ = write!(out, " cause=\"{cause}\"");
                }
            }
        }
        let mut digits = itoa::Buffer::new();
        let mut field = |name: &str, value: &str| {
            out.push_str(name);
            out.push_str(value);
        };
        field(" method=", self.method);
        field(" path=\"", &escaped(self.path));
        field("\" host=", self.host);
        field(" request_id=", &self.request_id);
        field(" fwd=\"", &escaped(&self.fwd));
        field("\" dyno=", self.dyno.as_deref().unwrap_or_default());
        field(" connect=", &milliseconds(self.connect));
        field(" service=", &milliseconds(self.service));
        // None was sent: the router was closing.
        let status = match self.status {
            0 => "",
            status => digits.format(status),
        };
        field(" status=", status);
        field(
            " bytes=",
            self.bytes.map_or("", |bytes| digits.format(bytes)),
        );
        field(" protocol=", self.protocol);
        field(" queue=", &milliseconds(self.queue));
        if let Some(side) = self.closed_by {
            field(" closed_by=", side);
        }
        out
    }
}

/// Whole ones, or nothing.
fn milliseconds(time: Option<Duration>) -> Cow<'static, str> {
    match time {
        None => Cow::Borrowed(""),
        // Most are short.
        Some(time) if time < Duration::from_millis(1) => Cow::Borrowed("0ms"),
        Some(time) => {
            let mut digits = itoa::Buffer::new();
            Cow::Owned([digits.format(headers::milliseconds(time)), "ms"].concat())
        }
    }
}

/// The line about a minute in which requests waited long for a dyno.
pub(super) fn queue_warning(recent: &Report) -> String {
    let queue = &recent.queue;
    format!(
        "at=warning desc=\"Requests wait for a dyno\" queue_average={}ms queue_p95={}ms queue_p99={}ms requests={} Scale up (`manifold ps:scale web+1`), or let each dyno serve more at once (`manifold routing:set --concurrency N`)",
        queue.mean().as_millis(),
        queue.quantile(0.95).as_millis(),
        queue.quantile(0.99).as_millis(),
        queue.count,
    )
}

/// User data in quotes stays in its quotes, and on its line.
fn escaped(text: &str) -> Cow<'_, str> {
    // Without a branch for each byte: many are looked at together.
    let is_plain = |b: u8| matches!(b, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~');
    if text.bytes().fold(true, |plain, b| plain & is_plain(b)) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record<'static> {
        Record {
            method: "GET",
            path: "/a?b=c",
            host: "myapp.localhost",
            request_id: "8601b555-6a83-4c12-8269-97c8e32cdb22".to_owned(),
            fwd: "204.204.204.204".into(),
            dyno: Some("web.1".into()),
            connect: Some(Duration::from_millis(1)),
            service: Some(Duration::from_micros(18_900)),
            status: 200,
            bytes: Some(13),
            failure: None,
            protocol: "http",
            closed_by: None,
            queue: Some(Duration::from_millis(12)),
        }
    }

    #[test]
    fn the_line_of_a_request_that_went_well() {
        assert_eq!(
            record().line(),
            "at=info method=GET path=\"/a?b=c\" host=myapp.localhost request_id=8601b555-6a83-4c12-8269-97c8e32cdb22 fwd=\"204.204.204.204\" dyno=web.1 connect=1ms service=18ms status=200 bytes=13 protocol=http queue=12ms"
        );
    }

    #[test]
    fn the_line_of_one_that_did_not() {
        let record = Record {
            dyno: None,
            connect: None,
            service: None,
            bytes: None,
            queue: None,
            status: 503,
            path: "/\"x\n",
            failure: Some(Failure::NO_WEB),
            ..record()
        };
        assert_eq!(
            record.line(),
            "at=error code=H14 desc=\"No web processes running\" method=GET path=\"/\\\"x\\u{a}\" host=myapp.localhost request_id=8601b555-6a83-4c12-8269-97c8e32cdb22 fwd=\"204.204.204.204\" dyno= connect= service= status=503 bytes= protocol=http queue="
        );
        let interrupted = Record {
            failure: Some(Failure::INTERRUPTED),
            ..record
        };
        assert!(interrupted.line().starts_with(
            "sock=backend at=error code=H18 desc=\"Server Request Interrupted\" method=GET"
        ));
    }
}
