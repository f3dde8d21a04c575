//! Git from the client's side: the remote helper, the forced command of ssh, and remotes.
//!
//! `git push manifold main` with a remote `manifold::APP` runs `git-remote-manifold REMOTE APP`
//! (this program by another name), which joins git's pipes with a connection to the supervisor.
//! Source: gitremote-helpers(7).

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::process::{Command, ExitCode, Stdio};

use hyper::header::HeaderValue;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::Client;
use super::dispatch;
use super::exit::{Done, Exit, Fault};
use super::output::{Screen, one_line, plainly};
use super::path::{of_app, segment};
use crate::api::types::App;
use crate::api::types::git::PROTOCOL;

/// Longest line of git's to its helper in bytes.
const LINE_MAX: usize = 4096;

/// Entry point under the name `git-remote-manifold`.
pub fn git_remote_main(arguments: &[OsString]) -> ExitCode {
    let url = arguments.get(2).or(arguments.get(1));
    let url = url.and_then(|url| url.to_str()).unwrap_or_default();
    let app = app_of_url(url).unwrap_or_default().to_owned();
    dispatch::with_runtime(async move |_| {
        if app.is_empty() {
            return Err(Fault::usage("the remote names no app")
                .hint("git remote add manifold manifold::APP"));
        }
        // clap, which reads the variable for every other command, has no part in this one.
        let socket = std::env::var_os("MANIFOLD_SOCKET").map(Into::into);
        help(&Client::new(dispatch::socket(socket)), &app).await
    })
}

/// Answers git's commands until it wants a connection.
async fn help(client: &Client, app: &str) -> Done<u8> {
    loop {
        let Some(line) = read_line()? else {
            return Ok(0);
        };
        match line.split_once(' ') {
            None if line == "capabilities" => say("connect\n\n")?,
            None if line.is_empty() => return Ok(0),
            Some(("connect", service)) => {
                let stream = open(client, app, service, std::env::var("GIT_PROTOCOL").ok()).await?;
                say("\n")?;
                return join(stream).await;
            }
            _ => {
                let message = format!("git asks for `{}`, which is not known", one_line(&line));
                return Err(Fault::general(message));
            }
        }
    }
}

/// `git-shell APP`: ssh has put what the client asked for into `SSH_ORIGINAL_COMMAND`.
pub(super) async fn shell(client: &Client, app: &str) -> Done<u8> {
    let Ok(asked) = std::env::var("SSH_ORIGINAL_COMMAND") else {
        let message = "this key deploys with git only; it gives no shell";
        return Err(Fault::usage(message).hint("git push ssh://USER@HOST/APP main"));
    };
    let service = asked.split(' ').next().unwrap_or_default();
    if !["git-receive-pack", "git-upload-pack"].contains(&service) {
        let message = format!("this key deploys with git only, not `{}`", one_line(&asked));
        return Err(Fault::usage(message));
    }
    let stream = open(client, app, service, std::env::var("GIT_PROTOCOL").ok()).await?;
    join(stream).await
}

async fn open(
    client: &Client,
    app: &str,
    service: &str,
    protocol: Option<String>,
) -> Done<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>> {
    let path = of_app(app, &format!("/git/{}", segment(service)));
    let protocol = protocol.and_then(|text| HeaderValue::try_from(text).ok());
    let more: Vec<_> = protocol
        .map(|value| ("git-protocol", value))
        .into_iter()
        .collect();
    client.upgrade(&path, PROTOCOL, &more).await
}

/// Copies until the supervisor's side ends.
async fn join(stream: hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>) -> Done<u8> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        let copied = tokio::io::copy(&mut tokio::io::stdin(), &mut writer).await;
        // The other side ends when it has answered, whether it hears of our end or not.
        writer.shutdown().await.ok();
        copied
    });
    let mut stdout = tokio::io::stdout();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = reader.read(&mut buffer).await;
        let count = count.map_err(|error| super::client::broken(&error))?;
        if count == 0 {
            break;
        }
        let written = async {
            stdout.write_all(&buffer[..count]).await?;
            stdout.flush().await
        };
        written.await.map_err(|error| Fault::output(&error))?;
    }
    sending.abort();
    Ok(0)
}

/// Byte by byte: what follows the line belongs to the connection.
fn read_line() -> Done<Option<String>> {
    let mut line = Vec::new();
    let mut byte = [0];
    // A descriptor without `Stdin`'s buffer, which reads ahead.
    let raw = nix::unistd::dup(std::io::stdin());
    let raw = raw.map_err(|errno| Fault::general(format!("cannot read git's commands: {errno}")));
    let mut raw = std::fs::File::from(raw?);
    loop {
        match raw.read(&mut byte) {
            Ok(0) => return Ok(None),
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if line.len() < LINE_MAX => line.push(byte[0]),
            Ok(_) => return Err(Fault::general("git sends a line without an end")),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                return Err(Fault::general(format!(
                    "cannot read git's commands: {error}"
                )));
            }
        }
    }
    String::from_utf8(line)
        .map(Some)
        .map_err(|_| Fault::general("git sends a line that is no text"))
}

fn say(text: &str) -> Done {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Fault::output(&error))
}

/// The app of a remote's URL: `manifold::APP` or `manifold://APP`.
fn app_of_url(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("manifold://")
        .or_else(|| url.strip_prefix("manifold::"))
        .unwrap_or(url);
    let name = rest.trim_matches('/');
    let name = name.strip_suffix(".git").unwrap_or(name);
    let is_name = !name.is_empty() && !name.contains(['/', ':', '@']);
    is_name.then_some(name)
}

fn git(arguments: &[&str]) -> Option<String> {
    // Unit tests run in the repository of this program: its remotes are none of their business.
    if cfg!(test) {
        return None;
    }
    let output = Command::new("git")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

/// Whether the current folder lies in a work tree.
pub(super) fn is_repository() -> bool {
    git(&["rev-parse", "--is-inside-work-tree"]).is_some_and(|text| text == "true")
}

/// The app that the git remote `manifold` of the current folder names.
pub(super) fn app_of_folder() -> Option<String> {
    let url = git(&["config", "--get", "remote.manifold.url"])?;
    // Another scheme is somebody else's remote.
    url.starts_with("manifold:")
        .then(|| app_of_url(&url).map(str::to_owned))?
}

/// Adds the remote, or tells where it points already.
pub(super) fn add_remote(screen: &mut Screen, app: &str, remote: &str) -> Done {
    let url = format!("manifold::{app}");
    let key = format!("remote.{remote}.url");
    match git(&["config", "--get", &key]) {
        Some(old) if old == url => {}
        Some(old) => {
            screen.note(&format!(
                "The git remote {} stays as it is ({}).",
                one_line(remote),
                one_line(&old)
            ));
            return Ok(());
        }
        None => {
            if git(&["remote", "add", "--", remote, &url]).is_none() {
                let message = format!("git did not add the remote {}", one_line(remote));
                return Err(Fault::general(message));
            }
        }
    }
    screen.note(&format!("Git remote {} is {url}", one_line(remote)));
    Ok(())
}

/// `git:remote`.
pub(super) async fn remote(client: &Client, screen: &mut Screen, app: &str, remote: &str) -> Done {
    if !is_repository() {
        return Err(
            Fault::new(Exit::NotFound, "this folder is no git repository")
                .hint("run `git init` first"),
        );
    }
    let app: App = client.get(&of_app(app, "")).await?;
    let url = format!("manifold::{}", app.name);
    // Asked for by name: a remote of that name is pointed at the app.
    let key = format!("remote.{remote}.url");
    if git(&["config", "--get", &key]).is_some_and(|old| old != url) {
        let what = format!("Pointing git remote {} at {url}", one_line(remote));
        let work = async {
            git(&["remote", "set-url", "--", remote, &url])
                .ok_or_else(|| Fault::general("git did not change the remote"))
        };
        screen.action(&what, work, plainly).await?;
        return Ok(());
    }
    add_remote(screen, &app.name, remote)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_app_is_read_off_every_form_of_the_url() {
        let check = |url: &str, expected: Option<&str>| assert_eq!(app_of_url(url), expected);
        check("shop", Some("shop"));
        check("manifold::shop", Some("shop"));
        check("manifold://shop", Some("shop"));
        check("manifold://shop.git/", Some("shop"));
        check("", None);
        check("manifold://host/shop", None);
        check("git@host:shop", None);
    }
}
