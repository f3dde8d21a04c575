//! Switches of an app.

use super::arguments::Json;
use super::client::Client;
use super::exit::{Done, Exit, Fault};
use super::output::{Screen, columns, plainly};
use super::path::of_app;
use crate::api::types;
use crate::model::Feature;

/// `features`.
pub(super) async fn list(client: &Client, screen: &mut Screen, app: &str, json: Json) -> Done {
    let features: Vec<types::Feature> = client.list(&of_app(app, "/features")).await?;
    if json.is_on {
        return screen.json(&features);
    }
    let row = |feature: &types::Feature| {
        let mark = if feature.enabled { "[+]" } else { "[ ]" };
        vec![
            format!("{mark} {}", feature.name),
            feature.description.clone(),
        ]
    };
    let rows: Vec<_> = features.iter().map(row).collect();
    let text = screen.paint.heading(&format!("{app} App Features"));
    screen.data(&(text + &columns(&[], &rows)))
}

/// `features:enable`, `features:disable`.
pub(super) async fn set(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    feature: Feature,
    is_on: bool,
) -> Done {
    let path = of_app(app, &format!("/features/{feature}"));
    let before: types::Feature = client.get(&path).await?;
    let state = if is_on { "enabled" } else { "disabled" };
    if before.enabled == is_on {
        let message = format!("{feature} is already {state}.");
        return Err(Fault::new(Exit::Invalid, message));
    }
    let verb = if is_on { "Enabling" } else { "Disabling" };
    let what = format!("{verb} {feature} for {}", screen.note_paint.app(app));
    let body = types::FeatureUpdate { enabled: is_on };
    let work = client.patch::<types::Feature>(&path, &body);
    screen.action(&what, work, plainly).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::exit::Exit;
    use crate::cli::fake::Fake;

    fn feature(is_on: bool) -> serde_json::Value {
        json!({
            "id": "01234567-89ab-cdef-0123-456789abcdef", "name": "http-force-ssl",
            "display_name": "", "description": "Redirect HTTP to HTTPS", "doc_url": "",
            "feedback_email": "", "enabled": is_on, "state": "general",
            "created_at": "2026-01-01T12:00:00Z", "updated_at": "2026-01-01T12:00:00Z"
        })
    }

    #[tokio::test]
    async fn features_are_listed_and_switched_once() {
        let fake = Fake::start();
        fake.on("GET /apps/shop/features", 200, &json!([feature(true)]));
        fake.run(&["features", "-a", "shop"]).await.expect("listed");
        insta::assert_snapshot!(fake.out.text(), @r#"
        === shop App Features

        [+] http-force-ssl  Redirect HTTP to HTTPS
        "#);
        let path = "/apps/shop/features/http-force-ssl";
        fake.on(&format!("GET {path}"), 200, &feature(true));
        let words = ["features:enable", "http-force-ssl", "-a", "shop"];
        let fault = fake.run(&words).await.expect_err("refused");
        assert_eq!(fault.exit, Exit::Invalid);
        assert_eq!(fault.message, "http-force-ssl is already enabled.");
        fake.on(&format!("PATCH {path}"), 200, &feature(false));
        let words = ["features:disable", "http-force-ssl", "-a", "shop"];
        fake.run(&words).await.expect("switched");
        assert_eq!(
            fake.err.text(),
            "Disabling http-force-ssl for ⬢ shop... done\n"
        );
    }
}
