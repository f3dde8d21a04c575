//! Names of headers that the router looks at, told apart once for each line of a head: all later
//! questions are comparisons of numbers.

/// A known name; all others are `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Name {
    Other,
    /// What CGI and WSGI would read as one of the router's own (`X_Forwarded_For`).
    Disguised,
    Connection,
    ConnectTime,
    ContentLength,
    Cookie,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    MaxForwards,
    Proxy,
    ProxyAuthorization,
    ProxyConnection,
    RetryAfter,
    Server,
    SetCookie,
    Te,
    TotalRouteTime,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedFor,
    XForwardedPeerPort,
    XForwardedPort,
    XForwardedProto,
    XHerokuDynosInUse,
    XHerokuQueueDepth,
    XHerokuQueueWaitTime,
    XRequestId,
    XRequestStart,
}

impl Name {
    /// By any case.
    pub(super) fn of(name: &[u8]) -> Self {
        let candidates: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            3 => &[(b"via", Self::Via)],
            4 => &[(b"host", Self::Host)],
            5 => &[(b"proxy", Self::Proxy)],
            6 => &[
                (b"cookie", Self::Cookie),
                (b"expect", Self::Expect),
                (b"server", Self::Server),
            ],
            7 => &[(b"upgrade", Self::Upgrade)],
            10 => &[
                (b"connection", Self::Connection),
                (b"keep-alive", Self::KeepAlive),
                (b"set-cookie", Self::SetCookie),
            ],
            11 => &[(b"retry-after", Self::RetryAfter)],
            12 => &[
                (b"max-forwards", Self::MaxForwards),
                (b"x-request-id", Self::XRequestId),
                (b"connect-time", Self::ConnectTime),
            ],
            14 => &[
                (b"content-length", Self::ContentLength),
                (b"http2-settings", Self::Http2Settings),
            ],
            15 => &[
                (b"x-forwarded-for", Self::XForwardedFor),
                (b"x-request-start", Self::XRequestStart),
            ],
            16 => &[
                (b"x-forwarded-port", Self::XForwardedPort),
                (b"proxy-connection", Self::ProxyConnection),
                (b"total-route-time", Self::TotalRouteTime),
            ],
            17 => &[
                (b"x-forwarded-proto", Self::XForwardedProto),
                (b"transfer-encoding", Self::TransferEncoding),
            ],
            19 => &[(b"proxy-authorization", Self::ProxyAuthorization)],
            20 => &[(b"x-heroku-queue-depth", Self::XHerokuQueueDepth)],
            21 => &[
                (b"x-heroku-dynos-in-use", Self::XHerokuDynosInUse),
                (b"x-forwarded-peer-port", Self::XForwardedPeerPort),
            ],
            24 => &[(b"x-heroku-queue-wait-time", Self::XHerokuQueueWaitTime)],
            _ => &[],
        };
        let found = candidates
            .iter()
            // The first letter tells most of them apart.
            .find(|(known, _)| name[0] | 0x20 == known[0] && name.eq_ignore_ascii_case(known));
        match found {
            Some((_, found)) => *found,
            None if candidates.is_empty() => Self::Other,
            None => Self::undisguised(name, candidates),
        }
    }

    /// A name that is none of the candidates of its length.
    fn undisguised(name: &[u8], candidates: &[(&[u8], Self)]) -> Self {
        if !name.contains(&b'_') {
            return Self::Other;
        }
        let is_same = |(a, b): (&u8, &u8)| a.eq_ignore_ascii_case(b) || (*a == b'_' && *b == b'-');
        let is_disguised = candidates
            .iter()
            .any(|(known, found)| found.is_own() && name.iter().zip(*known).all(is_same));
        if is_disguised {
            Self::Disguised
        } else {
            Self::Other
        }
    }

    /// One of those that end at every hop.
    pub(super) fn is_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::ProxyAuthorization
        )
    }

    /// What says where a body ends. We say it ourselves, once.
    pub(super) fn is_length(self) -> bool {
        matches!(self, Self::ContentLength | Self::TransferEncoding)
    }

    /// What the router sets itself: whatever the client sent under these names is replaced, or
    /// (`X-Forwarded-For`, `Via`) becomes the front of the new value.
    pub(super) fn is_own(self) -> bool {
        matches!(
            self,
            Self::XForwardedFor
                | Self::Via
                | Self::XForwardedProto
                | Self::XForwardedPort
                | Self::XForwardedPeerPort
                | Self::XRequestId
                | Self::XRequestStart
                | Self::ConnectTime
                | Self::TotalRouteTime
                | Self::XHerokuQueueWaitTime
                | Self::XHerokuQueueDepth
                | Self::XHerokuDynosInUse
        )
    }

    /// Never passed to an app: what CGI reads as `HTTP_PROXY` (httpoxy), and what the router has
    /// answered.
    pub(super) fn is_kept_back(self) -> bool {
        matches!(
            self,
            Self::Proxy | Self::Expect | Self::Http2Settings | Self::Disguised
        )
    }

    /// Its bit in a set of names.
    pub(super) const fn bit(self) -> u32 {
        1 << self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn names_are_known_in_any_case_and_in_disguise() {
        assert_eq!(Name::of(b"host"), Name::Host);
        assert_eq!(Name::of(b"HOST"), Name::Host);
        assert_eq!(Name::of(b"X-Request-ID"), Name::XRequestId);
        assert_eq!(Name::of(b"Hosts"), Name::Other);
        assert_eq!(Name::of(b"hoss"), Name::Other);
        assert_eq!(Name::of(b""), Name::Other);
        assert_eq!(Name::of(b"X_Forwarded-For"), Name::Disguised);
        assert_eq!(Name::of(b"connect_time"), Name::Disguised);
        // Only our own are worth a disguise.
        assert_eq!(Name::of(b"content_length"), Name::Other);
        assert_eq!(Name::of(b"x_forwarded_fox"), Name::Other);
    }

    #[test]
    fn every_name_has_a_bit_of_its_own() {
        assert_eq!(Name::Other.bit(), 1);
        assert_eq!(Name::XRequestStart.bit().leading_zeros(), 1);
    }
}
