//! Resources that clients list but that are empty here.

use serde_json::json;

use crate::api::convert;
use crate::api::extract::App;
use crate::api::reply::{self, Answer};

/// None on this platform.
pub(super) async fn none() -> Answer {
    reply::ok(&json!([]))
}

/// None of this app (which must exist).
pub(super) async fn none_of_app(_app: App) -> Answer {
    reply::ok(&json!([]))
}

/// The owner, and no one else.
pub(super) async fn collaborators(App(app): App) -> Answer {
    let user = convert::user(&app.owner);
    let permissions: Vec<_> = ["deploy", "manage", "operate", "view"]
        .map(|name| json!({ "name": name, "description": "" }))
        .into();
    reply::ok(&json!([{
        "id": convert::derived_id("collaborator", &app.id.to_string()),
        "app": { "id": app.id, "name": app.name },
        "role": "owner",
        "permissions": permissions,
        "user": { "id": user.id, "email": user.email, "federated": false },
        "created_at": convert::second(app.created),
        "updated_at": convert::second(app.created),
    }]))
}
