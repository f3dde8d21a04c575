//! A certificate chain and its key, read from PEM and checked before anybody is shown it.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

use crate::model::Hostname;

/// Most certificates in a chain.
const CHAIN_MAX: usize = 10;

/// Why a chain and its key cannot be used: what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Not PEM.
    #[error("the {what} is not PEM: {reason}")]
    Pem {
        /// `certificate`, `key`.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// PEM, but no certificate in it.
    #[error("there is no certificate in it: give PEM that has a -----BEGIN CERTIFICATE----- line")]
    NoCertificate,
    /// More than anybody sends.
    #[error(
        "there are more than {CHAIN_MAX} certificates in it: give the server's own and its intermediates only"
    )]
    TooLong,
    /// A certificate that is none.
    #[error("certificate {0} of the chain is not X.509")]
    Malformed(usize),
    /// No private key.
    #[error("there is no private key in it: give PEM that has a -----BEGIN PRIVATE KEY----- line")]
    NoKey,
    /// A key with a passphrase.
    #[error(
        "the key is encrypted: decrypt it with `openssl pkey -in KEY -out PLAIN` and give that"
    )]
    EncryptedKey,
    /// A key of a kind we cannot sign with.
    #[error(
        "the key is of a kind that cannot be used: give RSA (2048 to 8192 bit), P-256, P-384 or Ed25519"
    )]
    KeyKind,
    /// The key is another certificate's.
    #[error(
        "the key does not belong to the certificate: the first certificate of the chain must be the server's own, and the key the one it was made with"
    )]
    Mismatch,
    /// Past its end.
    #[error("the certificate expired on {0}: get a new one")]
    Expired(Timestamp),
    /// Before its beginning.
    #[error("the certificate is not valid before {0}: is this machine's clock right?")]
    NotYet(Timestamp),
    /// No DNS name that clients look at.
    #[error(
        "the certificate names no host (no subject alternative name of kind DNS): clients would refuse it"
    )]
    NoNames,
    /// Order or membership of the chain.
    #[error(
        "certificate {at} of the chain ({subject}) did not issue the one before it ({before}): give the server's certificate first, then each issuer"
    )]
    Broken {
        /// Its place, from 1.
        at: usize,
        /// Its subject.
        subject: String,
        /// The subject of the one before.
        before: String,
    },
    /// An issuer is missing.
    #[error(
        "the chain is incomplete: {0} is neither in it nor a root this machine trusts; append the intermediate certificates (of a private CA, its root too)"
    )]
    Incomplete(String),
}

/// What a certificate says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Host names, wildcards included, in lower case.
    pub names: Vec<String>,
    /// Distinguished name.
    pub subject: String,
    /// Distinguished name.
    pub issuer: String,
    /// Valid from.
    pub starts: Timestamp,
    /// Valid to.
    pub expires: Timestamp,
    /// It signed itself.
    pub is_self_signed: bool,
    /// Hex sha256 of the certificate.
    pub fingerprint: String,
}

impl Facts {
    /// True if clients accept it for that host. A wildcard stands for one label.
    /// Source: RFC 9525 section 6.3.
    pub fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| {
            name == host
                || name
                    .strip_prefix("*.")
                    .is_some_and(|base| parent == Some(base))
        })
    }
}

/// A chain that may be shown to clients.
#[derive(Clone, Debug)]
pub(super) struct Checked {
    /// For rustls.
    pub(super) key: Arc<CertifiedKey>,
    /// Of the server's own certificate.
    pub facts: Facts,
}

/// Reads and checks a chain and its key at the time `now`.
///
/// # Errors
/// The first thing that is wrong with them.
pub(super) fn check(chain: &str, key: &str, now: Timestamp) -> Result<Checked, ChainError> {
    let checked = read(chain, key)?;
    let facts = &checked.facts;
    if now >= facts.expires {
        return Err(ChainError::Expired(facts.expires));
    }
    if now < facts.starts {
        return Err(ChainError::NotYet(facts.starts));
    }
    complete(&certificates(chain)?)?;
    Ok(checked)
}

/// As [`check`], but without a look at the clock and the chain's end: for what was checked before.
pub(super) fn read(chain: &str, key: &str) -> Result<Checked, ChainError> {
    let mut ders = certificates(chain)?;
    let facts = facts(&ders[0])?;
    if facts.names.is_empty() {
        return Err(ChainError::NoNames);
    }
    // A root at the end is dead weight: clients have it or do not trust it.
    if ders.len() > 1 && self_signed(ders.last()) {
        ders.pop();
    }
    let provider = rustls::crypto::ring::default_provider();
    let key = CertifiedKey::from_der(ders, private_key(key)?, &provider);
    let key = key.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => ChainError::Mismatch,
        _ => ChainError::KeyKind,
    })?;
    Ok(Checked {
        key: Arc::new(key),
        facts,
    })
}

/// A certificate of our own making, as it is: the proof of RFC 8737 has a critical extension that
/// no check but the ACME server's understands.
pub(super) fn proof(chain: &str, key: &str) -> Result<Arc<CertifiedKey>, ChainError> {
    let provider = rustls::crypto::ring::default_provider();
    let key = provider.key_provider.load_private_key(private_key(key)?);
    let key = key.map_err(|_| ChainError::KeyKind)?;
    Ok(Arc::new(CertifiedKey::new(certificates(chain)?, key)))
}

fn bad_pem(what: &'static str) -> impl Fn(pem::Error) -> ChainError {
    move |error| ChainError::Pem {
        what,
        reason: error.to_string(),
    }
}

fn certificates(text: &str) -> Result<Vec<CertificateDer<'static>>, ChainError> {
    let mut found = Vec::new();
    for der in CertificateDer::pem_slice_iter(text.as_bytes()) {
        found.push(der.map_err(bad_pem("certificate"))?);
        if found.len() > CHAIN_MAX {
            return Err(ChainError::TooLong);
        }
    }
    if found.is_empty() {
        return Err(ChainError::NoCertificate);
    }
    Ok(found)
}

fn private_key(text: &str) -> Result<PrivateKeyDer<'static>, ChainError> {
    if text.contains("BEGIN ENCRYPTED") || text.contains("4,ENCRYPTED") {
        return Err(ChainError::EncryptedKey);
    }
    PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|error| match error {
        pem::Error::NoItemsFound => ChainError::NoKey,
        error => bad_pem("key")(error),
    })
}

fn parse(der: &[u8], place: usize) -> Result<X509Certificate<'_>, ChainError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(ChainError::Malformed(place)),
    }
}

fn self_signed(der: Option<&CertificateDer<'_>>) -> bool {
    let parsed = der.map(|der| parse(der, 0));
    matches!(parsed, Some(Ok(cert)) if cert.subject() == cert.issuer())
}

fn time(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
}

/// What the first certificate says.
fn facts(der: &CertificateDer<'_>) -> Result<Facts, ChainError> {
    let cert = parse(der, 1)?;
    let alternatives = cert.subject_alternative_name();
    let alternatives = alternatives.map_err(|_| ChainError::Malformed(1))?;
    let names = alternatives
        .iter()
        .flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => name.parse::<Hostname>().ok().map(String::from),
        _ => None,
    });
    Ok(Facts {
        names: names.collect(),
        subject: cert.subject().to_string(),
        issuer: cert.issuer().to_string(),
        starts: time(cert.validity().not_before.timestamp()),
        expires: time(cert.validity().not_after.timestamp()),
        is_self_signed: cert.subject() == cert.issuer(),
        fingerprint: crate::model::Digest(Sha256::digest(der).into()).to_string(),
    })
}

/// Each certificate issued the one before it, and the last one's issuer is known.
fn complete(ders: &[CertificateDer<'_>]) -> Result<(), ChainError> {
    let mut before = parse(&ders[0], 1)?;
    for (at, der) in ders.iter().enumerate().skip(1) {
        let cert = parse(der, at + 1)?;
        // An algorithm we cannot check is the client's to judge.
        let is_forged = before.verify_signature(Some(cert.public_key()))
            == Err(X509Error::SignatureVerificationError);
        if cert.subject() != before.issuer() || is_forged {
            return Err(ChainError::Broken {
                at: at + 1,
                subject: cert.subject().to_string(),
                before: before.subject().to_string(),
            });
        }
        before = cert;
    }
    let is_anchored =
        before.subject() == before.issuer() || ROOTS.contains(before.issuer().as_raw());
    if is_anchored {
        Ok(())
    } else {
        Err(ChainError::Incomplete(before.issuer().to_string()))
    }
}

/// Subjects of the roots this machine trusts.
static ROOTS: LazyLock<HashSet<Vec<u8>>> = LazyLock::new(|| {
    let roots = rustls_native_certs::load_native_certs().certs;
    let subject = |der: &CertificateDer<'_>| Some(parse(der, 0).ok()?.subject().as_raw().to_vec());
    roots.iter().filter_map(subject).collect()
});

#[cfg(test)]
mod tests {
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd,
    };

    use super::*;

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().expect("a time")
    }

    fn named(params: &mut CertificateParams, name: &str) {
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
    }

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    fn authority(name: &str) -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        named(&mut params, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("signed").pem();
        let issuer = Issuer::new(params, key);
        Authority { issuer, pem }
    }

    fn leaf(ca: &Authority, names: &[&str], years: (i32, i32)) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        named(&mut params, "leaf");
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &ca.issuer).expect("signed");
        (cert.pem(), key.serialize_pem())
    }

    #[test]
    fn a_good_chain_tells_its_facts_and_covers_its_names() {
        let ca = authority("root");
        let (cert, key) = leaf(&ca, &["Shop.example", "*.shop.example"], (2026, 2027));
        let checked = check(&format!("{cert}{}", ca.pem), &key, now()).expect("good");
        assert_eq!(checked.facts.names, ["shop.example", "*.shop.example"]);
        assert_eq!(checked.key.cert.len(), 1, "the root is not sent");
        for (host, is_covered) in [
            ("shop.example", true),
            ("www.shop.example", true),
            ("a.b.shop.example", false),
            ("example", false),
            ("xshop.example", false),
        ] {
            assert_eq!(checked.facts.covers(host), is_covered, "{host}");
        }
    }

    #[test]
    fn each_fault_has_its_own_words() {
        let (ca, other) = (authority("root"), authority("other"));
        let (cert, key) = leaf(&ca, &["a.example"], (2026, 2027));
        let (_, foreign) = leaf(&ca, &["a.example"], (2026, 2027));
        let fault = |chain: &str, key: &str| check(chain, key, now()).expect_err("a fault");
        let whole = format!("{cert}{}", ca.pem);
        assert_eq!(fault(&whole, &foreign), ChainError::Mismatch);
        assert_eq!(fault("", &key), ChainError::NoCertificate);
        assert_eq!(fault(&whole, ""), ChainError::NoKey);
        assert_eq!(
            fault(&whole, "-----BEGIN ENCRYPTED PRIVATE KEY-----"),
            ChainError::EncryptedKey
        );
        assert_eq!(
            fault(&cert, &key),
            ChainError::Incomplete("CN=root".to_owned())
        );
        assert!(matches!(
            fault(&format!("{cert}{}", other.pem), &key),
            ChainError::Broken { at: 2, .. }
        ));
        // Same name, another key: the signature tells.
        let twin = authority("root");
        assert!(matches!(
            fault(&format!("{cert}{}", twin.pem), &key),
            ChainError::Broken { at: 2, .. }
        ));
        let (old, key) = leaf(&ca, &["a.example"], (2020, 2021));
        assert!(matches!(
            fault(&format!("{old}{}", ca.pem), &key),
            ChainError::Expired(_)
        ));
        let (young, key) = leaf(&ca, &["a.example"], (2030, 2031));
        assert!(matches!(
            fault(&format!("{young}{}", ca.pem), &key),
            ChainError::NotYet(_)
        ));
        let (nameless, key) = leaf(&ca, &[], (2026, 2027));
        assert_eq!(
            fault(&format!("{nameless}{}", ca.pem), &key),
            ChainError::NoNames
        );
    }

    #[test]
    fn a_self_signed_certificate_is_its_own_chain() {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["a.example".to_owned()]).expect("names");
        let cert = params.self_signed(&key).expect("signed");
        let checked = check(&cert.pem(), &key.serialize_pem(), now()).expect("good");
        assert!(checked.facts.is_self_signed);
    }
}
