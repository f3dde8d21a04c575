//! Holes in the wall: what `network:allow` opened, and the addresses at which apps answer apps.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use uuid::Uuid;

use super::column::{micros, time};
use super::{NetworkRule, NetworkRuleTarget, Store, StoreError};
use crate::model::{APP_ADDRESSES_MAX, AppId, NetworkTarget, app_address};

/// Most rules of one app: each is a rule that every packet of its dynos may meet.
const PER_APP_MAX: usize = 100;

const LIST: &str = "
SELECT network_rules.*, apps.name AS target_name, app_addresses.number
FROM network_rules
LEFT JOIN apps ON apps.id = network_rules.target_app
LEFT JOIN app_addresses ON app_addresses.app = network_rules.target_app
WHERE network_rules.app = ?1
ORDER BY network_rules.created, network_rules.id";

fn record(row: &Row<'_>) -> rusqlite::Result<NetworkRule> {
    let id: String = row.get("id")?;
    let app: Option<AppId> = row.get("target_app")?;
    let target = match app {
        Some(app) => NetworkRuleTarget::App {
            app,
            name: row.get("target_name")?,
            at: app_address(row.get("number")?),
        },
        None => NetworkRuleTarget::Host(row.get("host")?),
    };
    Ok(NetworkRule {
        id: Uuid::parse_str(&id).unwrap_or_default(),
        target,
        user: row.get("user")?,
        created: time(row, "created")?,
    })
}

impl Store {
    /// What is open for an app, oldest first.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn network_rules(&self, app: AppId) -> Result<Vec<NetworkRule>, StoreError> {
        self.read("list network rules", move |tx| list(tx, app))
            .await
    }

    /// Opens a target for an app; what is open already is returned as it is.
    ///
    /// # Errors
    /// The target app does not exist or is the app itself, there are too many, or SQLite fails.
    pub async fn add_network_rule(
        &self,
        app: AppId,
        target: NetworkTarget,
        user: String,
    ) -> Result<NetworkRule, StoreError> {
        let act = "add a network rule";
        self.write(act, move |tx| {
            super::apps::find(tx, &app.to_string())?;
            let target = match target {
                NetworkTarget::Host(host) => NetworkRuleTarget::Host(host),
                NetworkTarget::App(name) => {
                    let to = super::apps::find(tx, name.as_str())
                        .map_err(|error| match error {
                            StoreError::UnknownApp => StoreError::UnknownTarget(name.to_string()),
                            other => other,
                        })?;
                    if to.id == app {
                        return Err(StoreError::TargetIsSelf);
                    }
                    NetworkRuleTarget::App {
                        app: to.id,
                        name: to.name,
                        at: address(tx, to.id)?,
                    }
                }
            };
            let mine = list(tx, app)?;
            if let Some(known) = mine.iter().find(|rule| rule.target == target) {
                return Ok(known.clone());
            }
            if mine.len() >= PER_APP_MAX {
                return Err(StoreError::NetworkRulesFull(PER_APP_MAX));
            }
            let rule = NetworkRule {
                id: Uuid::new_v4(),
                target,
                user,
                created: Timestamp::now(),
            };
            let (to_app, to_host) = match &rule.target {
                NetworkRuleTarget::App { app, .. } => (Some(*app), None),
                NetworkRuleTarget::Host(host) => (None, Some(*host)),
            };
            tx.execute(
                "INSERT INTO network_rules (id, app, target_app, host, user, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    rule.id.to_string(),
                    app,
                    to_app,
                    to_host,
                    rule.user,
                    micros(rule.created)
                ],
            )
            .map_err(StoreError::sql(act))?;
            Ok(rule)
        })
        .await
    }

    /// Closes what a rule opened, named by its id or its target.
    ///
    /// # Errors
    /// [`StoreError::UnknownNetworkRule`], or SQLite fails.
    pub async fn remove_network_rule(
        &self,
        app: AppId,
        key: &str,
    ) -> Result<NetworkRule, StoreError> {
        let key = key.to_owned();
        self.write("remove a network rule", move |tx| {
            let rule = list(tx, app)?
                .into_iter()
                .find(|rule| rule.is_named(&key))
                .ok_or(StoreError::UnknownNetworkRule)?;
            tx.execute(
                "DELETE FROM network_rules WHERE id = ?1",
                [rule.id.to_string()],
            )
            .map_err(StoreError::sql("remove a network rule"))?;
            Ok(rule)
        })
        .await
    }
}

pub(super) fn list(tx: &Transaction<'_>, app: AppId) -> Result<Vec<NetworkRule>, StoreError> {
    tx.prepare_cached(LIST)
        .and_then(|mut query| query.query_map([app], record)?.collect())
        .map_err(StoreError::sql("list network rules"))
}

/// The address at which an app answers others: given once, kept as long as the app lives.
fn address(tx: &Transaction<'_>, app: AppId) -> Result<std::net::Ipv4Addr, StoreError> {
    let fail = StoreError::sql("give the app an address");
    let find = || -> rusqlite::Result<u32> {
        let known = tx
            .prepare_cached("SELECT number FROM app_addresses WHERE app = ?1")?
            .query_row([app], |row| row.get(0))
            .optional()?;
        if let Some(number) = known {
            return Ok(number);
        }
        // The lowest free one.
        let number: u32 = tx.query_row(
            "SELECT coalesce(min(n), 0) FROM (SELECT 0 AS n UNION ALL SELECT number + 1 FROM app_addresses)
             WHERE n NOT IN (SELECT number FROM app_addresses)",
            [],
            |row| row.get(0),
        )?;
        tx.execute(
            "INSERT INTO app_addresses (app, number) VALUES (?1, ?2)",
            params![app, number],
        )?;
        Ok(number)
    };
    let number = find().map_err(fail)?;
    if number >= APP_ADDRESSES_MAX {
        return Err(StoreError::NetworkRulesFull(APP_ADDRESSES_MAX as usize));
    }
    Ok(app_address(number))
}
