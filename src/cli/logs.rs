//! Logs: a session is asked for, its stream is passed on.

use super::arguments::Logs;
use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::{Paint, Screen};
use super::path::of_app;
use crate::api::types::{LogSession, LogSessionCreate};

/// Longest line held back for colouring; more is passed on in parts. Logged lines are at most
/// 10 KB.
const LINE_MAX: usize = 64 * 1024;

/// `logs`.
pub(super) async fn logs(client: &Client, screen: &mut Screen, order: &Logs) -> Done {
    let app = order.app.required()?;
    let body = LogSessionCreate {
        dyno: order.dyno.clone(),
        source: order.source.clone(),
        lines: Some(order.count),
        tail: order.tail,
    };
    let path = of_app(app, "/log-sessions");
    let session: LogSession = client.post(&path, &body).await?;
    let mut stream = client.follow(&session.logplex_url).await?;
    let mut lines = Lines::default();
    while let Some(bytes) = stream.next().await? {
        // Into a pipe or a file the app's bytes pass as they are.
        if screen.paint.is_on || screen.is_terminal {
            let text = lines.push(&bytes, screen.paint);
            screen.bytes(&text)?;
        } else {
            screen.bytes(&bytes)?;
        }
    }
    let mut rest = Vec::new();
    harmless(&lines.rest, &mut rest);
    screen.bytes(&rest)?;
    if order.tail {
        let fault = Fault::new(Exit::Connection, "the supervisor ended the log stream");
        return Err(fault.hint("is it still running? See what its journal says"));
    }
    Ok(())
}

/// Cuts a stream into lines and colours what stands before the message.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// All that is complete, coloured.
    fn push(&mut self, bytes: &[u8], paint: Paint) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let mut text = Vec::new();
        let end = match self.rest.iter().rposition(|&byte| byte == b'\n') {
            Some(at) => at + 1,
            None if self.rest.len() > LINE_MAX => self.rest.len(),
            None => 0,
        };
        let whole: Vec<u8> = self.rest.drain(..end).collect();
        for line in whole.split_inclusive(|&byte| byte == b'\n') {
            coloured(line, paint, &mut text);
        }
        text
    }
}

/// What an app printed must not drive the reader's terminal (titles, clipboard, cursor, answers
/// typed back): control characters are shown as `\\xNN`. Tabs, newlines and colours stay.
fn harmless(text: &[u8], out: &mut Vec<u8>) {
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (count, is_safe) = match rest {
            [0x1B, b'[', ..] => match colour_sequence(rest) {
                Some(count) => (count, true),
                None => (1, false),
            },
            [b'\t' | b'\n', ..] => (1, true),
            [0..0x20 | 0x7F, ..] => (1, false),
            // C1 controls, as UTF-8: some terminals take U+009B for ESC [.
            [0xC2, 0x80..=0x9F, ..] => (2, false),
            _ => (1, true),
        };
        if is_safe {
            out.extend_from_slice(&rest[..count]);
        } else {
            for byte in &rest[..count] {
                out.extend_from_slice(format!("\\x{byte:02x}").as_bytes());
            }
        }
        at += count;
    }
}

/// Length of `ESC [ digits ; ... m` at the start.
fn colour_sequence(text: &[u8]) -> Option<usize> {
    let is_parameter = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b';' | b':');
    let end = text.iter().skip(2).position(|byte| !is_parameter(byte))? + 2;
    (text[end] == b'm').then_some(end + 1)
}

/// `TIME SOURCE[PROCESS]:` in the colour of the process; the rest as it is.
fn coloured(line: &[u8], paint: Paint, text: &mut Vec<u8>) {
    let end = line.windows(2).position(|pair| pair == b"]:");
    let head = end.and_then(|end| std::str::from_utf8(&line[..end + 2]).ok());
    let name = head.and_then(|head| Some(head.split_once('[')?.1.trim_end_matches("]:")));
    match (head, name) {
        (Some(head), Some(name)) => {
            text.extend_from_slice(paint.by_name(name, head).as_bytes());
            harmless(&line[head.len()..], text);
        }
        _ => harmless(line, text),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::fake::Fake;

    fn session(fake: &Fake) {
        let session = json!({
            "id": "01234567-89ab-4def-8123-456789abcdef", "logplex_url": "/logs/secret",
            "created_at": "2026-01-01T10:00:00Z", "updated_at": "2026-01-01T10:00:00Z",
        });
        fake.on("POST /apps/shop/log-sessions", 201, &session);
        fake.on_text(
            "GET /logs/secret",
            "T app[web.1]: one\nT heroku[router]: two\n",
        );
    }

    #[tokio::test]
    async fn the_stream_is_passed_on_as_it_is() {
        let fake = Fake::start();
        session(&fake);
        let words = ["logs", "-a", "shop", "-n", "7", "-d", "web.1", "-s", "app"];
        assert_eq!(fake.run(&words).await, Ok(0));
        assert_eq!(
            fake.out.text(),
            "T app[web.1]: one\nT heroku[router]: two\n"
        );
        assert_eq!(
            fake.calls()[0],
            r#"POST /apps/shop/log-sessions {"dyno":"web.1","source":"app","lines":7,"tail":false}"#
        );
    }

    #[tokio::test]
    async fn a_tail_that_the_server_ends_is_a_failure() {
        let fake = Fake::start();
        session(&fake);
        let fault = fake.run(&["logs", "-a", "shop", "--tail"]).await;
        assert_eq!(fault.expect_err("ended").exit, Exit::Connection);
    }

    #[test]
    fn nothing_but_colour_reaches_a_terminal() {
        let check = |text: &str, expected: &str| {
            let mut out = Vec::new();
            harmless(text.as_bytes(), &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(
            "\u{1b}[1;31mred\u{1b}[0m\té\n",
            "\u{1b}[1;31mred\u{1b}[0m\té\n",
        );
        check("\u{1b}]52;c;aWQ=\u{7}", "\\x1b]52;c;aWQ=\\x07");
        check("\u{1b}]0;title\u{1b}\\", "\\x1b]0;title\\x1b\\");
        check("\u{1b}[2J\u{1b}[6n\u{1b}Pq", "\\x1b[2J\\x1b[6n\\x1bPq");
        check(
            "\u{9b}31m\r\u{8}\u{7f}\0",
            "\\xc2\\x9b31m\\x0d\\x08\\x7f\\x00",
        );
        check("\u{1b}[", "\\x1b[");
    }

    #[test]
    fn colour_stays_in_front_of_the_message_however_the_stream_is_cut() {
        let stream = b"T app[web.1]: a]: \x1b[1m\xc3\xa9\nno head\nT heroku[router]: at=info\nrest";
        let paint = Paint { is_on: true };
        for at in 0..stream.len() {
            let mut lines = Lines::default();
            let mut text = lines.push(&stream[..at], paint);
            text.extend(lines.push(&stream[at..], paint));
            text.extend(&lines.rest);
            let shown = String::from_utf8_lossy(&text);
            let end = anstyle::Style::new().bold().render_reset().to_string();
            assert!(
                shown.contains(&format!("app[web.1]:{end} a]: \u{1b}[1m\u{e9}\n")),
                "{shown:?}"
            );
            let plain = anstream::adapter::strip_bytes(&text).into_vec();
            let expected = anstream::adapter::strip_bytes(stream).into_vec();
            assert_eq!(plain, expected, "cut at {at}");
        }
    }
}
