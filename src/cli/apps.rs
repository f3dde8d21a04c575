//! Apps: make, list, show, name, destroy; maintenance mode.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};

use super::arguments::{Create, Json};
use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::git;
use super::output::{self, Screen, plainly};
use super::path::of_app;
use crate::api::types::{App, AppCreate, AppUpdate, Formation};

/// `create`.
pub(super) async fn create(client: &Client, screen: &mut Screen, order: &Create) -> Done {
    let name = order.name.clone().or_else(|| order.app.clone());
    let body = AppCreate {
        name: name.clone(),
        stack: order.stack.clone(),
        region: None,
    };
    let what = match &name {
        Some(name) => format!("Creating {}", screen.note_paint.app(name)),
        None => "Creating app".to_owned(),
    };
    let paint = screen.note_paint;
    let told = |app: &App| match &name {
        Some(_) => String::new(),
        None => format!(", {}", paint.app(&app.name)),
    };
    let work = async { client.post("/apps", &body).await.map_err(taken) };
    let app: App = screen.action(&what, work, told).await?;
    if order.json.is_on {
        return screen.json(&app);
    }
    if !order.no_remote && git::is_repository() {
        git::add_remote(screen, &app.name, &order.remote)?;
    }
    screen.data(&format!("{}\n", app.web_url))
}

/// A taken name comes with a way out.
fn taken(fault: Fault) -> Fault {
    if fault.exit == Exit::Invalid && fault.message.contains("already taken") {
        return fault.hint("choose another name, or none to have one made up");
    }
    fault
}

/// `apps`.
pub(super) async fn list(client: &Client, screen: &mut Screen, json: Json) -> Done {
    let mut apps: Vec<App> = client.list("/apps").await?;
    apps.sort_by(|a, b| a.name.cmp(&b.name));
    if json.is_on {
        return screen.json(&apps);
    }
    if apps.is_empty() {
        screen.note("You have no apps. Make one with `manifold create`.");
        return Ok(());
    }
    screen.data(&table(&apps))
}

fn table(apps: &[App]) -> String {
    let row = |app: &App| {
        let mode = if app.maintenance { "maintenance" } else { "" };
        vec![app.name.clone(), app.web_url.clone(), mode.to_owned()]
    };
    output::columns(&[], &apps.iter().map(row).collect::<Vec<_>>())
}

/// `info`.
pub(super) async fn info(client: &Client, screen: &mut Screen, app: &str, json: Json) -> Done {
    let found: App = client.get(&of_app(app, "")).await?;
    if json.is_on {
        return screen.json(&found);
    }
    let formation: Vec<Formation> = client.list(&of_app(app, "/formation")).await?;
    let heading = screen.paint.heading(&found.name);
    screen.data(&(heading + &description(&found, &formation)))?;
    super::disk::notices(client, screen).await
}

fn description(app: &App, formation: &[Formation]) -> String {
    let dynos: BTreeMap<&str, u32> = formation
        .iter()
        .filter(|entry| entry.quantity > 0)
        .map(|entry| (entry.process.as_str(), entry.quantity))
        .collect();
    let dynos: Vec<String> = dynos
        .iter()
        .map(|(process, quantity)| format!("{process}: {quantity}"))
        .collect();
    let mut lines = vec![
        ("Created At", app.created_at.to_string()),
        ("Dynos", dynos.join(", ")),
        (
            "Maintenance",
            if app.maintenance { "on" } else { "off" }.to_owned(),
        ),
        ("Owner", output::one_line(&app.owner.email)),
    ];
    if let Some(buildpack) = &app.buildpack_provided_description {
        lines.push(("Language", output::one_line(buildpack)));
    }
    lines.push(("Slug Size", output::bytes(app.slug_size)));
    lines.push(("Stack", app.stack.name.clone()));
    if app.build_stack.name != app.stack.name {
        lines.push(("Next Stack", app.build_stack.name.clone()));
    }
    lines.push(("Web URL", app.web_url.clone()));
    output::pairs(&lines)
}

/// `destroy`.
pub(super) async fn destroy(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    confirm: Option<String>,
) -> Done {
    let found: App = client.get(&of_app(app, "")).await?;
    let shown = screen.note_paint.app(&found.name);
    let given = match confirm {
        Some(given) => given,
        None if io::stdin().is_terminal() => {
            screen.note(&format!(
                "This destroys {shown} with its dynos, releases, config vars and logs."
            ));
            screen.note(&format!(
                "To go on, type {} (or leave with Ctrl-C):",
                found.name
            ));
            read_line()?
        }
        None => {
            let fault = Fault::usage(format!("destroying {} must be confirmed", found.name));
            return Err(fault.hint(format!("add --confirm {}", found.name)));
        }
    };
    if given != found.name {
        let message = format!(
            "confirmation {} does not match {}: nothing was destroyed",
            output::one_line(&given),
            found.name
        );
        return Err(Fault::usage(message).hint(format!("add --confirm {}", found.name)));
    }
    // By id: the name may belong to another app by now.
    let path = of_app(&found.id.to_string(), "");
    let what = format!("Destroying {shown}");
    screen.action(&what, client.delete(&path), plainly).await
}

fn read_line() -> Done<String> {
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    read.map_err(|error| Fault::general(format!("cannot read the answer: {error}")))?;
    Ok(line.trim().to_owned())
}

/// `rename`.
pub(super) async fn rename(client: &Client, screen: &mut Screen, app: &str, name: &str) -> Done {
    let paint = screen.note_paint;
    let what = format!("Renaming {} to {}", paint.app(app), paint.app(name));
    let body = AppUpdate {
        name: Some(name.to_owned()),
        ..AppUpdate::default()
    };
    let path = of_app(app, "");
    let work = async { client.patch(&path, &body).await.map_err(taken) };
    let renamed: App = screen.action(&what, work, plainly).await?;
    screen.data(&format!("{}\n", renamed.web_url))
}

/// `open`: prints the URL (a server seldom has a browser).
pub(super) async fn open(client: &Client, screen: &mut Screen, app: &str) -> Done {
    let found: App = client.get(&of_app(app, "")).await?;
    screen.data(&format!("{}\n", found.web_url))
}

/// `maintenance`.
pub(super) async fn show_maintenance(client: &Client, screen: &mut Screen, app: &str) -> Done {
    let found: App = client.get(&of_app(app, "")).await?;
    screen.data(if found.maintenance { "on\n" } else { "off\n" })
}

/// `maintenance:on` and `maintenance:off`.
pub(super) async fn set_maintenance(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    is_on: bool,
) -> Done {
    let verb = if is_on { "Enabling" } else { "Disabling" };
    let what = format!("{verb} maintenance mode for {}", screen.note_paint.app(app));
    let body = AppUpdate {
        maintenance: Some(is_on),
        ..AppUpdate::default()
    };
    let path = of_app(app, "");
    let work = client.patch::<App>(&path, &body);
    screen.action(&what, work, plainly).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::fake::{Fake, objects};

    #[tokio::test]
    async fn creating_prints_the_url_and_only_that_on_stdout() {
        let fake = Fake::start();
        fake.on("POST /apps", 201, &objects::app("shop"));
        fake.run(&["create", "shop"]).await.expect("created");
        fake.run(&["create"]).await.expect("created");
        assert_eq!(fake.out.text(), "http://shop.localhost:8080/\n".repeat(2));
        assert_eq!(
            fake.err.text(),
            "Creating ⬢ shop... done\nCreating app... done, ⬢ shop\n"
        );
        assert_eq!(
            fake.calls(),
            [r#"POST /apps {"name":"shop"}"#, "POST /apps {}"]
        );
    }

    #[tokio::test]
    async fn a_taken_name_comes_with_a_way_out() {
        let fake = Fake::start();
        let error = |message: &str| json!({"id": "invalid_params", "message": message});
        fake.on("POST /apps", 422, &error("Name is already taken"));
        fake.on("POST /apps", 422, &error("Name must start with a letter"));
        let fault = fake.run(&["create", "shop"]).await.expect_err("refused");
        assert_eq!(fault.exit, Exit::Invalid);
        assert_eq!(fault.message, "Name is already taken");
        assert!(fault.hint.is_some());
        let fault = fake.run(&["create", "Bad"]).await.expect_err("refused");
        assert_eq!(fault.exit, Exit::Invalid);
        assert_eq!(
            fake.err.text(),
            "Creating ⬢ shop... !\nCreating ⬢ Bad... !\n"
        );
    }

    #[tokio::test]
    async fn apps_are_listed_by_name_over_all_parts() {
        let fake = Fake::start();
        fake.on_part("GET /apps", &json!([objects::app("shop")]), "name ]shop..");
        let mut paused = objects::app("blog");
        paused["maintenance"] = json!(true);
        fake.on("GET /apps", 200, &json!([paused]));
        fake.run(&["apps"]).await.expect("listed");
        insta::assert_snapshot!(fake.out.text(), @r#"
        blog  http://blog.localhost:8080/  maintenance
        shop  http://shop.localhost:8080/
        "#);
        assert_eq!(fake.calls(), ["GET /apps", "GET /apps [name ]shop..]"]);
    }

    #[tokio::test]
    async fn an_app_is_described() {
        let fake = Fake::start();
        fake.on("GET /apps/shop", 200, &objects::app("shop"));
        let formation = json!([
            objects::formation("worker", 0, "Basic"),
            objects::formation("web", 2, "Basic"),
        ]);
        fake.on("GET /apps/shop/formation", 200, &formation);
        fake.on("GET /host", 200, &serde_json::json!({ "notices": [] }));
        fake.run(&["info", "-a", "shop"]).await.expect("shown");
        insta::assert_snapshot!(fake.out.text(), @r#"
        === shop

        Created At:  2026-01-01T10:00:00Z
        Dynos:       web: 2
        Maintenance: off
        Owner:       ann@host
        Language:    Python
        Slug Size:   36.2 MB
        Stack:       host
        Web URL:     http://shop.localhost:8080/
        "#);
    }

    #[tokio::test]
    async fn destroying_takes_the_name_once_more() {
        let fake = Fake::start();
        fake.on("GET /apps/shop", 200, &objects::app("shop"));
        let id = "01234567-89ab-4def-8123-456789abcdef";
        fake.on(&format!("DELETE /apps/{id}"), 200, &objects::app("shop"));
        let other = fake
            .run(&["destroy", "-a", "shop", "--confirm", "other"])
            .await;
        let fault = other.expect_err("refused");
        assert_eq!(fault.exit, Exit::Usage);
        assert!(
            fault.message.contains("other does not match shop"),
            "{fault}"
        );
        assert_eq!(fake.calls().len(), 1);
        fake.run(&["destroy", "-a", "shop", "--confirm", "shop"])
            .await
            .expect("destroyed");
        assert_eq!(fake.err.text(), "Destroying ⬢ shop... done\n");
    }

    #[tokio::test]
    async fn maintenance_is_switched_and_shown() {
        let fake = Fake::start();
        fake.on("PATCH /apps/shop", 200, &objects::app("shop"));
        fake.on("GET /apps/shop", 200, &objects::app("shop"));
        fake.run(&["maintenance:on", "-a", "shop"])
            .await
            .expect("on");
        fake.run(&["maintenance:off", "-a", "shop"])
            .await
            .expect("off");
        fake.run(&["maintenance", "-a", "shop"])
            .await
            .expect("shown");
        assert_eq!(fake.out.text(), "off\n");
        assert_eq!(
            fake.err.text(),
            "Enabling maintenance mode for ⬢ shop... done\nDisabling maintenance mode for ⬢ shop... done\n"
        );
        assert_eq!(fake.calls()[0], r#"PATCH /apps/shop {"maintenance":true}"#);
    }
}
