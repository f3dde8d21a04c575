//! Certificates in JSON.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::resources::Named;

/// A certificate of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct SniEndpoint {
    pub id: Uuid,
    pub name: String,
    pub display_name: String,
    /// PEM, without the key.
    pub certificate_chain: String,
    pub cname: Option<String>,
    pub ssl_cert: SslCert,
    /// Domains of the app that it covers.
    pub domains: Vec<Uuid>,
    pub app: Named,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "field names are the public schema's own")]
pub struct SslCert {
    pub id: Uuid,
    /// Got by ACME.
    pub acm: bool,
    #[serde(rename = "ca_signed?")]
    pub ca_signed: bool,
    #[serde(rename = "self_signed?")]
    pub self_signed: bool,
    pub cert_domains: Vec<String>,
    pub starts_at: Timestamp,
    pub expires_at: Timestamp,
    pub issuer: String,
    pub subject: String,
    /// Hex sha256 of the certificate.
    pub fingerprint: String,
}

/// Body of `POST` and `PATCH` of `/apps/A/sni-endpoints`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SniEndpointWrite {
    /// PEM: the server's certificate, then its issuers.
    pub certificate_chain: String,
    /// PEM.
    pub private_key: String,
}

/// Body of `PATCH /apps/A/acm`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmUpdate {
    /// Try every domain again at once.
    #[serde(default)]
    pub acm_refresh: bool,
}

/// The local authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalAuthority {
    /// PEM.
    pub certificate: String,
}
