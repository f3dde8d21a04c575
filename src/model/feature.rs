//! What can be switched on per app.

use std::fmt;
use std::str::FromStr;

/// A switch of an app. Source: Dev Center, "Heroku Labs" and "HTTP Features".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Feature {
    /// Plain HTTP is redirected to HTTPS.
    HttpForceSsl,
    /// Answers over HTTPS carry `Strict-Transport-Security`.
    HttpHsts,
    /// The dynos speak HTTP/2 in clear text (gRPC).
    Http2ToDyno,
    /// New web dynos are up before the old ones leave. Source: Dev Center, "Preboot".
    Preboot,
    /// Two lines of figures per dyno every 20 seconds. Source: Dev Center, "Log Runtime Metrics".
    LogRuntimeMetrics,
    /// The dyno, not the router, answers `Expect: 100-continue`.
    HttpEndToEndContinue,
    /// A new connection to the dyno for every request.
    HttpDisableKeepaliveToDyno,
    /// Dynos are told the client's own port.
    HttpPeerPort,
    /// A browser's requests go to the same dyno as long as that lives.
    /// Source: Dev Center, "Session Affinity".
    HttpSessionAffinity,
}

/// No feature has that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("There is no feature `{0}`: `manifold features` lists them.")]
pub struct FeatureError(String);

impl Feature {
    /// Every one, by name.
    pub const ALL: [Self; 9] = [
        Self::HttpForceSsl,
        Self::HttpHsts,
        Self::Http2ToDyno,
        Self::Preboot,
        Self::LogRuntimeMetrics,
        Self::HttpEndToEndContinue,
        Self::HttpDisableKeepaliveToDyno,
        Self::HttpPeerPort,
        Self::HttpSessionAffinity,
    ];

    /// Those that a new app has.
    pub const DEFAULT: [Self; 1] = [Self::Preboot];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::HttpForceSsl => "http-force-ssl",
            Self::HttpHsts => "http-hsts",
            Self::Http2ToDyno => "http2-to-dyno",
            Self::Preboot => "preboot",
            Self::LogRuntimeMetrics => "log-runtime-metrics",
            Self::HttpEndToEndContinue => "http-end-to-end-continue",
            Self::HttpDisableKeepaliveToDyno => "http-disable-keepalive-to-dyno",
            Self::HttpPeerPort => "http-peer-port",
            Self::HttpSessionAffinity => "http-session-affinity",
        }
    }

    /// What it does, for listings.
    pub fn description(self) -> &'static str {
        match self {
            Self::HttpForceSsl => "Redirect HTTP to HTTPS",
            Self::HttpHsts => "Tell browsers to use HTTPS only, for a year (HSTS)",
            Self::Http2ToDyno => "Speak HTTP/2 in clear text to web dynos (for gRPC)",
            Self::LogRuntimeMetrics => "Log load and memory of every dyno every 20 seconds",
            Self::Preboot => "Start new web dynos before old ones stop, if memory allows",
            Self::HttpEndToEndContinue => "Let dynos answer `Expect: 100-continue` themselves",
            Self::HttpDisableKeepaliveToDyno => "Open a new connection to the dyno per request",
            Self::HttpPeerPort => "Tell dynos the client's port (`X-Forwarded-Peer-Port`)",
            Self::HttpSessionAffinity => "Keep a browser's requests on one dyno (by a cookie)",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Feature {
    type Err = FeatureError;

    fn from_str(text: &str) -> Result<Self, FeatureError> {
        let found = Self::ALL.into_iter().find(|feature| feature.name() == text);
        found.ok_or_else(|| FeatureError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for feature in Feature::ALL {
            assert_eq!(feature.name().parse(), Ok(feature));
        }
        assert!("http".parse::<Feature>().is_err());
    }
}
