//! What is shown to clients right now, read without a lock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::sign::CertifiedKey;

use super::chain::Checked;
use crate::model::AppId;

/// Every app's certificates, best first: given ones before automatic ones, long-lived before
/// short-lived.
pub(super) type Pages = HashMap<AppId, Vec<Checked>>;

/// A proof that we hold a name, shown while an ACME server looks.
#[derive(Clone, Debug)]
pub enum Challenge {
    /// RFC 8555 section 8.3: the answer to `/.well-known/acme-challenge/TOKEN`.
    Http {
        /// Name of the file.
        token: String,
        /// Its content.
        answer: String,
    },
    /// RFC 8737: the certificate for the protocol `acme-tls/1`.
    TlsAlpn {
        /// The name that is asked for.
        name: String,
        /// Self-signed, with the proof in it.
        key: Arc<CertifiedKey>,
    },
}

/// What can be shown.
#[derive(Debug, Default)]
pub(super) struct Book {
    pages: ArcSwap<Pages>,
    challenges: ArcSwap<Vec<Challenge>>,
    /// One writer of challenges at a time.
    writing: Mutex<()>,
}

impl Book {
    /// Puts new pages in the place of the old ones.
    pub(super) fn turn(&self, pages: Pages) {
        self.pages.store(Arc::new(pages));
    }

    /// The best certificate of that app for that name.
    pub(super) fn key_for(&self, app: AppId, name: &str) -> Option<Arc<CertifiedKey>> {
        let pages = self.pages.load();
        let mut certificates = pages.get(&app)?.iter();
        let found = certificates.find(|checked| checked.facts.covers(name));
        found.map(|checked| Arc::clone(&checked.key))
    }

    /// Shows a challenge until the guard is dropped.
    pub(super) fn show(self: &Arc<Self>, challenge: Challenge) -> Shown {
        self.change(|all| all.push(challenge.clone()));
        Shown {
            book: Arc::clone(self),
            challenge,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<Challenge>)) {
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Vec::clone(&self.challenges.load());
        change(&mut all);
        self.challenges.store(Arc::new(all));
    }

    /// The answer to an HTTP-01 challenge.
    pub(super) fn http_answer(&self, asked: &str) -> Option<String> {
        self.challenges
            .load()
            .iter()
            .find_map(|challenge| match challenge {
                Challenge::Http { token, answer } if token == asked => Some(answer.clone()),
                _ => None,
            })
    }

    /// The certificate of a TLS-ALPN-01 challenge.
    pub(super) fn alpn_key(&self, asked: &str) -> Option<Arc<CertifiedKey>> {
        self.challenges
            .load()
            .iter()
            .find_map(|challenge| match challenge {
                Challenge::TlsAlpn { name, key } if name == asked => Some(Arc::clone(key)),
                _ => None,
            })
    }
}

/// A challenge that is shown.
#[derive(Debug)]
pub(super) struct Shown {
    book: Arc<Book>,
    challenge: Challenge,
}

impl Drop for Shown {
    fn drop(&mut self) {
        let is_ours = |other: &Challenge| match (other, &self.challenge) {
            (Challenge::Http { token: a, .. }, Challenge::Http { token: b, .. }) => a == b,
            (Challenge::TlsAlpn { key: a, .. }, Challenge::TlsAlpn { key: b, .. }) => {
                Arc::ptr_eq(a, b)
            }
            _ => false,
        };
        self.book.change(|all| all.retain(|other| !is_ours(other)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_shown_as_long_as_somebody_waits_for_it() {
        let book = Arc::new(Book::default());
        let challenge = |token: &str| Challenge::Http {
            token: token.to_owned(),
            answer: format!("{token}.key"),
        };
        let (one, two) = (book.show(challenge("one")), book.show(challenge("two")));
        assert_eq!(book.http_answer("one").as_deref(), Some("one.key"));
        drop(one);
        assert_eq!(book.http_answer("one"), None);
        assert_eq!(book.http_answer("two").as_deref(), Some("two.key"));
        drop(two);
        assert!(book.challenges.load().is_empty());
    }
}
