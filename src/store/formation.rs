//! How many dynos of which type and size are asked for.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::column::{micros, time};
use super::{FormationRecord, SlugRecord, Store, StoreError};
use crate::model::{AppId, DynoSize, FormationEntry, ProcessType, ReleaseStatus, ReleaseVersion};

/// A new quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Exactly so many.
    To(u32),
    /// So many more or fewer.
    By(i32),
}

fn record(row: &Row<'_>) -> rusqlite::Result<FormationRecord> {
    let size: String = row.get("size")?;
    // A size that a later version dropped: run small rather than not at all.
    let size = DynoSize::find(&size).unwrap_or_default();
    Ok(FormationRecord {
        process: row.get("process")?,
        entry: FormationEntry {
            quantity: row.get("quantity")?,
            size,
        },
        created: time(row, "created")?,
        updated: time(row, "updated")?,
    })
}

impl Store {
    /// The formation of an app, by type.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn formation(&self, app: AppId) -> Result<Vec<FormationRecord>, StoreError> {
        self.read("list a formation", move |tx| list(tx, app)).await
    }

    /// Scales and resizes; all or nothing. Returns the entries asked for, in that order.
    ///
    /// # Errors
    /// Unknown process type, quantity out of range, app gone, or SQLite fails.
    pub async fn scale(
        &self,
        app: AppId,
        changes: Vec<(ProcessType, Option<Scale>, Option<DynoSize>)>,
    ) -> Result<Vec<FormationRecord>, StoreError> {
        self.write("scale", move |tx| {
            super::apps::find(tx, &app.to_string())?;
            for (process, quantity, size) in &changes {
                change(tx, app, process, *quantity, size.as_ref())?;
            }
            changes
                .iter()
                .map(|(process, ..)| find(tx, app, process))
                .collect()
        })
        .await
    }
}

fn change(
    tx: &Transaction<'_>,
    app: AppId,
    process: &ProcessType,
    quantity: Option<Scale>,
    size: Option<&DynoSize>,
) -> Result<(), StoreError> {
    let old = find(tx, app, process)?.entry;
    let wanted = match quantity {
        None => i64::from(old.quantity),
        Some(Scale::To(quantity)) => i64::from(quantity),
        Some(Scale::By(delta)) => i64::from(old.quantity) + i64::from(delta),
    };
    let quantity = u32::try_from(wanted)
        .ok()
        .filter(|quantity| *quantity <= FormationEntry::QUANTITY_MAX)
        .ok_or_else(|| StoreError::Quantity {
            process: process.clone(),
            quantity: wanted,
            max: FormationEntry::QUANTITY_MAX,
        })?;
    tx.prepare_cached(
        "UPDATE formations SET quantity = ?3, size = ?4, updated = ?5 WHERE app = ?1 AND process = ?2",
    )
    .and_then(|mut query| {
        query.execute(params![
            app,
            process,
            quantity,
            size.unwrap_or(&old.size).name,
            micros(Timestamp::now())
        ])
    })
    .map_err(StoreError::sql("scale"))?;
    Ok(())
}

pub(super) fn list(tx: &Transaction<'_>, app: AppId) -> Result<Vec<FormationRecord>, StoreError> {
    tx.prepare_cached("SELECT * FROM formations WHERE app = ?1 ORDER BY process")
        .and_then(|mut query| query.query_map([app], record)?.collect())
        .map_err(StoreError::sql("list a formation"))
}

fn find(
    tx: &Transaction<'_>,
    app: AppId,
    process: &ProcessType,
) -> Result<FormationRecord, StoreError> {
    tx.prepare_cached("SELECT * FROM formations WHERE app = ?1 AND process = ?2")
        .and_then(|mut query| query.query_row(params![app, process], record).optional())
        .map_err(StoreError::sql("find a formation entry"))?
        .ok_or_else(|| StoreError::UnknownProcess(process.clone()))
}

/// A release became current: types it does not declare are dropped, new ones begin at 0, but the
/// first deploy gets one `web`. Returns what that first deploy scaled up.
/// Source: Dev Center, "Process Model", "Scaling".
pub(super) fn adopt(
    tx: &Transaction<'_>,
    app: AppId,
    version: ReleaseVersion,
    slug: Option<&SlugRecord>,
) -> Result<Vec<FormationRecord>, StoreError> {
    let act = "adopt process types";
    let Some(slug) = slug else {
        return Ok(Vec::new());
    };
    let declared = |process: &ProcessType| {
        *process != ProcessType::release() && slug.processes.contains_key(process)
    };
    let old = list(tx, app)?;
    for gone in old.iter().filter(|entry| !declared(&entry.process)) {
        tx.execute(
            "DELETE FROM formations WHERE app = ?1 AND process = ?2",
            params![app, gone.process],
        )
        .map_err(StoreError::sql(act))?;
    }
    let deployed_before: bool = tx
        .query_row(
            "SELECT EXISTS (SELECT 1 FROM releases
             WHERE app = ?1 AND version < ?2 AND slug IS NOT NULL AND status = ?3)",
            params![app, version, ReleaseStatus::Succeeded],
            |row| row.get(0),
        )
        .map_err(StoreError::sql(act))?;
    let now = Timestamp::now();
    let mut scaled = Vec::new();
    for process in slug.processes.keys().filter(|process| declared(process)) {
        let quantity = u32::from(process.is_web() && !deployed_before);
        let added = tx
            .execute(
                "INSERT OR IGNORE INTO formations (app, process, quantity, size, created, updated)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?5)",
                params![
                    app,
                    process,
                    quantity,
                    DynoSize::default().name,
                    micros(now)
                ],
            )
            .map_err(StoreError::sql(act))?;
        if added == 1 && quantity > 0 {
            scaled.push(find(tx, app, process)?);
        }
    }
    Ok(scaled)
}
