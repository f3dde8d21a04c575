//! The real CLI against the real API, without root.

use manifold::settings::Timings;

use crate::host::Host;

const ODD: &str = "python3 server.py";

#[test]
fn an_app_lives_its_life_through_the_cli() {
    let host = Host::start(Timings::default());
    let output = host.cli(&["create"]);
    let made = String::from_utf8_lossy(&output.stderr).into_owned();
    let name = made.rsplit("⬢ ").next().expect("a name").trim();
    assert_eq!(
        name.split('-').count(),
        3,
        "a name like warm-frost-1289: {made}"
    );
    assert!(host.ok(&["apps"]).contains(name));
    host.ok(&["destroy", "-a", name, "--confirm", name]);

    let url = host.ok(&["create", "odd"]);
    assert!(url.starts_with("http://odd.localhost"), "{url}");
    assert_eq!(host.ok(&["open", "-a", "odd"]), url);
    host.release(
        "odd",
        "odd",
        &[
            ("web", ODD),
            ("worker", "while sleep 1; do echo works; done"),
        ],
    );
    host.until_up("odd", &["web.1"]);
    assert_eq!(
        host.ok(&["ps:scale", "-a", "odd"]),
        "web=1:Standard-1X worker=0:Standard-1X\n"
    );
    let output = host.cli(&["ps:scale", "web=2", "worker=1", "-a", "odd"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        said,
        "Scaling dynos... done, now running web at 2:Standard-1X, worker at 1:Standard-1X\n"
    );
    host.until_up("odd", &["web.1", "web.2", "worker.1"]);
    let ps = host.ok(&["ps", "-a", "odd"]);
    assert!(
        ps.contains("=== web (Standard-1X): python3 server.py (2)\n\nweb.1: up "),
        "{ps}"
    );
    assert!(
        host.ok(&["ps", "worker", "-a", "odd"])
            .contains("worker.1: up")
    );

    // Another app takes the slug as it is, and keeps its own config.
    host.ok(&["create", "odd-live"]);
    host.ok(&["config:set", "WHO=live", "-a", "odd-live"]);
    let output = host.cli(&["promote", "-a", "odd", "--to", "odd-live"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, "Promoting ⬢ odd to ⬢ odd-live... done, v4\n");
    host.until_up("odd-live", &["web.1"]);
    assert_eq!(host.ok(&["config:get", "WHO", "-a", "odd-live"]), "live\n");
    let releases = host.ok(&["releases", "-a", "odd-live"]);
    assert!(releases.contains("Promote odd, v3"), "{releases}");
    let (status, said) = host.fails(&["promote", "-a", "odd", "--to", "odd"]);
    assert!(status == 2 && said.contains("to itself"), "{said}");
    host.ok(&["destroy", "-a", "odd-live", "--confirm", "odd-live"]);

    host.ok(&["config:set", "COLOUR=teal", "EMPTY=", "-a", "odd"]);
    assert_eq!(host.ok(&["config:get", "COLOUR", "-a", "odd"]), "teal\n");
    assert_eq!(
        host.ok(&["config", "-s", "-a", "odd"]),
        "COLOUR=teal\nEMPTY=''\n"
    );
    host.ok(&["config:unset", "EMPTY", "-a", "odd"]);
    let releases = host.ok(&["releases", "-a", "odd"]);
    assert!(
        releases.contains("v5  Remove EMPTY config vars"),
        "{releases}"
    );
    host.ok(&["rollback", "v3", "-a", "odd"]);
    let info = host.ok(&["releases:info", "-a", "odd"]);
    assert!(
        info.contains("=== Release v6\n") && info.contains("Rollback to v3"),
        "{info}"
    );
    assert_eq!(host.ok(&["config", "-a", "odd", "--json"]).trim(), "{}");

    host.ok(&["domains:add", "*.example.com", "-a", "odd"]);
    assert!(host.ok(&["domains", "-a", "odd"]).contains("*.example.com"));
    host.until("the domain routes", || {
        host.get("a.example.com", "/").0 == 200
    });
    host.ok(&["domains:remove", "*.example.com", "-a", "odd"]);
    host.until("it routes no more", || {
        host.get("a.example.com", "/").0 == 404
    });

    let logs = host.ok(&["logs", "-a", "odd", "-s", "app", "-d", "api", "-n", "1500"]);
    for line in [
        "app[api]: Scaled to web@2:Standard-1X worker@1:Standard-1X by user ",
        "app[api]: Set COLOUR, EMPTY config vars by user ",
        "app[api]: Rollback to v3 by user ",
    ] {
        assert!(logs.contains(line), "{line} in {logs}");
    }
    host.ok(&["destroy", "-a", "odd", "--confirm", "odd"]);
    assert!(!host.ok(&["apps", "--json"]).contains("odd"));
}

#[test]
fn one_offs_pass_streams_and_statuses() {
    let host = Host::start(Timings::default());
    host.ok(&["create", "odd"]);
    host.release("odd", "odd", &[("worker", "echo from the worker type")]);
    let run = |words: &[&str], input: &[u8]| {
        let mut args = vec!["run", "-a", "odd"];
        args.extend(words);
        host.cli_with(&args, input)
    };
    let big = vec![b'x'; 3_000_000];
    let output = run(
        &[
            "--",
            "bash",
            "-c",
            "cat; echo \"$1\" >&2; exit 7",
            "_",
            "two  words",
        ],
        &big,
    );
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(output.stdout, big);
    assert_eq!(output.stderr, b"two  words\n");
    let output = run(&["worker"], b"");
    assert_eq!(output.stdout, b"from the worker type\n", "{output:?}");
    let output = run(&["--env", "A=b c", "echo \"$A\"; kill -TERM $$"], b"");
    assert_eq!(
        (output.status.code(), output.stdout),
        (Some(143), b"b c\n".to_vec())
    );
    host.ok(&["run:detached", "-a", "odd", "echo from afar"]);
    host.until("its line", || host.logs("odd").contains("]: from afar"));
}

#[test]
fn each_error_has_its_words_and_its_status() {
    let host = Host::start(Timings::default());
    host.web("odd", "odd", ODD);
    let mut statuses = std::collections::BTreeMap::new();
    for (args, status, words) in [
        (
            &["ps", "-a", "nobody"][..],
            3,
            "error: Couldn't find that app.\nhint: ",
        ),
        (&["ps"], 2, "no app was named"),
        (&["ps:scale", "web=x", "-a", "odd"], 2, "web=x"),
        (&["ps:scale", "nosuch=1", "-a", "odd"], 3, "nosuch"),
        (&["ps:scale", "web=1:huge", "-a", "odd"], 5, "Standard-2X"),
        (&["create", "odd"], 5, "taken"),
        (&["create", "Bad_Name"], 5, "Name must"),
        (&["config:set", "1BAD=x", "-a", "odd"], 5, "1BAD"),
        (&["config:get", "NOPE", "-a", "odd"], 3, "NOPE"),
        (&["ps:stop", "web.9", "-a", "odd"], 3, "web.9"),
        (&["rollback", "v99", "-a", "odd"], 3, "release"),
        (&["domains:add", "not a host", "-a", "odd"], 2, "not a host"),
        (&["destroy", "-a", "odd", "--confirm", "other"], 2, "odd"),
        (
            &["apps", "--socket", "/nowhere.sock"],
            7,
            "manifold supervise",
        ),
    ] {
        let (got, said) = host.fails(args);
        statuses.insert(args, (got, said.clone()));
        assert!(said.contains(words), "{args:?}: {said}");
        assert_eq!(got, status, "{args:?}: {said}");
    }
    assert_eq!(host.states("odd"), [("web.1".to_owned(), "up".to_owned())]);
    // Nothing of the all-or-nothing change was applied.
    let (_, said) = host.fails(&["ps:scale", "web=3", "nosuch=1", "-a", "odd"]);
    assert!(said.contains("nosuch"), "{said}");
    assert_eq!(host.ok(&["ps:scale", "-a", "odd"]), "web=1:Standard-1X\n");
}

#[test]
fn completions_and_man_pages_come_from_the_grammar() {
    let host = Host::start(Timings::default());
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            host.ok(&["completions", shell]).contains("ps:scale"),
            "{shell}"
        );
    }
    let dir = host.dir.path().join("man");
    std::fs::create_dir(&dir).expect("made");
    host.ok(&["man", &dir.display().to_string()]);
    assert!(dir.join("manifold.1").exists());
}

#[test]
fn features_are_switched_per_app_and_survive() {
    let host = Host::start(Timings::default());
    host.ok(&["create", "shop"]);
    host.ok(&["create", "other"]);
    host.ok(&["features:enable", "http-hsts", "-a", "shop"]);
    let on = |app: &str| {
        let list = host.json("GET", &format!("/apps/{app}/features"), "");
        let list = list.as_array().cloned().unwrap_or_default();
        let on = list
            .into_iter()
            .filter(|feature| feature["enabled"] == true);
        on.map(|feature| feature["name"].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(on("shop"), ["http-hsts", "preboot"]);
    // What apps have from the start.
    assert_eq!(on("other"), ["preboot"]);
    let (status, said) = host.fails(&["features:enable", "http-hsts", "-a", "shop"]);
    assert_eq!(status, 5, "{said}");
    host.ok(&["features:disable", "http-hsts", "-a", "shop"]);
    assert_eq!(on("shop"), ["preboot"]);
    assert_eq!(
        host.fails(&["features:enable", "nosuch", "-a", "shop"]).0,
        2
    );
}

#[test]
fn no_words_ask_for_help_whatever_the_environment_says() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_manifold"))
        .env("MANIFOLD_SOCKET", "/nowhere")
        .env("MANIFOLD_APP", "shop")
        .output()
        .expect("the CLI starts");
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(help.contains("Usage: manifold"), "{help}");
    assert!(help.contains("ps:scale"), "{help}");
}
