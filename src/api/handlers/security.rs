//! `/apps/A/security/TYPE`.

use axum::extract::State;

use crate::api::extract::{App, Key};
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{convert, security, types};
use crate::model::ProcessType;

pub(super) async fn show(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let process: ProcessType = key.parse()?;
    let sketch = api.supervisor.sketch(app.id, &process).await?;
    let rules = api.store.network_rules(app.id).await?;
    let rules = rules.iter().map(|rule| convert::network_rule(&app, rule));
    let named = types::Named {
        id: app.id.0,
        name: app.name.to_string(),
    };
    let told = security::security(named, process.as_str(), &sketch, rules.collect());
    reply::ok(&told)
}
