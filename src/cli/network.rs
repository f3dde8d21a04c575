//! What the dynos of an app reach beside the outside world.

use super::arguments::Json;
use super::client::Client;
use super::exit::{Done, Fault};
use super::output::{self, Screen, one_line, plainly};
use super::path::{of_app, segment};
use crate::api::types::{NetworkRule, NetworkRuleCreate};
use crate::model::NetworkTarget;

/// `network`.
pub(super) async fn list(client: &Client, screen: &mut Screen, app: &str, json: Json) -> Done {
    let rules: Vec<NetworkRule> = client.list(&of_app(app, "/network-rules")).await?;
    if json.is_on {
        return screen.json(&rules);
    }
    if rules.is_empty() {
        screen.note(&format!(
            "Dynos of {app} reach the outside world only. Open a way with `manifold network:allow -a {app} APP|ADDRESS:PORT`."
        ));
        return Ok(());
    }
    let heading = screen.paint.heading(&format!("{app} Network"));
    screen.data(&(heading + &table(&rules)))
}

fn table(rules: &[NetworkRule]) -> String {
    let row = |rule: &NetworkRule| {
        let who = if rule.kind == "app" { "app" } else { "port" };
        vec![
            rule.target.clone(),
            who.to_owned(),
            address(rule),
            rule.user.email.clone(),
        ]
    };
    let rows: Vec<_> = rules.iter().map(row).collect();
    output::columns(&["Allowed", "Kind", "Address", "By"], &rows)
}

/// What an app connects to.
fn address(rule: &NetworkRule) -> String {
    match (rule.kind.as_str(), rule.protocol.as_str()) {
        ("app", _) => format!("http://{}/", rule.address),
        (_, "udp") => format!("{}:{}/udp", rule.address, rule.port),
        _ => format!("{}:{}", rule.address, rule.port),
    }
}

/// `network:allow`.
pub(super) async fn allow(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    target: &str,
    json: Json,
) -> Done {
    // What can never be a target is refused before anybody is asked.
    let parsed = target.parse::<NetworkTarget>();
    parsed.map_err(|error| Fault::usage(one_line(&error.to_string())))?;
    let shown = screen.note_paint.app(app);
    let what = format!("Letting dynos of {shown} reach {}", one_line(target));
    let body = NetworkRuleCreate {
        target: target.to_owned(),
    };
    let path = of_app(app, "/network-rules");
    let rule: NetworkRule = screen
        .action(&what, client.post(&path, &body), plainly)
        .await?;
    if json.is_on {
        return screen.json(&rule);
    }
    if rule.kind == "app" {
        screen.note(&format!(
            "Its web dynos answer at {} (if they bind 0.0.0.0:$PORT), spread at random.",
            address(&rule)
        ));
    }
    Ok(())
}

/// `network:deny`.
pub(super) async fn deny(client: &Client, screen: &mut Screen, app: &str, target: &str) -> Done {
    let shown = screen.note_paint.app(app);
    let what = format!("Closing the way of {shown} to {}", one_line(target));
    let path = of_app(app, &format!("/network-rules/{}", segment(target)));
    screen.action(&what, client.delete(&path), plainly).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::exit::Exit;
    use crate::cli::fake::{Fake, objects};

    #[tokio::test]
    async fn rules_are_listed_with_what_to_connect_to() {
        let fake = Fake::start();
        let list = json!([
            objects::network_rule("back", "app", "198.18.0.1", 80),
            objects::network_rule("10.0.0.5:5432", "host", "10.0.0.5", 5432),
        ]);
        fake.on("GET /apps/shop/network-rules", 200, &list);
        fake.run(&["network", "-a", "shop"]).await.expect("listed");
        insta::assert_snapshot!(fake.out.text(), @r"
        === shop Network

        Allowed        Kind  Address             By
        back           app   http://198.18.0.1/  ann@host
        10.0.0.5:5432  port  10.0.0.5:5432       ann@host
        ");
    }

    #[tokio::test]
    async fn ways_are_opened_and_closed() {
        let fake = Fake::start();
        let rule = objects::network_rule("back", "app", "198.18.0.1", 80);
        fake.on("POST /apps/shop/network-rules", 201, &rule);
        fake.on(
            "DELETE /apps/shop/network-rules/10.0.0.5%3A5432",
            200,
            &rule,
        );
        fake.run(&["network:allow", "back", "-a", "shop"])
            .await
            .expect("opened");
        fake.run(&["network:deny", "10.0.0.5:5432", "-a", "shop"])
            .await
            .expect("closed");
        insta::assert_snapshot!(fake.err.text(), @r"
        Letting dynos of ⬢ shop reach back... done
        Its web dynos answer at http://198.18.0.1/ (if they bind 0.0.0.0:$PORT), spread at random.
        Closing the way of ⬢ shop to 10.0.0.5:5432... done
        ");
        assert_eq!(
            fake.calls()[0],
            r#"POST /apps/shop/network-rules {"target":"back"}"#
        );
    }

    #[tokio::test]
    async fn a_loopback_target_is_refused_with_a_way_out() {
        let fake = Fake::start();
        let words = ["network:allow", "127.0.0.1:5432", "-a", "shop"];
        let fault = fake.run(&words).await.expect_err("refused");
        assert_eq!(fault.exit, Exit::Usage);
        assert!(fault.message.contains("an address of this host"), "{fault}");
        assert!(fake.calls().is_empty());
    }
}
