//! `/apps/A/domains`.

use axum::extract::State;
use axum::http::HeaderMap;

use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{convert, range, types};
use crate::model::Hostname;
use crate::store::{AppRecord, AutoRecord};

async fn all(api: &Api, app: &AppRecord) -> Result<Vec<types::Domain>, ApiError> {
    let custom = api.store.domains(app.id).await?;
    let auto = api.store.auto_domains().await?;
    let custom = custom.iter().map(|record| {
        let mine = |one: &&AutoRecord| one.app == app.id && one.hostname == record.hostname;
        let mut domain = convert::domain(&api.settings, app, record);
        convert::set_acm(&mut domain, auto.iter().find(mine));
        domain
    });
    let default = convert::default_domain(&api.settings, app);
    Ok(std::iter::once(default).chain(custom).collect())
}

pub(super) async fn list(State(api): State<Api>, App(app): App, headers: HeaderMap) -> Answer {
    let domains = all(&api, &app).await?;
    range::list(&headers, &["hostname", "id"], &domains)
}

pub(super) async fn show(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let domains = all(&api, &app).await?;
    let key = key.to_ascii_lowercase();
    let found = domains
        .into_iter()
        .find(|domain| domain.hostname == key || domain.id.to_string() == key);
    reply::ok(&found.ok_or_else(|| ApiError::not_found("domain"))?)
}

pub(super) async fn create(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Body(body): Body<types::DomainCreate>,
) -> Answer {
    let hostname: Hostname = body.hostname.parse()?;
    if is_platforms_own(&api, &hostname) {
        return Err(ApiError::invalid(format!(
            "{hostname} belongs to the platform: every app answers at NAME.{} by itself.",
            api.settings.domain
        )));
    }
    let record = api.store.add_domain(app.id, hostname).await?;
    let line = format!("Add {} domain by user {}", record.hostname, caller.email);
    api.hub.api(app.id, line);
    api.releases.publish(app.id).await?;
    api.certs.wake();
    reply::created(&convert::domain(&api.settings, &app, &record))
}

/// The platform's domain itself and all names right below it, which are apps.
fn is_platforms_own(api: &Api, hostname: &Hostname) -> bool {
    let own = api.settings.domain.as_str();
    let name = hostname.as_str();
    name == own || name.split_once('.').is_some_and(|(_, base)| base == own)
}

pub(super) async fn destroy(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Key(key): Key,
) -> Answer {
    if key == api.settings.default_hostname(&app.name).as_str() {
        return Err(ApiError::invalid(
            "The default name of an app cannot be removed.",
        ));
    }
    let record = api.store.remove_domain(app.id, &key).await?;
    let line = format!("Remove {} domain by user {}", record.hostname, caller.email);
    api.hub.api(app.id, line);
    api.releases.publish(app.id).await?;
    api.certs.wake();
    reply::ok(&convert::domain(&api.settings, &app, &record))
}
