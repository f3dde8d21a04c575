//! Build records; their outputs are files.

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use rusqlite::{OptionalExtension, Row, params};

use super::column::{micros, time};
use super::{BuildRecord, BuildStatus, SlugRecord, Store, StoreError};
use crate::model::{AppId, BuildId, ReleaseId, SlugId};

impl ToSql for BuildStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.as_str().into())
    }
}

impl FromSql for BuildStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "pending" => Ok(Self::Pending),
            "succeeded" => Ok(Self::Succeeded),
            "failed" => Ok(Self::Failed),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<BuildRecord> {
    Ok(BuildRecord {
        id: row.get("id")?,
        app: row.get("app")?,
        user: row.get("user")?,
        status: row.get("status")?,
        stack: row.get("stack")?,
        source_url: row.get("source_url")?,
        checksum: row.get("checksum")?,
        version: row.get("version")?,
        // What a newer program wrote and this one does not know is left out.
        buildpacks: row
            .get::<_, Option<String>>("buildpacks")?
            .unwrap_or_default()
            .lines()
            .filter_map(|line| line.parse().ok())
            .collect(),
        slug: row.get("slug")?,
        release: row.get("release")?,
        created: time(row, "created")?,
        updated: time(row, "updated")?,
    })
}

impl Store {
    /// Records a build that begins.
    ///
    /// # Errors
    /// [`StoreError::UnknownApp`] if the app is gone, or SQLite fails.
    pub async fn add_build(&self, build: BuildRecord) -> Result<(), StoreError> {
        let list: Vec<String> = build.buildpacks.iter().map(ToString::to_string).collect();
        let list = (!list.is_empty()).then(|| list.join("\n"));
        self.write("add a build", move |tx| {
            super::apps::find(tx, &build.app.to_string())?;
            tx.execute(
                "INSERT INTO builds (id, app, user, status, stack, source_url, checksum, version, slug, release, created, updated, buildpacks)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
                params![
                    build.id,
                    build.app,
                    build.user,
                    build.status,
                    build.stack,
                    build.source_url,
                    build.checksum,
                    build.version,
                    build.slug,
                    build.release,
                    micros(build.created),
                    micros(build.updated),
                    list
                ],
            )
            .map_err(StoreError::sql("add a build"))?;
            Ok(())
        })
        .await
    }

    /// Ends a build. No error if its app is gone meanwhile.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn finish_build(
        &self,
        id: BuildId,
        status: BuildStatus,
        slug: Option<SlugId>,
        release: Option<ReleaseId>,
    ) -> Result<(), StoreError> {
        self.write("finish a build", move |tx| {
            tx.execute(
                "UPDATE builds SET status = ?2, slug = ?3, release = ?4, updated = ?5 WHERE id = ?1",
                params![id, status, slug, release, micros(Timestamp::now())],
            )
            .map_err(StoreError::sql("finish a build"))?;
            Ok(())
        })
        .await
    }

    /// Builds of an app, oldest first.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn builds(&self, app: AppId) -> Result<Vec<BuildRecord>, StoreError> {
        self.read("list builds", move |tx| {
            tx.prepare_cached("SELECT * FROM builds WHERE app = ?1 ORDER BY created")
                .and_then(|mut query| query.query_map([app], record)?.collect())
                .map_err(StoreError::sql("list builds"))
        })
        .await
    }

    /// The slug that the newest of an app's builds made that made one.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn last_built(&self, app: AppId) -> Result<Option<SlugRecord>, StoreError> {
        self.read("find the last slug", move |tx| {
            tx.prepare_cached(
                "SELECT slugs.* FROM builds JOIN slugs ON slugs.id = builds.slug
                 WHERE builds.app = ?1 ORDER BY builds.created DESC LIMIT 1",
            )
            .and_then(|mut query| query.query_row([app], super::slugs::record).optional())
            .map_err(StoreError::sql("find the last slug"))
        })
        .await
    }

    /// A build by id.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn build(&self, id: BuildId) -> Result<Option<BuildRecord>, StoreError> {
        self.read("find a build", move |tx| {
            tx.prepare_cached("SELECT * FROM builds WHERE id = ?1")
                .and_then(|mut query| query.query_row([id], record).optional())
                .map_err(StoreError::sql("find a build"))
        })
        .await
    }
}
