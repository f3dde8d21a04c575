//! `/apps/A/dynos/D/changes`: the files that a dyno changed since it started.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use axum::extract::State;

use super::dynos;
use crate::api::error::ApiError;
use crate::api::extract::{App, Key};
use crate::api::reply::{self, Answer};
use crate::api::state::Api;
use crate::api::types;
use crate::disk::{Change, FileKind, How};

pub(super) async fn show(State(api): State<Api>, App(app): App, Key(key): Key) -> Answer {
    let view = dynos::find(&api, app.id, &key)?;
    let found = api.supervisor.changes(view.id).await;
    let found = found.map_err(|error| ApiError::internal("read the dyno's files", &error))?;
    let Some(found) = found else {
        return Err(ApiError::conflict(format!(
            "{} has no files now: it is {}. A dyno's files end with it; try again when it is up.",
            view.name, view.state
        )));
    };
    reply::ok(&types::Changes {
        dyno: types::Named {
            id: view.id.0,
            name: view.name.to_string(),
        },
        changes: found.listed.iter().map(change).collect(),
        left_out: found.left_out,
        is_complete: !found.is_cut,
    })
}

fn change(change: &Change) -> types::Change {
    let how = match change.how {
        How::Added => "A",
        How::Modified => "M",
        How::Deleted => "D",
    };
    let kind = match change.kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Link => "link",
        FileKind::Other => "other",
    };
    types::Change {
        change: how.to_owned(),
        kind: kind.to_owned(),
        path: quoted(&change.path),
        size: change.size_bytes,
    }
}

/// A path as git shows it (`core.quotePath`): plain if it is, else in double quotes with the
/// escapes of C, so that two paths never look alike and no terminal obeys one.
fn quoted(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    if let Some(plain) = path.to_str()
        && !plain.chars().any(is_odd)
    {
        return plain.to_owned();
    }
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' | '\\' => text.extend(['\\', character]),
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                character if is_odd(character) => {
                    octal(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
                }
                character => text.push(character),
            }
        }
        octal(&mut text, chunk.invalid());
    }
    text.push('"');
    text
}

fn octal(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        write!(text, "\\{byte:03o}").expect("a String takes all");
    }
}

/// What is not shown as it is: quotes, controls, and what turns the direction of text.
fn is_odd(character: char) -> bool {
    character.is_control()
        || matches!(character, '"' | '\\' | '\u{200e}' | '\u{200f}')
        || ('\u{2028}'..='\u{202e}').contains(&character)
        || ('\u{2066}'..='\u{2069}').contains(&character)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn paths_that_could_mislead_are_quoted() {
        let check = |path: &[u8], expected: &str| {
            assert_eq!(quoted(Path::new(OsStr::from_bytes(path))), expected);
        };
        check(b"/app/a b", "/app/a b");
        check("/app/é".as_bytes(), "/app/é");
        check(b"/app/a\nb\t", "\"/app/a\\nb\\t\"");
        check(b"/app/\x1b[31m", "\"/app/\\033[31m\"");
        check(b"/app/\"q\"\\", "\"/app/\\\"q\\\"\\\\\"");
        check(b"/app/\xff\xc3\xa9", "\"/app/\\377é\"");
        check("/app/\u{202e}txt".as_bytes(), "\"/app/\\342\\200\\256txt\"");
    }
}
