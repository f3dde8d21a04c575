//! Tokens for the API over TCP.

use super::arguments::Json;
use super::client::Client;
use super::exit::Done;
use super::output::{self, Screen, one_line, plainly};
use super::path::segment;
use crate::api::types::{Authorization, AuthorizationCreate};

/// `authorizations`.
pub(super) async fn list(client: &Client, screen: &mut Screen, json: Json) -> Done {
    let found: Vec<Authorization> = client.list("/oauth/authorizations").await?;
    if json.is_on {
        return screen.json(&found);
    }
    if found.is_empty() {
        screen.note("No tokens. Make one with `manifold authorizations:create`.");
        return Ok(());
    }
    let row = |one: &Authorization| {
        let left = match one.access_token.expires_in {
            None => "never".to_owned(),
            Some(0) => "expired".to_owned(),
            Some(seconds) => format!("in {} h", seconds / 3600),
        };
        vec![
            one.id.to_string(),
            one_line(&one.user.email),
            left,
            one_line(&one.description),
        ]
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    let header = ["ID", "User", "Ends", "Description"];
    screen.data(&output::columns(&header, &rows))
}

/// `authorizations:create`.
pub(super) async fn create(
    client: &Client,
    screen: &mut Screen,
    description: Option<String>,
    expires_in: Option<i64>,
    short: bool,
    json: Json,
) -> Done {
    let body = AuthorizationCreate {
        description,
        expires_in,
    };
    let work = client.post("/oauth/authorizations", &body);
    let made: Authorization = screen.action("Creating token", work, plainly).await?;
    if json.is_on {
        return screen.json(&made);
    }
    let token = made.access_token.token.unwrap_or_default();
    if short {
        return screen.data(&format!("{token}\n"));
    }
    let lines = [
        ("ID", made.id.to_string()),
        ("Description", one_line(&made.description)),
        ("Token", token),
    ];
    screen.data(&output::pairs(&lines))?;
    screen.note("It is not shown again. Use it as HEROKU_API_KEY, or as the password of git.");
    Ok(())
}

/// `authorizations:revoke`.
pub(super) async fn revoke(client: &Client, screen: &mut Screen, id: &str) -> Done {
    let what = format!("Revoking token {}", one_line(id));
    let path = format!("/oauth/authorizations/{}", segment(id));
    screen.action(&what, client.delete(&path), plainly).await
}
