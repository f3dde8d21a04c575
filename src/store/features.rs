//! Which switches of an app are on.

use std::collections::BTreeSet;

use rusqlite::{Transaction, params};

use super::{Store, StoreError};
use crate::model::{AppId, Feature};

impl Store {
    /// The switches that are on.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn features(&self, app: AppId) -> Result<BTreeSet<Feature>, StoreError> {
        self.read("list features", move |tx| list(tx, app)).await
    }

    /// Switches one on or off; says whether that changed anything.
    ///
    /// # Errors
    /// The app is gone, or SQLite fails.
    pub async fn set_feature(
        &self,
        app: AppId,
        feature: Feature,
        is_on: bool,
    ) -> Result<bool, StoreError> {
        let act = "switch a feature";
        self.write(act, move |tx| {
            super::apps::find(tx, &app.to_string())?;
            if is_on {
                return insert(tx, app, feature);
            }
            let sql = "DELETE FROM features WHERE app = ?1 AND name = ?2";
            let changed = tx.execute(sql, params![app, feature.name()]);
            changed.map(|count| count > 0).map_err(StoreError::sql(act))
        })
        .await
    }
}

/// Switches one on; says whether it was off.
pub(super) fn insert(
    tx: &Transaction<'_>,
    app: AppId,
    feature: Feature,
) -> Result<bool, StoreError> {
    let sql = "INSERT OR IGNORE INTO features (app, name) VALUES (?1, ?2)";
    let changed = tx.execute(sql, params![app, feature.name()]);
    let changed = changed.map_err(StoreError::sql("switch a feature"))?;
    Ok(changed > 0)
}

/// Names that this program does not know (a newer one wrote them) are left alone.
pub(super) fn list(tx: &Transaction<'_>, app: AppId) -> Result<BTreeSet<Feature>, StoreError> {
    let names: Vec<String> = tx
        .prepare_cached("SELECT name FROM features WHERE app = ?1")
        .and_then(|mut query| query.query_map([app], |row| row.get(0))?.collect())
        .map_err(StoreError::sql("list features"))?;
    let known = names.iter().filter_map(|name| name.parse().ok());
    Ok(known.collect())
}
