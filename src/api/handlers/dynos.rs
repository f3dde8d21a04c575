//! `/apps/A/dynos`, and restart and stop of types.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::Value;

use crate::api::attach::{self, Waiting};
use crate::api::error::ApiError;
use crate::api::extract::{App, Body, Key, Whole};
use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{convert, range, types};
use crate::model::{AppId, COMMAND_BYTES_MAX, DynoName, DynoSize, ProcessType, TOTAL_BYTES_MAX};
use crate::store::{AppRecord, AppState};
use crate::supervisor::{DynoView, Part, RunKind, RunOrder, Selector, StdioOrder, WindowSize};

/// Longest `time_to_live`: one-offs are cycled after a day (and up to 216 min more).
/// Source: Dev Center, "Automatic Dyno Restarts".
const TTL_MAX_SECONDS: u64 = 24 * 3600;

/// Dynos that people see: no builds, none that is on its way out.
fn views(api: &Api, app: AppId) -> Vec<Arc<DynoView>> {
    let snapshot = api.supervisor.snapshot();
    let dynos = snapshot.apps.get(&app).map(|view| view.dynos.as_slice());
    let shown = dynos.unwrap_or_default().iter();
    shown
        .filter(|dyno| !dyno.is_build && !dyno.is_stopping && dyno.part != Part::Predecessor)
        .cloned()
        .collect()
}

pub(super) async fn list(State(api): State<Api>, App(app): App, headers: HeaderMap) -> Answer {
    let views = views(&api, app.id);
    let dynos = views.iter().map(|view| convert::dyno(&app, view, None));
    let dynos: Vec<types::Dyno> = dynos.collect();
    if headers
        .get("range")
        .is_none_or(axum::http::HeaderValue::is_empty)
    {
        // As published: web.2 before web.10.
        return reply::ok(&dynos);
    }
    range::list(&headers, &["name", "id"], &dynos)
}

pub(super) async fn show(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let view = find(&api, app.id, &key)?;
    reply::ok(&convert::dyno(&app, &view, None))
}

/// By id or name.
pub(super) fn find(api: &Api, app: AppId, key: &str) -> Result<Arc<DynoView>, ApiError> {
    let mut views = views(api, app).into_iter();
    let found = views.find(|view| view.name.to_string() == key || view.id.to_string() == key);
    found.ok_or_else(|| crate::supervisor::CommandError::UnknownDyno(key.to_owned()).into())
}

pub(super) async fn restart_all(State(api): State<Api>, App(app): App) -> Answer {
    api.supervisor.restart(app.id, Selector::All).await?;
    reply::accepted()
}

/// A dyno, or (as older clients do) a type.
pub(super) async fn restart(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let which = selector(&api, &app, &key).await?;
    api.supervisor.restart(app.id, which).await?;
    reply::accepted()
}

pub(super) async fn stop(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let which = selector(&api, &app, &key).await?;
    api.supervisor.stop(app.id, which).await?;
    reply::accepted()
}

pub(super) async fn restart_type(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let which = process_selector(&api, &app, &key).await?;
    api.supervisor.restart(app.id, which).await?;
    reply::accepted()
}

pub(super) async fn stop_type(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let which = process_selector(&api, &app, &key).await?;
    api.supervisor.stop(app.id, which).await?;
    reply::accepted()
}

async fn selector(api: &Api, app: &AppRecord, key: &str) -> Result<Selector, ApiError> {
    if key.parse::<DynoName>().is_ok() || key.parse::<crate::model::DynoId>().is_ok() {
        return Ok(Selector::Dyno(find(api, app.id, key)?.name.clone()));
    }
    process_selector(api, app, key).await
}

async fn process_selector(api: &Api, app: &AppRecord, key: &str) -> Result<Selector, ApiError> {
    let process: ProcessType = key.parse()?;
    let formation = api.store.formation(app.id).await?;
    let is_declared = formation.iter().any(|record| record.process == process);
    let lives = views(api, app.id)
        .iter()
        .any(|view| view.name.process == process);
    if is_declared || lives {
        return Ok(Selector::Process(process));
    }
    Err(crate::store::StoreError::UnknownProcess(process).into())
}

pub(super) async fn create(
    State(api): State<Api>,
    Whole(state): Whole,
    caller: Caller,
    Body(body): Body<types::DynoCreate>,
) -> Answer {
    if api.stop.is_cancelled() {
        return Err(ApiError::stopping());
    }
    let (order, is_attached) = order(&state, body)?;
    if is_attached {
        api.attaches.check_room()?;
    }
    let started = api.supervisor.run(order, &caller.email).await?;
    let view = started.dyno;
    let attach_url = is_attached.then(|| {
        let waiting = Waiting {
            app: state.app.id,
            dyno: view.id,
            name: view.name.clone(),
        };
        attach::offer(&api, waiting)
    });
    reply::created(&convert::dyno(&state.app, &view, attach_url))
}

fn order(state: &AppState, body: types::DynoCreate) -> Result<(RunOrder, bool), ApiError> {
    let slug = state.slug.as_ref().ok_or_else(|| {
        ApiError::invalid(
            "The app has nothing to run yet. Deploy it first, e.g. with `manifold deploy`.",
        )
    })?;
    if body.command.trim().is_empty() || body.command.contains('\0') {
        return Err(ApiError::invalid("command must be a text to run"));
    }
    if body.command.len() > COMMAND_BYTES_MAX {
        return Err(ApiError::invalid(format!(
            "command is longer than {COMMAND_BYTES_MAX} bytes: put it into a script of the app"
        )));
    }
    let ttl = body.time_to_live;
    if ttl.is_some_and(|seconds| !(1..=TTL_MAX_SECONDS).contains(&seconds)) {
        return Err(ApiError::invalid(format!(
            "time_to_live is given in seconds, 1 to {TTL_MAX_SECONDS}"
        )));
    }
    let process: ProcessType = match &body.process {
        Some(process) => process.parse()?,
        None => ProcessType::run(),
    };
    let in_formation = |record: &crate::store::FormationRecord| record.process == process;
    if state.formation.iter().any(in_formation) {
        return Err(ApiError::invalid(format!(
            "type {process} is one of the app's process types; one-off dynos need another, such as `run`"
        )));
    }
    let size = body.size.as_deref().map(DynoSize::find).transpose()?;
    let mut env = environment(body.env)?;
    if env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() > TOTAL_BYTES_MAX {
        return Err(ApiError::invalid(format!(
            "env takes more than {TOTAL_BYTES_MAX} bytes: pass a file or a config var instead"
        )));
    }
    let window = WindowSize {
        columns: take_number(&mut env, "COLUMNS"),
        rows: take_number(&mut env, "LINES"),
    };
    let kind = match (body.attach, body.force_no_tty) {
        (false, _) => RunKind::Detached { release: None },
        (true, Some(true)) => RunKind::Attached {
            stdio: StdioOrder::Pipes,
        },
        (true, _) => RunKind::Attached {
            stdio: StdioOrder::Terminal(window),
        },
    };
    let order = RunOrder {
        app: state.app.id,
        kind,
        process,
        command: substitute(&body.command, &slug.processes),
        env,
        size: size.unwrap_or_default(),
        time_to_live: ttl.map(Duration::from_secs),
    };
    Ok((order, body.attach))
}

/// If the first word is a process type, its command takes the word's place.
/// Source: Dev Center, "One-Off Dynos".
fn substitute(command: &str, processes: &BTreeMap<ProcessType, String>) -> String {
    let trimmed = command.trim_start();
    let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
    let (first, rest) = trimmed.split_at(end);
    let declared = first.parse().ok();
    match declared.and_then(|process: ProcessType| processes.get(&process)) {
        Some(own) => format!("{own}{rest}"),
        None => command.to_owned(),
    }
}

/// Values are text; numbers and booleans count as their text.
fn environment(env: BTreeMap<String, Value>) -> Result<BTreeMap<String, String>, ApiError> {
    env.into_iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| {
            if key.is_empty() || key.contains(['=', '\0']) {
                return Err(ApiError::invalid(format!(
                    "`{key}` cannot be the name of an environment variable"
                )));
            }
            let text = match value {
                Value::String(text) if !text.contains('\0') => text,
                Value::Number(number) => number.to_string(),
                Value::Bool(flag) => flag.to_string(),
                _ => {
                    let message = format!("The value of {key} must be text without NUL bytes.");
                    return Err(ApiError::invalid(message));
                }
            };
            Ok((key, text))
        })
        .collect()
}

/// The window's size goes to the terminal, not into the environment, where it would go stale with
/// the first change.
fn take_number(env: &mut BTreeMap<String, String>, key: &str) -> u16 {
    let text = env.remove(key);
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_type_stands_for_its_command() {
        let processes = BTreeMap::from([
            ("worker".parse().expect("a type"), "./w --queue".to_owned()),
            ("web".parse().expect("a type"), "serve $PORT".to_owned()),
        ]);
        let check = |command: &str, expected: &str| {
            assert_eq!(substitute(command, &processes), expected, "{command:?}");
        };
        check("worker 42", "./w --queue 42");
        check("worker", "./w --queue");
        check("  worker  'a b'", "./w --queue  'a b'");
        check("worker; ls", "worker; ls");
        check("./worker 42", "./worker 42");
        check("bash -c 'worker'", "bash -c 'worker'");
    }

    #[test]
    fn numbers_are_fine_in_the_environment_and_lists_are_not() {
        let env = |value: Value| environment(BTreeMap::from([("A".to_owned(), value)]));
        let text = |value| env(value).expect("an environment")["A"].clone();
        assert_eq!(text(Value::from(80)), "80");
        assert_eq!(text(Value::from("x=y")), "x=y");
        assert!(env(Value::from(vec![1])).is_err());
        assert!(env(Value::from("\0")).is_err());
    }
}
