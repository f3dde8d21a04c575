//! `deploy`: pack, upload, build, release.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::arguments::Deploy;
use super::client::{ANSWER_DEADLINE, Client};
use super::exit::{Done, Exit, Fault};
use super::output::{self, Screen, one_line};
use super::pack::{self, PackError, Packed};
use super::path::of_app;
use super::releases;
use crate::api::types::{App, Build, BuildCreate, Release, Source, SourceBlob};

/// Longest wait for a release command. The server's own limit, which ends it, is shorter.
const RELEASE_DEADLINE: Duration = Duration::from_hours(25);

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// `deploy`.
pub(super) async fn deploy(client: &Client, screen: &mut Screen, order: &Deploy) -> Done {
    let app: App = client.get(&of_app(order.app.required()?, "")).await?;
    let blob = upload(client, screen, &app, order).await?;
    let body = BuildCreate {
        source_blob: blob,
        buildpacks: None,
    };
    let builds = of_app(&app.id.to_string(), "/builds");
    let build: Build = client.post(&builds, &body).await?;
    let mut stream = client.follow(&build.output_stream_url).await?;
    while let Some(bytes) = stream.next().await? {
        screen.bytes(&bytes)?;
    }
    let path = format!("{builds}/{}", build.id);
    let build = finished(client, &path).await?;
    if build.status != "succeeded" {
        let message = format!("the build failed; {} was not changed", app.name);
        return Err(Fault::new(Exit::BuildFailed, message));
    }
    match build.release {
        Some(release) => follow_release(client, screen, &app, &release.id.to_string()).await,
        None => Ok(()),
    }
}

async fn upload(
    client: &Client,
    screen: &mut Screen,
    app: &App,
    order: &Deploy,
) -> Done<SourceBlob> {
    let source: Source = client.post("/sources", &serde_json::json!({})).await?;
    let urls = source.source_blob;
    let name = one_line(&order.source.display().to_string());
    let what = format!("Uploading {name} to {}", screen.note_paint.app(&app.name));
    let work = async {
        let (stream, packing) = pack::pack(&order.source);
        let put = client.put(&urls.put_url, stream).await;
        let packed = packing.await;
        let packed = packed.map_err(|error| Fault::general(format!("cannot pack: {error}")))?;
        joined(put, packed)
    };
    let told = |packed: &Packed| format!(", {}", output::bytes(packed.size_bytes));
    let packed = screen.action(&what, work, told).await?;
    for path in &packed.skipped {
        let path = one_line(&path.display().to_string());
        screen.note(&format!("Left out {path}: neither file, folder nor link."));
    }
    Ok(SourceBlob {
        url: urls.get_url,
        checksum: Some(format!("SHA256:{}", packed.digest)),
        version: order.source_version.clone(),
        version_description: None,
    })
}

/// Of the two ends of an upload, the one that failed first tells why.
pub(super) fn joined(put: Done, packed: Result<Packed, PackError>) -> Done<Packed> {
    match (put, packed) {
        (Ok(()), Ok(packed)) => Ok(packed),
        // Nobody took the bytes: the server's answer says more.
        (Err(fault), Ok(_) | Err(PackError::Write(_))) => Err(fault),
        (_, Err(error)) => {
            let mut message = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                message = format!("{message}: {source}");
            }
            Err(Fault::general(message))
        }
    }
}

/// The build once it is over. Its output has ended, so that is soon.
async fn finished(client: &Client, path: &str) -> Done<Build> {
    let deadline = Instant::now() + ANSWER_DEADLINE;
    loop {
        let build: Build = client.get(path).await?;
        if build.status != "pending" {
            return Ok(build);
        }
        if Instant::now() >= deadline {
            let message = "the build's output ended but its result is not known";
            return Err(Fault::new(Exit::Connection, message));
        }
        sleep(PAUSE).await;
    }
}

/// Waits for the release command, if there is one.
async fn follow_release(client: &Client, screen: &mut Screen, app: &App, id: &str) -> Done {
    let name = &app.name;
    let mut release = releases::show(client, name, id).await?;
    if release.status == "pending" {
        if let Some(url) = &release.output_stream_url {
            let mut stream = client.follow(url).await?;
            while let Some(bytes) = stream.next().await? {
                screen.bytes(&bytes)?;
            }
        }
        let what = format!("Running release command of v{}", release.version);
        let work = settled(client, name, id);
        let told = |release: &Release| match release.status.as_str() {
            "succeeded" => String::new(),
            status => format!(", {}", one_line(status)),
        };
        release = screen.action(&what, work, told).await?;
    }
    if release.status == "succeeded" {
        return Ok(());
    }
    let message = format!(
        "the release command of v{} failed; the release before stays current",
        release.version
    );
    let hint = format!("`manifold logs --app {name} --dyno release` shows what it said");
    Err(Fault::new(Exit::ReleaseFailed, message).hint(hint))
}

/// A release once it is not pending any more.
pub(super) async fn settled(client: &Client, app: &str, id: &str) -> Done<Release> {
    let deadline = Instant::now() + RELEASE_DEADLINE;
    loop {
        let release = releases::show(client, app, id).await?;
        if release.status != "pending" {
            return Ok(release);
        }
        if Instant::now() >= deadline {
            let message = "the release command does not end";
            return Err(Fault::new(Exit::Connection, message));
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::fake::{Fake, objects};

    const ID: &str = "01234567-89ab-4def-8123-456789abcdef";

    /// A server that builds; the build ends as `status` says.
    fn builder(status: &str) -> (Fake, tempfile::TempDir) {
        let fake = Fake::start();
        let urls = json!({"source_blob": {"get_url": "/sources/1", "put_url": "/sources/1"}});
        fake.on("GET /apps/shop", 200, &objects::app("shop"));
        fake.on("POST /sources", 201, &urls);
        fake.on("PUT /sources/1", 200, &json!({}));
        fake.on(
            &format!("POST /apps/{ID}/builds"),
            201,
            &objects::build("pending"),
        );
        fake.on_text("GET /builds/1/output", "-----> Python app detected\n");
        fake.on(
            &format!("GET /apps/{ID}/builds/{ID}"),
            200,
            &objects::build(status),
        );
        let folder = tempfile::tempdir().expect("a directory");
        std::fs::write(folder.path().join("Procfile"), "web: x\n").expect("written");
        (fake, folder)
    }

    async fn run(fake: &Fake, source: &std::path::Path) -> Done<u8> {
        let source = source.to_str().expect("text");
        fake.run(&["deploy", source, "-a", "shop"]).await
    }

    #[tokio::test]
    async fn a_deploy_streams_the_build_and_waits_for_the_release_command() {
        let (fake, folder) = builder("succeeded");
        let release = format!("GET /apps/shop/releases/{ID}");
        for status in ["pending", "pending", "succeeded"] {
            fake.on(&release, 200, &objects::release(3, "Deploy", status));
        }
        assert_eq!(run(&fake, folder.path()).await, Ok(0));
        assert_eq!(fake.out.text(), "-----> Python app detected\n");
        let notes = fake.err.text();
        assert!(notes.starts_with("Uploading /"), "{notes}");
        assert!(
            notes.ends_with("\nRunning release command of v3... done\n"),
            "{notes}"
        );
        let calls = fake.calls();
        let order = calls.iter().find(|call| call.starts_with("POST /apps"));
        let order = order.expect("a build");
        assert!(
            order.contains(r#""url":"/sources/1","checksum":"SHA256:"#),
            "{order}"
        );
    }

    #[tokio::test]
    async fn a_failed_build_and_a_failed_release_command_end_differently() {
        let (fake, folder) = builder("failed");
        let fault = run(&fake, folder.path()).await.expect_err("failed");
        assert_eq!(fault.exit, Exit::BuildFailed);
        let (fake, folder) = builder("succeeded");
        let release = format!("GET /apps/shop/releases/{ID}");
        fake.on(&release, 200, &objects::release(3, "Deploy", "failed"));
        let fault = run(&fake, folder.path()).await.expect_err("failed");
        assert_eq!(fault.exit, Exit::ReleaseFailed);
    }

    #[tokio::test]
    async fn a_source_that_is_not_there_is_named_and_nothing_is_built() {
        let (fake, folder) = builder("succeeded");
        let fault = run(&fake, &folder.path().join("nowhere")).await;
        let fault = fault.expect_err("refused");
        assert_eq!(fault.exit, Exit::General);
        assert!(fault.message.contains("nowhere: No such file"), "{fault}");
        assert!(
            !fake
                .calls()
                .iter()
                .any(|call| call.starts_with("POST /apps"))
        );
    }

    #[tokio::test]
    async fn an_unknown_app_is_told_before_anything_is_sent() {
        let (fake, folder) = builder("succeeded");
        let source = folder.path().to_str().expect("text");
        let fault = fake.run(&["deploy", source, "-a", "nobody"]).await;
        assert_eq!(fault.expect_err("refused").exit, Exit::NotFound);
        assert_eq!(fake.calls(), ["GET /apps/nobody"]);
    }
}
