//! Which rows still need files.

use std::collections::HashSet;

use rusqlite::{Transaction, params};

use super::{Store, StoreError};
use crate::model::{AppId, BuildId, Digest, ReleaseId};

/// What must stay, beside each app's current release.
#[derive(Clone, Debug, Default)]
pub struct Keep {
    /// Releases of each app, the newest.
    pub releases: u32,
    /// Releases that run.
    pub running: HashSet<ReleaseId>,
    /// Builds of stacks.
    pub stacks: HashSet<Digest>,
}

/// What rows name after the others were given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Bytes of slugs.
    pub slugs: HashSet<Digest>,
    /// Builds of stacks.
    pub stacks: HashSet<Digest>,
    /// Apps that there are.
    pub apps: HashSet<AppId>,
    /// Builds that were given up: their outputs can go.
    pub outputs: Vec<BuildId>,
}

/// A slug that no release ever used stays for so long: it may be about to be released.
const UNRELEASED: i64 = 24 * 3600 * 1_000_000;

impl Store {
    /// Gives up what is too old, in one transaction: from then on no release can be made of it.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn collect(&self, keep: Keep) -> Result<Kept, StoreError> {
        self.write("collect", move |tx| {
            collect(tx, &keep).map_err(StoreError::sql("collect"))
        })
        .await
    }
}

fn collect(tx: &Transaction<'_>, keep: &Keep) -> rusqlite::Result<Kept> {
    tx.execute_batch(
        "CREATE TEMP TABLE IF NOT EXISTS kept (id TEXT PRIMARY KEY);
         CREATE TEMP TABLE IF NOT EXISTS kept_stacks (digest TEXT PRIMARY KEY);
         DELETE FROM kept; DELETE FROM kept_stacks;",
    )?;
    tx.execute(
        "INSERT INTO kept SELECT id FROM (SELECT id, status,
             row_number() OVER (PARTITION BY app ORDER BY version DESC) AS place,
             row_number() OVER (PARTITION BY app, status ORDER BY version DESC) AS of_status
             FROM releases)
         WHERE place <= ?1 OR status = 'pending' OR (status = 'succeeded' AND of_status = 1)",
        params![keep.releases],
    )?;
    for release in &keep.running {
        tx.execute("INSERT OR IGNORE INTO kept VALUES (?1)", [release])?;
    }
    for stack in &keep.stacks {
        tx.execute("INSERT OR IGNORE INTO kept_stacks VALUES (?1)", [stack])?;
    }
    tx.execute_batch(
        "INSERT OR IGNORE INTO kept_stacks SELECT stack_version FROM releases
             WHERE stack_version IS NOT NULL AND NOT is_collected AND id IN (SELECT id FROM kept);",
    )?;
    // Bytes that a kept release uses stay for every release of them.
    tx.execute(
        "UPDATE slugs SET digest = NULL WHERE digest IS NOT NULL
         AND digest NOT IN (SELECT s.digest FROM slugs s JOIN releases r ON r.slug = s.id
             WHERE s.digest IS NOT NULL AND r.id IN (SELECT id FROM kept))
         AND (id IN (SELECT slug FROM releases WHERE slug IS NOT NULL)
             OR app NOT IN (SELECT id FROM apps) OR created < ?1)",
        [super::column::micros(jiff::Timestamp::now()) - UNRELEASED],
    )?;
    tx.execute_batch(
        "UPDATE releases SET is_collected = 1 WHERE NOT is_collected
         AND id NOT IN (SELECT id FROM kept) AND slug IS NOT NULL
         AND (slug IN (SELECT id FROM slugs WHERE digest IS NULL)
             OR stack_version NOT IN (SELECT digest FROM kept_stacks));",
    )?;
    let outputs = tx
        .prepare(
            "DELETE FROM builds WHERE status <> 'pending' AND id NOT IN (SELECT id FROM
                 (SELECT id, row_number() OVER (PARTITION BY app ORDER BY created DESC) AS place
                 FROM builds) WHERE place <= ?1)
             AND (release IS NULL OR release NOT IN (SELECT id FROM kept)) RETURNING id",
        )?
        .query_map([keep.releases], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<BuildId>>>()?;
    Ok(Kept {
        slugs: column(
            tx,
            "SELECT DISTINCT digest FROM slugs WHERE digest IS NOT NULL",
        )?,
        stacks: column(tx, "SELECT digest FROM kept_stacks")?,
        apps: column(tx, "SELECT id FROM apps")?,
        outputs,
    })
}

fn column<T: rusqlite::types::FromSql + Eq + std::hash::Hash>(
    tx: &Transaction<'_>,
    sql: &str,
) -> rusqlite::Result<HashSet<T>> {
    tx.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
}
