//! One file per resource.

mod account;
mod apps;
mod attach;
mod authorizations;
mod buildpacks;
mod builds;
mod catalog;
mod certs;
mod changes;
mod config_vars;
mod disk;
mod domains;
mod dynos;
mod extras;
mod features;
mod formation;
mod git;
mod host;
mod logs;
mod network_rules;
mod releases;
mod routing;
mod security;
mod slugs;
mod sources;
mod traffic;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use axum::routing::{any, delete, get, post, put};

use super::error::ApiError;
use super::reply::Answer;
use super::state::Api;

/// `Connection: Upgrade` and `Upgrade: PROTOCOL`.
fn asks_for_upgrade(headers: &HeaderMap, protocol: &str) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let connection = text(header::CONNECTION).unwrap_or_default();
    let has_upgrade = connection
        .split(',')
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    has_upgrade && text(header::UPGRADE).is_some_and(|name| name.eq_ignore_ascii_case(protocol))
}

/// 101: the connection speaks `protocol` from here on.
fn switch_to(protocol: &'static str) -> Answer {
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, protocol)
        .body(Body::empty())
        .map_err(|error| ApiError::internal("answer the upgrade", &error))
}

/// Every endpoint.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .merge(app_routes())
        .merge(catalog_routes())
        .merge(byte_routes())
        .merge(git_routes())
}

fn app_routes() -> Router<Api> {
    Router::new()
        .route("/apps", get(apps::list).post(apps::create))
        .route("/users/~/apps", get(apps::list))
        .route(
            "/apps/{app}",
            get(apps::show).patch(apps::update).delete(apps::destroy),
        )
        .route(
            "/apps/{app}/dynos",
            get(dynos::list)
                .post(dynos::create)
                .delete(dynos::restart_all),
        )
        .route(
            "/apps/{app}/dynos/{key}",
            get(dynos::show).delete(dynos::restart),
        )
        .route("/apps/{app}/dynos/{key}/actions/stop", post(dynos::stop))
        .route("/apps/{app}/dynos/{key}/changes", get(changes::show))
        .route("/apps/{app}/formations/{key}", delete(dynos::restart_type))
        .route(
            "/apps/{app}/formations/{key}/actions/stop",
            post(dynos::stop_type),
        )
        .route(
            "/apps/{app}/formation",
            get(formation::list).patch(formation::batch),
        )
        .route(
            "/apps/{app}/formation/{key}",
            get(formation::show).patch(formation::update),
        )
        .route(
            "/apps/{app}/config-vars",
            get(config_vars::show).patch(config_vars::update),
        )
        .route(
            "/apps/{app}/releases",
            get(releases::list).post(releases::create),
        )
        .route("/apps/{app}/actions/upgrade-stack", post(catalog::upgrade))
        .route("/apps/{app}/releases/{key}", get(releases::show))
        .route(
            "/apps/{app}/releases/{key}/config-vars",
            get(releases::config_vars),
        )
        .route("/apps/{app}/builds", get(builds::list).post(builds::create))
        .route("/apps/{app}/builds/{key}", get(builds::show))
        .route("/apps/{app}/build-cache", delete(builds::purge_cache))
        .route("/apps/{app}/slugs", post(slugs::create))
        .route("/apps/{app}/slugs/{key}", get(slugs::show))
        .route("/apps/{app}/log-sessions", post(logs::create))
        .route(
            "/apps/{app}/domains",
            get(domains::list).post(domains::create),
        )
        .route(
            "/apps/{app}/domains/{key}",
            get(domains::show).delete(domains::destroy),
        )
        .route(
            "/apps/{app}/network-rules",
            get(network_rules::list).post(network_rules::create),
        )
        .route(
            "/apps/{app}/network-rules/{key}",
            get(network_rules::show).delete(network_rules::destroy),
        )
        .route("/apps/{app}/security/{key}", get(security::show))
        .route("/apps/{app}/collaborators", get(extras::collaborators))
        .route("/traffic", get(traffic::list))
        .route("/metrics", get(traffic::metrics))
        .route("/apps/{app}/traffic", get(traffic::show))
        .route(
            "/apps/{app}/routing",
            get(routing::show).patch(routing::update),
        )
        .route("/apps/{app}/features", get(features::list))
        .route(
            "/apps/{app}/features/{key}",
            get(features::show).patch(features::update),
        )
        .route("/apps/{app}/addons", get(extras::none_of_app))
        .route("/apps/{app}/addon-attachments", get(extras::none_of_app))
        .route(
            "/apps/{app}/buildpack-installations",
            get(buildpacks::list).put(buildpacks::update),
        )
        .route("/apps/{app}/log-drains", get(extras::none_of_app))
        .route(
            "/apps/{app}/sni-endpoints",
            get(certs::list).post(certs::create),
        )
        .route(
            "/apps/{app}/sni-endpoints/{key}",
            get(certs::show).patch(certs::update).delete(certs::destroy),
        )
        .route(
            "/apps/{app}/acm",
            post(certs::enable)
                .patch(certs::refresh)
                .delete(certs::disable),
        )
        .route("/apps/{app}/webhooks", get(extras::none_of_app))
}

fn catalog_routes() -> Router<Api> {
    Router::new()
        .route("/disk", get(disk::show))
        .route("/disk/actions/prune", post(disk::prune))
        .route("/host", get(host::show))
        .route("/host/actions/upgrade", post(host::upgrade))
        .route("/account", get(account::show))
        .route("/users/~", get(account::show))
        .route(
            "/oauth/authorizations",
            get(authorizations::list).post(authorizations::create),
        )
        .route(
            "/oauth/authorizations/{key}",
            get(authorizations::show).delete(authorizations::destroy),
        )
        .route("/local-authority", get(certs::authority))
        .route("/account/rate-limits", get(account::rate_limits))
        .route("/account/features", get(extras::none))
        .route("/account/keys", get(extras::none))
        .route("/addons", get(extras::none))
        .route("/addon-attachments", get(extras::none))
        .route("/addon-services", get(extras::none))
        .route("/pipelines", get(extras::none))
        .route("/spaces", get(extras::none))
        .route("/teams", get(extras::none))
        .route("/stacks", get(catalog::stacks))
        .route("/stacks/{key}", get(catalog::stack))
        .route("/regions", get(catalog::regions))
        .route("/regions/{key}", get(catalog::region))
        .route("/dyno-sizes", get(catalog::sizes))
        .route("/dyno-sizes/{key}", get(catalog::size))
}

fn byte_routes() -> Router<Api> {
    Router::new()
        .route("/sources", post(sources::create))
        .route("/apps/{app}/sources", post(sources::create))
        .route("/sources/{key}", put(sources::fill).get(sources::fetch))
        .route("/slugs/{key}/blob", put(slugs::fill).get(slugs::fetch))
        .route("/builds/{key}/output", get(builds::output))
        .route("/logs/{key}", get(logs::stream))
        .route("/attach/{key}", any(attach::upgrade))
}

/// Not of the Platform API: gitprotocol-http(5), and the same over one upgraded connection.
fn git_routes() -> Router<Api> {
    Router::new()
        .route("/apps/{app}/git/{key}", any(git::connect))
        .route("/{repository}/info/refs", get(git::advertise))
        .route("/{repository}/git-receive-pack", post(git::receive_pack))
        .route("/{repository}/git-upload-pack", post(git::upload_pack))
}
