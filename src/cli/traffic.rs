//! Requests: `metrics` once, `top` again and again.

use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::arguments::Json;
use super::client::Client;
use super::exit::{Done, Fault};
use super::output::{Paint, Screen, bytes, columns, pairs};
use super::path::of_app;
use super::terminal::{self, Raw};
use crate::api::types::{AppTraffic, Times, Traffic};

/// Between two looks.
const REFRESH: Duration = Duration::from_secs(1);

/// `metrics`.
pub(super) async fn metrics(client: &Client, screen: &mut Screen, app: &str, json: Json) -> Done {
    let traffic: AppTraffic = client.get(&of_app(app, "/traffic")).await?;
    if json.is_on {
        return screen.json(&traffic);
    }
    let text = page(screen.paint, &traffic);
    screen.data(&text)
}

/// `top`: live in a terminal, else once.
pub(super) async fn top(client: &Client, screen: &mut Screen, app: Option<&str>) -> Done {
    let look = async || -> Done<Vec<AppTraffic>> {
        match app {
            Some(app) => Ok(vec![client.get(&of_app(app, "/traffic")).await?]),
            None => client.get("/traffic").await,
        }
    };
    if !terminal::is_interactive() {
        let text = table(screen.paint, &look().await?);
        return screen.data(&text);
    }
    let _raw = Raw::enter().map_err(|error| Fault::general(format!("no terminal: {error}")))?;
    let mut keys = tokio::io::stdin();
    loop {
        let text = match look().await {
            Ok(apps) => table(screen.paint, &apps),
            Err(fault) => {
                screen.data("\r\n")?;
                return Err(fault);
            }
        };
        screen.data(&frame(&text, terminal::size()))?;
        let mut key = [0];
        match timeout(REFRESH, keys.read(&mut key)).await {
            // Raw mode: Ctrl-C and Ctrl-D are keys.
            Ok(Ok(0)) => break,
            Ok(Ok(_)) if matches!(key[0], b'q' | b'Q' | 3 | 4) => break,
            Ok(Err(error)) => return Err(Fault::general(format!("no key was read: {error}"))),
            Ok(Ok(_)) | Err(_) => {}
        }
    }
    screen.data("\r\n")
}

/// The text from the top left corner, each line cleared to its end, then all below: a plain
/// refresh that neither flickers nor needs another screen.
fn frame(text: &str, size: Option<terminal::Size>) -> String {
    let rows = size.map_or(24, |(_, rows)| usize::from(rows)).max(3);
    let mut out = String::from("\x1b[H");
    for line in text.lines().take(rows - 2) {
        out.push_str(line);
        out.push_str("\x1b[K\r\n");
    }
    out.push_str("\x1b[Jq: quit");
    out
}

fn milliseconds(time: f64) -> String {
    if time < 10.0 {
        format!("{time:.1}")
    } else {
        format!("{time:.0}")
    }
}

fn rate(traffic: &Traffic) -> String {
    if traffic.seconds < 1.0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, reason = "requests of a minute")]
    let rate = traffic.requests as f64 / traffic.seconds;
    format!("{rate:.1}")
}

fn class(traffic: &Traffic, name: &str) -> String {
    let count = traffic.classes.get(name).copied().unwrap_or_default();
    count.to_string()
}

/// Every app, then every web dyno.
fn table(paint: Paint, apps: &[AppTraffic]) -> String {
    let app = |all: &AppTraffic| {
        let recent = &all.recent;
        vec![
            all.app.name.clone(),
            rate(recent),
            all.in_flight.to_string(),
            all.waiting.to_string(),
            milliseconds(recent.queue.p50),
            milliseconds(recent.queue.p95),
            milliseconds(recent.queue.p99),
            milliseconds(recent.service.p50),
            milliseconds(recent.service.p99),
            class(recent, "4xx"),
            class(recent, "5xx"),
        ]
    };
    let dyno = |(app, dyno): (&AppTraffic, &crate::api::types::DynoTraffic)| {
        vec![
            app.app.name.clone(),
            dyno.name.clone(),
            format!("v{}", dyno.release),
            dyno.state.clone(),
            dyno.in_flight.to_string(),
            dyno.total.requests.to_string(),
            milliseconds(dyno.total.service.p50),
            milliseconds(dyno.total.service.p99),
            class(&dyno.total, "5xx"),
            dyno.usage.map_or_else(String::new, |usage| {
                format!(
                    "{} of {}",
                    bytes(usage.memory_bytes),
                    bytes(usage.quota_bytes)
                )
            }),
            dyno.usage
                .map_or_else(String::new, |usage| format!("{:.2}", usage.load)),
        ]
    };
    let of_apps: Vec<_> = apps.iter().map(app).collect();
    let pairs = apps
        .iter()
        .flat_map(|a| a.dynos.iter().map(move |d| (a, d)));
    let of_dynos: Vec<_> = pairs.map(dyno).collect();
    paint.heading("Apps, last minute (times in ms)")
        + &columns(
            &[
                "App",
                "req/s",
                "Flying",
                "Waiting",
                "Queue p50",
                "p95",
                "p99",
                "Service p50",
                "p99",
                "4xx",
                "5xx",
            ],
            &of_apps,
        )
        + "\n"
        + &paint.heading("Web dynos, since their start")
        + &columns(
            &[
                "App",
                "Dyno",
                "Rel",
                "State",
                "Flying",
                "Requests",
                "Service p50",
                "p99",
                "5xx",
                "Memory",
                "Load",
            ],
            &of_dynos,
        )
}

/// One app, in full.
fn page(paint: Paint, all: &AppTraffic) -> String {
    let name = &all.app.name;
    let limit = all
        .limit
        .map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let now = pairs(&[
        ("Routing", format!("{}, concurrency {limit}", all.policy)),
        ("In flight", all.in_flight.to_string()),
        ("Waiting", all.waiting.to_string()),
    ]);
    let mut text = paint.heading(&format!("{name} Requests")) + &now + "\n";
    let minute = format!("Last {:.0} s", all.recent.seconds);
    for (title, traffic) in [(minute.as_str(), &all.recent), ("In all", &all.total)] {
        let codes = traffic.classes.iter().chain(&traffic.errors);
        let codes = codes.filter(|(_, count)| **count > 0);
        let codes: Vec<_> = codes.map(|(code, n)| format!("{code} {n}")).collect();
        let told = format!(
            "{title}: {} requests ({})",
            traffic.requests,
            codes.join(", ")
        );
        let row = |name: &str, times: &Times| {
            let values = [times.mean, times.p50, times.p95, times.p99];
            let values = values.map(milliseconds);
            std::iter::once(name.to_owned()).chain(values).collect()
        };
        let rows: Vec<Vec<String>> = vec![
            row("queue", &traffic.queue),
            row("connect", &traffic.connect),
            row("service", &traffic.service),
        ];
        text += &paint.heading(&told);
        text += &columns(&["ms", "mean", "p50", "p95", "p99"], &rows);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::{DynoTraffic, DynoUsage, Named};
    use crate::cli::fake::Fake;

    fn traffic(seconds: f64) -> Traffic {
        let times = Times {
            count: 600,
            mean: 12.34,
            p50: 3.5,
            p95: 40.0,
            p99: 250.4,
        };
        Traffic {
            seconds,
            requests: 600,
            classes: [("2xx".to_owned(), 590), ("5xx".to_owned(), 10)].into(),
            errors: [("H12".to_owned(), 10)].into(),
            queue: times,
            connect: times,
            service: times,
        }
    }

    fn shop() -> AppTraffic {
        AppTraffic {
            app: Named {
                id: uuid::Uuid::nil(),
                name: "shop".to_owned(),
            },
            policy: "least-in-flight".to_owned(),
            limit: Some(5),
            waiting: 2,
            in_flight: 5,
            recent: traffic(60.0),
            total: traffic(0.0),
            dynos: vec![DynoTraffic {
                id: uuid::Uuid::nil(),
                name: "web.1".to_owned(),
                state: "up".to_owned(),
                release: 7,
                in_flight: 5,
                total: traffic(0.0),
                usage: Some(DynoUsage {
                    memory_bytes: 200 << 20,
                    quota_bytes: 512 << 20,
                    load: 0.256,
                }),
            }],
        }
    }

    #[tokio::test]
    async fn metrics_tell_the_minute_and_the_whole() {
        let fake = Fake::start();
        let value = serde_json::to_value(shop()).expect("JSON");
        fake.on("GET /apps/shop/traffic", 200, &value);
        fake.run(&["metrics", "-a", "shop"]).await.expect("shown");
        insta::assert_snapshot!(fake.out.text(), @r#"
        === shop Requests

        Routing:   least-in-flight, concurrency 5
        In flight: 5
        Waiting:   2

        === Last 60 s: 600 requests (2xx 590, 5xx 10, H12 10)

        ms       mean  p50  p95  p99
        queue    12    3.5  40   250
        connect  12    3.5  40   250
        service  12    3.5  40   250

        === In all: 600 requests (2xx 590, 5xx 10, H12 10)

        ms       mean  p50  p95  p99
        queue    12    3.5  40   250
        connect  12    3.5  40   250
        service  12    3.5  40   250
        "#);
    }

    #[tokio::test]
    async fn top_prints_once_when_nobody_watches() {
        let fake = Fake::start();
        let value = serde_json::to_value(vec![shop()]).expect("JSON");
        fake.on("GET /traffic", 200, &value);
        fake.run(&["top"]).await.expect("shown");
        let text = fake.out.text();
        assert!(!text.contains('\x1b'), "{text}");
        insta::assert_snapshot!(text, @r#"
        === Apps, last minute (times in ms)

        App   req/s  Flying  Waiting  Queue p50  p95  p99  Service p50  p99  4xx  5xx
        shop  10.0   5       2        3.5        40   250  3.5          250  0    10

        === Web dynos, since their start

        App   Dyno   Rel  State  Flying  Requests  Service p50  p99  5xx  Memory                Load
        shop  web.1  v7   up     5       600       3.5          250  10   200.0 MB of 512.0 MB  0.26
        "#);
    }

    #[test]
    fn a_frame_never_scrolls() {
        let text = "line\n".repeat(100);
        let shown = frame(&text, Some((80, 10)));
        assert_eq!(shown.matches("\r\n").count(), 8);
        assert!(shown.starts_with("\x1b[H") && shown.ends_with("\x1b[Jq: quit"));
    }
}
