//! `/account`: the caller.

use jiff::Timestamp;

use crate::api::peer::Caller;
use crate::api::reply::{self, Answer};
use crate::api::types;

pub(super) async fn show(caller: Caller) -> Answer {
    reply::ok(&types::Account {
        id: caller.id(),
        name: Some(caller.email.clone()),
        email: caller.email,
        verified: true,
        two_factor_authentication: false,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
    })
}

pub(super) async fn rate_limits() -> Answer {
    reply::ok(&serde_json::json!({ "remaining": 2400 }))
}
