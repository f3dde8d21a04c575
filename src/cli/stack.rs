//! Stacks.

use super::arguments::Json;
use super::client::Client;
use super::exit::Done;
use super::output::{self, Paint, Screen, one_line, plainly};
use super::path::of_app;
use crate::api::types::{App, AppUpdate, Stack};

/// `stack`. Without an app the stack of new apps is the marked one.
pub(super) async fn list(
    client: &Client,
    screen: &mut Screen,
    app: Option<&str>,
    json: Json,
) -> Done {
    let mut stacks: Vec<Stack> = client.list("/stacks").await?;
    stacks.sort_by(|a, b| a.name.cmp(&b.name));
    let app: Option<App> = match app {
        Some(app) => Some(client.get(&of_app(app, "")).await?),
        None => None,
    };
    if json.is_on {
        return screen.json(&stacks);
    }
    screen.data(&listing(&stacks, app.as_ref(), screen.paint))
}

fn listing(stacks: &[Stack], app: Option<&App>, paint: Paint) -> String {
    let title = match app {
        Some(app) => format!("{} Available Stacks", paint.app(&app.name)),
        None => "Available Stacks".to_owned(),
    };
    let line = |stack: &Stack| {
        let is_marked = app.map_or(stack.default, |app| app.build_stack.name == stack.name);
        let mark = if is_marked { "*" } else { " " };
        format!("{mark} {}", stack.name)
    };
    paint.heading(&title) + &output::lines(stacks.iter().map(line))
}

/// `stack:set`.
pub(super) async fn set(client: &Client, screen: &mut Screen, app: &str, stack: String) -> Done {
    let what = format!("Setting stack to {}", one_line(&stack));
    let body = AppUpdate {
        build_stack: Some(stack),
        ..AppUpdate::default()
    };
    let path = of_app(app, "");
    let work = client.patch::<App>(&path, &body);
    screen.action(&what, work, plainly).await?;
    screen.note(&format!(
        "The next build of {} uses it: run `manifold deploy`.",
        screen.note_paint.app(app)
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::fake::{Fake, objects};

    #[tokio::test]
    async fn the_stack_in_use_is_marked() {
        let fake = Fake::start();
        let stacks = json!([
            objects::stack("host", false),
            objects::stack("bookworm", true)
        ]);
        fake.on("GET /stacks", 200, &stacks);
        fake.on("GET /apps/shop", 200, &objects::app("shop"));
        fake.run(&["stack", "-a", "shop"]).await.expect("listed");
        fake.run(&["stack", "-a", ""]).await.expect("listed");
        assert_eq!(
            fake.out.text(),
            "=== ⬢ shop Available Stacks\n\n  bookworm\n* host\n\
             === Available Stacks\n\n* bookworm\n  host\n"
        );
    }

    #[tokio::test]
    async fn a_stack_is_set_for_the_next_build() {
        let fake = Fake::start();
        fake.on("PATCH /apps/shop", 200, &objects::app("shop"));
        fake.run(&["stack:set", "bookworm", "-a", "shop"])
            .await
            .expect("set");
        assert_eq!(
            fake.calls(),
            [r#"PATCH /apps/shop {"build_stack":"bookworm"}"#]
        );
        assert!(
            fake.err
                .text()
                .starts_with("Setting stack to bookworm... done\n")
        );
    }
}
