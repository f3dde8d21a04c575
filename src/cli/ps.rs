//! Dynos and formations.

use super::arguments::Json;
use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::{self, Paint, Screen, one_line, plainly};
use super::path::{of_app, segment};
use super::time::Clock;
use crate::api::types::{Dyno, Formation, FormationBatch, FormationUpdate};
use crate::model::{DynoName, ScaleRequest};

/// Type of one-off dynos.
const ONE_OFF: &str = "run";

/// `ps`.
pub(super) async fn list(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    types: &[String],
    json: Json,
    clock: &Clock,
) -> Done {
    let mut dynos: Vec<Dyno> = client.list(&of_app(app, "/dynos")).await?;
    if let Some(missing) = missing_type(&dynos, types) {
        let message = format!("No {} dynos on {app}", one_line(missing));
        return Err(Fault::new(Exit::NotFound, message));
    }
    dynos.retain(|dyno| types.is_empty() || types.contains(&dyno.process));
    if json.is_on {
        dynos.sort_by(|a, b| a.name.cmp(&b.name));
        return screen.json(&dynos);
    }
    if dynos.is_empty() {
        screen.note(&format!("No dynos on {}", screen.note_paint.app(app)));
        return Ok(());
    }
    screen.data(&blocks(dynos, screen.paint, clock))
}

fn missing_type<'a>(dynos: &[Dyno], types: &'a [String]) -> Option<&'a String> {
    let lives = |process: &String| dynos.iter().any(|dyno| dyno.process == *process);
    types.iter().find(|process| !lives(process))
}

/// One block per command, one-offs first, dynos in number order.
fn blocks(mut dynos: Vec<Dyno>, paint: Paint, clock: &Clock) -> String {
    dynos.sort_by_key(|dyno| {
        let name = dyno.name.parse::<DynoName>().ok();
        let number = name.map_or(0, |name| name.number);
        (dyno.process != ONE_OFF, dyno.process.clone(), number)
    });
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for dyno in &dynos {
        let (key, line) = entry(dyno, paint, clock);
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, lines)) => lines.push(line),
            None => groups.push((key, vec![line])),
        }
    }
    let mut text = String::new();
    for (key, lines) in groups {
        text += &paint.heading(&format!("{key} ({})", lines.len()));
        text += &lines.concat();
        text.push('\n');
    }
    text
}

/// The block a dyno belongs to, and its line.
fn entry(dyno: &Dyno, paint: Paint, clock: &Clock) -> (String, String) {
    let (command, since) = (one_line(&dyno.command), clock.since(dyno.updated_at));
    let (name, size, state) = (&dyno.name, &dyno.size, paint.state(&dyno.state));
    if dyno.process == ONE_OFF {
        let line = format!("{name} ({size}): {state} {since}: {command}\n");
        return ("run: one-off processes".to_owned(), line);
    }
    let key = format!("{} ({size}): {command}", dyno.process);
    (key, format!("{name}: {state} {since}\n"))
}

/// `ps:scale`.
pub(super) async fn scale(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    changes: &[ScaleRequest],
    json: Json,
) -> Done {
    let path = of_app(app, "/formation");
    if changes.is_empty() {
        let formation: Vec<Formation> = client.list(&path).await?;
        return show_formation(screen, app, formation, json);
    }
    let batch = batch(changes);
    let work = client.patch(&path, &batch);
    let told = |formation: &Vec<Formation>| format!(", now running {}", quantities(formation));
    let formation: Vec<Formation> = screen.action("Scaling dynos", work, told).await?;
    if json.is_on {
        return screen.json(&formation);
    }
    Ok(())
}

fn show_formation(
    screen: &mut Screen,
    app: &str,
    mut formation: Vec<Formation>,
    json: Json,
) -> Done {
    formation.sort_by(|a, b| a.process.cmp(&b.process));
    if json.is_on {
        return screen.json(&formation);
    }
    if formation.is_empty() {
        screen.note(&format!(
            "{} has no process types yet. Deploy it first, with `manifold deploy`.",
            screen.note_paint.app(app)
        ));
        return Ok(());
    }
    let words = formation
        .iter()
        .map(|entry| format!("{}={}:{}", entry.process, entry.quantity, entry.size));
    screen.data(&format!("{}\n", words.collect::<Vec<_>>().join(" ")))
}

fn batch(changes: &[ScaleRequest]) -> FormationBatch {
    let update = |change: &ScaleRequest| FormationUpdate {
        process: change.process.to_string(),
        quantity: Some(change.quantity.clone().into()),
        size: change.size.clone(),
    };
    FormationBatch {
        updates: changes.iter().map(update).collect(),
    }
}

/// `web at 3:Standard-2X, worker at 1:Standard-1X`.
fn quantities(formation: &[Formation]) -> String {
    let words = formation
        .iter()
        .map(|entry| format!("{} at {}:{}", entry.process, entry.quantity, entry.size));
    words.collect::<Vec<_>>().join(", ")
}

/// `ps:type`: `TYPE=SIZE` words, or one bare `SIZE` for every type; then the table.
pub(super) async fn resize(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    words: &[String],
    json: Json,
) -> Done {
    let path = of_app(app, "/formation");
    if !words.is_empty() {
        let updates = match words {
            [size] if !size.contains('=') => {
                let formation: Vec<Formation> = client.list(&path).await?;
                let each = formation.iter().map(|entry| sized(&entry.process, size));
                each.collect()
            }
            words => words
                .iter()
                .map(|word| match word.split_once('=') {
                    Some((process, size)) if !process.is_empty() && !size.is_empty() => {
                        Ok(sized(process, size))
                    }
                    _ => Err(
                        Fault::usage(format!("`{}` is no TYPE=SIZE", one_line(word)))
                            .hint("write web=standard-2x, or one SIZE alone for all types"),
                    ),
                })
                .collect::<Done<Vec<_>>>()?,
        };
        let batch = FormationBatch { updates };
        let work = client.patch::<Vec<Formation>>(&path, &batch);
        screen.action("Scaling dynos", work, plainly).await?;
    }
    let mut formation: Vec<Formation> = client.list(&path).await?;
    formation.sort_by(|a, b| a.process.cmp(&b.process));
    if json.is_on {
        return screen.json(&formation);
    }
    let row = |entry: &Formation| {
        vec![
            entry.process.clone(),
            entry.size.clone(),
            entry.quantity.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = formation.iter().map(row).collect();
    screen.data(&output::columns(&["Type", "Size", "Qty"], &rows))
}

fn sized(process: &str, size: &str) -> FormationUpdate {
    FormationUpdate {
        process: process.to_owned(),
        quantity: None,
        size: Some(size.to_owned()),
    }
}

/// `ps:restart`.
pub(super) async fn restart(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    name: Option<&str>,
) -> Done {
    let shown = screen.note_paint.app(app);
    let (what, path) = match name {
        None => (
            format!("Restarting all dynos on {shown}"),
            of_app(app, "/dynos"),
        ),
        Some(name) => (
            format!("Restarting {} on {shown}", one_line(name)),
            of_app(app, &format!("/{}/{}", kind(name)?, segment(name))),
        ),
    };
    screen.action(&what, client.delete(&path), plainly).await
}

/// `ps:stop`.
pub(super) async fn stop(client: &Client, screen: &mut Screen, app: &str, name: &str) -> Done {
    let shown = screen.note_paint.app(app);
    let what = format!("Stopping {} on {shown}", one_line(name));
    let path = format!("/{}/{}/actions/stop", kind(name)?, segment(name));
    let path = of_app(app, &path);
    let nothing = serde_json::json!({});
    let work = client.post::<serde_json::Value>(&path, &nothing);
    screen.action(&what, work, plainly).await.map(drop)
}

/// `web.1` is a dyno, `web` a type. An empty word must not come to mean all.
fn kind(name: &str) -> Done<&'static str> {
    match name {
        "" => Err(Fault::usage("an empty word names no dyno")),
        name if name.contains('.') => Ok("dynos"),
        _ => Ok("formations"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::json;

    use super::*;
    use crate::cli::fake::{Fake, objects};

    fn dynos(list: &[(&str, &str, &str)]) -> Vec<Dyno> {
        let dyno = |&(name, state, command): &_| {
            serde_json::from_value(objects::dyno(name, state, command)).expect("a dyno")
        };
        list.iter().map(dyno).collect()
    }

    fn clock() -> Clock {
        Clock {
            now: "2026-01-01T11:00:12Z".parse().expect("a time"),
            zone: TimeZone::UTC,
        }
    }

    #[test]
    fn dynos_are_grouped_by_command_with_one_offs_first() {
        let dynos = dynos(&[
            ("web.10", "up", "npm start"),
            ("web.2", "crashed", "npm start"),
            ("worker.1", "starting", "npm start"),
            ("run.1234", "up", "bash\n\u{1b}[31m"),
        ]);
        insta::assert_snapshot!(blocks(dynos, Paint::default(), &clock()), @r#"
        === run: one-off processes (1)

        run.1234 (Standard-1X): up 2026/01/01 10:00:00 +0000 (~ 1h ago): bash\n\u{1b}[31m

        === web (Standard-1X): npm start (2)

        web.2: crashed 2026/01/01 10:00:00 +0000 (~ 1h ago)
        web.10: up 2026/01/01 10:00:00 +0000 (~ 1h ago)

        === worker (Standard-1X): npm start (1)

        worker.1: starting 2026/01/01 10:00:00 +0000 (~ 1h ago)
        "#);
    }

    #[tokio::test]
    async fn a_type_without_dynos_is_an_error_and_an_empty_app_is_not() {
        let fake = Fake::start();
        fake.on(
            "GET /apps/shop/dynos",
            200,
            &json!([objects::dyno("web.1", "up", "x")]),
        );
        fake.on("GET /apps/idle/dynos", 200, &json!([]));
        let fault = fake.run(&["ps", "web", "worker", "-a", "shop"]).await;
        let fault = fault.expect_err("refused");
        assert_eq!(
            (fault.exit, fault.message.as_str()),
            (Exit::NotFound, "No worker dynos on shop")
        );
        assert_eq!(fake.run(&["ps", "-a", "idle"]).await, Ok(0));
        assert_eq!(
            (fake.out.text(), fake.err.text()),
            (String::new(), "No dynos on ⬢ idle\n".to_owned())
        );
    }

    #[tokio::test]
    async fn json_lists_the_apis_objects_by_name_as_text() {
        let fake = Fake::start();
        let list = json!([
            objects::dyno("web.2", "up", "x"),
            objects::dyno("web.10", "up", "x")
        ]);
        fake.on("GET /apps/shop/dynos", 200, &list);
        fake.run(&["ps", "-a", "shop", "--json"])
            .await
            .expect("listed");
        let shown: Vec<Dyno> = serde_json::from_str(&fake.out.text()).expect("JSON");
        assert_eq!([&shown[0].name, &shown[1].name], ["web.10", "web.2"]);
    }

    #[tokio::test]
    async fn scaling_sends_all_changes_at_once_and_tells_what_runs() {
        let fake = Fake::start();
        let both = json!([
            objects::formation("web", 3, "Standard-2X"),
            objects::formation("worker", 1, "Standard-1X"),
        ]);
        fake.on("PATCH /apps/shop/formation", 200, &both);
        fake.on("GET /apps/shop/formation", 200, &both);
        let words = ["ps:scale", "web=3:standard-2x", "worker+1", "-a", "shop"];
        fake.run(&words).await.expect("scaled");
        fake.run(&["ps:scale", "-a", "shop"]).await.expect("shown");
        assert_eq!(
            fake.calls()[0],
            r#"PATCH /apps/shop/formation {"updates":[{"type":"web","quantity":"3","size":"standard-2x"},{"type":"worker","quantity":"+1"}]}"#
        );
        assert_eq!(
            fake.err.text(),
            "Scaling dynos... done, now running web at 3:Standard-2X, worker at 1:Standard-1X\n"
        );
        assert_eq!(fake.out.text(), "web=3:Standard-2X worker=1:Standard-1X\n");
    }

    #[tokio::test]
    async fn sizes_are_set_per_type_or_for_all() {
        let fake = Fake::start();
        let both = json!([
            objects::formation("web", 3, "Standard-1X"),
            objects::formation("worker", 1, "Standard-1X"),
        ]);
        fake.on("PATCH /apps/shop/formation", 200, &both);
        fake.on("GET /apps/shop/formation", 200, &both);
        fake.run(&["ps:type", "web=standard-2x", "-a", "shop"])
            .await
            .expect("set");
        fake.run(&["ps:type", "2X", "-a", "shop"])
            .await
            .expect("set");
        let calls = fake.calls();
        let patches: Vec<_> = calls.iter().filter(|c| c.starts_with("PATCH")).collect();
        assert_eq!(
            patches,
            [
                r#"PATCH /apps/shop/formation {"updates":[{"type":"web","size":"standard-2x"}]}"#,
                r#"PATCH /apps/shop/formation {"updates":[{"type":"web","size":"2X"},{"type":"worker","size":"2X"}]}"#,
            ]
        );
        assert!(fake.out.text().contains("worker"));
        let fault = fake.run(&["ps:type", "web=", "-a", "shop"]).await;
        assert_eq!(fault.expect_err("refused").exit, Exit::Usage);
    }

    #[tokio::test]
    async fn restart_and_stop_reach_dynos_types_and_all() {
        let fake = Fake::start();
        for call in [
            "DELETE /apps/shop/dynos",
            "DELETE /apps/shop/dynos/web.1",
            "DELETE /apps/shop/formations/web",
            "POST /apps/shop/dynos/run.1234/actions/stop",
            "POST /apps/shop/formations/web/actions/stop",
        ] {
            fake.on(call, 202, &json!({}));
        }
        for words in [
            &["ps:restart"][..],
            &["ps:restart", "web.1"],
            &["ps:restart", "web"],
            &["ps:stop", "run.1234"],
            &["ps:stop", "web"],
        ] {
            let words = [words, &["-a", "shop"]].concat();
            fake.run(&words).await.expect("done");
        }
        insta::assert_snapshot!(fake.err.text(), @r#"
        Restarting all dynos on ⬢ shop... done
        Restarting web.1 on ⬢ shop... done
        Restarting web on ⬢ shop... done
        Stopping run.1234 on ⬢ shop... done
        Stopping web on ⬢ shop... done
        "#);
        let fault = fake.run(&["ps:restart", "", "-a", "shop"]).await;
        assert_eq!(fault.expect_err("refused").exit, Exit::Usage);
        let nested = fake.run(&["ps:stop", "../web.1", "-a", "shop"]).await;
        assert_eq!(nested.expect_err("refused").exit, Exit::NotFound);
        let last = fake.calls().pop().expect("a call");
        assert_eq!(last, "POST /apps/shop/dynos/..%2Fweb.1/actions/stop {}");
    }
}
