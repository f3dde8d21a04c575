//! One line per request, in the platform's exact order of fields.
//! Source: Dev Center, "HTTP Routing", Heroku router log format.

use std::fmt::Write as _;
use std::time::Duration;

use super::failure::{At, Failure};
use crate::traffic::Report;

/// What is known about a request when it ends.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) host: String,
    pub(super) request_id: String,
    pub(super) fwd: String,
    pub(super) dyno: Option<String>,
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

impl Record {
    /// The text of the line.
    pub(super) fn line(&self) -> String {
        let mut out = String::with_capacity(256);
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
        let milliseconds = |time: Option<Duration>| match time {
            Some(time) => format!("{}ms", time.as_millis()),
            None => String::new(),
        };
        // None was sent: the router was closing.
        let status = match self.status {
            0 => String::new(),
            status => status.to_string(),
        };
        let bytes = self.bytes.map(|b| b.to_string()).unwrap_or_default();
        let _ = write!(
            out,
            " method={} path=\"{}\" host={} request_id={} fwd=\"{}\" dyno={} connect={} service={} status={} bytes={bytes} protocol={} queue={}",
            self.method,
            escaped(&self.path),
            self.host,
            self.request_id,
            escaped(&self.fwd),
            self.dyno.as_deref().unwrap_or_default(),
            milliseconds(self.connect),
            milliseconds(self.service),
            status,
            self.protocol,
            milliseconds(self.queue),
        );
        if let Some(side) = self.closed_by {
            let _ = write!(out, " closed_by={side}");
        }
        out
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
fn escaped(text: &str) -> String {
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
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            method: "GET".to_owned(),
            path: "/a?b=c".to_owned(),
            host: "myapp.localhost".to_owned(),
            request_id: "8601b555-6a83-4c12-8269-97c8e32cdb22".to_owned(),
            fwd: "204.204.204.204".to_owned(),
            dyno: Some("web.1".to_owned()),
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
            path: "/\"x\n".to_owned(),
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
