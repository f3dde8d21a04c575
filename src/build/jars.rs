//! `buildpacks/lib/jars.pl` on jars that Python makes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use super::buildpack::{has, install};

/// A jar of the year `$2` at `$1`: `$3` stands before it, times of Unix and Windows are in it, too.
const MAKE: &str = "
import sys, zipfile, struct
path, year, before, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
with open(path, 'wb') as file: file.write(before.encode())
with zipfile.ZipFile(path, 'a' if before else 'w', zipfile.ZIP_DEFLATED) as jar:
    for name in ['META-INF/MANIFEST.MF', 'a/core.clj', 'a/core.class'] + [f'n{n}' for n in range(count)]:
        entry = zipfile.ZipInfo(name, (year, 5, 6, 7, 8, 10))
        unix = struct.pack('<HHBL', 0x5455, 5, 1, year)
        windows = struct.pack('<HHLHHQQQ', 0x000a, 32, 0, 1, 24, year, year, year)
        other = struct.pack('<HH4s', 0x7875, 4, b'same')
        entry.extra = unix + windows + other
        entry.comment = b'a comment'
        jar.writestr(entry, name * 50)
";

/// What a jar says of itself after it was tested; the times of its entries.
const READ: &str = "
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as jar:
    assert jar.testzip() is None
    for entry in jar.infolist()[:3]: print(entry.filename, entry.date_time, jar.read(entry) == entry.filename.encode() * 50)
";

/// A directory, and the packs in it; none where a program is missing.
fn place() -> Option<(TempDir, PathBuf)> {
    if !has("perl") || !has("python3") {
        return None;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let packs = install(&dir.path().join("packs")).expect("installed");
    Some((dir, packs))
}

#[test]
fn jars_that_a_build_copies_are_evened_however_old_they_are() {
    let Some((dir, packs)) = place() else {
        return;
    };
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("build")).expect("made");
    python(MAKE, &at("build/theirs.jar"), &["2011", "", "0"]);
    python(MAKE, &at("cached.jar"), &["2011", "", "0"]);
    let script = "set -euo pipefail; here=$1/java build_dir=build TMPDIR=.
        . \"$1/lib/common.sh\"; touch -d 2020-01-01 cached.jar
        before_jars
        # Until the clock of the file system has moved on.
        until [ \"$(find build -name copied.jar -cnewer begun)\" ]; do
          cp -p cached.jar build/copied.jar
        done
        even_jars";
    let mut bash = Command::new("bash");
    let bash = bash.args(["-c", script, "-"]).arg(&packs);
    run(bash.current_dir(dir.path()));
    let even = |name: &str| python(READ, &at(name), &[]).contains("(2000, 1, 1, 0, 0, 0)");
    assert!(even("build/copied.jar") && !even("build/theirs.jar"));
}

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    output
}

fn python(script: &str, path: &Path, args: &[&str]) -> String {
    let mut command = Command::new("python3");
    let output = run(command.args(["-c", script]).arg(path).args(args));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn jars_of_the_same_files_become_the_same_whenever_they_were_made() {
    let Some((dir, packs)) = place() else {
        return;
    };
    let even = |paths: &[&Path]| {
        let mut command = Command::new("perl");
        run(command.arg(packs.join("lib/jars.pl")).args(paths))
    };
    // Plain, after a script, and with more entries than the old format counts.
    for (before, count) in [
        ("", "0"),
        ("#!/bin/sh\nexec java -jar \"$0\"\n", "0"),
        ("", "65600"),
    ] {
        let made = ["2011", "2024"].map(|year| {
            let path = dir.path().join(year);
            python(MAKE, &path, &[year, before, count]);
            path
        });
        let read = || {
            made.each_ref()
                .map(|path| std::fs::read(path).expect("read"))
        };
        let [one, two] = read();
        assert_ne!(one, two);
        let output = even(&[&made[0], &made[1]]);
        assert!(output.stderr.is_empty(), "{output:?}");
        let [one, two] = read();
        assert!(one == two, "they differ: {count} entries");
        assert!(one.starts_with(before.as_bytes()));
        // Clojure takes a class that is newer than its source.
        let said = python(READ, &made[0], &[]);
        let expected = "META-INF/MANIFEST.MF (2000, 1, 1, 0, 0, 0) True\n\
                        a/core.clj (2000, 1, 1, 0, 0, 0) True\n\
                        a/core.class (2000, 1, 1, 0, 0, 2) True\n";
        assert_eq!(said, expected);
    }
    // What is no jar stays as it is.
    let odd = dir.path().join("odd");
    std::fs::write(&odd, "PK\u{5}\u{6} is all there is of it").expect("written");
    even(&[&odd]);
    let text = std::fs::read_to_string(&odd).expect("read");
    assert_eq!(text, "PK\u{5}\u{6} is all there is of it");
}
