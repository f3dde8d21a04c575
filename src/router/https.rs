//! What TLS asks of a request before it may go to a dyno: proofs for ACME servers, the name of the
//! handshake, the redirect from plain HTTP.

use super::head::Request;
use super::listener::Shared;
use super::table::AppRoute;
use super::wire::Origin;
use crate::model::Feature;

/// Where ACME servers look. Source: RFC 8555 section 8.3.
const WELL_KNOWN: &str = "/.well-known/acme-challenge/";

/// Sent with every answer over TLS of an app that wants it. Source: RFC 6797.
pub(super) const HSTS: &str = "Strict-Transport-Security: max-age=31536000\r\n";

/// The proof, if the request asks for one that we wait to be asked for. What an app proves by
/// itself passes.
pub(super) fn proof(shared: &Shared, request: &Request) -> Option<String> {
    let token = request.target.strip_prefix(WELL_KNOWN)?;
    shared.certs.http_answer(token)
}

/// A host without its port and final dot.
fn bare(host: &str) -> &str {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// True if the request is for another name than the handshake was (H31, 421): the certificate
/// that the client saw does not speak for it. Source: RFC 9110 section 7.4.
pub(super) fn is_misdirected(request: &Request, origin: &Origin) -> bool {
    let name = origin.tls_name.as_deref();
    name.is_some_and(|name| !bare(&request.host).eq_ignore_ascii_case(name))
}

/// Where a plain request is sent instead, if the app wants TLS and we serve it: status and URL.
pub(super) fn redirect(
    shared: &Shared,
    app: &AppRoute,
    request: &Request,
    origin: &Origin,
) -> Option<(u16, String)> {
    let port = shared.https_port?;
    if origin.scheme == "https" || !app.features.contains(&Feature::HttpForceSsl) {
        return None;
    }
    let host = bare(&request.host);
    let path = if request.target == "*" {
        "/"
    } else {
        &request.target
    };
    // 308 keeps the method; the older status is understood by everybody.
    let status = match request.method.as_str() {
        "GET" | "HEAD" => 301,
        _ => 308,
    };
    let location = if port == 443 {
        format!("https://{host}{path}")
    } else {
        format!("https://{host}:{port}{path}")
    };
    Some((status, location))
}

/// True if answers to this request carry [`HSTS`].
pub(super) fn is_strict(app: &AppRoute, origin: &Origin) -> bool {
    origin.scheme == "https" && app.features.contains(&Feature::HttpHsts)
}
