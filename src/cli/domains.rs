//! Domains.

use super::arguments::Json;
use super::client::Client;
use super::exit::{Done, Fault};
use super::output::{self, Paint, Screen, one_line, plainly};
use super::path::{of_app, segment};
use crate::api::types::{Domain, DomainCreate};
use crate::model::Hostname;

/// `domains`.
pub(super) async fn list(client: &Client, screen: &mut Screen, app: &str, json: Json) -> Done {
    let domains: Vec<Domain> = client.list(&of_app(app, "/domains")).await?;
    if json.is_on {
        return screen.json(&domains);
    }
    screen.data(&listing(app, &domains, screen.paint))
}

fn listing(app: &str, domains: &[Domain], paint: Paint) -> String {
    let (own, custom): (Vec<&Domain>, Vec<&Domain>) =
        domains.iter().partition(|domain| domain.kind == "heroku");
    let mut text = paint.heading(&format!("{app} Default Domain"));
    text += &output::lines(own.iter().map(|domain| domain.hostname.clone()));
    if !custom.is_empty() {
        text.push('\n');
        text += &paint.heading(&format!("{app} Custom Domains"));
        let row = |domain: &&Domain| {
            let target = domain.cname.clone().unwrap_or_default();
            vec![domain.hostname.clone(), target]
        };
        let rows: Vec<_> = custom.iter().map(row).collect();
        text += &output::columns(&["Domain Name", "DNS Target"], &rows);
    }
    text
}

/// `domains:add`.
pub(super) async fn add(client: &Client, screen: &mut Screen, app: &str, hostname: String) -> Done {
    let shown = screen.note_paint.app(app);
    let what = format!("Adding {} to {shown}", one_line(&hostname));
    let body = DomainCreate {
        hostname: parsed(&hostname)?,
    };
    let path = of_app(app, "/domains");
    let work = client.post::<Domain>(&path, &body);
    let domain = screen.action(&what, work, plainly).await?;
    screen.note(&format!(
        "Let the DNS of {} point to this machine; requests for it go to {app}.",
        domain.hostname
    ));
    Ok(())
}

/// What no domain can be is refused before anybody is asked.
fn parsed(hostname: &str) -> Done<String> {
    let parsed = hostname.parse::<Hostname>();
    let parsed = parsed.map_err(|error| Fault::usage(one_line(&error.to_string())))?;
    Ok(parsed.as_str().to_owned())
}

/// `domains:remove`.
pub(super) async fn remove(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    hostname: &str,
) -> Done {
    let shown = screen.note_paint.app(app);
    let what = format!("Removing {} from {shown}", one_line(hostname));
    let path = of_app(app, &format!("/domains/{}", segment(hostname)));
    screen.action(&what, client.delete(&path), plainly).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::exit::Exit;
    use crate::cli::fake::{Fake, objects};

    #[tokio::test]
    async fn domains_are_listed_the_default_one_apart() {
        let fake = Fake::start();
        let list = json!([
            objects::domain("shop.localhost", "heroku"),
            objects::domain("www.example.com", "custom"),
            objects::domain("*.example.com", "custom"),
        ]);
        fake.on("GET /apps/shop/domains", 200, &list);
        fake.run(&["domains", "-a", "shop"]).await.expect("listed");
        insta::assert_snapshot!(fake.out.text(), @r#"
        === shop Default Domain

        shop.localhost

        === shop Custom Domains

        Domain Name      DNS Target
        www.example.com  shop.localhost
        *.example.com    shop.localhost
        "#);
    }

    #[tokio::test]
    async fn domains_come_and_go() {
        let fake = Fake::start();
        let domain = objects::domain("*.example.com", "custom");
        fake.on("POST /apps/shop/domains", 201, &domain);
        fake.on("DELETE /apps/shop/domains/%2A.example.com", 200, &domain);
        fake.run(&["domains:add", "*.example.com", "-a", "shop"])
            .await
            .expect("added");
        fake.run(&["domains:remove", "*.example.com", "-a", "shop"])
            .await
            .expect("removed");
        insta::assert_snapshot!(fake.err.text(), @r#"
        Adding *.example.com to ⬢ shop... done
        Let the DNS of *.example.com point to this machine; requests for it go to shop.
        Removing *.example.com from ⬢ shop... done
        "#);
        assert_eq!(
            fake.calls()[0],
            r#"POST /apps/shop/domains {"hostname":"*.example.com"}"#
        );
    }

    #[tokio::test]
    async fn what_is_no_host_name_is_refused_at_once() {
        let fake = Fake::start();
        let fault = fake.run(&["domains:add", "not a host", "-a", "shop"]).await;
        let fault = fault.expect_err("refused");
        assert_eq!(fault.exit, Exit::Usage);
        assert!(fault.message.contains("not a host"), "{fault}");
        assert!(fake.calls().is_empty());
    }
}
