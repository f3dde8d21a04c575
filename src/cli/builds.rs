//! Builds and what they said.

use super::arguments::Json;
use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::{self, Screen, one_line, plainly};
use super::path::{of_app, segment};
use super::time::Clock;
use crate::api::types::Build;

/// Most builds that are listed.
const LISTED_MAX: usize = 15;

async fn newest_first(client: &Client, app: &str) -> Done<Vec<Build>> {
    let mut builds: Vec<Build> = client.list(&of_app(app, "/builds")).await?;
    builds.sort_by_key(|build| std::cmp::Reverse(build.created_at));
    Ok(builds)
}

/// `builds`.
pub(super) async fn list(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    json: Json,
    clock: &Clock,
) -> Done {
    let builds = newest_first(client, app).await?;
    if json.is_on {
        return screen.json(&builds);
    }
    if builds.is_empty() {
        screen.note(&format!("{} has no builds.", screen.note_paint.app(app)));
        return Ok(());
    }
    let row = |build: &Build| {
        let version = build.source_blob.version.as_deref().unwrap_or_default();
        vec![
            build.id.to_string(),
            build.status.clone(),
            one_line(version).chars().take(8).collect(),
            one_line(&build.user.email),
            clock.since(build.created_at),
        ]
    };
    let rows: Vec<_> = builds.iter().take(LISTED_MAX).map(row).collect();
    let heading = screen.paint.heading(&format!("{} Builds", one_line(app)));
    screen.data(&(heading + &output::columns(&[], &rows)))
}

async fn find(client: &Client, app: &str, id: Option<&str>) -> Done<Build> {
    if let Some(id) = id {
        let path = of_app(app, &format!("/builds/{}", segment(id)));
        return client.get(&path).await;
    }
    let newest = newest_first(client, app).await?.into_iter().next();
    newest.ok_or_else(|| Fault::new(Exit::NotFound, "the app has no builds"))
}

/// `builds:info`.
pub(super) async fn info(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    id: Option<&str>,
    json: Json,
) -> Done {
    let build = find(client, app, id).await?;
    if json.is_on {
        return screen.json(&build);
    }
    let mut lines = vec![
        ("Status", build.status.clone()),
        ("By", one_line(&build.user.email)),
        ("When", build.created_at.to_string()),
        ("Stack", one_line(&build.stack)),
    ];
    if let Some(version) = &build.source_blob.version {
        lines.push(("Version", one_line(version)));
    }
    let heading = screen.paint.heading(&format!("Build {}", build.id));
    screen.data(&(heading + &output::pairs(&lines)))
}

/// `builds:output`.
pub(super) async fn output(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    id: Option<&str>,
) -> Done {
    let build = find(client, app, id).await?;
    let mut stream = client.follow(&build.output_stream_url).await?;
    while let Some(bytes) = stream.next().await? {
        screen.bytes(&bytes)?;
    }
    Ok(())
}

/// `builds:cache:purge`.
pub(super) async fn purge(client: &Client, screen: &mut Screen, app: &str) -> Done {
    let what = format!("Clearing build cache of {}", screen.note_paint.app(app));
    let path = of_app(app, "/build-cache");
    screen.action(&what, client.delete(&path), plainly).await
}
