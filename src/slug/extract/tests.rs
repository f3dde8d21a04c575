//! Attacks by archive: each is refused by name, and nothing appears outside.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tar::{Builder, Header};

use super::*;

struct Made {
    builder: Builder<Vec<u8>>,
}

impl Made {
    fn new() -> Self {
        Self {
            builder: Builder::new(Vec::new()),
        }
    }

    /// Adds an entry with a raw path, as an attacker would.
    fn entry(mut self, kind: EntryType, path: &[u8], link: &[u8], mode: u32, body: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_size(body.len() as u64);
        header.as_mut_bytes()[..path.len()].copy_from_slice(path);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link);
        header.set_cksum();
        self.builder.append(&header, body).expect("appended");
        self
    }

    fn file(self, path: &str, body: &str) -> Self {
        self.entry(
            EntryType::Regular,
            path.as_bytes(),
            b"",
            0o644,
            body.as_bytes(),
        )
    }

    fn symlink(self, path: &str, to: &str) -> Self {
        self.entry(
            EntryType::Symlink,
            path.as_bytes(),
            to.as_bytes(),
            0o777,
            b"",
        )
    }

    /// Unpacks as a slug into `root/in`, beside a canary.
    fn unpack(self) -> (tempfile::TempDir, Result<(), String>) {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("canary"), "alive").expect("written");
        std::fs::create_dir(dir.path().join("in")).expect("made");
        let root = OwnedFd::from(File::open(dir.path().join("in")).expect("opened"));
        let bytes = self.builder.into_inner().expect("finished");
        let small = Bounds {
            bytes: 10_000,
            entries: 50,
            prefix: Some("app"),
        };
        let result = extract(bytes.as_slice(), &root, small)
            .map(drop)
            .map_err(|e| e.to_string());
        let canary = std::fs::read_to_string(dir.path().join("canary")).expect("read");
        assert_eq!(canary, "alive");
        let mut names: Vec<_> = std::fs::read_dir(dir.path())
            .expect("listed")
            .flatten()
            .map(|e| e.file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["canary", "in"]);
        (dir, result)
    }

    #[track_caller]
    fn refused(self, needle: &str) {
        let (_dir, result) = self.unpack();
        let error = result.expect_err("must be refused");
        assert!(error.contains(needle), "{error}");
    }
}

#[test]
fn a_plain_slug_unpacks_with_its_modes() {
    let made = Made::new()
        .entry(EntryType::Directory, b"./app/", b"", 0o755, b"")
        .entry(
            EntryType::Regular,
            b"./app/run",
            b"",
            0o6755,
            b"#!/bin/sh\n",
        )
        .file("./app/a/b/c", "deep")
        .symlink("./app/link", "a/b/c")
        .entry(EntryType::Link, b"./app/hard", b"./app/a/b/c", 0o644, b"");
    let (dir, result) = made.unpack();
    result.expect("unpacked");
    let app = dir.path().join("in/app");
    let bits = std::fs::metadata(app.join("run"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(bits & 0o7777, 0o755, "no set-user-id bit survives");
    assert_eq!(
        std::fs::read_to_string(app.join("link")).expect("read"),
        "deep"
    );
    assert_eq!(
        std::fs::read_to_string(app.join("hard")).expect("read"),
        "deep"
    );
}

#[test]
fn paths_that_leave_the_root_are_refused() {
    for path in [
        "/canary",
        "../canary",
        "app/../../canary",
        "app/x/../../../canary",
    ] {
        Made::new().file(path, "x").refused("leaves the root");
    }
    Made::new()
        .file("etc/passwd", "x")
        .refused("not below ./app/");
}

#[test]
fn nothing_is_written_through_a_link() {
    Made::new()
        .symlink("app/x", "..")
        .file("app/x/canary", "x")
        .refused("cannot be written");
    Made::new()
        .symlink("app/x", "/")
        .file("app/x/canary", "x")
        .refused("cannot be written");
}

#[test]
fn a_directory_entry_does_not_change_what_a_link_points_to() {
    let made = Made::new().symlink("app/x", "../..").entry(
        EntryType::Directory,
        b"app/x",
        b"",
        0o700,
        b"",
    );
    let (dir, result) = made.unpack();
    result.expect("the link is replaced by a directory");
    assert!(Path::new(&dir.path().join("in/app/x")).is_dir());
    assert!(!dir.path().join("in/app/x").is_symlink());
    let bits = std::fs::metadata(dir.path().join("in"))
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(bits & 0o777, 0o755);
}

#[test]
fn hard_links_stay_inside_and_never_go_through_links() {
    let link = |to: &[u8]| Made::new().entry(EntryType::Link, b"app/h", to, 0o644, b"");
    link(b"/canary").refused("links outside");
    link(b"../canary").refused("links outside");
    Made::new()
        .symlink("app/s", "../../canary")
        .entry(EntryType::Link, b"app/h", b"app/s", 0o644, b"")
        .refused("cannot be written");
}

#[test]
fn devices_and_fifos_are_refused_by_name() {
    for kind in [EntryType::Char, EntryType::Block, EntryType::Fifo] {
        Made::new()
            .entry(kind, b"app/dev", b"", 0o666, b"")
            .refused("`app/dev` is a device");
    }
}

#[test]
fn too_many_bytes_or_entries_are_refused_by_name() {
    Made::new()
        .file("app/big", &"x".repeat(10_001))
        .refused("more than 10000 bytes: entry `app/big` is too large for what is left");
    // One that is small by itself, behind others.
    Made::new()
        .file("app/first", &"x".repeat(9_000))
        .file("app/second", &"x".repeat(1_001))
        .file("app/third", "x")
        .refused("more than 10000 bytes: entry `app/second` is");
    let many = (0..52).fold(Made::new(), |made, n| made.file(&format!("app/{n}"), ""));
    many.refused("more than 50 entries: entry `app/50` is one too many");
    // What is compressed well behind the end counts, too, though it has no name.
    let mut tar = Made::new()
        .file("app/x", "x")
        .builder
        .into_inner()
        .expect("finished");
    tar.resize(tar.len() + 20_000, 0);
    let dir = tempfile::tempdir().expect("a directory");
    let root = OwnedFd::from(File::open(dir.path()).expect("opened"));
    let bounds = Bounds {
        bytes: 10_000,
        ..SLUG
    };
    let error = extract(gzip(&tar).as_slice(), &root, bounds).expect_err("too large");
    let error = error.to_string();
    assert!(
        error.contains("more than 10000 bytes: what follows its last entry"),
        "{error}"
    );
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(tar).expect("compressed");
    gzip.finish().expect("finished")
}

#[test]
fn names_are_bytes_and_those_that_differ_in_case_stay_apart() {
    let file = |made: Made, path: &[u8], body: &[u8]| {
        made.entry(EntryType::Regular, path, b"", 0o644, body)
    };
    let all: [(&[u8], &[u8]); 4] = [
        (b"app/Name", b"upper"),
        (b"app/name", b"lower"),
        (b"app/\xff\xfe", b"no text"),
        (b"app/n\xc3\xa4me\n\x1b[31m", b"odd"),
    ];
    let made = all
        .iter()
        .fold(Made::new(), |made, (path, body)| file(made, path, body));
    let (dir, result) = made.unpack();
    result.expect("unpacked");
    let mut found: Vec<_> = std::fs::read_dir(dir.path().join("in/app"))
        .expect("listed")
        .flatten()
        .map(|entry| {
            let name = [b"app/", entry.file_name().as_bytes()].concat();
            (name, std::fs::read(entry.path()).expect("read"))
        })
        .collect();
    found.sort();
    let mut expected = all.map(|(path, body)| (path.to_vec(), body.to_vec()));
    expected.sort();
    assert_eq!(found, expected);
    // Where one is refused, it is shown without what a terminal would act on.
    file(Made::new(), b"app/../\xff\x1b[31m", b"")
        .refused("entry `app/../\u{fffd}\\u{1b}[31m` has");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let (dir, result) = Made::new()
        .file("app/x", "old")
        .file("app/x", "new")
        .unpack();
    result.expect("unpacked");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("in/app/x")).expect("read"),
        "new"
    );
    let (dir, result) = Made::new()
        .symlink("app/x", "/etc/passwd")
        .file("app/x", "mine")
        .unpack();
    result.expect("unpacked");
    assert_eq!(
        std::fs::read_to_string(dir.path().join("in/app/x")).expect("read"),
        "mine"
    );
}

#[test]
fn a_directory_without_its_write_bit_keeps_its_children() {
    let made = Made::new()
        .entry(EntryType::Directory, b"app/ro", b"", 0o555, b"")
        .file("app/ro/file", "in");
    let (dir, result) = made.unpack();
    result.expect("unpacked");
    assert!(dir.path().join("in/app/ro/file").is_file());
}

#[test]
fn a_truncated_archive_is_an_error() {
    assert!(cut_off(514).is_err());
}

/// What comes of the first bytes of an archive.
fn cut_off(length: usize) -> Result<Digest, SlugError> {
    let whole = Made::new().file("app/x", "hello").builder.into_inner();
    let whole = whole.expect("finished");
    let dir = tempfile::tempdir().expect("a directory");
    let root = OwnedFd::from(File::open(dir.path()).expect("opened"));
    extract(&whole[..length], &root, SLUG)
}

#[test]
fn an_archive_without_entries_or_without_its_end_is_refused() {
    Made::new().refused("it is empty");
    let error = cut_off(1024).expect_err("cut off");
    assert!(error.to_string().contains("its end is missing"), "{error}");
}

#[test]
fn what_two_readers_would_take_differently_is_refused() {
    let pax = |records: &[u8]| {
        Made::new()
            .entry(EntryType::XHeader, b"app/pax", b"", 0o644, records)
            .file("app/x", "hello")
    };
    pax(b"20 GNU.sparse.major=1\n").refused("cannot be read");
    pax(b"22 GNU.sparse.major=1\n").refused("is a sparse file");
    pax(b"9 size=5\n9 size=5\n").refused("one thing twice");
    pax(b"11 size=-1\n").refused("no number");
    Made::new()
        .entry(EntryType::Directory, b"app/d", b"", 0o755, b"an entry?")
        .refused("has contents");
    let long = vec![b'x'; 5 << 20];
    Made::new()
        .entry(EntryType::XHeader, b"app/pax", b"", 0o644, &long)
        .file("app/x", "hello")
        .refused("larger than 4 MiB");
    Made::new()
        .file("app", "no directory")
        .refused("must be a directory");
}

#[test]
fn a_bomb_stops_at_the_bound_before_it_is_unpacked() {
    let mut builder = Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_size(1 << 30);
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    builder
        .append_data(&mut header, "app/bomb", io::repeat(0).take(1 << 20))
        .ok();
    let tar = builder.into_inner().expect("finished");
    let bytes = gzip(&tar);
    let dir = tempfile::tempdir().expect("a directory");
    let root = OwnedFd::from(File::open(dir.path()).expect("opened"));
    let bounds = Bounds {
        bytes: 1 << 16,
        ..SLUG
    };
    let error = extract(bytes.as_slice(), &root, bounds)
        .expect_err("too large")
        .to_string();
    assert!(
        error.contains("more than 65536 bytes: entry `app/bomb` is"),
        "{error}"
    );
}
