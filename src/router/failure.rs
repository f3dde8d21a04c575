//! What went wrong, whose fault it was, and how the client is told.
//! Source: Dev Center, "Heroku Error Codes".

/// How bad it is, in the log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Info,
    Warning,
    Error,
}

/// A request that did not end as its sender wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// `H12`.
    pub(super) code: &'static str,
    pub(super) desc: &'static str,
    pub(super) status: u16,
    pub(super) at: At,
    /// Which socket broke.
    pub(super) sock: Option<&'static str>,
    pub(super) cause: Option<&'static str>,
}

const fn error(code: &'static str, desc: &'static str) -> Failure {
    Failure {
        code,
        desc,
        status: 503,
        at: At::Error,
        sock: None,
        cause: None,
    }
}

impl Failure {
    pub(super) const CRASHED: Self = error("H10", "App crashed");
    pub(super) const BACKLOG: Self = error("H11", "Backlog too deep");
    pub(super) const TIMEOUT: Self = error("H12", "Request timeout");
    pub(super) const CLOSED: Self = error("H13", "Connection closed without response");
    pub(super) const NO_WEB: Self = error("H14", "No web processes running");
    pub(super) const IDLE: Self = error("H15", "Idle connection");
    /// Status 502: the dyno's answer is at fault, whatever it was meant to be.
    pub(super) const POOR: Self = Self {
        status: 502,
        ..error("H17", "Poorly formatted HTTP response")
    };
    pub(super) const INTERRUPTED: Self = Self {
        sock: Some("backend"),
        ..error("H18", "Server Request Interrupted")
    };
    pub(super) const CONNECT_TIMEOUT: Self = error("H19", "Backend connection timeout");
    pub(super) const BOOT_TIMEOUT: Self = error("H20", "App boot timeout");
    pub(super) const REFUSED: Self = error("H21", "Backend connection refused");
    pub(super) const CLIENT_GONE: Self = Self {
        status: 499,
        at: At::Warning,
        sock: Some("client"),
        ..error("H27", "Client Request Interrupted")
    };
    pub(super) const CLIENT_IDLE: Self = Self {
        status: 499,
        at: At::Warning,
        sock: Some("client"),
        ..error("H28", "Client Connection Idle")
    };
    /// The host is not the one of the handshake.
    pub(super) const MISDIRECTED: Self = Self {
        status: 421,
        ..error("H31", "Misdirected Request")
    };
    /// The router ends. No status: nothing can be told any more.
    pub(super) const FORCED: Self = Self {
        status: 0,
        ..error("H24", "Forced close")
    };
    pub(super) const MAINTENANCE: Self = Self {
        at: At::Info,
        ..error("H80", "Maintenance mode")
    };
    pub(super) const BLANK: Self = Self {
        status: 502,
        at: At::Info,
        ..error("H81", "Blank app")
    };
    pub(super) const PLATFORM: Self = error("H99", "Platform error");

    /// H25: the dyno's answer breaks a limit.
    pub(super) fn restriction(cause: &str) -> Self {
        let desc = match cause {
            "invalid content length" => "HTTP restriction: invalid content length",
            "oversized cookie" => "HTTP restriction: oversized cookie",
            "oversized header" => "HTTP restriction: oversized header",
            "oversized status line" => "HTTP restriction: oversized status line",
            _ => return Self::POOR,
        };
        Self {
            status: 502,
            ..error("H25", desc)
        }
    }

    /// H26: the client's message is at fault.
    pub(super) const fn request(status: u16, cause: &'static str) -> Self {
        Self {
            status,
            cause: Some(cause),
            ..error("H26", "Request Error")
        }
    }
}

/// Words of the statuses we send ourselves.
pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        301 => "Moved Permanently",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// Title and text of a page, for people.
fn words(status: u16, code: Option<&str>) -> (&'static str, &'static str) {
    match (status, code) {
        (404, _) => (
            "No such app",
            "There is no app at this address. If it is yours: `manifold apps` and `manifold domains` list what is.",
        ),
        (_, Some("H80")) => (
            "Offline for Maintenance",
            "This application is undergoing maintenance right now. Please check back later.",
        ),
        (_, Some("H81")) => (
            "Nothing here yet",
            "This app was created, but nothing was deployed to it yet: `manifold deploy`.",
        ),
        (301 | 308, _) => ("Moved", "This application is served over HTTPS only."),
        (421, _) => (
            "Misdirected request",
            "This connection was made for another host. Open a new one for this host.",
        ),
        (400..=499, _) => (
            "Bad request",
            "The request could not be understood, so it was not passed on.",
        ),
        _ => (
            "Application error",
            "An error occurred in the application and your page could not be served. If you are the application owner, check your logs for details: `manifold logs --tail`",
        ),
    }
}

/// A whole page. With `frame`, that URL fills it (config vars `ERROR_PAGE_URL` and
/// `MAINTENANCE_PAGE_URL`; Dev Center, "Error Pages").
pub(super) fn page(status: u16, code: Option<&str>, frame: Option<&str>) -> String {
    let (title, text) = words(status, code);
    let body = match frame {
        Some(url) => format!(
            "<iframe src=\"{}\" style=\"border:0;position:fixed;inset:0;width:100%;height:100%\"></iframe>",
            escape(url)
        ),
        None => format!("<h1>{title}</h1><p>{text}</p>"),
    };
    format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>body{{font:16px/1.5 sans-serif;max-width:40em;margin:15vh auto;padding:0 1em;color:#222;background:#fff}}@media(prefers-color-scheme:dark){{body{{color:#ddd;background:#222}}}}</style></head><body>{body}</body></html>\n"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_cannot_break_out_of_its_attribute() {
        let page = page(503, Some("H80"), Some("//x/\"><script>"));
        assert!(
            page.contains("src=\"//x/&quot;&gt;&lt;script&gt;\""),
            "{page}"
        );
    }

    #[test]
    fn restrictions_are_named() {
        let failure = Failure::restriction("oversized cookie");
        assert_eq!((failure.code, failure.status), ("H25", 502));
        assert_eq!(Failure::restriction("").code, "H17");
    }
}
