//! `/apps/A/sni-endpoints`, `/apps/A/acm` and the local authority.

use axum::extract::State;
use axum::http::HeaderMap;

use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key, whole};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{convert, range, types};
use crate::certs::{Certificate, Kind};
use crate::store::{AppRecord, DomainRecord};

/// Every name the app answers at.
async fn hosts(api: &Api, app: &AppRecord) -> Result<Vec<String>, ApiError> {
    let default = api.settings.default_hostname(&app.name).to_string();
    let custom = api.store.domains(app.id).await?;
    let custom = custom.into_iter().map(|domain| domain.hostname.to_string());
    Ok(std::iter::once(default).chain(custom).collect())
}

async fn shown(
    api: &Api,
    app: &AppRecord,
    certificate: &Certificate,
) -> Result<types::SniEndpoint, ApiError> {
    let domains = api.store.domains(app.id).await?;
    Ok(convert::sni_endpoint(app, certificate, &domains))
}

pub(super) async fn list(State(api): State<Api>, App(app): App, headers: HeaderMap) -> Answer {
    let domains: Vec<DomainRecord> = api.store.domains(app.id).await?;
    let all = api.certs.list(app.id).await?;
    let all = all
        .iter()
        .map(|one| convert::sni_endpoint(&app, one, &domains));
    range::list(&headers, &["name", "id"], &all.collect::<Vec<_>>())
}

pub(super) async fn show(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let certificate = api.certs.find(app.id, &key).await?;
    reply::ok(&shown(&api, &app, &certificate).await?)
}

pub(super) async fn create(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Body(body): Body<types::SniEndpointWrite>,
) -> Answer {
    let hosts = hosts(&api, &app).await?;
    let (chain, key) = (&body.certificate_chain, &body.private_key);
    let certificate = api
        .certs
        .add(app.id, &hosts, chain, key, Kind::Given)
        .await?;
    let name = &certificate.record.name;
    let line = format!("Add {name} certificate by user {}", caller.email);
    api.hub.api(app.id, line);
    reply::created(&shown(&api, &app, &certificate).await?)
}

pub(super) async fn update(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Key(key): Key,
    Body(body): Body<types::SniEndpointWrite>,
) -> Answer {
    let old = given(&api, &app, &key).await?;
    let hosts = hosts(&api, &app).await?;
    let (chain, key) = (&body.certificate_chain, &body.private_key);
    let certificate = api.certs.update(&old.record, &hosts, chain, key).await?;
    let name = &certificate.record.name;
    let line = format!("Update {name} certificate by user {}", caller.email);
    api.hub.api(app.id, line);
    reply::ok(&shown(&api, &app, &certificate).await?)
}

pub(super) async fn destroy(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Key(key): Key,
) -> Answer {
    let old = given(&api, &app, &key).await?;
    api.certs.remove(&old.record).await?;
    let name = &old.record.name;
    let line = format!("Remove {name} certificate by user {}", caller.email);
    api.hub.api(app.id, line);
    reply::ok(&shown(&api, &app, &old).await?)
}

/// A certificate that people may change.
async fn given(api: &Api, app: &AppRecord, key: &str) -> Result<Certificate, ApiError> {
    let certificate = api.certs.find(app.id, key).await?;
    if certificate.record.hostname.is_some() {
        return Err(ApiError::invalid(format!(
            "{} is kept by automatic certificates: switch them off first (`manifold certs:auto:disable`).",
            certificate.record.name
        )));
    }
    Ok(certificate)
}

async fn switch(api: &Api, app: &AppRecord, caller: &Caller, is_on: bool) -> Answer {
    if api.store.set_auto_certificates(app.id, is_on).await? {
        let verb = if is_on { "Enable" } else { "Disable" };
        let line = format!("{verb} automatic certificates by user {}", caller.email);
        api.hub.api(app.id, line);
        api.certs.wake();
    }
    reply::ok(&convert::app(&api.settings, &whole(api, app.id).await?))
}

pub(super) async fn enable(State(api): State<Api>, App(app): App, caller: Caller) -> Answer {
    if api.settings.https.is_empty() {
        return Err(ApiError::invalid(NO_TLS));
    }
    switch(&api, &app, &caller, true).await
}

/// Said wherever TLS is asked for that is not served.
pub(super) const NO_TLS: &str = "The router does not serve HTTPS: set `https = [\"0.0.0.0:443\"]` in /etc/manifold/manifold.toml (or --https) and restart the supervisor.";

pub(super) async fn disable(State(api): State<Api>, App(app): App, caller: Caller) -> Answer {
    switch(&api, &app, &caller, false).await
}

pub(super) async fn refresh(
    State(api): State<Api>,
    App(app): App,
    Body(body): Body<types::AcmUpdate>,
) -> Answer {
    if !api.store.has_auto_certificates(app.id).await? {
        return Err(ApiError::invalid(
            "Automatic certificates are off: switch them on with `manifold certs:auto:enable`.",
        ));
    }
    if body.acm_refresh {
        api.store.refresh_auto_domains(app.id).await?;
        api.certs.wake();
    }
    reply::ok(&convert::app(&api.settings, &whole(&api, app.id).await?))
}

pub(super) async fn authority(State(api): State<Api>) -> Answer {
    let certificate = api.certs.ca_pem().to_owned();
    reply::ok(&types::LocalAuthority { certificate })
}
