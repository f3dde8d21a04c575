//! One order: from a domain to its chain and key.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use serde::{Deserialize, Serialize};

use super::super::book::Shown;
use super::super::{Certs, Challenge, chain, files};
use super::http::Https;
use crate::settings::{AcmeChallenge, AcmeSettings};

/// How long the server may take to look at our challenge, and then to sign.
const PATIENCE: Duration = Duration::from_secs(90);

/// An order that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    /// The server said no, or said nothing.
    #[error("{0}")]
    Acme(#[from] instant_acme::Error),
    /// The server looked and did not find our proof.
    #[error("{0}")]
    Refused(String),
    /// The server offers no challenge that the settings allow.
    #[error("the ACME server offers none of the challenges that the settings allow")]
    NoChallenge,
    /// A key or request of ours could not be made.
    #[error("cannot make a certificate request: {0}")]
    Request(#[from] rcgen::Error),
    /// The account's file.
    #[error("cannot use {path}: {source}")]
    Account {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What we hold ourselves to.
    #[error("{0}")]
    Chain(#[from] chain::ChainError),
}

/// The account as it lies on disk: it belongs to one directory.
#[derive(Serialize, Deserialize)]
struct Stored {
    directory: String,
    account: serde_json::Value,
}

/// The account at the server: the stored one, or a new one.
pub(super) async fn account(
    certs: &Certs,
    settings: &AcmeSettings,
    https: &Https,
) -> Result<Account, OrderError> {
    let path = certs.account();
    let fail = |source: io::Error| OrderError::Account {
        path: path.clone(),
        source,
    };
    let builder = Account::builder_with_http(Box::new(https.clone()));
    if let Some(text) = files::read(&path).map_err(fail)? {
        let stored: Stored = serde_json::from_str(&text).map_err(|error| fail(error.into()))?;
        if stored.directory == settings.directory {
            let credentials = serde_json::from_value(stored.account);
            let credentials = credentials.map_err(|error| fail(error.into()))?;
            return Ok(builder.from_credentials(credentials).await?);
        }
    }
    let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    let new = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let directory = settings.directory.clone();
    let (account, credentials) = builder.create(&new, directory, None).await?;
    let stored = Stored {
        directory: settings.directory.clone(),
        account: serde_json::to_value(&credentials).map_err(|error| fail(error.into()))?,
    };
    let text = serde_json::to_string(&stored).map_err(|error| fail(error.into()))?;
    files::replace(&path, &text).map_err(fail)?;
    Ok(account)
}

/// Chain and key in PEM.
pub(super) async fn order(
    certs: &Certs,
    account: &Account,
    name: &str,
    kinds: &[AcmeChallenge],
) -> Result<(String, String), OrderError> {
    let names = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&names)).await?;
    let shown = prove(certs, &mut order, name, kinds).await?;
    let policy = RetryPolicy::new().timeout(PATIENCE);
    let status = order.poll_ready(&policy).await?;
    drop(shown);
    if status != OrderStatus::Ready {
        return Err(OrderError::Refused(why(&mut order).await));
    }
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key)?;
    order.finalize_csr(request.der()).await?;
    let chain = order.poll_certificate(&policy).await?;
    Ok((chain, key.serialize_pem()))
}

/// Shows a proof for every name the server wants one for, then tells it to look.
async fn prove(
    certs: &Certs,
    order: &mut Order,
    name: &str,
    kinds: &[AcmeChallenge],
) -> Result<Vec<Shown>, OrderError> {
    let mut shown = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let offered = |kind: &&AcmeChallenge| {
            let all = &authorization.challenges;
            all.iter().any(|challenge| challenge.r#type == wire(**kind))
        };
        let kind = *kinds.iter().find(offered).ok_or(OrderError::NoChallenge)?;
        let challenge = authorization.challenge(wire(kind));
        let mut challenge = challenge.ok_or(OrderError::NoChallenge)?;
        let proof = challenge.key_authorization();
        shown.push(certs.show(match kind {
            AcmeChallenge::Http01 => Challenge::Http {
                token: challenge.token.clone(),
                answer: proof.as_str().to_owned(),
            },
            AcmeChallenge::TlsAlpn01 => alpn(name, proof.digest().as_ref())?,
        }));
        challenge.set_ready().await?;
    }
    Ok(shown)
}

fn wire(kind: AcmeChallenge) -> ChallengeType {
    match kind {
        AcmeChallenge::Http01 => ChallengeType::Http01,
        AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// The self-signed certificate of RFC 8737 section 3.
fn alpn(name: &str, digest: &[u8]) -> Result<Challenge, OrderError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let cert = params.self_signed(&key)?;
    Ok(Challenge::TlsAlpn {
        name: name.to_owned(),
        key: chain::proof(&cert.pem(), &key.serialize_pem())?,
    })
}

/// What the server says about an order it refused.
async fn why(order: &mut Order) -> String {
    let mut said = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let problems = state.challenges.iter().filter_map(|c| c.error.as_ref());
        said.extend(problems.map(ToString::to_string));
    }
    if said.is_empty() {
        return "the ACME server refused the order and did not say why".to_owned();
    }
    said.join("; ")
}
