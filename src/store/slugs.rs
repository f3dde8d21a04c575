//! Slug records; the bytes are files named by their digest.

use std::collections::HashSet;

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::column::{micros, processes, processes_text, time};
use super::{SlugRecord, Store, StoreError};
use crate::model::{Digest, SlugId};

pub(super) fn record(row: &Row<'_>) -> rusqlite::Result<SlugRecord> {
    Ok(SlugRecord {
        id: row.get("id")?,
        app: row.get("app")?,
        digest: row.get("digest")?,
        expected: row.get("expected")?,
        size_bytes: u64::try_from(row.get::<_, i64>("size_bytes")?).unwrap_or_default(),
        stack: row.get("stack")?,
        commit: row.get("commit_id")?,
        buildpack: row.get("buildpack")?,
        processes: processes(row, "processes")?,
        created: time(row, "created")?,
        updated: time(row, "updated")?,
    })
}

impl Store {
    /// Records a slug (its bytes are in place, or come later by [`Store::fill_slug`]).
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn add_slug(&self, slug: SlugRecord) -> Result<(), StoreError> {
        self.write("add a slug", move |tx| {
            tx.execute(
                "INSERT INTO slugs (id, app, digest, size_bytes, stack, commit_id, buildpack, processes, created, updated, expected)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                params![
                    slug.id,
                    slug.app,
                    slug.digest,
                    i64::try_from(slug.size_bytes).unwrap_or(i64::MAX),
                    slug.stack,
                    slug.commit,
                    slug.buildpack,
                    processes_text(&slug.processes),
                    micros(slug.created),
                    micros(slug.updated),
                    slug.expected
                ],
            )
            .map_err(StoreError::sql("add a slug"))?;
            Ok(())
        })
        .await
    }

    /// A slug by id.
    ///
    /// # Errors
    /// [`StoreError::UnknownSlug`], or SQLite fails.
    pub async fn slug(&self, id: SlugId) -> Result<SlugRecord, StoreError> {
        self.read("find a slug", move |tx| find(tx, id)).await
    }

    /// The bytes that some slug names.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn digests(&self) -> Result<HashSet<Digest>, StoreError> {
        self.read("list slugs", |tx| {
            tx.prepare("SELECT DISTINCT digest FROM slugs WHERE digest IS NOT NULL")
                .and_then(|mut query| query.query_map([], |row| row.get(0))?.collect())
                .map_err(StoreError::sql("list slugs"))
        })
        .await
    }

    /// Names the bytes of a slug that was made without; once only, for slugs are immutable.
    ///
    /// # Errors
    /// [`StoreError::UnknownSlug`] if there is none or it has bytes already; or SQLite fails.
    pub async fn fill_slug(
        &self,
        id: SlugId,
        digest: Digest,
        size_bytes: u64,
    ) -> Result<(), StoreError> {
        self.write("fill a slug", move |tx| {
            let changed = tx
                .execute(
                    "UPDATE slugs SET digest = ?2, size_bytes = ?3, updated = ?4 WHERE id = ?1 AND digest IS NULL",
                    params![id, digest, i64::try_from(size_bytes).unwrap_or(i64::MAX), micros(Timestamp::now())],
                )
                .map_err(StoreError::sql("fill a slug"))?;
            if changed == 0 { Err(StoreError::UnknownSlug) } else { Ok(()) }
        })
        .await
    }
}

pub(super) fn find(tx: &Transaction<'_>, id: SlugId) -> Result<SlugRecord, StoreError> {
    tx.prepare_cached("SELECT * FROM slugs WHERE id = ?1")
        .and_then(|mut query| query.query_row([id], record).optional())
        .map_err(StoreError::sql("find a slug"))?
        .ok_or(StoreError::UnknownSlug)
}

/// Removes slugs whose app is gone and that no release uses; returns bytes nobody names now.
pub(super) fn remove_unused(tx: &Transaction<'_>) -> Result<Vec<Digest>, StoreError> {
    let act = "remove unused slugs";
    let mut query = tx
        .prepare(
            "DELETE FROM slugs WHERE app NOT IN (SELECT id FROM apps)
             AND id NOT IN (SELECT slug FROM releases WHERE slug IS NOT NULL) RETURNING digest",
        )
        .map_err(StoreError::sql(act))?;
    let digests: Vec<Option<Digest>> = query
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .map_err(StoreError::sql(act))?;
    let mut unused = Vec::new();
    for digest in digests.into_iter().flatten() {
        let used: bool = tx
            .query_row(
                "SELECT EXISTS (SELECT 1 FROM slugs WHERE digest = ?1)",
                [digest],
                |row| row.get(0),
            )
            .map_err(StoreError::sql(act))?;
        if !used && !unused.contains(&digest) {
            unused.push(digest);
        }
    }
    Ok(unused)
}
