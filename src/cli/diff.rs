//! `diff`: the files that a dyno changed since it started.

use super::arguments::Json;
use super::client::Client;
use super::exit::Done;
use super::output::{self, Screen, one_line};
use super::path::{of_app, segment};
use crate::api::types::{Change, Changes};

/// `diff`.
pub(super) async fn show(
    client: &Client,
    screen: &mut Screen,
    app: &str,
    dyno: &str,
    json: Json,
) -> Done {
    let path = of_app(app, &format!("/dynos/{}/changes", segment(dyno)));
    let found: Changes = client.get(&path).await?;
    if json.is_on {
        return screen.json(&found);
    }
    if found.changes.is_empty() {
        screen.note(&format!("{} changed no file", one_line(&found.dyno.name)));
    }
    screen.data(&output::lines(found.changes.iter().map(line)))?;
    if found.left_out > 0 {
        screen.note(&format!("note: {} more are not listed", found.left_out));
    }
    if !found.is_complete {
        screen.note("note: it has too many files to look at all of them: there may be more");
    }
    Ok(())
}

/// `M   1.2 KB /app/file`.
fn line(change: &Change) -> String {
    let size = change.size.map(output::bytes).unwrap_or_default();
    let end = if change.kind == "directory" { "/" } else { "" };
    format!(
        "{} {size:>9} {}{end}",
        one_line(&change.change),
        one_line(&change.path)
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::cli::exit::Exit;
    use crate::cli::fake::Fake;

    #[tokio::test]
    async fn changes_are_lines_and_what_is_missing_is_said() {
        let fake = Fake::start();
        let body = json!({
            "dyno": { "id": "01234567-89ab-4def-8123-456789abcdef", "name": "web.1" },
            "changes": [
                { "change": "A", "kind": "directory", "path": "/app/tmp", "size": null },
                { "change": "M", "kind": "file", "path": "/app/tmp/\u{1b}x", "size": 1536 },
                { "change": "D", "kind": "file", "path": "/app/old", "size": null },
            ],
            "left_out": 7, "is_complete": false,
        });
        fake.on("GET /apps/shop/dynos/web.1/changes", 200, &body);
        fake.run(&["diff", "web.1", "-a", "shop"])
            .await
            .expect("shown");
        insta::assert_snapshot!(fake.out.text(), @r"
        A           /app/tmp/
        M    1.5 KB /app/tmp/\u{1b}x
        D           /app/old
        ");
        insta::assert_snapshot!(fake.err.text(), @r"
        note: 7 more are not listed
        note: it has too many files to look at all of them: there may be more
        ");
        let fault = fake.run(&["diff", "web.2", "-a", "shop"]).await;
        assert_eq!(fault.expect_err("none").exit, Exit::NotFound);
    }
}
