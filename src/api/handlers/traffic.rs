//! `/traffic`, `/apps/A/traffic`, and `/metrics` for Prometheus.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse as _;

use crate::api::error::ApiError;
use crate::api::extract::App;
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::{prometheus, types};
use crate::supervisor::{AppView, DynoView, Usages};
use crate::traffic::{CLASSES, Distribution, Report};

pub(super) async fn list(State(api): State<Api>) -> Answer {
    let snapshot = api.supervisor.snapshot();
    let usages = api.supervisor.usages();
    let apps = snapshot.apps.values().map(|view| shown(view, &usages));
    let mut apps: Vec<_> = apps.collect();
    apps.sort_by(|a, b| a.app.name.cmp(&b.app.name));
    reply::ok(&apps)
}

pub(super) async fn show(State(api): State<Api>, App(app): App) -> Answer {
    let snapshot = api.supervisor.snapshot();
    let view = snapshot.apps.get(&app.id);
    let view = view.ok_or_else(|| ApiError::not_found("app"))?;
    reply::ok(&shown(view, &api.supervisor.usages()))
}

/// Text format 0.0.4.
pub(super) async fn metrics(State(api): State<Api>) -> Answer {
    let text = prometheus::text(&api.supervisor.snapshot(), &api.supervisor.usages());
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4")];
    Ok((kind, text).into_response())
}

fn shown(view: &AppView, usages: &Usages) -> types::AppTraffic {
    let routing = view.spec.routing;
    let config = view.spec.release.as_ref().map(|release| &release.config);
    let (recent, span) = view.traffic.recent(Instant::now());
    let web = view.dynos.iter().filter(|dyno| dyno.port.is_some());
    let in_flight = web.clone().map(|d| u64::from(d.traffic.gate.in_flight()));
    types::AppTraffic {
        app: types::Named {
            id: view.spec.id.0,
            name: view.spec.name.to_string(),
        },
        policy: routing.policy.to_string(),
        limit: routing.limit(config).map(NonZeroU32::get),
        waiting: view.traffic.waiting() as u64,
        in_flight: in_flight.sum(),
        recent: traffic(&recent, span),
        total: traffic(&view.traffic.counters.report(), Duration::ZERO),
        dynos: web.map(|view| dyno(view, usages)).collect(),
    }
}

fn dyno(view: &DynoView, usages: &Usages) -> types::DynoTraffic {
    types::DynoTraffic {
        id: view.id.0,
        name: view.name.to_string(),
        state: if view.is_stopping {
            "stopping".to_owned()
        } else {
            view.state.to_string()
        },
        release: view.release.1.0,
        in_flight: view.traffic.gate.in_flight(),
        total: traffic(&view.traffic.counters.report(), Duration::ZERO),
        usage: usages.get(&view.id).map(|usage| types::DynoUsage {
            memory_bytes: usage.sample.memory.total(),
            quota_bytes: usage.quota_bytes,
            load: usage.load[0],
        }),
    }
}

fn traffic(report: &Report, span: Duration) -> types::Traffic {
    let classes = CLASSES.iter().zip(report.classes);
    let classes = classes.map(|(class, count)| ((*class).to_owned(), count));
    let errors = report.codes.iter();
    types::Traffic {
        seconds: span.as_secs_f64(),
        requests: report.requests(),
        classes: classes.collect(),
        errors: errors.map(|(code, n)| ((*code).to_owned(), *n)).collect(),
        queue: times(&report.queue),
        connect: times(&report.connect),
        service: times(&report.service),
    }
}

fn times(all: &Distribution) -> types::Times {
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    types::Times {
        count: all.count,
        mean: milliseconds(all.mean()),
        p50: milliseconds(all.quantile(0.5)),
        p95: milliseconds(all.quantile(0.95)),
        p99: milliseconds(all.quantile(0.99)),
    }
}
