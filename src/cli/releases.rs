//! Releases and the way back.

use super::arguments::Json;
use super::client::Client;
use super::config::{self, Vars};
use super::exit::{Done, Exit, Fault};
use super::output::{self, Screen};
use super::path::{of_app, segment};
use super::time::Clock;
use crate::api::types::{Release, ReleaseCreate};

/// The newest release, whatever its status.
pub(super) async fn newest(client: &Client, app: &str) -> Done<Option<Release>> {
    let releases = newest_few(client, app, 1).await?;
    Ok(releases.into_iter().next())
}

async fn newest_few(client: &Client, app: &str, count: u32) -> Done<Vec<Release>> {
    let range = format!("version ..; max={count}, order=desc");
    client.page(&of_app(app, "/releases"), &range).await
}

/// One release, by version or id.
pub(super) async fn show(client: &Client, app: &str, key: &str) -> Done<Release> {
    let path = format!("/releases/{}", segment(key));
    client.get(&of_app(app, &path)).await
}

/// `releases`.
pub(super) async fn list(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    count: u32,
    json: Json,
    clock: &Clock,
) -> Done {
    let releases = newest_few(client, app, count).await?;
    if json.is_on {
        return screen.json(&releases);
    }
    let heading = screen.paint.heading(&title(app, &releases));
    screen.data(&(heading + &table(&releases, clock)))
}

fn title(app: &str, releases: &[Release]) -> String {
    match releases.iter().find(|release| release.current) {
        Some(current) => format!("{app} Releases - Current: v{}", current.version),
        None => format!("{app} Releases"),
    }
}

fn table(releases: &[Release], clock: &Clock) -> String {
    let row = |release: &Release| {
        vec![
            format!("v{}", release.version),
            change(release),
            release.user.email.clone(),
            clock.since(release.created_at),
        ]
    };
    output::columns(&[], &releases.iter().map(row).collect::<Vec<_>>())
}

/// The description, and the release phase's state unless it went well.
fn change(release: &Release) -> String {
    match status_text(&release.status) {
        Some(status) => format!("{} {status}", release.description),
        None => release.description.clone(),
    }
}

fn status_text(status: &str) -> Option<&'static str> {
    match status {
        "failed" => Some("release command failed"),
        "pending" => Some("release command executing"),
        "expired" => Some("release expired"),
        _ => None,
    }
}

/// `releases:info`.
pub(super) async fn info(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    key: &str,
    json: Json,
    clock: &Clock,
) -> Done {
    let release = show(client, app, key).await?;
    if json.is_on {
        return screen.json(&release);
    }
    let path = format!("/releases/{}/config-vars", release.id);
    let vars: Vars = client.get(&of_app(app, &path)).await?;
    let paint = screen.paint;
    let mut text = paint.heading(&format!("Release v{}", release.version));
    text += &description(&release, clock);
    if !vars.is_empty() {
        text.push('\n');
        text += &paint.heading(&format!("v{} Config vars", release.version));
        text += &config::table(&vars);
    }
    screen.data(&text)
}

fn description(release: &Release, clock: &Clock) -> String {
    let mut lines = vec![
        ("By", output::one_line(&release.user.email)),
        ("Change", output::one_line(&release.description)),
    ];
    if let Some(status) = status_text(&release.status) {
        lines.push(("Status", status.to_owned()));
    }
    if let Some(stack) = &release.stack {
        let version = release.stack_version.iter();
        let version = version.map(|version| version.chars().take(12).collect::<String>());
        let words: Vec<String> = std::iter::once(stack.clone()).chain(version).collect();
        lines.push(("Stack", output::one_line(&words.join(" "))));
    }
    lines.push(("When", clock.since(release.created_at)));
    output::pairs(&lines)
}

/// Releases looked through for one to go back to.
const LOOK_BACK: u32 = 100;

/// `rollback`.
pub(super) async fn rollback(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    key: Option<&str>,
) -> Done {
    let newest = newest_few(client, app, LOOK_BACK).await?;
    let current = newest.iter().find(|release| release.current).cloned();
    let target = match key {
        Some(key) => show(client, app, key).await?,
        None => previous(newest)?,
    };
    let paint = screen.note_paint;
    let what = format!("Rolling back {} to v{}", paint.app(app), target.version);
    let body = ReleaseCreate {
        release: Some(target.id.to_string()),
        ..ReleaseCreate::default()
    };
    let path = of_app(app, "/releases");
    let told = |made: &Release| format!(", v{}", made.version);
    let work = client.post::<Release>(&path, &body);
    screen.action(&what, work, told).await?;
    screen.note("Rollback affects code and config vars; nothing else changes.");
    if let Some(current) = current {
        screen.note(&format!(
            "To undo, run: manifold rollback v{} --app {app}",
            current.version
        ));
    }
    Ok(())
}

/// The second of those that can be gone back to, newest first.
fn previous(releases: Vec<Release>) -> Done<Release> {
    let mut eligible = releases
        .into_iter()
        .filter(|release| release.eligible_for_rollback);
    eligible.nth(1).ok_or_else(|| {
        let message = "there is no earlier release to roll back to";
        Fault::new(Exit::Invalid, message).hint("`manifold releases` lists what was released")
    })
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;
    use serde_json::json;

    use super::*;
    use crate::cli::fake::{Fake, objects};

    fn releases() -> Vec<Release> {
        let mut current = objects::release(3, "Deploy f7bee2dd", "succeeded");
        current["current"] = json!(true);
        let list = json!([
            objects::release(5, "Set A config vars", "pending"),
            objects::release(4, "Deploy de63889a", "failed"),
            current,
            objects::release(2, "Enable Logplex", "succeeded"),
        ]);
        serde_json::from_value(list).expect("releases")
    }

    fn clock() -> Clock {
        Clock {
            now: "2026-01-01T10:05:00Z".parse().expect("a time"),
            zone: TimeZone::UTC,
        }
    }

    #[test]
    fn releases_show_what_became_of_their_command() {
        assert_eq!(title("shop", &releases()), "shop Releases - Current: v3");
        assert_eq!(title("shop", &[]), "shop Releases");
        insta::assert_snapshot!(table(&releases(), &clock()), @r#"
        v5  Set A config vars release command executing  ann@host  2026/01/01 10:00:00 +0000 (~ 5m ago)
        v4  Deploy de63889a release command failed       ann@host  2026/01/01 10:00:00 +0000 (~ 5m ago)
        v3  Deploy f7bee2dd                              ann@host  2026/01/01 10:00:00 +0000 (~ 5m ago)
        v2  Enable Logplex                               ann@host  2026/01/01 10:00:00 +0000 (~ 5m ago)
        "#);
        insta::assert_snapshot!(description(&releases()[1], &clock()), @r#"
        By:     ann@host
        Change: Deploy de63889a
        Status: release command failed
        When:   2026/01/01 10:00:00 +0000 (~ 5m ago)
        "#);
    }

    #[tokio::test]
    async fn a_release_is_shown_with_its_config() {
        let fake = Fake::start();
        let release = objects::release(3, "Deploy", "succeeded");
        let id = release["id"].as_str().expect("an id");
        fake.on("GET /apps/shop/releases/current", 200, &release);
        let path = format!("GET /apps/shop/releases/{id}/config-vars");
        fake.on(&path, 200, &json!({"A": "1"}));
        fake.run(&["releases:info", "-a", "shop"])
            .await
            .expect("shown");
        let text = fake.out.text();
        assert!(
            text.starts_with("=== Release v3\n\nBy:     ann@host\nChange: Deploy\nWhen:"),
            "{text}"
        );
        assert!(text.ends_with("\n\n=== v3 Config vars\n\nA: 1\n"), "{text}");
    }

    #[tokio::test]
    async fn rolling_back_goes_to_the_second_eligible_release() {
        let fake = Fake::start();
        fake.on("GET /apps/shop/releases", 200, &json!(releases()));
        fake.on(
            "POST /apps/shop/releases",
            201,
            &objects::release(6, "Rollback to v2", "succeeded"),
        );
        fake.run(&["rollback", "-a", "shop"])
            .await
            .expect("rolled back");
        let posted = fake.calls().pop().expect("a call");
        assert!(posted.contains("000000000002"), "{posted}");
        assert_eq!(
            fake.err.text(),
            "Rolling back ⬢ shop to v2... done, v6\n\
             Rollback affects code and config vars; nothing else changes.\n\
             To undo, run: manifold rollback v3 --app shop\n"
        );
    }

    #[tokio::test]
    async fn there_may_be_nothing_to_roll_back_to() {
        let fake = Fake::start();
        let one = json!([objects::release(3, "Deploy", "succeeded")]);
        fake.on("GET /apps/shop/releases", 200, &one);
        let fault = fake
            .run(&["rollback", "-a", "shop"])
            .await
            .expect_err("refused");
        assert_eq!(fault.exit, Exit::Invalid);
        let fault = fake.run(&["rollback", "v99", "-a", "shop"]).await;
        assert_eq!(fault.expect_err("refused").exit, Exit::NotFound);
    }
}
