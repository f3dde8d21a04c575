//! What callers announce of a slug or a build is held to.

use manifold::model::Digest;
use manifold::settings::Timings;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::host::Host;

fn sha256(bytes: &[u8]) -> String {
    Digest(Sha256::digest(bytes).into()).to_string()
}

/// A host whose new apps are on a stack that is not there.
fn host() -> Host {
    let host = Host::start_with(Timings::default(), |settings| {
        settings.stack = "cedar-12".parse().expect("a name");
    });
    host.ok(&["create", "shop"]);
    host
}

#[test]
fn a_slug_is_what_was_announced_or_none() {
    let host = host();
    let post = |body: &serde_json::Value| {
        host.api("POST", "/apps/shop/slugs", body.to_string().as_bytes())
    };
    let make = |body: &serde_json::Value| -> serde_json::Value {
        let (status, text) = post(body);
        assert_eq!(status, 201, "{text}");
        serde_json::from_str(&text).expect("JSON")
    };
    let checksum = format!("SHA256:{}", sha256(b"right"));
    let slug = make(&json!({ "checksum": checksum, "stack": "host" }));
    assert_eq!(
        slug["checksum"], checksum,
        "it is shown before the bytes are there"
    );
    assert_eq!(slug["stack"]["name"], "host");
    let url = slug["blob"]["url"].as_str().expect("a url");
    let (status, text) = host.api("PUT", url, b"wrong");
    assert_eq!(status, 422, "{text}");
    for word in [&*checksum, &sha256(b"wrong"), "announced"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let slugs = || {
        std::fs::read_dir(host.dir.path().join("state/slugs"))
            .expect("listed")
            .count()
    };
    assert_eq!(slugs(), 0, "nothing is kept");
    let body = json!({ "slug": slug["id"] }).to_string();
    let (status, text) = host.api("POST", "/apps/shop/releases", body.as_bytes());
    assert!(status >= 400, "it has no bytes: {text}");
    // It can still become what it was to be.
    assert_eq!(host.api("PUT", url, b"right").0, 200);
    assert_eq!(slugs(), 1);
    let path = format!("/apps/shop/slugs/{}", slug["id"].as_str().expect("an id"));
    let shown = host.json("GET", &path, "");
    assert_eq!(
        (&shown["checksum"], &shown["size"]),
        (&json!(checksum), &json!(5))
    );

    // Without a word it is anything, on the app's stack.
    let slug = make(&json!({ "checksum": null, "stack": null }));
    assert_eq!(slug["checksum"], json!(null));
    assert_eq!(slug["stack"]["name"], "cedar-12");
    for (body, word) in [
        (json!({ "checksum": "SHA256:1" }), "SHA256"),
        (json!({ "checksum": "MD5:00" }), "SHA256"),
        (json!({ "stack": "cedar-99" }), "cedar-99 is not installed"),
        (json!({ "stack": "../x" }), "../x"),
    ] {
        let (status, text) = post(&body);
        assert!(
            status == 422 && text.contains(word),
            "{body}: {status} {text}"
        );
    }
}

#[test]
fn a_build_names_buildpacks_of_its_own() {
    let host = host();
    host.ok(&["buildpacks:set", "heroku/static", "-a", "shop"]);
    let build = |buildpacks: serde_json::Value| {
        let urls = host.json("POST", "/sources", "")["source_blob"].clone();
        assert_eq!(
            host.api("PUT", urls["put_url"].as_str().expect("a url"), b"x")
                .0,
            200
        );
        let body = json!({ "source_blob": { "url": urls["get_url"] }, "buildpacks": buildpacks });
        host.api("POST", "/apps/shop/builds", body.to_string().as_bytes())
    };
    let url = "https://git.example/pack.git#v1";
    let (status, text) = build(json!([{ "name": "heroku/python" }, { "url": url }]));
    assert_eq!(status, 201, "{text}");
    let made: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let names = json!([
        { "url": "heroku/python", "name": "heroku/python" },
        { "url": url, "name": url },
    ]);
    assert_eq!(made["buildpacks"], names);
    let path = format!("/apps/shop/builds/{}", made["id"].as_str().expect("an id"));
    assert_eq!(
        host.json("GET", &path, "")["buildpacks"],
        names,
        "it is kept"
    );
    let apps = host.json("GET", "/apps/shop/buildpack-installations", "");
    assert_eq!(
        apps[0]["buildpack"]["name"], "heroku/static",
        "the app keeps its own"
    );
    for (buildpacks, word) in [
        (json!([{ "name": "heroku/cobol" }]), "heroku/cobol"),
        (json!([{}]), "a url or a name"),
        (json!([{ "url": "file:///etc" }]), "file:///etc"),
    ] {
        let (status, text) = build(buildpacks);
        assert!(status == 422 && text.contains(word), "{status} {text}");
    }
}
