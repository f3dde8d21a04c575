//! Stacks.

use super::arguments::Json;
use super::client::Client;
use super::deploy;
use super::exit::{Done, Exit, Fault};
use super::output::{self, Paint, Screen, one_line, plainly};
use super::path::{of_app, segment};
use crate::api::types::{App, AppUpdate, Release, Stack, StackVersion};

/// `stack`. Without an app the stack of new apps is the marked one.
pub(super) async fn list(
    client: &Client,
    screen: &mut Screen,
    app: Option<&str>,
    json: Json,
) -> Done {
    let mut stacks: Vec<Stack> = client.list("/stacks").await?;
    stacks.sort_by(|a, b| a.name.cmp(&b.name));
    let app: Option<App> = match app {
        Some(app) => Some(client.get(&of_app(app, "")).await?),
        None => None,
    };
    if json.is_on {
        return screen.json(&stacks);
    }
    screen.data(&listing(&stacks, app.as_ref(), screen.paint))
}

fn listing(stacks: &[Stack], app: Option<&App>, paint: Paint) -> String {
    let title = match app {
        Some(app) => format!("{} Available Stacks", paint.app(&app.name)),
        None => "Available Stacks".to_owned(),
    };
    let line = |stack: &Stack| {
        let is_marked = app.map_or(stack.default, |app| app.build_stack.name == stack.name);
        let mark = if is_marked { "*" } else { " " };
        format!("{mark} {}", stack.name)
    };
    paint.heading(&title) + &output::lines(stacks.iter().map(line))
}

/// `stack:set`.
pub(super) async fn set(client: &Client, screen: &mut Screen, app: &str, stack: String) -> Done {
    let what = format!("Setting stack to {}", one_line(&stack));
    let body = AppUpdate {
        build_stack: Some(stack),
        ..AppUpdate::default()
    };
    let path = of_app(app, "");
    let work = client.patch::<App>(&path, &body);
    screen.action(&what, work, plainly).await?;
    screen.note(&format!(
        "The next build of {} uses it: run `manifold deploy`.",
        screen.note_paint.app(app)
    ));
    Ok(())
}

/// `stacks`.
pub(super) async fn versions(
    client: &Client,
    screen: &mut Screen,
    name: Option<&str>,
    packages: bool,
    json: Json,
) -> Done {
    let mut stacks = match name {
        Some(name) => vec![client.get(&format!("/stacks/{}", segment(name))).await?],
        None => client.list::<Stack>("/stacks").await?,
    };
    stacks.sort_by(|a, b| a.name.cmp(&b.name));
    if json.is_on {
        return screen.json(&stacks);
    }
    match stacks.first().and_then(|stack| stack.versions.first()) {
        Some(newest) if packages => screen.data(&package_list(newest)),
        _ if packages => {
            let message = format!("{} has no packages of its own", stacks[0].name);
            Err(Fault::new(Exit::NotFound, message))
        }
        Some(newest) if name.is_some() => {
            let table = version_table(&stacks);
            screen.data(&(table + "\n" + &provenance(newest)))
        }
        _ => screen.data(&version_table(&stacks)),
    }
}

fn version_table(stacks: &[Stack]) -> String {
    let mut rows = Vec::new();
    for stack in stacks {
        let name = one_line(&stack.name);
        if let Some(target) = &stack.stands_for {
            let newest = format!("= {}", one_line(target));
            rows.push(
                [name, newest]
                    .into_iter()
                    .chain((0..4).map(|_| String::new()))
                    .collect(),
            );
            continue;
        }
        if stack.versions.is_empty() {
            let own = ["-", "", "", "this machine's /usr", ""].map(str::to_owned);
            rows.push(std::iter::once(name.clone()).chain(own).collect());
        }
        for (place, version) in stack.versions.iter().enumerate() {
            let mark = if place == 0 { " (newest)" } else { "" };
            rows.push(vec![
                name.clone(),
                short(&version.digest) + mark,
                version.built_at.strftime("%Y-%m-%d %H:%M").to_string(),
                output::bytes(version.run_bytes + version.build_bytes),
                one_line(&version.origin),
                one_line(&version.apps.join(", ")),
            ]);
        }
    }
    let rows: Vec<Vec<String>> = rows;
    output::columns(
        &["Stack", "Version", "Built", "Size", "From", "Apps"],
        &rows,
    )
}

/// As people see a version.
fn short(digest: &str) -> String {
    one_line(&digest.chars().take(12).collect::<String>())
}

/// What the newest build was made from.
fn provenance(version: &StackVersion) -> String {
    let mut pairs = vec![
        ("Version".to_owned(), one_line(&version.digest)),
        (
            "Packages to run".to_owned(),
            version.run_packages.len().to_string(),
        ),
        (
            "Packages to build".to_owned(),
            version.build_packages.len().to_string(),
        ),
    ];
    let sources = version.sources.iter();
    pairs.extend(sources.map(|(name, digest)| (one_line(name), one_line(digest))));
    output::pairs(&pairs)
}

fn package_list(version: &StackVersion) -> String {
    let row = |(name, number): &(String, String)| {
        let is_run = version.run_packages.iter().any(|(own, _)| own == name);
        let image = if is_run { "run and build" } else { "build" };
        vec![one_line(name), one_line(number), image.to_owned()]
    };
    let all = if version.build_packages.is_empty() {
        &version.run_packages
    } else {
        &version.build_packages
    };
    let rows: Vec<Vec<String>> = all.iter().map(row).collect();
    output::columns(&["Package", "Version", "Image"], &rows)
}

/// `stack:upgrade`: one app, or one after the other.
pub(super) async fn upgrade(client: &Client, screen: &mut Screen, app: Option<&str>) -> Done {
    if let Some(app) = app {
        return upgrade_one(client, screen, app).await;
    }
    let apps: Vec<App> = client.list("/apps").await?;
    let stacks: Vec<Stack> = client.list("/stacks").await?;
    let has_versions = |app: &&App| {
        let stack = stacks.iter().find(|stack| stack.name == app.stack.name);
        app.slug_size > 0 && stack.is_some_and(|stack| !stack.versions.is_empty())
    };
    let mut failed = Vec::new();
    for app in apps.iter().filter(has_versions) {
        // The others are not worse off for one that stays where it was.
        if let Err(fault) = upgrade_one(client, screen, &app.name).await {
            if fault.exit != Exit::ReleaseFailed && fault.exit != Exit::Conflict {
                return Err(fault);
            }
            screen.note(&format!("error: {fault}"));
            failed.push(app.name.clone());
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    let message = format!("not upgraded: {}", failed.join(", "));
    Err(Fault::new(Exit::ReleaseFailed, message).hint("each app's log says why"))
}

async fn upgrade_one(client: &Client, screen: &mut Screen, app: &str) -> Done {
    let what = format!("Upgrading the stack of {}", screen.note_paint.app(app));
    let work = async {
        let path = of_app(app, "/actions/upgrade-stack");
        let release: Release = client.post(&path, &serde_json::Value::Null).await?;
        if release.status == "pending" {
            let id = release.id.to_string();
            Ok((deploy::settled(client, app, &id).await?, true))
        } else {
            Ok((release, false))
        }
    };
    let told = |(release, is_new): &(Release, bool)| match release.status.as_str() {
        "succeeded" if *is_new => format!(", v{}", release.version),
        "succeeded" => ", it is on the newest".to_owned(),
        status => format!(", v{} {}", release.version, one_line(status)),
    };
    let (release, _) = screen.action(&what, work, told).await?;
    if release.status == "succeeded" {
        return Ok(());
    }
    let message = format!(
        "{} does not run on that build of its stack; its dynos run on the one before",
        one_line(app)
    );
    let hint = format!("`manifold logs --app {app}` shows which dyno failed");
    Err(Fault::new(Exit::ReleaseFailed, message).hint(hint))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::fake::{Fake, objects};

    #[tokio::test]
    async fn the_stack_in_use_is_marked() {
        let fake = Fake::start();
        let stacks = json!([
            objects::stack("host", false),
            objects::stack("bookworm", true)
        ]);
        fake.on("GET /stacks", 200, &stacks);
        fake.on("GET /apps/shop", 200, &objects::app("shop"));
        fake.run(&["stack", "-a", "shop"]).await.expect("listed");
        fake.run(&["stack", "-a", ""]).await.expect("listed");
        assert_eq!(
            fake.out.text(),
            "=== ⬢ shop Available Stacks\n\n  bookworm\n* host\n\
             === Available Stacks\n\n* bookworm\n  host\n"
        );
    }

    #[tokio::test]
    async fn a_stack_is_set_for_the_next_build() {
        let fake = Fake::start();
        fake.on("PATCH /apps/shop", 200, &objects::app("shop"));
        fake.run(&["stack:set", "bookworm", "-a", "shop"])
            .await
            .expect("set");
        assert_eq!(
            fake.calls(),
            [r#"PATCH /apps/shop {"build_stack":"bookworm"}"#]
        );
        assert!(
            fake.err
                .text()
                .starts_with("Setting stack to bookworm... done\n")
        );
    }

    fn version(digest: &str, apps: &[&str]) -> serde_json::Value {
        json!({
            "digest": digest.repeat(64), "built_at": "2026-01-01T10:00:00Z",
            "origin": "Debian bookworm", "run_bytes": 1 << 30, "build_bytes": 1 << 29,
            "apps": apps, "sources": [["d_InRelease", "aa"]],
            "run_packages": [["bash", "5.2"]],
            "build_packages": [["bash", "5.2"], ["gcc", "12"]],
        })
    }

    #[tokio::test]
    async fn builds_of_stacks_are_listed_with_their_apps() {
        let fake = Fake::start();
        let mut cedar = objects::stack("cedar-12", false);
        cedar["versions"] = json!([version("b", &[]), version("a", &["blog", "shop"])]);
        let mut bamboo = objects::stack("bamboo", false);
        bamboo["stands_for"] = json!("cedar-12");
        bamboo["versions"] = cedar["versions"].clone();
        let all = json!([objects::stack("host", true), cedar, bamboo]);
        fake.on("GET /stacks", 200, &all);
        fake.on("GET /stacks/cedar-12", 200, &all[1]);
        fake.run(&["stacks"]).await.expect("listed");
        fake.run(&["stacks", "cedar-12", "--packages"])
            .await
            .expect("listed");
        insta::assert_snapshot!(fake.out.text());
    }

    #[tokio::test]
    async fn an_upgrade_is_followed_to_its_end() {
        let fake = Fake::start();
        let post = "POST /apps/shop/actions/upgrade-stack";
        let pending = objects::release(5, "Upgrade stack cedar-12 to abc", "pending");
        let id = pending["id"].as_str().expect("an id").to_owned();
        let get = format!("GET /apps/shop/releases/{id}");
        let ended = |status| objects::release(5, "Upgrade stack cedar-12 to abc", status);
        fake.on(post, 201, &pending);
        fake.on(&get, 200, &pending);
        fake.on(&get, 200, &ended("succeeded"));
        fake.run(&["stack:upgrade", "shop"])
            .await
            .expect("upgraded");
        let told = fake.err.text();
        assert_eq!(told, "Upgrading the stack of ⬢ shop... done, v5\n");

        let fake = Fake::start();
        fake.on(post, 201, &pending);
        fake.on(&get, 200, &ended("failed"));
        let fault = fake.run(&["stack:upgrade", "-a", "shop"]).await;
        let fault = fault.expect_err("failed");
        assert_eq!(fault.exit, super::Exit::ReleaseFailed);
        assert!(fault.message.contains("run on the one before"), "{fault}");
    }
}
