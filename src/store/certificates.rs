//! Certificates: whose they are and how automatic ones fare. Chains and keys are files.

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use uuid::Uuid;

use super::column::{micros, time};
use super::{Store, StoreError};
use crate::model::{AppId, Hostname};

/// Most certificates of one app; automatic ones are not counted (domains have their own limit).
const PER_APP_MAX: u32 = 100;

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRecord {
    /// Identity; names its file.
    pub id: Uuid,
    /// Whose.
    pub app: AppId,
    /// `stegosaurus-12345`.
    pub name: String,
    /// The domain an automatic one is for; `None`: somebody gave it.
    pub hostname: Option<Hostname>,
    /// When it was added.
    pub created: Timestamp,
    /// When it was last replaced.
    pub updated: Timestamp,
}

/// How the automatic certificate of a domain fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoRecord {
    /// Whose.
    pub app: AppId,
    /// The domain.
    pub hostname: Hostname,
    /// Attempts that failed since the last success.
    pub attempts: u32,
    /// When to try (again), or to renew; `None`: as soon as possible.
    pub next: Option<Timestamp>,
    /// Why the last attempt failed.
    pub reason: Option<String>,
}

fn record(row: &Row<'_>) -> rusqlite::Result<CertificateRecord> {
    let id: String = row.get("id")?;
    Ok(CertificateRecord {
        id: Uuid::parse_str(&id).unwrap_or_default(),
        app: row.get("app")?,
        name: row.get("name")?,
        hostname: row.get("hostname")?,
        created: time(row, "created")?,
        updated: time(row, "updated")?,
    })
}

fn auto(row: &Row<'_>) -> rusqlite::Result<AutoRecord> {
    let next: Option<i64> = row.get("next")?;
    Ok(AutoRecord {
        app: row.get("app")?,
        hostname: row.get("hostname")?,
        attempts: row.get::<_, Option<u32>>("attempts")?.unwrap_or_default(),
        next: next.and_then(|micros| Timestamp::from_microsecond(micros).ok()),
        reason: row.get("reason")?,
    })
}

impl Store {
    /// Every certificate of every app, by name.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn certificates(&self) -> Result<Vec<CertificateRecord>, StoreError> {
        let act = "list certificates";
        self.read(act, move |tx| {
            tx.prepare_cached("SELECT * FROM certificates ORDER BY name")
                .and_then(|mut query| query.query_map([], record)?.collect())
                .map_err(StoreError::sql(act))
        })
        .await
    }

    /// Records a certificate whose file is there already.
    ///
    /// # Errors
    /// The app is gone or has the most it may, the name is taken, or SQLite fails.
    pub async fn add_certificate(&self, new: CertificateRecord) -> Result<(), StoreError> {
        let act = "add a certificate";
        self.write(act, move |tx| {
            super::apps::find(tx, &new.app.to_string())?;
            let count: u32 = tx
                .query_row(
                    "SELECT count(*) FROM certificates WHERE app = ?1 AND hostname IS NULL",
                    [new.app],
                    |row| row.get(0),
                )
                .map_err(StoreError::sql(act))?;
            if new.hostname.is_none() && count >= PER_APP_MAX {
                return Err(StoreError::CertificatesFull(PER_APP_MAX));
            }
            tx.execute(
                "INSERT INTO certificates (id, app, name, hostname, created, updated) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    new.id.to_string(),
                    new.app,
                    new.name,
                    new.hostname,
                    micros(new.created),
                    micros(new.updated)
                ],
            )
            .map(drop)
            .map_err(StoreError::sql(act))
        })
        .await
    }

    /// Records that a certificate's file was replaced.
    ///
    /// # Errors
    /// It is gone, or SQLite fails.
    pub async fn touch_certificate(&self, id: Uuid) -> Result<CertificateRecord, StoreError> {
        let act = "update a certificate";
        self.write(act, move |tx| {
            let now = micros(Timestamp::now());
            tx.query_row(
                "UPDATE certificates SET updated = ?2 WHERE id = ?1 RETURNING *",
                params![id.to_string(), now],
                record,
            )
            .optional()
            .map_err(StoreError::sql(act))?
            .ok_or(StoreError::UnknownCertificate)
        })
        .await
    }

    /// Forgets a certificate.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn remove_certificate(&self, id: Uuid) -> Result<(), StoreError> {
        let act = "remove a certificate";
        self.write(act, move |tx| {
            tx.execute("DELETE FROM certificates WHERE id = ?1", [id.to_string()])
                .map(drop)
                .map_err(StoreError::sql(act))
        })
        .await
    }

    /// Switches automatic certificates of an app; says whether that changed anything.
    ///
    /// # Errors
    /// The app is gone, or SQLite fails.
    pub async fn set_auto_certificates(&self, app: AppId, is_on: bool) -> Result<bool, StoreError> {
        let act = "switch automatic certificates";
        self.write(act, move |tx| {
            super::apps::find(tx, &app.to_string())?;
            let sql = if is_on {
                "INSERT OR IGNORE INTO auto_apps (app) VALUES (?1)"
            } else {
                "DELETE FROM auto_apps WHERE app = ?1"
            };
            let changed = tx.execute(sql, [app]).map_err(StoreError::sql(act))?;
            tx.execute(
                "DELETE FROM auto_domains WHERE hostname NOT IN (SELECT hostname FROM domains JOIN auto_apps USING (app))",
                [],
            )
            .map_err(StoreError::sql(act))?;
            Ok(changed > 0)
        })
        .await
    }

    /// True if an app's certificates are automatic.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn has_auto_certificates(&self, app: AppId) -> Result<bool, StoreError> {
        let act = "look at automatic certificates";
        self.read(act, move |tx| is_auto(tx, app)).await
    }

    /// Every domain of an app with automatic certificates, and how it fares.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn auto_domains(&self) -> Result<Vec<AutoRecord>, StoreError> {
        let act = "list automatic certificates";
        self.read(act, move |tx| {
            let sql = "SELECT d.app AS app, d.hostname AS hostname, attempts, next, reason
                FROM domains d JOIN auto_apps USING (app)
                LEFT JOIN auto_domains a ON a.hostname = d.hostname AND a.app = d.app
                ORDER BY d.hostname";
            tx.prepare_cached(sql)
                .and_then(|mut query| query.query_map([], auto)?.collect())
                .map_err(StoreError::sql(act))
        })
        .await
    }

    /// Records how an attempt went, if the domain is still the app's and automatic.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn set_auto_domain(&self, state: AutoRecord) -> Result<(), StoreError> {
        let act = "record an automatic certificate";
        self.write(act, move |tx| {
            upsert(tx, &state).map(drop).map_err(StoreError::sql(act))
        })
        .await
    }

    /// Lets every domain of an app be tried at once, whatever went before.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn refresh_auto_domains(&self, app: AppId) -> Result<(), StoreError> {
        let act = "refresh automatic certificates";
        self.write(act, move |tx| {
            let sql = "UPDATE auto_domains SET next = NULL, attempts = 0 WHERE app = ?1";
            tx.execute(sql, [app])
                .map(drop)
                .map_err(StoreError::sql(act))
        })
        .await
    }
}

pub(super) fn is_auto(tx: &Transaction<'_>, app: AppId) -> Result<bool, StoreError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM auto_apps WHERE app = ?1)";
    let found = tx.query_row(sql, [app], |row| row.get(0));
    found.map_err(StoreError::sql("look at automatic certificates"))
}

fn upsert(tx: &Transaction<'_>, state: &AutoRecord) -> rusqlite::Result<usize> {
    tx.execute(
        "INSERT OR REPLACE INTO auto_domains (hostname, app, attempts, next, reason)
            SELECT d.hostname, d.app, ?3, ?4, ?5 FROM domains d JOIN auto_apps USING (app)
            WHERE d.hostname = ?1 AND d.app = ?2",
        params![
            state.hostname,
            state.app,
            state.attempts,
            state.next.map(micros),
            state.reason
        ],
    )
}
