//! `/attach/SECRET`: the client of an attached one-off comes.

use axum::extract::{Request, State};
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
    if !super::asks_for_upgrade(request.headers(), PROTOCOL) {
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
    super::switch_to(PROTOCOL)
}
