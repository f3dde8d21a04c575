//! How an app's requests are spread over its dynos.

use clap::Args;

use super::arguments::{App, Json};
use super::client::Client;
use super::exit::{Done, Fault};
use super::output::{Screen, pairs};
use super::path::of_app;
use crate::api::types;
use crate::model::{CONCURRENCY_MAX, RoutingPolicy};

/// `routing:set`.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// least-in-flight, random, global-queue or round-robin; as it is if left out
    policy: Option<RoutingPolicy>,
    /// Requests that a dyno serves at once; if left out: 1 for global-queue, else the config var
    /// `WEB_CONCURRENCY`, else any number
    #[arg(long, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=i64::from(CONCURRENCY_MAX)))]
    concurrency: Option<u32>,
    #[command(flatten)]
    app: App,
}

/// `routing`.
pub(super) async fn show(client: &Client, screen: &mut Screen, app: &str, json: Json) -> Done {
    let routing: types::Routing = client.get(&of_app(app, "/routing")).await?;
    if json.is_on {
        return screen.json(&routing);
    }
    let heading = screen.paint.heading(&format!("{app} Routing"));
    let limit = concurrency(&routing);
    let text = pairs(&[("Policy", routing.policy.as_str()), ("Concurrency", &limit)]);
    screen.data(&(heading + &text))
}

/// What is in force, and why.
fn concurrency(routing: &types::Routing) -> String {
    match (routing.concurrency, routing.limit) {
        (Some(_), Some(limit)) => limit.to_string(),
        (None, Some(1)) if routing.policy == RoutingPolicy::GlobalQueue.as_str() => {
            "1 (the policy's own)".to_owned()
        }
        (None, Some(limit)) => format!("{limit} (WEB_CONCURRENCY)"),
        (_, None) => "unlimited".to_owned(),
    }
}

/// `routing:set`.
pub(super) async fn set(client: &Client, screen: &mut Screen, order: &Set) -> Done {
    let app = order.app.required()?;
    let (policy, limit) = (order.policy, order.concurrency);
    if policy.is_none() && limit.is_none() {
        return Err(Fault::usage("nothing to set")
            .hint("name a policy, --concurrency N, or both: `manifold routing:set least-in-flight --concurrency 5`"));
    }
    let body = types::RoutingUpdate {
        // A policy without a limit goes back to the default limit.
        concurrency: Some(limit),
        policy: policy.map(|policy| policy.to_string()),
    };
    let what = format!("Setting the routing of {}", screen.note_paint.app(app));
    let path = of_app(app, "/routing");
    let work = client.patch::<types::Routing>(&path, &body);
    let told = |routing: &types::Routing| {
        format!(
            ", now {}, concurrency {}",
            routing.policy,
            concurrency(routing)
        )
    };
    screen.action(&what, work, told).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::cli::exit::Exit;
    use crate::cli::fake::Fake;

    fn routing(policy: &str, concurrency: Option<u32>, limit: Option<u32>) -> Value {
        json!({
            "app": { "id": "01234567-89ab-cdef-0123-456789abcdef", "name": "shop" },
            "policy": policy, "concurrency": concurrency, "limit": limit
        })
    }

    #[tokio::test]
    async fn the_limit_in_force_is_shown_with_its_source() {
        for (policy, concurrency, limit, expected) in [
            ("least-in-flight", Some(5), Some(5), "5"),
            ("least-in-flight", None, Some(3), "3 (WEB_CONCURRENCY)"),
            ("global-queue", None, Some(1), "1 (the policy's own)"),
            ("random", None, None, "unlimited"),
        ] {
            let fake = Fake::start();
            let answer = routing(policy, concurrency, limit);
            fake.on("GET /apps/shop/routing", 200, &answer);
            fake.run(&["routing", "-a", "shop"]).await.expect("shown");
            let text = fake.out.text();
            assert!(text.contains(&format!("Policy:      {policy}\n")), "{text}");
            assert!(
                text.ends_with(&format!("Concurrency: {expected}\n")),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn a_policy_and_a_limit_are_set_in_one_go() {
        let fake = Fake::start();
        let answer = routing("round-robin", Some(4), Some(4));
        fake.on("PATCH /apps/shop/routing", 200, &answer);
        let words = [
            "routing:set",
            "round-robin",
            "--concurrency",
            "4",
            "-a",
            "shop",
        ];
        fake.run(&words).await.expect("set");
        let words = ["routing:set", "round-robin", "-a", "shop"];
        fake.run(&words).await.expect("set");
        assert_eq!(
            fake.calls(),
            [
                r#"PATCH /apps/shop/routing {"policy":"round-robin","concurrency":4}"#,
                r#"PATCH /apps/shop/routing {"policy":"round-robin","concurrency":null}"#,
            ]
        );
        let said = fake.err.text();
        let told = "Setting the routing of ⬢ shop... done, now round-robin, concurrency 4\n";
        assert!(said.starts_with(told), "{said}");
    }

    #[tokio::test]
    async fn what_is_no_setting_is_refused_at_once() {
        let fake = Fake::start();
        let fault = fake.run(&["routing:set", "-a", "shop"]).await;
        assert_eq!(fault.expect_err("refused").exit, Exit::Usage);
        assert!(fake.calls().is_empty());
    }
}
