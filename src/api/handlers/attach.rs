//! `/attach/SECRET`: the client of an attached one-off comes.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;

use crate::api::attach;
use crate::api::error::ApiError;
use crate::api::extract::Key;
use crate::api::reply::Answer;
use crate::api::state::Api;
use crate::api::types::attach::PROTOCOL;

pub(super) async fn upgrade(
    State(api): State<Api>,
    Key(secret): Key,
    mut request: Request,
) -> Answer {
    if !asks_for_upgrade(request.headers()) {
        return Err(ApiError::bad_request(format!(
            "Send `Connection: Upgrade` and `Upgrade: {PROTOCOL}` here."
        )));
    }
    let waiting = api.attaches.take(&secret);
    let waiting = waiting.ok_or_else(|| ApiError::not_found("attached dyno"))?;
    let upgrade = hyper::upgrade::on(&mut request);
    let supervisor = api.supervisor.clone();
    api.tasks.spawn(async move {
        match upgrade.await {
            Ok(stream) => attach::serve(supervisor, waiting, TokioIo::new(stream)).await,
            Err(error) => {
                tracing::debug!(dyno = %waiting.name, %error, "client gone before the upgrade");
                attach::give_up(&supervisor, waiting).await;
            }
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, PROTOCOL)
        .body(Body::empty())
        .map_err(|error| ApiError::internal("answer the upgrade", &error))
}

fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let connection = text(header::CONNECTION).unwrap_or_default();
    let has_upgrade = connection
        .split(',')
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    has_upgrade && text(header::UPGRADE).is_some_and(|name| name.eq_ignore_ascii_case(PROTOCOL))
}
