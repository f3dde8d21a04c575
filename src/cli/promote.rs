//! `promote`: one app's slug becomes another app's release. Nothing is built; the other app keeps
//! its config. Source: Dev Center, "Pipelines".

use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::{Screen, one_line};
use super::path::{of_app, segment};
use super::releases;
use crate::api::types::{Release, ReleaseCreate, Slug};

/// Digits of a commit that are shown.
const COMMIT_SHOWN: usize = 8;

/// `promote`.
pub(super) async fn promote(client: &Client, screen: &mut Screen, from: &str, to: &str) -> Done {
    if from == to {
        let message = format!("{} cannot be promoted to itself", one_line(from));
        return Err(Fault::usage(message).hint("name another app with --to"));
    }
    let current = releases::show(client, from, "current").await?;
    let Some(slug) = &current.slug else {
        let message = format!("{} has nothing to promote yet", one_line(from));
        return Err(Fault::new(Exit::Invalid, message).hint("deploy it first"));
    };
    let path = of_app(from, &format!("/slugs/{}", segment(&slug.id.to_string())));
    // A slug that was promoted before is another app's: then its commit is not shown.
    let commit = client
        .get::<Slug>(&path)
        .await
        .ok()
        .and_then(|slug| slug.commit);
    let commit = commit.unwrap_or_default();
    let commit: String = commit.chars().take(COMMIT_SHOWN).collect();
    let description = format!("Promote {from}, v{}, {commit}", current.version);
    let body = ReleaseCreate {
        slug: Some(slug.id.to_string()),
        description: Some(description.trim_end_matches([',', ' ']).to_owned()),
        ..ReleaseCreate::default()
    };
    let paint = screen.note_paint;
    let what = format!("Promoting {} to {}", paint.app(from), paint.app(to));
    let path = of_app(to, "/releases");
    let told = |made: &Release| format!(", v{}", made.version);
    let work = client.post::<Release>(&path, &body);
    screen.action(&what, work, told).await.map(drop)
}
