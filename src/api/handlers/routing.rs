//! `/apps/A/routing`.

use std::num::NonZeroU32;

use axum::extract::State;

use crate::api::extract::{Body, Whole, whole};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{convert, types};
use crate::model::Routing;
use crate::release::routing_of;
use crate::store::{AppChange, AppState};

fn shown(state: &AppState) -> types::Routing {
    let routing = routing_of(state);
    let limit = routing.limit(Some(&state.release.config));
    types::Routing {
        app: convert::app_name(&state.app),
        policy: routing.policy.to_string(),
        concurrency: routing.concurrency.map(NonZeroU32::get),
        limit: limit.map(NonZeroU32::get),
    }
}

pub(super) async fn show(Whole(state): Whole) -> Answer {
    reply::ok(&shown(&state))
}

pub(super) async fn update(
    State(api): State<Api>,
    Whole(state): Whole,
    caller: Caller,
    Body(body): Body<types::RoutingUpdate>,
) -> Answer {
    let policy = body.policy.as_deref().map(str::parse).transpose()?;
    let (app, before) = (&state.app, routing_of(&state));
    let as_it_is = before.concurrency.map(NonZeroU32::get);
    let routing = Routing::new(
        policy.unwrap_or(before.policy),
        body.concurrency.unwrap_or(as_it_is),
    )?;
    let change = AppChange {
        routing: Some(routing),
        ..AppChange::default()
    };
    let changed = api.store.update_app(app.id, change).await?;
    if changed.routing != before {
        let limit = match routing.concurrency {
            Some(limit) => format!(", concurrency {limit}"),
            None => String::new(),
        };
        let line = format!(
            "Routing set to {}{limit} by user {}",
            routing.policy, caller.email
        );
        api.hub.api(app.id, line);
    }
    api.releases.publish(app.id).await?;
    reply::ok(&shown(&whole(&api, app.id).await?))
}
