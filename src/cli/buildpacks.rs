//! Buildpacks: which, in which order.

use std::path::Path;

use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::{self, Screen, one_line, plainly};
use super::pack;
use super::path::of_app;
use crate::api::types::{BuildpackInstallation, BuildpackUpdate, BuildpackUpdates, Source};
use crate::model::Buildpack;

use super::arguments::Json;

/// `buildpacks`.
pub(super) async fn list(client: &Client, screen: &mut Screen, app: &str, json: Json) -> Done {
    let found = installed(client, app).await?;
    if json.is_on {
        return screen.json(&found);
    }
    if found.is_empty() {
        let app = screen.note_paint.app(app);
        screen.note(&format!("{app} has no buildpacks: its source decides."));
        return Ok(());
    }
    let title = screen
        .paint
        .heading(&format!("{} Buildpacks", one_line(app)));
    let count = found.len();
    let line = |(at, one): (usize, &BuildpackInstallation)| {
        let name = one_line(&one.buildpack.url);
        if count == 1 {
            name
        } else {
            format!("{}. {name}", at + 1)
        }
    };
    screen.data(&(title + &output::lines(found.iter().enumerate().map(line))))
}

/// What is to happen to the list.
#[derive(Clone, Copy, Debug)]
pub(super) enum Change {
    /// It becomes the one at that place, or the only one.
    Set(Option<usize>),
    /// It comes to that place, or to the end.
    Add(Option<usize>),
}

/// `buildpacks:set` and `buildpacks:add`.
pub(super) async fn change(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    word: &str,
    change: Change,
) -> Done {
    let mut urls = urls(client, app).await?;
    let new = named(client, screen, word).await?;
    if urls.contains(&new) {
        let message = format!("The buildpack {} is already set.", one_line(word));
        return Err(Fault::new(Exit::Invalid, message));
    }
    match change {
        // As the heroku CLI: without an index it is the first that is replaced.
        Change::Set(index) => {
            let at = index.map_or(0, |index| index - 1);
            match urls.get_mut(at) {
                Some(old) => *old = new,
                None => urls.push(new),
            }
        }
        Change::Add(index) => {
            let at = index.map_or(urls.len(), |index| (index - 1).min(urls.len()));
            urls.insert(at, new);
        }
    }
    put(client, screen, app, urls).await
}

/// `buildpacks:remove`.
pub(super) async fn remove(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    word: Option<&str>,
    index: Option<usize>,
) -> Done {
    let mut urls = urls(client, app).await?;
    let at = match (word, index) {
        (_, Some(index)) => (index <= urls.len()).then(|| index - 1),
        (Some(word), None) => {
            let name = word.parse::<Buildpack>().map(|found| found.to_string());
            let name = name.unwrap_or_else(|_| word.to_owned());
            let is_it = |url: &String| *url == name || url.starts_with(&format!("upload:{word}:"));
            urls.iter().position(is_it)
        }
        (None, None) => return Err(Fault::usage("name a buildpack, or its place with --index")),
    };
    let Some(at) = at else {
        let message = "that buildpack is not set";
        return Err(Fault::new(Exit::NotFound, message).hint(format!(
            "`manifold buildpacks --app {app}` lists those that are"
        )));
    };
    urls.remove(at);
    put(client, screen, app, urls).await
}

/// `buildpacks:clear`.
pub(super) async fn clear(client: &Client, screen: &mut Screen, app: &str) -> Done {
    put(client, screen, app, Vec::new()).await
}

async fn put(client: &Client, screen: &mut Screen, app: &str, urls: Vec<String>) -> Done {
    let what = match urls.as_slice() {
        [] => "Clearing buildpacks".to_owned(),
        [one] => format!("Setting buildpack to {}", one_line(one)),
        many => format!("Setting {} buildpacks", many.len()),
    };
    let updates = urls
        .into_iter()
        .map(|buildpack| BuildpackUpdate { buildpack })
        .collect();
    let path = of_app(app, "/buildpack-installations");
    let body = BuildpackUpdates { updates };
    let work = client.put_json::<Vec<BuildpackInstallation>>(&path, &body);
    screen.action(&what, work, plainly).await?;
    screen.note("The next build uses it: run `git push manifold main` or `manifold deploy`.");
    Ok(())
}

async fn installed(client: &Client, app: &str) -> Done<Vec<BuildpackInstallation>> {
    client.list(&of_app(app, "/buildpack-installations")).await
}

async fn urls(client: &Client, app: &str) -> Done<Vec<String>> {
    let found = installed(client, app).await?;
    Ok(found.into_iter().map(|one| one.buildpack.url).collect())
}

/// A name or URL as it is; a folder or archive of this machine is uploaded.
async fn named(client: &Client, screen: &mut Screen, word: &str) -> Done<String> {
    let path = Path::new(word);
    let is_here = word.starts_with(['/', '.', '~']) || path.is_dir();
    if !is_here || word.parse::<Buildpack>().is_ok() {
        let buildpack: Buildpack = word
            .parse()
            .map_err(|error: crate::model::BuildpackError| Fault::usage(error.to_string()))?;
        return Ok(buildpack.to_string());
    }
    if path.is_dir() && !path.join("bin/compile").is_file() {
        let message = format!("{} has no bin/compile: it is no buildpack", one_line(word));
        return Err(Fault::new(Exit::Invalid, message));
    }
    let name = path.canonicalize().ok();
    let name = name.as_deref().and_then(Path::file_name);
    let name: String = name
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .take(60)
        .collect();
    let source: Source = client.post("/sources", &serde_json::json!({})).await?;
    let urls = source.source_blob;
    let what = format!("Uploading {}", one_line(word));
    let upload = async {
        let (stream, packing) = pack::pack(path);
        let put = client.put(&urls.put_url, stream).await;
        let packed = packing.await;
        let packed = packed.map_err(|error| Fault::general(format!("cannot pack: {error}")))?;
        super::deploy::joined(put, packed)
    };
    screen.action(&what, upload, plainly).await?;
    let name = if name.is_empty() { "buildpack" } else { &name };
    Ok(format!("{}#{name}", urls.get_url))
}
