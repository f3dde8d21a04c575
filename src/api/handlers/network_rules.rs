//! `/apps/A/network-rules`.

use axum::extract::State;
use axum::http::HeaderMap;

use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{convert, range, types};

pub(super) async fn list(State(api): State<Api>, App(app): App, headers: HeaderMap) -> Answer {
    let rules = api.store.network_rules(app.id).await?;
    let rules: Vec<types::NetworkRule> = rules
        .iter()
        .map(|rule| convert::network_rule(&app, rule))
        .collect();
    range::list(&headers, &["target", "id"], &rules)
}

pub(super) async fn show(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let rules = api.store.network_rules(app.id).await?;
    let found = rules.iter().find(|rule| rule.is_named(&key));
    let found = found.ok_or_else(|| ApiError::not_found("network rule"))?;
    reply::ok(&convert::network_rule(&app, found))
}

pub(super) async fn create(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Body(body): Body<types::NetworkRuleCreate>,
) -> Answer {
    let target = body.target.parse()?;
    let rule = api
        .store
        .add_network_rule(app.id, target, caller.email.clone())
        .await?;
    let line = format!("Allow network to {} by user {}", rule.target, caller.email);
    api.hub.api(app.id, line);
    api.releases.publish(app.id).await?;
    reply::created(&convert::network_rule(&app, &rule))
}

pub(super) async fn destroy(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Key(key): Key,
) -> Answer {
    let rule = api.store.remove_network_rule(app.id, &key).await?;
    let line = format!("Deny network to {} by user {}", rule.target, caller.email);
    api.hub.api(app.id, line);
    api.releases.publish(app.id).await?;
    reply::ok(&convert::network_rule(&app, &rule))
}
