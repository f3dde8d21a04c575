//! Buildpacks of apps, in their order.

use rusqlite::params;

use super::{Store, StoreError};
use crate::model::{AppId, Buildpack};

impl Store {
    /// The buildpacks of an app, in order; none means detection.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn buildpacks(&self, app: AppId) -> Result<Vec<Buildpack>, StoreError> {
        let act = "list buildpacks";
        self.read(act, move |tx| {
            let texts: Vec<String> = tx
                .prepare_cached("SELECT buildpack FROM buildpacks WHERE app = ?1 ORDER BY ordinal")
                .and_then(|mut query| query.query_map([app], |row| row.get(0))?.collect())
                .map_err(StoreError::sql(act))?;
            // What a newer program wrote and this one does not know is left out.
            Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
        })
        .await
    }

    /// Replaces the buildpacks of an app.
    ///
    /// # Errors
    /// [`StoreError::UnknownApp`], or SQLite fails.
    pub async fn set_buildpacks(
        &self,
        app: AppId,
        buildpacks: Vec<Buildpack>,
    ) -> Result<(), StoreError> {
        let act = "set buildpacks";
        self.write(act, move |tx| {
            super::apps::find(tx, &app.to_string())?;
            tx.execute("DELETE FROM buildpacks WHERE app = ?1", [app])
                .map_err(StoreError::sql(act))?;
            for (ordinal, buildpack) in buildpacks.iter().enumerate() {
                tx.execute(
                    "INSERT INTO buildpacks (app, ordinal, buildpack) VALUES (?1, ?2, ?3)",
                    params![
                        app,
                        i64::try_from(ordinal).unwrap_or(i64::MAX),
                        buildpack.to_string()
                    ],
                )
                .map_err(StoreError::sql(act))?;
            }
            Ok(())
        })
        .await
    }

    /// Every buildpack of every app.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn all_buildpacks(&self) -> Result<Vec<Buildpack>, StoreError> {
        let act = "list buildpacks";
        self.read(act, move |tx| {
            let texts: Vec<String> = tx
                .prepare_cached("SELECT DISTINCT buildpack FROM buildpacks")
                .and_then(|mut query| query.query_map([], |row| row.get(0))?.collect())
                .map_err(StoreError::sql(act))?;
            Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
        })
        .await
    }
}
