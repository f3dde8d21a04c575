//! Certificates.

use std::io::Read as _;
use std::path::Path;

use super::arguments::Json;
use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::{self, Screen, one_line, plainly};
use super::path::{of_app, segment};
use crate::api::types::{AcmUpdate, App, Domain, LocalAuthority, SniEndpoint, SniEndpointWrite};

/// Largest file that is read for a certificate or key, in bytes.
const FILE_MAX: u64 = 256 * 1024;

async fn all(client: &Client, app: &str) -> Done<Vec<SniEndpoint>> {
    client.list(&of_app(app, "/sni-endpoints")).await
}

fn kind(one: &SniEndpoint) -> &'static str {
    match (one.ssl_cert.acm, one.ssl_cert.self_signed) {
        (true, _) => "ACME",
        (false, true) => "self-signed",
        (false, false) => "given",
    }
}

/// `certs`.
pub(super) async fn list(client: &Client, screen: &mut Screen, app: &str, json: Json) -> Done {
    let all = all(client, app).await?;
    if json.is_on {
        return screen.json(&all);
    }
    if all.is_empty() {
        screen.note(&format!("{app} has no certificates."));
        return Ok(());
    }
    let row = |one: &SniEndpoint| {
        vec![
            one.name.clone(),
            one.ssl_cert.cert_domains.join(", "),
            day(one.ssl_cert.expires_at),
            kind(one).to_owned(),
        ]
    };
    let rows: Vec<_> = all.iter().map(row).collect();
    screen.data(&output::columns(
        &["Name", "Common Name(s)", "Expires", "Type"],
        &rows,
    ))
}

fn day(time: jiff::Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// The certificate of that name, or the only one.
async fn one(client: &Client, app: &str, name: Option<&str>) -> Done<SniEndpoint> {
    let mut all = all(client, app).await?;
    let found = match name {
        Some(name) => all.iter().position(|one| one.name == name),
        None => (all.len() == 1).then_some(0),
    };
    match (found, name) {
        (Some(at), _) => Ok(all.swap_remove(at)),
        (None, Some(name)) => {
            let message = format!("{app} has no certificate {}", one_line(name));
            Err(Fault::new(Exit::NotFound, message).hint("`manifold certs` lists them"))
        }
        (None, None) if all.is_empty() => {
            let message = format!("{app} has no certificates");
            Err(Fault::new(Exit::NotFound, message))
        }
        (None, None) => Err(Fault::usage(format!("{app} has several certificates"))
            .hint("name one with --name; `manifold certs` lists them")),
    }
}

/// `certs:info`.
pub(super) async fn info(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    name: Option<&str>,
    json: Json,
) -> Done {
    let one = one(client, app, name).await?;
    if json.is_on {
        return screen.json(&one);
    }
    let cert = &one.ssl_cert;
    let text = screen.paint.heading(&one.name);
    let pairs = [
        ("Common Name(s)", cert.cert_domains.join(", ")),
        ("Expires At", day(cert.expires_at)),
        ("Issuer", one_line(&cert.issuer)),
        ("Starts At", day(cert.starts_at)),
        ("Subject", one_line(&cert.subject)),
        ("Fingerprint", cert.fingerprint.clone()),
        ("Type", kind(&one).to_owned()),
    ];
    screen.data(&(text + &output::pairs(&pairs)))
}

fn read(path: &Path) -> Done<String> {
    let fail = |error: std::io::Error| {
        let path = path.display();
        Fault::new(Exit::General, format!("cannot read {path}: {error}"))
    };
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut text = String::new();
    file.take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(fail)?;
    Ok(text)
}

fn body(chain: &Path, key: &Path) -> Done<SniEndpointWrite> {
    Ok(SniEndpointWrite {
        certificate_chain: read(chain)?,
        private_key: read(key)?,
    })
}

/// `certs:add`.
pub(super) async fn add(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    chain: &Path,
    key: &Path,
) -> Done {
    let body = body(chain, key)?;
    let what = format!("Adding SSL certificate to {}", screen.note_paint.app(app));
    let path = of_app(app, "/sni-endpoints");
    let work = client.post::<SniEndpoint>(&path, &body);
    let added = screen.action(&what, work, plainly).await?;
    let names = added.ssl_cert.cert_domains.join(", ");
    screen.note(&format!(
        "{} serves {names} from the next connection on.",
        added.name
    ));
    Ok(())
}

/// `certs:update`.
pub(super) async fn update(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    (chain, key): (&Path, &Path),
    name: Option<&str>,
) -> Done {
    let body = body(chain, key)?;
    let old = one(client, app, name).await?;
    let shown = screen.note_paint.app(app);
    let what = format!("Updating SSL certificate {} for {shown}", old.name);
    let path = of_app(app, &format!("/sni-endpoints/{}", segment(&old.name)));
    let work = client.patch::<SniEndpoint>(&path, &body);
    screen.action(&what, work, plainly).await.map(drop)
}

/// `certs:remove`.
pub(super) async fn remove(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    name: Option<&str>,
) -> Done {
    let old = one(client, app, name).await?;
    let shown = screen.note_paint.app(app);
    let what = format!("Removing SSL certificate {} from {shown}", old.name);
    let path = of_app(app, &format!("/sni-endpoints/{}", segment(&old.name)));
    screen.action(&what, client.delete(&path), plainly).await
}

/// `certs:ca`.
pub(super) async fn authority(client: &Client, screen: &mut Screen) -> Done {
    let authority: LocalAuthority = client.get("/local-authority").await?;
    screen.data(&authority.certificate)
}

/// `certs:auto`.
pub(super) async fn auto(client: &Client, screen: &mut Screen, app: &str, json: Json) -> Done {
    let domains: Vec<Domain> = client.list(&of_app(app, "/domains")).await?;
    if json.is_on {
        return screen.json(&domains);
    }
    let state: App = client.get(&of_app(app, "")).await?;
    let word = if state.acm { "enabled" } else { "disabled" };
    let mut text = screen
        .paint
        .heading(&format!("Automatic certificates of {app} are {word}"));
    let custom = domains.iter().filter(|domain| domain.kind == "custom");
    let row = |domain: &Domain| {
        vec![
            domain.hostname.clone(),
            domain.acm_status.clone().unwrap_or_default(),
            domain.acm_status_reason.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = custom.map(row).collect();
    if rows.is_empty() {
        text += "There are no custom domains: add one with `manifold domains:add`.\n";
    } else {
        text += &output::columns(&["Domain", "Status", "Reason"], &rows);
    }
    screen.data(&text)
}

/// `certs:auto:enable`.
pub(super) async fn enable(client: &Client, screen: &mut Screen, app: &str) -> Done {
    let shown = screen.note_paint.app(app);
    let what = format!("Enabling automatic certificates for {shown}");
    let path = of_app(app, "/acm");
    let nothing = serde_json::json!({});
    let work = client.post::<App>(&path, &nothing);
    screen.action(&what, work, plainly).await?;
    screen.note(&format!(
        "By this you agree to the terms of the ACME server. Follow it with `manifold certs:auto -a {app}`."
    ));
    Ok(())
}

/// `certs:auto:disable`.
pub(super) async fn disable(client: &Client, screen: &mut Screen, app: &str) -> Done {
    let shown = screen.note_paint.app(app);
    let what = format!("Disabling automatic certificates for {shown}");
    screen
        .action(&what, client.delete(&of_app(app, "/acm")), plainly)
        .await
}

/// `certs:auto:refresh`.
pub(super) async fn refresh(client: &Client, screen: &mut Screen, app: &str) -> Done {
    let shown = screen.note_paint.app(app);
    let what = format!("Refreshing automatic certificates of {shown}");
    let path = of_app(app, "/acm");
    let body = AcmUpdate { acm_refresh: true };
    let work = client.patch::<App>(&path, &body);
    screen.action(&what, work, plainly).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::exit::Exit;
    use crate::cli::fake::Fake;

    fn endpoint(name: &str) -> serde_json::Value {
        let id = "01234567-89ab-cdef-0123-456789abcdef";
        json!({
            "id": id, "name": name, "display_name": name, "certificate_chain": "", "cname": null,
            "ssl_cert": {
                "id": id, "acm": false, "ca_signed?": true, "self_signed?": false,
                "cert_domains": ["www.example.com", "example.com"],
                "starts_at": "2026-01-01T00:00:00Z", "expires_at": "2026-04-01T12:30:00Z",
                "issuer": "CN=CA", "subject": "CN=www.example.com", "fingerprint": "ab"
            },
            "domains": [], "app": {"id": id, "name": "shop"},
            "created_at": "2026-01-01T12:00:00Z", "updated_at": "2026-01-01T12:00:00Z"
        })
    }

    #[tokio::test]
    async fn certificates_are_listed_and_named_only_where_needed() {
        let fake = Fake::start();
        let path = "/apps/shop/sni-endpoints";
        fake.on(
            &format!("GET {path}"),
            200,
            &json!([endpoint("stegosaurus-12345")]),
        );
        fake.run(&["certs", "-a", "shop"]).await.expect("listed");
        insta::assert_snapshot!(fake.out.text(), @r#"
        Name               Common Name(s)                Expires               Type
        stegosaurus-12345  www.example.com, example.com  2026-04-01 12:30 UTC  given
        "#);
        let one = endpoint("stegosaurus-12345");
        fake.on(&format!("DELETE {path}/stegosaurus-12345"), 200, &one);
        let removed = fake.run(&["certs:remove", "-a", "shop"]).await;
        removed.expect("removed");
        let two = json!([endpoint("stegosaurus-12345"), endpoint("iguanodon-54321")]);
        fake.on("GET /apps/other/sni-endpoints", 200, &two);
        let fault = fake.run(&["certs:remove", "-a", "other"]).await;
        assert_eq!(fault.expect_err("which one?").exit, Exit::Usage);
        let named = ["certs:info", "--name", "nosuch-1", "-a", "other"];
        let fault = fake.run(&named).await.expect_err("not there");
        assert_eq!(fault.exit, Exit::NotFound);
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_named() {
        let fake = Fake::start();
        let words = [
            "certs:add",
            "/nonexistent/a.pem",
            "/nonexistent/a.key",
            "-a",
            "shop",
        ];
        let fault = fake.run(&words).await.expect_err("refused");
        assert!(fault.message.contains("/nonexistent/a.pem"), "{fault}");
        assert!(fake.calls().is_empty());
    }
}
