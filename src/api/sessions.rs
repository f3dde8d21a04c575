//! Things named by a secret for a while: log sessions.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::logs::Filter;
use crate::model::AppId;

/// Sessions kept at once; beyond, the oldest is forgotten.
const MAX: usize = 4096;

/// What a log session shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    pub(super) app: AppId,
    pub(super) filter: Filter,
    pub(super) lines: usize,
    pub(super) tail: bool,
}

/// Log sessions by secret.
#[derive(Debug)]
pub(super) struct Sessions {
    lifetime: Duration,
    by_secret: Mutex<HashMap<String, (Instant, Session)>>,
}

impl Sessions {
    pub(super) fn new(lifetime: Duration) -> Self {
        Self {
            lifetime,
            by_secret: Mutex::default(),
        }
    }

    /// Keeps a session; returns its secret.
    pub(super) fn add(&self, session: Session, now: Instant) -> String {
        let mut sessions = self
            .by_secret
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, (made, _)| now.duration_since(*made) < self.lifetime);
        if sessions.len() >= MAX {
            let oldest = sessions.iter().min_by_key(|(_, (made, _))| *made);
            if let Some(secret) = oldest.map(|(secret, _)| secret.clone()) {
                sessions.remove(&secret);
            }
        }
        let secret = secret();
        sessions.insert(secret.clone(), (now, session));
        secret
    }

    /// The session of that secret, unless it expired.
    pub(super) fn get(&self, secret: &str, now: Instant) -> Option<Session> {
        let sessions = self
            .by_secret
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (made, session) = sessions.get(secret)?;
        (now.duration_since(*made) < self.lifetime).then(|| session.clone())
    }
}

/// 128 random bits as hex digits.
pub(super) fn secret() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_can_be_fetched_until_it_expires() {
        let sessions = Sessions::new(Duration::from_mins(6));
        let session = Session {
            app: AppId::new(),
            filter: Filter::default(),
            lines: 100,
            tail: false,
        };
        let start = Instant::now();
        let secret = sessions.add(session.clone(), start);
        let at = |seconds| sessions.get(&secret, start + Duration::from_secs(seconds));
        assert_eq!(at(359), Some(session.clone()));
        assert_eq!(at(359), Some(session));
        assert_eq!(at(360), None);
        assert_eq!(sessions.get("no", start), None);
    }
}
