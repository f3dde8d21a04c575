//! `manifold diff`: what a dyno made of its files.

use std::path::Path;

use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::host::{Host, app_dir, check, contains, copy_app};

/// The cases of this file.
pub(crate) fn cases() -> Vec<Trial> {
    vec![Trial::test(
        "changes::diff_lists_what_a_dyno_changed_and_nothing_else",
        diff,
    )]
}

/// What the dyno does to its files: every kind of change, names that mislead, and too many.
const SCRIPT: &str = r#"set -e
echo more >> server.py
chmod 600 stubborn.py
rm worker.py
rm -r gone
rm -r lib; mkdir lib; echo 123456789 > lib/kept
mkdir new
ln -s /etc/shadow new/link
ln -s / new/root
mkfifo new/pipe
echo > "$(printf 'new/\033[31m\nred')"
mkdir /tmp/many
for n in $(seq 1100); do : > /tmp/many/$n; done
echo all changed
exec sleep 1000
"#;

fn app(host: &Host) -> Result<(), Failed> {
    let dir = tempfile::tempdir()?;
    copy_app("tiny", dir.path())?;
    for name in ["gone/one", "lib/kept", "lib/lost"] {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        std::fs::write(path, "1")?;
    }
    std::fs::write(dir.path().join("change.sh"), SCRIPT)?;
    host.ok(&["create", "diffy"])?;
    host.ok(&["deploy", &dir.path().display().to_string(), "-a", "diffy"])?;
    host.eventually("web.1 is up", || host.all_up("diffy", &["web.1"]))
}

fn diff() -> Result<(), Failed> {
    let host = Host::start()?;
    app(&host)?;
    let output = host.cli(&["diff", "web.1", "-a", "diffy"]);
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    check(out.is_empty(), format!("a fresh dyno changed {out}"))?;
    contains(&err, "web.1 changed no file")?;
    host.get("diffy.localhost", "/write/note")
        .ok_or("no answer")?;
    let out = host.ok(&["diff", "web.1", "-a", "diffy"])?;
    check(out == "A      16 B /app/note\n", out)?;
    // A restart is a new dyno.
    host.ok(&["ps:restart", "web.1", "-a", "diffy"])?;
    host.eventually("the new web.1 changed nothing", || {
        let output = host.cli(&["diff", "web.1", "-a", "diffy"]);
        output.status.success() && output.stdout.is_empty()
    })?;

    host.ok(&["run:detached", "-a", "diffy", "--", "bash", "change.sh"])?;
    host.eventually("all changed", || {
        host.logs("diffy").contains("]: all changed")
    })?;
    let states = host.states("diffy");
    let run = states.iter().find(|(name, _)| name.starts_with("run."));
    let run = &run.ok_or("no one-off")?.0;
    let output = host.cli(&["diff", run, "-a", "diffy"]);
    check(output.status.success(), format!("{output:?}"))?;
    contains(
        &String::from_utf8_lossy(&output.stderr),
        "more are not listed",
    )?;
    let found: Value = serde_json::from_str(&host.ok(&["diff", run, "-a", "diffy", "--json"])?)?;
    let all = found["changes"].as_array().ok_or("no list")?;
    let rows: Vec<String> = all
        .iter()
        .map(|c| {
            format!(
                "{} {} {} {}",
                c["change"].as_str().unwrap_or_default(),
                c["kind"].as_str().unwrap_or_default(),
                c["path"].as_str().unwrap_or_default(),
                c["size"]
            )
        })
        .collect();
    let app: Vec<&str> = rows
        .iter()
        .map(String::as_str)
        .filter(|row| row.contains("/app"))
        .collect();
    let server = std::fs::metadata(Path::new(&app_dir("tiny")).join("server.py"))?.len() + 5;
    let stubborn = std::fs::metadata(Path::new(&app_dir("tiny")).join("stubborn.py"))?.len();
    let expected = [
        "D directory /app/gone null".to_owned(),
        "M file /app/lib/kept 10".to_owned(),
        "D file /app/lib/lost null".to_owned(),
        "A directory /app/new null".to_owned(),
        "A file \"/app/new/\\033[31m\\nred\" 1".to_owned(),
        "A link /app/new/link 11".to_owned(),
        "A other /app/new/pipe null".to_owned(),
        "A link /app/new/root 1".to_owned(),
        format!("M file /app/server.py {server}"),
        format!("M file /app/stubborn.py {stubborn}"),
        "D file /app/worker.py null".to_owned(),
    ];
    check(app == expected, format!("{app:#?}"))?;
    // The rest is the many files: those that do not fit are counted.
    let others = rows.len() - app.len();
    let left_out = found["left_out"].as_u64().unwrap_or_default();
    check(
        rows.len() == 1000 && others as u64 + left_out == 1101,
        format!("{} listed, {left_out} left out", rows.len()),
    )?;
    check(found["is_complete"] == true, "all was looked at")?;

    host.ok(&["ps:stop", run, "-a", "diffy"])?;
    for gone in [run, "web.9"] {
        host.eventually("it is gone", || {
            host.cli(&["diff", gone, "-a", "diffy"]).status.code() == Some(3)
        })?;
        let output = host.cli(&["diff", gone, "-a", "diffy"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        contains(&said, &format!("Couldn't find that dyno ({gone})."))?;
    }
    Ok(())
}
