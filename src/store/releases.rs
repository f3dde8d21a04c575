//! Releases: immutable but for their status.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, Transaction, params};

use super::column::{config, config_text, micros, time};
use super::{
    Change, CreatedRelease, NewRelease, ReleaseRecord, SlugRecord, Store, StoreError, formation,
    slugs,
};
use crate::model::{
    AppId, ConfigVars, ProcessType, ReleaseId, ReleaseStatus, ReleaseVersion, SlugId,
};

fn record(row: &Row<'_>) -> rusqlite::Result<ReleaseRecord> {
    Ok(ReleaseRecord {
        id: row.get("id")?,
        app: row.get("app")?,
        version: row.get("version")?,
        description: row.get("description")?,
        user: row.get("user")?,
        status: row.get("status")?,
        slug: row.get("slug")?,
        stack_version: row.get("stack_version")?,
        is_collected: row.get("is_collected")?,
        config: config(row, "config")?,
        created: time(row, "created")?,
        updated: time(row, "updated")?,
    })
}

impl Store {
    /// All releases of an app, oldest first.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn releases(&self, app: AppId) -> Result<Vec<ReleaseRecord>, StoreError> {
        self.read("list releases", move |tx| {
            tx.prepare_cached("SELECT * FROM releases WHERE app = ?1 ORDER BY version")
                .and_then(|mut query| query.query_map([app], record)?.collect())
                .map_err(StoreError::sql("list releases"))
        })
        .await
    }

    /// The current release (latest succeeded) of an app.
    ///
    /// # Errors
    /// [`StoreError::UnknownRelease`] for an app that is gone, or SQLite fails.
    pub async fn current_release(&self, app: AppId) -> Result<ReleaseRecord, StoreError> {
        self.read("find the current release", move |tx| current(tx, app))
            .await
    }

    /// Makes a release in one transaction: takes the next version, applies the change to the
    /// release before, and makes it current unless its slug declares a release phase.
    ///
    /// # Errors
    /// An earlier release is pending; the change is not allowed; the app or target is gone; or
    /// SQLite fails.
    pub async fn create_release(&self, new: NewRelease) -> Result<CreatedRelease, StoreError> {
        self.write("create a release", move |tx| create(tx, &new))
            .await
    }

    /// Ends a release phase: the release becomes current, or is marked failed.
    ///
    /// # Errors
    /// [`StoreError::UnknownRelease`] if it is not pending or gone; or SQLite fails.
    pub async fn finish_release(
        &self,
        id: ReleaseId,
        succeeded: bool,
    ) -> Result<CreatedRelease, StoreError> {
        self.write("finish a release", move |tx| {
            let status = if succeeded {
                ReleaseStatus::Succeeded
            } else {
                ReleaseStatus::Failed
            };
            let changed = tx
                .execute(
                    "UPDATE releases SET status = ?2, updated = ?3 WHERE id = ?1 AND status = ?4",
                    params![id, status, micros(Timestamp::now()), ReleaseStatus::Pending],
                )
                .map_err(StoreError::sql("finish a release"))?;
            if changed == 0 {
                return Err(StoreError::UnknownRelease);
            }
            let release = find(tx, id)?;
            let slug = slug_of(tx, release.slug)?;
            let scaled = if succeeded {
                formation::adopt(tx, release.app, release.version, slug.as_ref())?
            } else {
                Vec::new()
            };
            Ok(CreatedRelease {
                release,
                slug,
                scaled,
            })
        })
        .await
    }
}

/// One of the releases every app begins with: no code, no config vars.
pub(super) fn insert_initial(
    tx: &Transaction<'_>,
    app: AppId,
    user: &str,
    description: &str,
    now: Timestamp,
) -> Result<(), StoreError> {
    let release = ReleaseRecord {
        id: ReleaseId::new(),
        app,
        version: take_version(tx, app)?,
        description: description.to_owned(),
        user: user.to_owned(),
        status: ReleaseStatus::Succeeded,
        slug: None,
        stack_version: None,
        is_collected: false,
        config: ConfigVars::default(),
        created: now,
        updated: now,
    };
    insert(tx, &release)
}

/// The latest succeeded release.
pub(super) fn current(tx: &Transaction<'_>, app: AppId) -> Result<ReleaseRecord, StoreError> {
    tx.prepare_cached(
        "SELECT * FROM releases WHERE app = ?1 AND status = ?2 ORDER BY version DESC LIMIT 1",
    )
    .and_then(|mut query| {
        query
            .query_row(params![app, ReleaseStatus::Succeeded], record)
            .optional()
    })
    .map_err(StoreError::sql("find the current release"))?
    .ok_or(StoreError::UnknownRelease)
}

fn create(tx: &Transaction<'_>, new: &NewRelease) -> Result<CreatedRelease, StoreError> {
    // First, so that a concurrent delete gives the plain answer.
    super::apps::find(tx, &new.app.to_string())?;
    if let Some(version) = pending(tx, new.app)? {
        return Err(StoreError::Pending(version));
    }
    let before = current(tx, new.app)?;
    let (slug, stack, config) = match &new.change {
        Change::Slug(slug, stack) => (Some(*slug), *stack, before.config),
        Change::Stack(stack) => (before.slug, Some(*stack), before.config),
        Change::Config(change) => {
            let config = before.config.changed(change)?;
            (before.slug, before.stack_version, config)
        }
        Change::Rollback(target) => {
            let target = find(tx, *target)?;
            check_target(&target, new.app)?;
            (target.slug, target.stack_version, target.config)
        }
    };
    let slug = slug_of(tx, slug)?;
    if slug.as_ref().is_some_and(|slug| slug.digest.is_none()) {
        return Err(StoreError::UnknownSlug);
    }
    let is_upgrade = matches!(new.change, Change::Stack(_));
    let has_phase = slug
        .as_ref()
        .is_some_and(|slug| slug.processes.contains_key(&ProcessType::release()));
    let is_pending = is_upgrade || has_phase;
    let now = Timestamp::now();
    let release = ReleaseRecord {
        id: ReleaseId::new(),
        app: new.app,
        version: take_version(tx, new.app)?,
        description: new.description.clone(),
        user: new.user.clone(),
        status: if is_pending {
            ReleaseStatus::Pending
        } else {
            ReleaseStatus::Succeeded
        },
        slug: slug.as_ref().map(|slug| slug.id),
        stack_version: stack,
        is_collected: false,
        config,
        created: now,
        updated: now,
    };
    insert(tx, &release)?;
    let scaled = if is_pending {
        Vec::new()
    } else {
        formation::adopt(tx, new.app, release.version, slug.as_ref())?
    };
    Ok(CreatedRelease {
        release,
        slug,
        scaled,
    })
}

fn check_target(target: &ReleaseRecord, app: AppId) -> Result<(), StoreError> {
    let refuse = |reason| StoreError::NotEligible {
        version: target.version,
        reason,
    };
    if target.app != app {
        return Err(StoreError::UnknownRelease);
    }
    if target.status != ReleaseStatus::Succeeded {
        return Err(refuse("it did not succeed"));
    }
    if target.slug.is_none() {
        return Err(refuse("it has no slug"));
    }
    if target.is_collected {
        return Err(refuse(
            "it is too old, its files were removed from the disk (`keep_releases` in [disk] of the settings says how many stay)",
        ));
    }
    Ok(())
}

fn insert(tx: &Transaction<'_>, release: &ReleaseRecord) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO releases (id, app, version, description, user, status, slug, config, created, updated, stack_version)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )
    .and_then(|mut query| {
        query.execute(params![
            release.id,
            release.app,
            release.version,
            release.description,
            release.user,
            release.status,
            release.slug,
            config_text(&release.config),
            micros(release.created),
            micros(release.updated),
            release.stack_version
        ])
    })
    .map_err(StoreError::sql("create a release"))?;
    Ok(())
}

/// Counts up even if the release then fails: a number is never used twice.
fn take_version(tx: &Transaction<'_>, app: AppId) -> Result<ReleaseVersion, StoreError> {
    tx.prepare_cached(
        "UPDATE apps SET next_version = next_version + 1 WHERE id = ?1 RETURNING next_version - 1",
    )
    .and_then(|mut query| query.query_row([app], |row| row.get(0)).optional())
    .map_err(StoreError::sql("take a release version"))?
    .ok_or(StoreError::UnknownApp)
}

fn pending(tx: &Transaction<'_>, app: AppId) -> Result<Option<ReleaseVersion>, StoreError> {
    tx.prepare_cached("SELECT version FROM releases WHERE app = ?1 AND status = ?2")
        .and_then(|mut query| {
            query
                .query_row(params![app, ReleaseStatus::Pending], |row| row.get(0))
                .optional()
        })
        .map_err(StoreError::sql("find a pending release"))
}

fn find(tx: &Transaction<'_>, id: ReleaseId) -> Result<ReleaseRecord, StoreError> {
    tx.prepare_cached("SELECT * FROM releases WHERE id = ?1")
        .and_then(|mut query| query.query_row([id], record).optional())
        .map_err(StoreError::sql("find a release"))?
        .ok_or(StoreError::UnknownRelease)
}

fn slug_of(tx: &Transaction<'_>, id: Option<SlugId>) -> Result<Option<SlugRecord>, StoreError> {
    id.map(|id| slugs::find(tx, id)).transpose()
}
