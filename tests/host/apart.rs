//! Whatever apps share the router, and however their dynos behave, each request gets the answer of
//! its own app. Hosts, wildcards among them, tell the apps apart.

#[path = "../http/mix.rs"]
mod mix;

use std::collections::BTreeMap;

use manifold::settings::Timings;

use crate::host::Host;
use mix::APPS;

#[test]
fn an_answer_never_reaches_another_apps_or_another_clients_request() {
    let host = Host::start(Timings::default());
    for app in APPS {
        let command = format!("NAME={app} exec python3 server.py");
        host.ok(&["create", app]);
        host.release(app, "odd", &[("web", &command)]);
        host.ok(&["ps:scale", "web=2", "-a", app]);
    }
    for app in APPS {
        host.until_up(app, &["web.1", "web.2"]);
    }
    mix::never_mix(host.http, |app| {
        host.ok(&["ps:restart", "-a", app]);
        host.until_up(app, &["web.1", "web.2"]);
    });
}

#[test]
fn a_host_finds_its_app_by_exact_names_and_wildcards() {
    let host = Host::start(Timings::default());
    for app in APPS {
        host.web(app, "odd", &format!("NAME={app} exec python3 server.py"));
    }
    host.ok(&["domains:add", "*.example.com", "-a", "red"]);
    // Names below it are its owner's alone.
    let (_, said) = host.fails(&["domains:add", "www.example.com", "-a", "green"]);
    assert!(said.contains("in use by another app"), "{said}");
    host.ok(&["domains:add", "*.shop.test", "-a", "green"]);
    host.ok(&["domains:add", "shop.test.example.org", "-a", "blue"]);
    let expected = BTreeMap::from([
        ("example.com", ""),
        ("shop.test.example.org", "blue"),
        ("www.shop.test.example.org", ""),
        ("www.example.com", "red"),
        ("WWW.Example.COM:8080", "red"),
        ("www.example.com.", "red"),
        ("www.shop.test", "green"),
        ("shop.test", ""),
        ("a.b.example.com", "red"),
        ("notexample.com", ""),
        ("example.com.evil.test", ""),
        ("green.localhost", "green"),
    ]);
    let who = |name: &str| {
        let (status, _, body) = host.get(name, "/who?x");
        match status {
            200 => body.strip_suffix(" x").map(str::to_owned),
            404 => Some(String::new()),
            _ => None,
        }
    };
    host.until("the router knows", || {
        who("shop.test.example.org").as_deref() == Some("blue")
    });
    for (name, app) in expected {
        assert_eq!(who(name).as_deref(), Some(app), "{name}");
    }
    host.ok(&["domains:remove", "*.example.com", "-a", "red"]);
    host.until("it is gone", || {
        who("www.example.com").as_deref() == Some("")
    });
    assert_eq!(who("www.shop.test").as_deref(), Some("green"));
}
