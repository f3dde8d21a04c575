//! `/apps/A/formation`.

use axum::extract::State;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key, Whole, whole};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{convert, range, types};
use crate::model::{AppId, DynoSize, ProcessType};
use crate::release;
use crate::store::{AppState, Scale, StoreError};

type Change = (ProcessType, Option<Scale>, Option<DynoSize>);

fn all(state: &AppState) -> Vec<types::Formation> {
    let records = state.formation.iter();
    records
        .map(|record| convert::formation(state, record))
        .collect()
}

pub(super) async fn list(Whole(state): Whole, headers: HeaderMap) -> Answer {
    range::list(&headers, &["type", "id"], &all(&state))
}

pub(super) async fn show(Whole(state): Whole, Key(key): Key) -> Answer {
    let process = process_of(&state, &key)?;
    let mut entries = all(&state).into_iter();
    let found = entries.find(|entry| entry.process == process.as_str());
    reply::ok(&found.ok_or(StoreError::UnknownProcess(process))?)
}

/// By type or id.
fn process_of(state: &AppState, key: &str) -> Result<ProcessType, ApiError> {
    let mut entries = all(state).into_iter();
    match entries.find(|entry| entry.id.to_string() == key) {
        Some(entry) => Ok(entry.process.parse()?),
        None => Ok(key.parse()?),
    }
}

pub(super) async fn batch(
    State(api): State<Api>,
    App(app): App,
    caller: Caller,
    Body(body): Body<types::FormationBatch>,
) -> Answer {
    let changes = body.updates.into_iter().map(|update| {
        let quantity = update.quantity.as_ref().map(scale).transpose()?;
        let size = update.size.as_deref().map(DynoSize::find).transpose()?;
        Ok((update.process.parse()?, quantity, size))
    });
    let wanted = changes.collect::<Result<Vec<Change>, ApiError>>()?;
    reply::ok(&apply(&api, app.id, &caller, wanted).await?)
}

/// Body of a PATCH of one entry.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Update {
    quantity: Option<Value>,
    size: Option<String>,
}

pub(super) async fn update(
    State(api): State<Api>,
    Whole(state): Whole,
    caller: Caller,
    Key(key): Key,
    Body(body): Body<Update>,
) -> Answer {
    let quantity = body.quantity.as_ref().map(scale).transpose()?;
    let size = body.size.as_deref().map(DynoSize::find).transpose()?;
    let change = (process_of(&state, &key)?, quantity, size);
    let mut entries = apply(&api, state.app.id, &caller, vec![change]).await?;
    reply::ok(&entries.remove(0))
}

/// All or nothing; answers with the entries that were asked for.
async fn apply(
    api: &Api,
    app: AppId,
    caller: &Caller,
    changes: Vec<Change>,
) -> Result<Vec<types::Formation>, ApiError> {
    let scaled = api.store.scale(app, changes).await?;
    if !scaled.is_empty() {
        let line = release::formation_line(&scaled, &caller.email);
        api.hub.api(app, line);
        api.releases.publish(app).await?;
    }
    let state = whole(api, app).await?;
    let entries = scaled
        .iter()
        .map(|record| convert::formation(&state, record));
    Ok(entries.collect())
}

/// `2`, `"2"`, `"+1"`, `"-1"`.
fn scale(value: &Value) -> Result<Scale, ApiError> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) if number.is_u64() => number.to_string(),
        other => other.to_string(),
    };
    let digits = text.strip_prefix(['+', '-']).unwrap_or(&text);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let is_relative = digits.len() < text.len() && value.is_string();
    let parsed = match (is_number, is_relative) {
        (true, true) => text.parse().ok().map(Scale::By),
        (true, false) => text.parse().ok().map(Scale::To),
        (false, _) => None,
    };
    parsed.ok_or_else(|| {
        ApiError::invalid(format!(
            "`{text}` is not a quantity: give a number from 0, or a change like +1 or -1"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_come_as_numbers_texts_and_changes() {
        let check = |value: Value, expected: Option<Scale>| {
            assert_eq!(scale(&value).ok(), expected, "{value}");
        };
        check(Value::from(2), Some(Scale::To(2)));
        check(Value::from("2"), Some(Scale::To(2)));
        check(Value::from("+1"), Some(Scale::By(1)));
        check(Value::from("-1"), Some(Scale::By(-1)));
        check(Value::from(-1), None);
        check(Value::from(1.5), None);
        check(Value::from("1e3"), None);
        check(Value::from("++1"), None);
        check(Value::from(""), None);
        check(Value::from("99999999999"), None);
        check(Value::Null, None);
    }
}
