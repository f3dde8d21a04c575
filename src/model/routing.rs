//! How an app's requests are spread over its web dynos.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use super::ConfigVars;

/// Config var that tells how many requests a dyno serves at once, unless the app's routing does.
/// Source: Dev Center, "Optimizing Dyno Usage", `WEB_CONCURRENCY`.
pub const WEB_CONCURRENCY: &str = "WEB_CONCURRENCY";

/// Which dyno gets a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoutingPolicy {
    /// The one with the fewest in flight; at the limit, requests wait at the router.
    #[default]
    LeastInFlight,
    /// Any. Source: Dev Center, "HTTP Routing", request distribution (Cedar).
    Random,
    /// One request a dyno, the longest waiting first. Source: Dev Center, "HTTP Routing on Bamboo".
    GlobalQueue,
    /// One after the other.
    RoundRobin,
}

impl RoutingPolicy {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::LeastInFlight,
        Self::Random,
        Self::GlobalQueue,
        Self::RoundRobin,
    ];

    /// As written on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeastInFlight => "least-in-flight",
            Self::Random => "random",
            Self::GlobalQueue => "global-queue",
            Self::RoundRobin => "round-robin",
        }
    }
}

impl fmt::Display for RoutingPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a routing is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoutingError {
    /// No such policy.
    #[error(
        "There is no routing policy {0}: choose least-in-flight, random, global-queue or round-robin."
    )]
    Policy(String),
    /// A limit that this policy does not know.
    #[error(
        "The policy random takes no concurrency: it sends requests to any dyno, however busy. Choose least-in-flight to respect a limit."
    )]
    Unlimited,
    /// Not a limit.
    #[error("Concurrency must be between 1 and {CONCURRENCY_MAX}.")]
    Concurrency,
}

/// Highest limit that can be set.
pub const CONCURRENCY_MAX: u32 = 10_000;

impl FromStr for RoutingPolicy {
    type Err = RoutingError;

    fn from_str(text: &str) -> Result<Self, RoutingError> {
        let mut all = Self::ALL.into_iter();
        all.find(|policy| policy.as_str() == text)
            .ok_or_else(|| RoutingError::Policy(text.to_owned()))
    }
}

/// An app's setting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routing {
    /// Which dyno.
    pub policy: RoutingPolicy,
    /// Requests that a dyno serves at once, as set for the app.
    pub concurrency: Option<NonZeroU32>,
}

impl Routing {
    /// A setting, if it makes sense.
    ///
    /// # Errors
    /// See [`RoutingError`].
    pub fn new(policy: RoutingPolicy, concurrency: Option<u32>) -> Result<Self, RoutingError> {
        let concurrency = match concurrency {
            None => None,
            Some(_) if policy == RoutingPolicy::Random => return Err(RoutingError::Unlimited),
            Some(limit @ 1..=CONCURRENCY_MAX) => NonZeroU32::new(limit),
            Some(_) => return Err(RoutingError::Concurrency),
        };
        Ok(Self {
            policy,
            concurrency,
        })
    }

    /// Requests that a dyno is sent at once (`None`: any number): the app's setting, else what its
    /// policy or its config var says.
    pub fn limit(&self, config: Option<&ConfigVars>) -> Option<NonZeroU32> {
        match self.policy {
            RoutingPolicy::Random => None,
            _ if self.concurrency.is_some() => self.concurrency,
            RoutingPolicy::GlobalQueue => Some(NonZeroU32::MIN),
            RoutingPolicy::LeastInFlight | RoutingPolicy::RoundRobin => {
                config?.get(WEB_CONCURRENCY)?.trim().parse().ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_apps_then_the_policys_then_the_config_vars() {
        let mut config = ConfigVars::default();
        let check = |policy, set, config: &ConfigVars, expected: Option<u32>| {
            let routing = Routing::new(policy, set).expect("a routing");
            assert_eq!(routing.limit(Some(config)).map(NonZeroU32::get), expected);
        };
        check(RoutingPolicy::LeastInFlight, None, &config, None);
        check(RoutingPolicy::GlobalQueue, None, &config, Some(1));
        let (key, value) = (WEB_CONCURRENCY.to_owned(), Some("3".to_owned()));
        config = config.changed([(&key, &value)]).expect("changed");
        check(RoutingPolicy::LeastInFlight, None, &config, Some(3));
        check(RoutingPolicy::RoundRobin, None, &config, Some(3));
        check(RoutingPolicy::LeastInFlight, Some(7), &config, Some(7));
        check(RoutingPolicy::GlobalQueue, None, &config, Some(1));
        check(RoutingPolicy::Random, None, &config, None);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let policy = RoutingPolicy::LeastInFlight;
        assert_eq!(
            Routing::new(policy, Some(0)),
            Err(RoutingError::Concurrency)
        );
        let random = Routing::new(RoutingPolicy::Random, Some(1));
        assert_eq!(random, Err(RoutingError::Unlimited));
        let unknown = "fastest".parse::<RoutingPolicy>().expect_err("unknown");
        assert!(unknown.to_string().contains("least-in-flight"), "{unknown}");
        for policy in RoutingPolicy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
    }
}
