//! Attacks on the API, past the CLI.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use libtest_mimic::Failed;

use crate::host::{Host, PATIENCE, check};

/// An answer of the API.
pub(super) struct Answer {
    text: String,
}

impl Answer {
    /// The number in its first line.
    pub(super) fn status(&self) -> u16 {
        let word = self.text.split(' ').nth(1);
        word.and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// What follows the head.
    pub(super) fn body(&self) -> &str {
        self.text
            .split_once("\r\n\r\n")
            .map_or("", |(_, body)| body)
    }
}

/// One request over the control socket.
pub(super) fn request(host: &Host, method: &str, path: &str, body: &str) -> Result<Answer, Failed> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAccept: application/vnd.heroku+json; version=3\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    send(host, &head)
}

/// Asks to be attached with a secret.
fn attach(host: &Host, path: &str) -> Result<Answer, Failed> {
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: manifold-attach\r\n\r\n"
    );
    send(host, &head)
}

fn send(host: &Host, head: &str) -> Result<Answer, Failed> {
    let mut stream = UnixStream::connect(host.socket())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A body that is too large is refused before it was all read; the answer is there even so.
    match stream.write_all(head.as_bytes()) {
        Err(error) if is_cut(&error) => {}
        other => other?,
    }
    let mut text = String::new();
    let mut buffer = [0; 4096];
    // An upgrade's connection may stay open: its head is all that is asked for.
    let is_upgrade = head.contains("Upgrade: ");
    while !is_upgrade || !text.contains("\r\n\r\n") {
        let count = match stream.read(&mut buffer) {
            Err(error) if is_cut(&error) && !text.is_empty() => 0,
            other => other?,
        };
        if count == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    Ok(Answer { text })
}

/// The other side has heard enough.
pub(super) fn is_cut(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
    [BrokenPipe, ConnectionReset].contains(&error.kind())
}

fn one_off(host: &Host) -> Result<(String, String), Failed> {
    let body = "{\"command\":\"cat\",\"attach\":true,\"force_no_tty\":true}";
    let answer = request(host, "POST", "/apps/tiny/dynos", body)?;
    let dyno: serde_json::Value = serde_json::from_str(answer.body())?;
    let text = |key: &str| dyno[key].as_str().unwrap_or_default().to_owned();
    let url = text("attach_url");
    let path = url.find("/attach/").map(|at| url[at..].to_owned());
    let path = path.ok_or_else(|| format!("no attach_url: {}", answer.body()))?;
    Ok((text("name"), path))
}

pub(super) fn attach_secrets(host: &Host) -> Result<String, Failed> {
    let secret_of = |path: &str| path.trim_start_matches("/attach/").to_owned();
    let (_, first) = one_off(host)?;
    let (_, second) = one_off(host)?;
    check(
        secret_of(&first).len() >= 32,
        format!("{first} can be guessed"),
    )?;
    check(first != second, "two secrets are the same")?;
    for guess in [
        "/attach/",
        "/attach/0",
        "/attach/00000000000000000000000000000000",
    ] {
        let status = attach(host, guess)?.status();
        check(
            [400, 401, 404].contains(&status),
            format!("{guess} answered {status}"),
        )?;
    }
    let answer = attach(host, &first)?;
    check(
        answer.status() == 101,
        format!("its own: {}", answer.status()),
    )?;
    let replayed = attach(host, &first)?.status();
    check(replayed == 404, format!("replayed: {replayed}"))?;
    // The second one's client never came: its time runs out.
    host.eventually("the secret expires", || {
        host.all_up("tiny", &["web.1", "worker.1"])
    })?;
    let late = attach(host, &second)?.status();
    check(late == 404, format!("expired: {late}"))?;
    Ok("guessed, replayed and expired secrets are 404".to_owned())
}
