//! Apps.

use std::num::NonZeroU32;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::column::{micros, time};
use super::{
    AppChange, AppRecord, AppState, Interrupted, NewApp, Removed, Store, StoreError, certificates,
    domains, features, formation, releases, slugs,
};
use crate::model::{AppId, Feature, ReleaseStatus, ReleaseVersion, Routing};

const COLUMNS: &str =
    "id, name, owner, stack, maintenance, routing, concurrency, has_routing, created, updated";

fn record(row: &Row<'_>) -> rusqlite::Result<AppRecord> {
    Ok(AppRecord {
        id: row.get("id")?,
        name: row.get("name")?,
        owner: row.get("owner")?,
        stack: row.get("stack")?,
        maintenance: row.get("maintenance")?,
        routing: Routing {
            policy: row.get("routing")?,
            concurrency: row
                .get::<_, Option<u32>>("concurrency")?
                .and_then(NonZeroU32::new),
        },
        has_routing: row.get("has_routing")?,
        created: time(row, "created")?,
        updated: time(row, "updated")?,
    })
}

impl Store {
    /// Every app, by name.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn apps(&self) -> Result<Vec<AppRecord>, StoreError> {
        self.read("list apps", list).await
    }

    /// The app of that id or name.
    ///
    /// # Errors
    /// [`StoreError::UnknownApp`], or SQLite fails.
    pub async fn app(&self, id_or_name: &str) -> Result<AppRecord, StoreError> {
        let key = id_or_name.to_owned();
        self.read("find an app", move |tx| find(tx, &key)).await
    }

    /// Makes an app with its first two releases (`Initial release`, `Enable Logplex`), so that
    /// the first deploy is v3. Source: Dev Center, "Releases"; observed.
    ///
    /// # Errors
    /// [`StoreError::NameTaken`], or SQLite fails.
    pub async fn create_app(&self, new: NewApp) -> Result<AppRecord, StoreError> {
        self.write("create an app", move |tx| {
            let now = Timestamp::now();
            let id = AppId::new();
            if taken(tx, &new.name.to_string(), None)? {
                return Err(StoreError::NameTaken(new.name));
            }
            tx.execute(
                "INSERT INTO apps (id, name, owner, stack, maintenance, next_version, created, updated)
                 VALUES (?1, ?2, ?3, ?4, 0, 1, ?5, ?5)",
                params![id, new.name, new.owner, new.stack, micros(now)],
            )
            .map_err(StoreError::sql("create an app"))?;
            for description in ["Initial release", "Enable Logplex"] {
                releases::insert_initial(tx, id, &new.owner, description, now)?;
            }
            for feature in Feature::DEFAULT {
                features::insert(tx, id, feature)?;
            }
            find(tx, &id.to_string())
        })
        .await
    }

    /// Changes an app; all or nothing.
    ///
    /// # Errors
    /// Name taken, app gone, or SQLite fails.
    pub async fn update_app(&self, app: AppId, change: AppChange) -> Result<AppRecord, StoreError> {
        self.write("update an app", move |tx| {
            let old = find(tx, &app.to_string())?;
            let name = change.name.unwrap_or(old.name);
            let has_routing = old.has_routing || change.routing.is_some();
            let routing = change.routing.unwrap_or(old.routing);
            if taken(tx, &name.to_string(), Some(app))? {
                return Err(StoreError::NameTaken(name));
            }
            tx.execute(
                "UPDATE apps SET name = ?2, maintenance = ?3, stack = ?4, updated = ?5,
                 routing = ?6, concurrency = ?7, has_routing = ?8 WHERE id = ?1",
                params![
                    app,
                    name,
                    change.maintenance.unwrap_or(old.maintenance),
                    change.stack.unwrap_or(old.stack),
                    micros(Timestamp::now()),
                    routing.policy,
                    routing.concurrency.map(NonZeroU32::get),
                    has_routing,
                ],
            )
            .map_err(StoreError::sql("update an app"))?;
            find(tx, &app.to_string())
        })
        .await
    }

    /// Deletes an app with all its rows; says which files nobody needs any more.
    ///
    /// # Errors
    /// [`StoreError::UnknownApp`], or SQLite fails.
    pub async fn delete_app(&self, app: AppId) -> Result<Removed, StoreError> {
        self.write("delete an app", move |tx| {
            let act = "delete an app";
            let ids = |sql: &str| -> Result<Vec<String>, StoreError> {
                let mut query = tx.prepare(sql).map_err(StoreError::sql(act))?;
                let rows = query
                    .query_map([app], |row| row.get(0))
                    .map_err(StoreError::sql(act))?;
                rows.collect::<Result<_, _>>().map_err(StoreError::sql(act))
            };
            let parsed = |texts: Vec<String>| texts.into_iter().filter_map(|t| t.parse().ok());
            let builds = parsed(ids("SELECT id FROM builds WHERE app = ?1")?)
                .map(crate::model::BuildId)
                .collect();
            let releases = parsed(ids("SELECT id FROM releases WHERE app = ?1")?)
                .map(crate::model::ReleaseId)
                .collect();
            let gone = tx
                .execute("DELETE FROM apps WHERE id = ?1", [app])
                .map_err(StoreError::sql(act))?;
            if gone == 0 {
                return Err(StoreError::UnknownApp);
            }
            Ok(Removed {
                slugs: slugs::remove_unused(tx)?,
                builds,
                releases,
            })
        })
        .await
    }

    /// All that makes an app run. (`None`: it is gone.)
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn state(&self, app: AppId) -> Result<Option<AppState>, StoreError> {
        self.read("read an app's state", move |tx| {
            match find(tx, &app.to_string()) {
                Err(StoreError::UnknownApp) => Ok(None),
                other => state(tx, other?).map(Some),
            }
        })
        .await
    }

    /// All that makes every app run, by app name.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn states(&self) -> Result<Vec<AppState>, StoreError> {
        self.read("read the state of all apps", |tx| {
            list(tx)?.into_iter().map(|app| state(tx, app)).collect()
        })
        .await
    }

    /// Marks builds and release phases that a dead supervisor left unfinished as failed.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn fail_interrupted(&self) -> Result<Interrupted, StoreError> {
        let act = "close what was interrupted";
        self.write(act, move |tx| {
            let now = micros(Timestamp::now());
            let mut builds = tx
                .prepare("UPDATE builds SET status = 'failed', updated = ?1 WHERE status = 'pending' RETURNING app, id")
                .map_err(StoreError::sql(act))?;
            let builds = builds
                .query_map([now], |row| Ok((row.get(0)?, row.get(1)?)))
                .and_then(Iterator::collect)
                .map_err(StoreError::sql(act))?;
            let mut phases = tx
                .prepare("UPDATE releases SET status = ?2, updated = ?1 WHERE status = ?3 RETURNING app, version")
                .map_err(StoreError::sql(act))?;
            let releases: Vec<(AppId, ReleaseVersion)> = phases
                .query_map(
                    params![now, ReleaseStatus::Failed, ReleaseStatus::Pending],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .and_then(Iterator::collect)
                .map_err(StoreError::sql(act))?;
            Ok(Interrupted { builds, releases })
        })
        .await
    }
}

fn list(tx: &Transaction<'_>) -> Result<Vec<AppRecord>, StoreError> {
    tx.prepare_cached(&format!("SELECT {COLUMNS} FROM apps ORDER BY name"))
        .and_then(|mut query| query.query_map([], record)?.collect())
        .map_err(StoreError::sql("list apps"))
}

/// The app of that id or name. A name never looks like an id: ids are longer than names may be.
pub(super) fn find(tx: &Transaction<'_>, key: &str) -> Result<AppRecord, StoreError> {
    let act = "find an app";
    let mut query = tx
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM apps WHERE name = ?1 OR id = ?1"
        ))
        .map_err(StoreError::sql(act))?;
    query
        .query_row([key], record)
        .optional()
        .map_err(StoreError::sql(act))?
        .ok_or(StoreError::UnknownApp)
}

fn taken(tx: &Transaction<'_>, name: &str, except: Option<AppId>) -> Result<bool, StoreError> {
    match find(tx, name) {
        Ok(app) => Ok(Some(app.id) != except),
        Err(StoreError::UnknownApp) => Ok(false),
        Err(error) => Err(error),
    }
}

fn state(tx: &Transaction<'_>, app: AppRecord) -> Result<AppState, StoreError> {
    let release = releases::current(tx, app.id)?;
    let slug = match release.slug {
        Some(id) => Some(slugs::find(tx, id)?),
        None => None,
    };
    Ok(AppState {
        formation: formation::list(tx, app.id)?,
        domains: domains::list(tx, app.id)?,
        network_rules: super::network::list(tx, app.id)?,
        features: features::list(tx, app.id)?,
        has_auto_certificates: certificates::is_auto(tx, app.id)?,
        release,
        slug,
        app,
    })
}
