//! `/apps/A/buildpack-installations`: which buildpacks build an app, in their order.

use axum::extract::State;
use serde_json::{Value, json};

use crate::api::error::ApiError;
use crate::api::extract::{App, Body};
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::types::BuildpackUpdates;
use crate::model::{BUILDPACKS_MAX, Buildpack};
use crate::slug;

pub(super) async fn list(State(api): State<Api>, App(app): App) -> Answer {
    reply::ok(&shape(&api.store.buildpacks(app.id).await?))
}

/// The whole list at once, as the schema has it.
pub(super) async fn update(
    State(api): State<Api>,
    App(app): App,
    Body(body): Body<BuildpackUpdates>,
) -> Answer {
    let words = body.updates.iter().map(|update| update.buildpack.as_str());
    let buildpacks = named(&api, &words.collect::<Vec<_>>()).await?;
    let answer = shape(&buildpacks);
    api.store.set_buildpacks(app.id, buildpacks).await?;
    reply::ok(&answer)
}

/// Buildpacks as callers name them; what was uploaded for one is kept.
pub(super) async fn named(api: &Api, words: &[&str]) -> Result<Vec<Buildpack>, ApiError> {
    if words.len() > BUILDPACKS_MAX {
        return Err(ApiError::invalid(format!(
            "An app can have at most {BUILDPACKS_MAX} buildpacks."
        )));
    }
    let mut buildpacks = Vec::with_capacity(words.len());
    for word in words {
        let buildpack = match word.strip_prefix("/sources/") {
            Some(source) => keep(api, source).await?,
            None => word.parse()?,
        };
        if let Buildpack::Uploaded { name, digest } = &buildpack
            && !api.paths.pack(digest).is_file()
        {
            return Err(ApiError::invalid(format!(
                "The uploaded buildpack {name} is not here any more: upload it again."
            )));
        }
        if buildpacks.contains(&buildpack) {
            return Err(ApiError::invalid(format!(
                "The buildpack {buildpack} is in the list twice."
            )));
        }
        buildpacks.push(buildpack);
    }
    Ok(buildpacks)
}

/// `SECRET#NAME`: an upload becomes a buildpack, named by its contents.
async fn keep(api: &Api, source: &str) -> Result<Buildpack, ApiError> {
    let (secret, name) = source.split_once('#').unwrap_or((source, "buildpack"));
    let file = api.uploads.take(secret).ok_or_else(|| {
        ApiError::invalid("Nothing was uploaded to that source, or it was used already.")
    })?;
    let packs = api.paths.packs();
    let paths = api.paths.clone();
    let kept = tokio::task::spawn_blocking(move || {
        let (digest, _) = slug::digest_of(std::fs::File::open(&file)?)?;
        std::fs::create_dir_all(packs)?;
        std::fs::rename(&file, paths.pack(&digest))?;
        Ok::<_, std::io::Error>(digest)
    });
    let digest = kept
        .await
        .map_err(|error| ApiError::internal("keep the buildpack", &error))?
        .map_err(|error| ApiError::io("keep the buildpack", &error))?;
    Ok(format!("upload:{name}:{digest}").parse()?)
}

fn shape(buildpacks: &[Buildpack]) -> Value {
    let one = |(ordinal, buildpack): (usize, &Buildpack)| {
        let url = buildpack.to_string();
        json!({ "ordinal": ordinal, "buildpack": { "name": url, "url": url } })
    };
    buildpacks.iter().enumerate().map(one).collect()
}
