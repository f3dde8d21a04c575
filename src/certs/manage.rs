//! Adding, replacing and removing certificates.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use rand::RngExt as _;
use rustls::sign::CertifiedKey;
use tokio::sync::Notify;
use uuid::Uuid;

use super::book::{Book, Pages, Shown};
use super::chain::{self, ChainError, Checked, Facts};
use super::local::LocalCa;
use super::{Challenge, files};
use crate::model::{AppId, Hostname};
use crate::settings::Settings;
use crate::store::{CertificateRecord, Store, StoreError};

/// Names for certificates, as the platform makes them.
const ANIMALS: [&str; 8] = [
    "allosaurus",
    "brontosaurus",
    "diplodocus",
    "iguanodon",
    "stegosaurus",
    "triceratops",
    "tyrannosaurus",
    "velociraptor",
];

/// A certificate that was not changed.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// It cannot be used.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// It names no host of the app.
    #[error(
        "the certificate is for {}, but the app answers at {}: add the domain first (`manifold domains:add`), or give a certificate of one of these names",
        names.join(", "), domains.join(", ")
    )]
    WrongNames {
        /// Of the certificate.
        names: Vec<String>,
        /// Of the app.
        domains: Vec<String>,
    },
    /// The database refused or failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file cannot be read or written.
    #[error("cannot {act} {path}")]
    File {
        /// What was attempted.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where a certificate came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody gave it.
    Given,
    /// ACME, for that domain.
    Automatic(Hostname),
}

/// A certificate as people see it.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// Whose, its name and its times.
    pub record: CertificateRecord,
    /// What it says.
    pub facts: Facts,
    /// PEM without the key.
    pub chain: String,
}

/// All certificates. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Certs {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: Store,
    dir: PathBuf,
    book: Arc<Book>,
    local: LocalCa,
    /// One change at a time, so that the picture shown last is the newest.
    turn: tokio::sync::Mutex<()>,
    /// Told when domains or switches changed.
    news: Notify,
}

impl Certs {
    /// Reads every certificate, removes files of nobody, makes the local authority if there is
    /// none.
    ///
    /// # Errors
    /// The state directory or the store cannot be used. A certificate whose file is damaged is
    /// logged and left out.
    pub async fn open(store: Store, settings: &Settings) -> Result<Self, CertsError> {
        let dir = settings.paths().certs();
        let fail = |act: &'static str| {
            let path = dir.clone();
            move |source: io::Error| CertsError::File { act, path, source }
        };
        files::make_dir(&dir).map_err(fail("make"))?;
        let local = LocalCa::open(&dir, &settings.domain);
        let local = local.map_err(fail("make the local authority in"))?;
        let certs = Self {
            inner: Arc::new(Inner {
                store,
                local,
                book: Arc::default(),
                turn: tokio::sync::Mutex::default(),
                news: Notify::new(),
                dir,
            }),
        };
        certs.refresh().await?;
        Ok(certs)
    }

    /// The local authority's certificate.
    pub fn ca_pem(&self) -> &str {
        self.inner.local.pem()
    }

    /// The certificate to show for a name that belongs to `app`.
    pub fn key_for(&self, app: AppId, name: &str) -> Option<Arc<CertifiedKey>> {
        let given = self.inner.book.key_for(app, name);
        given.or_else(|| self.inner.local.key_for(name))
    }

    /// The answer to `/.well-known/acme-challenge/TOKEN`, if we wait for that question.
    pub fn http_answer(&self, token: &str) -> Option<String> {
        self.inner.book.http_answer(token)
    }

    /// The certificate that proves a name by `acme-tls/1`, if we wait for that question.
    pub fn alpn_key(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.inner.book.alpn_key(name)
    }

    pub(super) fn show(&self, challenge: Challenge) -> Shown {
        self.inner.book.show(challenge)
    }

    pub(super) fn store(&self) -> &Store {
        &self.inner.store
    }

    /// Where the ACME account lies.
    pub(super) fn account(&self) -> PathBuf {
        self.inner.dir.join("acme-account.json")
    }

    /// Waits for [`Certs::wake`].
    pub(super) async fn news(&self) {
        self.inner.news.notified().await;
    }

    /// Domains or switches changed: look at them again.
    pub fn wake(&self) {
        self.inner.news.notify_one();
    }

    fn file(&self, id: Uuid) -> PathBuf {
        self.inner.dir.join(format!("{id}.pem"))
    }

    /// The certificates of an app, by name.
    ///
    /// # Errors
    /// The store fails.
    pub async fn list(&self, app: AppId) -> Result<Vec<Certificate>, CertsError> {
        let all = self.all().await?;
        let mine = all.into_iter().filter(|(one, _)| one.record.app == app);
        Ok(mine.map(|(one, _)| one).collect())
    }

    /// One of an app, by name or id.
    ///
    /// # Errors
    /// There is none, or the store fails.
    pub async fn find(&self, app: AppId, key: &str) -> Result<Certificate, CertsError> {
        let is_it = |one: &Certificate| one.record.name == key || one.record.id.to_string() == key;
        let found = self.list(app).await?.into_iter().find(is_it);
        found.ok_or(CertsError::Store(StoreError::UnknownCertificate))
    }

    /// Adds a certificate to an app that answers at `domains`.
    ///
    /// # Errors
    /// See [`CertsError`].
    pub async fn add(
        &self,
        app: AppId,
        domains: &[String],
        chain: &str,
        key: &str,
        kind: Kind,
    ) -> Result<Certificate, CertsError> {
        let checked = checked(domains, chain, key, kind == Kind::Given)?;
        let now = Timestamp::now();
        let animal = ANIMALS[rand::rng().random_range(0..ANIMALS.len())];
        let record = CertificateRecord {
            id: Uuid::new_v4(),
            app,
            name: format!("{animal}-{}", rand::rng().random_range(10_000..100_000)),
            hostname: match kind {
                Kind::Given => None,
                Kind::Automatic(hostname) => Some(hostname),
            },
            created: now,
            updated: now,
        };
        let _turn = self.inner.turn.lock().await;
        // The file first: a row without its file would be worse than a file without its row.
        self.write(record.id, chain, key)?;
        if let Err(error) = self.inner.store.add_certificate(record.clone()).await {
            self.delete(record.id);
            return Err(error.into());
        }
        self.refresh().await?;
        Ok(certificate(record, &checked, chain))
    }

    /// Puts another chain and key in the place of an app's certificate.
    ///
    /// # Errors
    /// See [`CertsError`].
    pub async fn update(
        &self,
        old: &CertificateRecord,
        domains: &[String],
        chain: &str,
        key: &str,
    ) -> Result<Certificate, CertsError> {
        let checked = checked(domains, chain, key, old.hostname.is_none())?;
        let _turn = self.inner.turn.lock().await;
        let record = self.inner.store.touch_certificate(old.id).await?;
        self.write(record.id, chain, key)?;
        self.refresh().await?;
        Ok(certificate(record, &checked, chain))
    }

    /// Removes a certificate; clients that are connected stay so.
    ///
    /// # Errors
    /// The store fails.
    pub async fn remove(&self, old: &CertificateRecord) -> Result<(), CertsError> {
        let _turn = self.inner.turn.lock().await;
        self.inner.store.remove_certificate(old.id).await?;
        self.delete(old.id);
        self.refresh().await
    }

    fn write(&self, id: Uuid, chain: &str, key: &str) -> Result<(), CertsError> {
        let path = self.file(id);
        let text = format!("{}\n{}\n", key.trim(), chain.trim());
        files::replace(&path, &text).map_err(|source| CertsError::File {
            act: "write",
            path,
            source,
        })
    }

    fn delete(&self, id: Uuid) {
        let path = self.file(id);
        if let Err(error) = files::remove(&path) {
            tracing::warn!(path = %path.display(), %error, "a key stays until the next start");
        }
    }

    /// Shows what rows and files say now, and removes files without a row: an app that was
    /// destroyed takes its rows along.
    pub(super) async fn refresh(&self) -> Result<(), CertsError> {
        let mut all = self.all().await?;
        self.sweep(&all);
        all.sort_by_key(|(one, checked)| {
            let is_automatic = one.record.hostname.is_some();
            (is_automatic, std::cmp::Reverse(checked.facts.expires))
        });
        let mut pages = Pages::new();
        for (one, checked) in all {
            pages.entry(one.record.app).or_default().push(checked);
        }
        self.inner.book.turn(pages);
        Ok(())
    }

    /// Every certificate whose file can be used.
    pub(super) async fn all(&self) -> Result<Vec<(Certificate, Checked)>, CertsError> {
        let records = self.inner.store.certificates().await?;
        let read = |record: CertificateRecord| {
            let text = files::read(&self.file(record.id)).map(Option::unwrap_or_default);
            let checked = text.map_err(|error| error.to_string()).and_then(|text| {
                let checked = chain::read(&text, &text).map_err(|error| error.to_string())?;
                Ok((checked, only_certificates(&text)))
            });
            match checked {
                Ok((checked, chain)) => Some((certificate(record, &checked, &chain), checked)),
                Err(error) => {
                    tracing::error!(name = record.name, error, "a certificate is not shown");
                    None
                }
            }
        };
        Ok(records.into_iter().filter_map(read).collect())
    }

    fn sweep(&self, all: &[(Certificate, Checked)]) {
        let Ok(entries) = std::fs::read_dir(&self.inner.dir) else {
            return;
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let id = stem.and_then(|stem| stem.parse::<Uuid>().ok());
            // A damaged file is kept: its row still names it.
            let is_orphan = id.is_some_and(|id| all.iter().all(|(one, _)| one.record.id != id))
                && files::read(&path)
                    .is_ok_and(|text| text.is_some_and(|text| chain::read(&text, &text).is_ok()));
            if is_orphan && let Err(error) = files::remove(&path) {
                tracing::warn!(path = %path.display(), %error, "an unused key stays");
            }
        }
    }
}

/// The certificates of a file that holds their key too.
fn only_certificates(text: &str) -> String {
    match text.find("-----BEGIN CERTIFICATE-----") {
        Some(start) => text[start..].to_owned(),
        None => String::new(),
    }
}

fn certificate(record: CertificateRecord, checked: &Checked, chain: &str) -> Certificate {
    Certificate {
        record,
        facts: checked.facts.clone(),
        chain: chain.to_owned(),
    }
}

/// Checks a chain against the app's names and, if somebody gave it, against the clock and for
/// completeness: an ACME server's may end at a root that this machine does not know.
fn checked(
    domains: &[String],
    chain: &str,
    key: &str,
    is_given: bool,
) -> Result<Checked, CertsError> {
    let checked = if is_given {
        chain::check(chain, key, Timestamp::now())?
    } else {
        chain::read(chain, key)?
    };
    let covers = |domain: &String| match domain.strip_prefix("*.") {
        Some(_) => checked.facts.names.contains(domain),
        None => checked.facts.covers(domain),
    };
    if domains.iter().any(covers) {
        return Ok(checked);
    }
    // A name below a wildcard domain of the app is the app's too.
    let below = |name: &String| {
        let parent = name
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        parent.is_some_and(|parent| domains.contains(&parent))
    };
    if checked.facts.names.iter().any(below) {
        return Ok(checked);
    }
    Err(CertsError::WrongNames {
        names: checked.facts.names,
        domains: domains.to_vec(),
    })
}
