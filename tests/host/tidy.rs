//! The source holds to its own map: the order of the rooms, one home for `unsafe`, file sizes,
//! a doc for each room.

use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that share a line are strangers to each other; a room sees only lines below its own.
/// `compose`, which wires all of them, and the top of `src/` see everything.
const ORDER: &[&[&str]] = &[
    &["compose"],
    &["cli", "api", "router", "metrics"],
    &["build", "git"],
    &["release"],
    &["supervisor"],
    &["keeper"],
    &["dyno"],
    &["certs"],
    &[
        "rootfs", "slug", "cgroup", "disk", "network", "logs", "store", "traffic",
    ],
    &["settings"],
    &["model"],
    &["sys"],
];

/// The CLI is a client: it knows the API's shapes, not the platform.
const CLI_SEES: &[&str] = &["api::types", "model", "settings", "sys"];

/// Past this a file has two jobs.
const MOST_LINES: usize = 700;

#[test]
fn rooms_see_only_what_lies_below_them() {
    report(&files(), |file, text| room_faults(&room(file), text));
}

#[test]
fn unsafe_lives_in_sys_alone() {
    report(&files(), |file, text| unsafe_faults(&room(file), text));
}

#[test]
fn no_file_has_grown_past_its_job() {
    report(&files(), |_, text| size_faults(text));
}

#[test]
fn every_room_says_what_it_is() {
    report(&files(), |file, text| {
        let is_mod = file.file_name().is_some_and(|name| name == "mod.rs");
        if is_mod { doc_faults(text) } else { Vec::new() }
    });
}

/// They are compiled apart from the rest, and seldom.
#[test]
fn the_fuzz_targets_have_all_that_the_parsers_use() {
    let root = source().join("..");
    let read = |path: &str| fs::read_to_string(root.join(path)).expect("it can be read");
    let package = read("fuzz/src/lib.rs");
    // With the folders they lie in.
    let (mut folder, mut modules) = (Path::new("src").to_owned(), Vec::new());
    for line in package.lines() {
        let line = line.trim().trim_start_matches("pub ");
        if let Some(name) = line.strip_prefix("mod ").and_then(|l| l.strip_suffix(" {")) {
            folder.push(name);
        } else if let Some(name) = line.strip_prefix("mod ").and_then(|l| l.strip_suffix(';')) {
            modules.push((folder.clone(), name));
        } else if line == "}" {
            folder.pop();
        }
    }
    let (ours, theirs) = (read("Cargo.toml"), read("fuzz/Cargo.toml"));
    let names = |manifest: &str| -> Vec<String> {
        let (_, all) = manifest.split_once("[dependencies]\n").expect("a list");
        let list = all.split("\n[").next().unwrap_or_default();
        let names = list.lines().filter_map(|line| line.split_once(" = "));
        names.map(|(name, _)| name.replace('-', "_")).collect()
    };
    let (ours, theirs) = (names(&ours), names(&theirs));
    for (folder, module) in &modules {
        let below = folder.join(module);
        let mut files = vec![read(&format!("{}.rs", below.display()))];
        let below = root.join(below);
        for entry in fs::read_dir(below).into_iter().flatten().flatten() {
            files.push(fs::read_to_string(entry.path()).expect("it can be read"));
        }
        let code = code_of(&files.swap_remove(0));
        let used = code
            .lines()
            .filter_map(|line| line.strip_prefix("use super::"));
        for path in used.filter(|path| path.starts_with(|c: char| c.is_lowercase())) {
            let end = path.find(|c: char| !is_word(c)).unwrap_or(path.len());
            let sibling = (folder.clone(), &path[..end]);
            assert!(modules.contains(&sibling), "{module} uses {path}");
        }
        for code in files.iter().map(|text| code_of(text)).chain([code]) {
            let is_used = |name: &&String| {
                let start = format!("{name}::");
                let mut places = code.match_indices(&start);
                places.any(|(at, _)| !code[..at].ends_with(is_word))
            };
            for name in ours.iter().filter(is_used) {
                assert!(theirs.contains(name), "{module} uses {name}");
            }
        }
    }
}

#[test]
fn every_room_has_its_place_in_the_order() {
    let known: Vec<_> = ORDER.iter().flat_map(|line| line.iter()).collect();
    for entry in fs::read_dir(source()).expect("src can be read").flatten() {
        if entry.path().is_dir() {
            let name = entry.file_name().to_string_lossy().into_owned();
            assert!(known.contains(&&&*name), "src/{name} has no place in ORDER");
        }
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![source()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("src can be read").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "src was found");
    found
}

/// The first folder below `src`, empty for files at its top.
fn room(file: &Path) -> String {
    let inner = file.strip_prefix(source()).expect("it lies in src");
    let mut parts = inner.iter();
    let first = parts.next().unwrap_or_default();
    match parts.next() {
        Some(_) => first.to_string_lossy().into_owned(),
        None => String::new(),
    }
}

fn report(files: &[PathBuf], check: impl Fn(&Path, &str) -> Vec<String>) {
    let mut faults = Vec::new();
    for file in files {
        let text = fs::read_to_string(file).expect("a source file can be read");
        let name = file.strip_prefix(source()).expect("it lies in src");
        faults.extend(
            check(file, &text)
                .into_iter()
                .map(|fault| format!("src/{}: {fault}", name.display())),
        );
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

fn room_faults(room: &str, text: &str) -> Vec<String> {
    let level = |name: &str| ORDER.iter().position(|line| line.contains(&name));
    let Some(own) = level(room) else {
        return Vec::new();
    };
    let mut faults = Vec::new();
    for path in crate_paths(&code_of(text)) {
        let first = path.split("::").next().unwrap_or_default();
        let allowed = if first == room || room == "compose" {
            true
        } else if room == "cli" {
            CLI_SEES
                .iter()
                .any(|seen| path == *seen || path.starts_with(&format!("{seen}::")))
        } else {
            // Not a room: an item at the top of the crate, such as a macro.
            level(first).is_none_or(|other| other > own)
        };
        if !allowed {
            faults.push(format!("`{room}` must not see `crate::{path}`"));
        }
    }
    faults
}

fn unsafe_faults(room: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
    if room != "sys" && words.any(|word| word == "unsafe") {
        return vec!["`unsafe` outside src/sys".to_owned()];
    }
    Vec::new()
}

fn size_faults(text: &str) -> Vec<String> {
    match text.lines().count() {
        count if count > MOST_LINES => vec![format!("{count} lines, {MOST_LINES} at most")],
        _ => Vec::new(),
    }
}

fn doc_faults(text: &str) -> Vec<String> {
    let first = text.lines().next().unwrap_or_default();
    match first.strip_prefix("//!") {
        Some(doc) if !doc.trim().is_empty() => Vec::new(),
        _ => vec!["no `//!` doc on its first line".to_owned()],
    }
}

/// All paths that start at `crate::`, groups expanded, without the `crate::`.
fn crate_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !c.is_alphanumeric() && c != '_') {
            expand("", &code[at + "crate::".len()..], &mut paths);
        }
    }
    paths
}

/// Reads one use tree at the start of `text`; returns what follows it.
fn expand<'a>(prefix: &str, text: &'a str, paths: &mut Vec<String>) -> &'a str {
    let mut rest = text.trim_start();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner.trim_start();
        while !rest.is_empty() && !rest.starts_with('}') {
            rest = expand(prefix, rest, paths).trim_start();
            rest = match rest.split_once([',', '}']) {
                Some((_, after)) if rest[..rest.len() - after.len()].ends_with(',') => {
                    after.trim_start()
                }
                _ => return rest.split_once('}').map_or("", |(_, after)| after),
            };
        }
        return rest.strip_prefix('}').unwrap_or(rest);
    }
    let end = rest
        .find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*')
        .unwrap_or(rest.len());
    let path = match prefix {
        "" => rest[..end].to_owned(),
        prefix => format!("{prefix}::{}", &rest[..end]),
    };
    rest = &rest[end..];
    match rest.strip_prefix("::") {
        // A turbofish ends the path.
        Some(deeper) if !deeper.starts_with('<') => expand(&path, deeper, paths),
        _ => {
            paths.push(path);
            rest
        }
    }
}

/// The text without comments and without what stands in string literals.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let raw = rest.strip_prefix('r').map(|r| r.trim_start_matches('#'));
        let glued = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let bytes_prefix = code.ends_with('b') && !code[..code.len() - 1].ends_with(is_word);
        rest = if rest.starts_with("//") {
            rest.find('\n').map_or("", |end| &rest[end..])
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or("", |end| &rest[end + 2..])
        } else if let Some(inner) = raw.filter(|r| r.starts_with('"') && (!glued || bytes_prefix)) {
            let hashes = rest.len() - 1 - inner.len();
            let close = format!("\"{}", "#".repeat(hashes));
            code.push_str("\"\"");
            inner[1..]
                .find(&close)
                .map_or("", |end| &inner[1 + end + close.len()..])
        } else if let Some(inner) = rest.strip_prefix('"') {
            code.push_str("\"\"");
            after_string(inner)
        } else if let Some(after) = after_char(rest) {
            after
        } else {
            code.push(next);
            &rest[next.len_utf8()..]
        };
    }
    code
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn after_string(inner: &str) -> &str {
    let mut escaped = false;
    for (at, c) in inner.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return &inner[at + 1..],
            _ => {}
        }
    }
    ""
}

/// What follows a character literal; a lifetime is none.
fn after_char(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('\'')?;
    if let Some(escape) = inner.strip_prefix('\\') {
        let skipped = escape.chars().next()?.len_utf8();
        return escape[skipped..].split_once('\'').map(|(_, rest)| rest);
    }
    let literal = inner.chars().next()?.len_utf8();
    inner[literal..].strip_prefix('\'')
}

mod finds {
    use super::*;

    fn check(room: &str, text: &str, faults: &[&str]) {
        let found = room_faults(room, text);
        assert_eq!(found.len(), faults.len(), "{text}: {found:?}");
        for fault in faults {
            let wanted = format!("`{room}` must not see `crate::{fault}`");
            assert!(found.contains(&wanted), "{text}: {found:?}");
        }
    }

    #[test]
    fn an_arrow_that_points_up() {
        check(
            "slug",
            "use crate::supervisor::Command;",
            &["supervisor::Command"],
        );
        check(
            "model",
            "fn f(x: &crate::settings::Paths) {}",
            &["settings::Paths"],
        );
        check(
            "sys",
            "pub fn f() { crate::model::g::<u8>() }",
            &["model::g"],
        );
        check("build", "use crate::{model::AppId, sys};", &[]);
        check("settings", "use crate::model::AppName;", &[]);
    }

    #[test]
    fn a_stranger_on_the_same_line() {
        check("slug", "use crate::store::Store;", &["store::Store"]);
        check(
            "api",
            "use crate::{\n  model::{A, B as C},\n  router::Table, sys,\n};",
            &["router::Table"],
        );
        check("router", "use crate::cli;", &["cli"]);
    }

    #[test]
    fn what_the_cli_must_not_know() {
        check("cli", "use crate::api::types::App;\nuse crate::sys;", &[]);
        check(
            "cli",
            "use crate::api::{error::X, types::{A, B}};",
            &["api::error::X"],
        );
        check(
            "cli",
            "use crate::{api, store::Store};",
            &["api", "store::Store"],
        );
    }

    #[test]
    fn nothing_in_comments_strings_and_other_crates() {
        let text = "//! See [`crate::api`].\n/* crate::api */ const A: &str = \"crate::api \\\" crate::api\";\n\
                    const B: &str = r#\"\" crate::api\"#; const C: char = '\"'; fn f<'a>() { mycrate::api() }";
        check("sys", text, &[]);
        check("sys", "const C: char = '\"'; use crate::api;", &["api"]);
    }

    #[test]
    fn itself_and_items_at_the_top() {
        check("slug", "use crate::slug::digest; use crate::VERSION;", &[]);
        check("compose", "use crate::{cli, sys};", &[]);
    }

    #[test]
    fn unsafe_in_the_wrong_place() {
        assert_eq!(unsafe_faults("cli", "fn f() { unsafe { g() } }").len(), 1);
        assert_eq!(unsafe_faults("sys", "fn f() { unsafe { g() } }").len(), 0);
        assert_eq!(
            unsafe_faults("cli", "// unsafe\nlet unsafe_code = \"unsafe\";").len(),
            0
        );
    }

    #[test]
    fn long_files_and_missing_docs() {
        assert_eq!(size_faults(&"\n".repeat(MOST_LINES)).len(), 0);
        assert_eq!(size_faults(&"\n".repeat(MOST_LINES + 1)).len(), 1);
        assert_eq!(doc_faults("//! A room.\n").len(), 0);
        assert_eq!(doc_faults("//!\nuse std::fs;\n").len(), 1);
        assert_eq!(doc_faults("use std::fs;\n").len(), 1);
    }
}
