//! Custom domains.

use jiff::Timestamp;
use rusqlite::{Row, Transaction, params};
use uuid::Uuid;

use super::column::{micros, time};
use super::{DomainRecord, Store, StoreError};
use crate::model::{AppId, Hostname};

/// Most custom domains of one app. Source: Dev Center, "Custom Domain Names for Apps".
const PER_APP_MAX: usize = 1000;

fn record(row: &Row<'_>) -> rusqlite::Result<DomainRecord> {
    let id: String = row.get("id")?;
    Ok(DomainRecord {
        id: Uuid::parse_str(&id).unwrap_or_default(),
        hostname: row.get("hostname")?,
        created: time(row, "created")?,
    })
}

impl Store {
    /// Custom domains of an app, by name.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn domains(&self, app: AppId) -> Result<Vec<DomainRecord>, StoreError> {
        self.read("list domains", move |tx| list(tx, app)).await
    }

    /// Adds a domain. A name below (or at the base of) another app's wildcard is refused, and so
    /// is a wildcard above another app's name.
    ///
    /// # Errors
    /// The name is in use, the app has the most it may, is gone, or SQLite fails.
    pub async fn add_domain(
        &self,
        app: AppId,
        hostname: Hostname,
    ) -> Result<DomainRecord, StoreError> {
        let act = "add a domain";
        self.write(act, move |tx| {
            super::apps::find(tx, &app.to_string())?;
            let mine = list(tx, app)?;
            if mine.iter().any(|domain| domain.hostname == hostname) {
                return Err(StoreError::DomainHere(hostname));
            }
            if mine.len() >= PER_APP_MAX {
                return Err(StoreError::DomainsFull(PER_APP_MAX));
            }
            let others: Vec<Hostname> = tx
                .prepare_cached("SELECT hostname FROM domains WHERE app <> ?1")
                .and_then(|mut query| query.query_map([app], |row| row.get(0))?.collect())
                .map_err(StoreError::sql(act))?;
            if others.iter().any(|other| clash(other, &hostname)) {
                return Err(StoreError::DomainTaken(hostname));
            }
            let domain = DomainRecord {
                id: Uuid::new_v4(),
                hostname,
                created: Timestamp::now(),
            };
            tx.execute(
                "INSERT INTO domains (id, app, hostname, created) VALUES (?1, ?2, ?3, ?4)",
                params![
                    domain.id.to_string(),
                    app,
                    domain.hostname,
                    micros(domain.created)
                ],
            )
            .map_err(StoreError::sql(act))?;
            Ok(domain)
        })
        .await
    }

    /// Removes a domain by id or name.
    ///
    /// # Errors
    /// [`StoreError::UnknownDomain`], or SQLite fails.
    pub async fn remove_domain(&self, app: AppId, key: &str) -> Result<DomainRecord, StoreError> {
        let key = key.to_ascii_lowercase();
        self.write("remove a domain", move |tx| {
            let domain = list(tx, app)?
                .into_iter()
                .find(|domain| domain.hostname.as_str() == key || domain.id.to_string() == key)
                .ok_or(StoreError::UnknownDomain)?;
            tx.execute(
                "DELETE FROM domains WHERE app = ?1 AND hostname = ?2",
                params![app, domain.hostname],
            )
            .map_err(StoreError::sql("remove a domain"))?;
            Ok(domain)
        })
        .await
    }
}

pub(super) fn list(tx: &Transaction<'_>, app: AppId) -> Result<Vec<DomainRecord>, StoreError> {
    tx.prepare_cached("SELECT * FROM domains WHERE app = ?1 ORDER BY hostname")
        .and_then(|mut query| query.query_map([app], record)?.collect())
        .map_err(StoreError::sql("list domains"))
}

/// True if two apps may not hold these names at once.
/// Source: Dev Center, "Custom Domain Names for Apps", wildcard domains.
fn clash(one: &Hostname, other: &Hostname) -> bool {
    one == other || covers(one, other) || covers(other, one)
}

fn covers(wildcard: &Hostname, name: &Hostname) -> bool {
    wildcard.wildcard_base().is_some_and(|base| {
        let name = name.as_str();
        name == base || name.split_once('.').is_some_and(|(_, rest)| rest == base)
    })
}
