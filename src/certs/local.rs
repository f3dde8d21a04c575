//! A certificate authority of this machine's own, for the names below the platform's domain.
//!
//! Who trusts it (`manifold certs:ca`) trusts it for these names only: the certificate says so
//! (name constraints, RFC 5280 section 4.2.1.10).

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use rustls::sign::CertifiedKey;

use super::{chain, files};

/// Life of the authority.
const YEARS: i64 = 10;

/// Life of a certificate; long enough for no browser to complain, short enough to be made anew.
const DAYS: i64 = 90;

/// A certificate is made anew after so long.
const FRESH: Duration = Duration::from_hours(24 * 30);

/// Certificates kept in memory. Past it the oldest goes: it is made anew when it is asked for.
const KEPT_MAX: usize = 4096;

/// The authority.
pub(super) struct LocalCa {
    domain: String,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    /// One key for all names: keys of one machine protect nothing from each other.
    key: KeyPair,
    made: Mutex<HashMap<String, (Instant, Arc<CertifiedKey>)>>,
}

impl std::fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCa").finish_non_exhaustive()
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::other(error)
}

impl LocalCa {
    /// Reads the authority of that domain, or makes it.
    pub(super) fn open(dir: &Path, domain: &str) -> io::Result<Self> {
        let (cert_path, key_path) = (
            dir.join(format!("ca-{domain}.pem")),
            dir.join(format!("ca-{domain}.key")),
        );
        let params = authority(domain);
        let stored = files::read(&cert_path)?.zip(files::read(&key_path)?);
        let (pem, key) = if let Some((pem, key)) = stored {
            (pem, KeyPair::from_pem(&key).map_err(failed)?)
        } else {
            let key = KeyPair::generate().map_err(failed)?;
            let pem = params.self_signed(&key).map_err(failed)?.pem();
            files::replace(&key_path, &key.serialize_pem())?;
            files::replace(&cert_path, &pem)?;
            (pem, key)
        };
        Ok(Self {
            domain: domain.to_owned(),
            pem,
            issuer: Issuer::new(params, key),
            key: KeyPair::generate().map_err(failed)?,
            made: Mutex::default(),
        })
    }

    /// The authority's certificate, for whoever wants to trust it.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for a name right below the domain; made when first asked for.
    pub(super) fn key_for(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let base = name.split_once('.').map(|(_, base)| base);
        if base != Some(self.domain.as_str()) {
            return None;
        }
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, key)) = made.get(name)
            && since.elapsed() < FRESH
        {
            return Some(Arc::clone(key));
        }
        let key = match self.make(name) {
            Ok(key) => key,
            Err(error) => {
                tracing::error!(name, %error, "no local certificate");
                return None;
            }
        };
        if made.len() >= KEPT_MAX {
            let oldest = made.iter().min_by_key(|(_, (since, _))| *since);
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                made.remove(&name);
            }
        }
        made.insert(name.to_owned(), (Instant::now(), Arc::clone(&key)));
        Some(key)
    }

    fn make(&self, name: &str) -> io::Result<Arc<CertifiedKey>> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, DAYS);
        let cert = params.signed_by(&self.key, &self.issuer).map_err(failed)?;
        let checked = chain::read(&cert.pem(), &self.key.serialize_pem()).map_err(failed)?;
        Ok(checked.key)
    }
}

/// From yesterday (clocks differ) for so many days.
fn valid(params: &mut CertificateParams, days: i64) {
    let date = |days: i64| {
        let then = Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        let date = TimeZone::UTC.to_datetime(then).date();
        let part = |part: i8| u8::try_from(part).unwrap_or(1);
        date_time_ymd(i32::from(date.year()), part(date.month()), part(date.day()))
    };
    params.not_before = date(-1);
    params.not_after = date(days);
}

/// The same each time for one domain: what is signed must name its issuer exactly.
fn authority(domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let name = format!("manifold local CA for {domain}");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName(domain.to_owned())],
        excluded_subtrees: Vec::new(),
    });
    valid(&mut params, YEARS * 365);
    params
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_authority_stays_and_signs_names_below_its_domain_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let ca = LocalCa::open(dir.path(), "localhost").expect("made");
        let key = ca.key_for("shop.localhost").expect("a certificate");
        let again = ca.key_for("shop.localhost").expect("a certificate");
        assert!(Arc::ptr_eq(&key, &again), "kept");
        for name in ["localhost", "a.b.localhost", "shop.example", "xlocalhost"] {
            assert!(ca.key_for(name).is_none(), "{name}");
        }
        let reopened = LocalCa::open(dir.path(), "localhost").expect("read");
        assert_eq!(ca.pem(), reopened.pem());
        verify(
            reopened.pem(),
            &reopened.key_for("other.localhost").expect("one"),
            "other.localhost",
        );
    }

    /// As a client does that trusts the authority.
    fn verify(ca: &str, key: &CertifiedKey, name: &str) {
        use rustls::client::danger::ServerCertVerifier as _;
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(ca.as_bytes()).expect("PEM");
        roots.add(ca).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .expect("a verifier");
        let server = ServerName::try_from(name.to_owned()).expect("a name");
        verifier
            .verify_server_cert(&key.cert[0], &key.cert[1..], &server, &[], UnixTime::now())
            .expect("trusted");
    }
}
