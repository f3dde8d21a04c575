//! Tokens, as digests: who reads the database cannot call with it.

use jiff::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::column::{micros, time};
use super::{AuthorizationRecord, Store, StoreError};
use crate::model::Digest;

fn digest(token: &str) -> String {
    Digest(Sha256::digest(token).into()).to_string()
}

fn record(row: &Row<'_>) -> rusqlite::Result<AuthorizationRecord> {
    let id: String = row.get("id")?;
    let expires: Option<i64> = row.get("expires")?;
    Ok(AuthorizationRecord {
        id: Uuid::parse_str(&id).unwrap_or_default(),
        user: row.get("user")?,
        description: row.get("description")?,
        created: time(row, "created")?,
        expires: match expires {
            Some(_) => Some(time(row, "expires")?),
            None => None,
        },
    })
}

impl Store {
    /// Keeps a token that `record` describes.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn add_authorization(
        &self,
        record: AuthorizationRecord,
        token: &str,
    ) -> Result<(), StoreError> {
        let digest = digest(token);
        let act = "add an authorization";
        self.write(act, move |tx| {
            tx.execute(
                "INSERT INTO authorizations (id, digest, user, description, created, expires)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![
                    record.id.to_string(),
                    digest,
                    record.user,
                    record.description,
                    micros(record.created),
                    record.expires.map(micros)
                ],
            )
            .map_err(StoreError::sql(act))?;
            Ok(())
        })
        .await
    }

    /// Every token's description, oldest first.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn authorizations(&self) -> Result<Vec<AuthorizationRecord>, StoreError> {
        let act = "list authorizations";
        self.read(act, move |tx| {
            tx.prepare_cached("SELECT * FROM authorizations ORDER BY created")
                .and_then(|mut query| query.query_map([], record)?.collect())
                .map_err(StoreError::sql(act))
        })
        .await
    }

    /// What a token stands for, unless it expired. Looked up by digest: how long that takes tells
    /// nothing of the token.
    ///
    /// # Errors
    /// SQLite fails.
    pub async fn authorization_by_token(
        &self,
        token: &str,
    ) -> Result<Option<AuthorizationRecord>, StoreError> {
        let digest = digest(token);
        let now = micros(Timestamp::now());
        let act = "find an authorization";
        self.read(act, move |tx| {
            tx.prepare_cached(
                "SELECT * FROM authorizations WHERE digest = ?1 AND (expires IS NULL OR expires > ?2)",
            )
            .and_then(|mut query| query.query_row(params![digest, now], record).optional())
            .map_err(StoreError::sql(act))
        })
        .await
    }

    /// Revokes a token; returns what it was.
    ///
    /// # Errors
    /// [`StoreError::UnknownAuthorization`], or SQLite fails.
    pub async fn remove_authorization(&self, id: Uuid) -> Result<AuthorizationRecord, StoreError> {
        let act = "revoke an authorization";
        self.write(act, move |tx| {
            tx.prepare_cached("DELETE FROM authorizations WHERE id = ?1 RETURNING *")
                .and_then(|mut query| query.query_row([id.to_string()], record).optional())
                .map_err(StoreError::sql(act))?
                .ok_or(StoreError::UnknownAuthorization)
        })
        .await
    }
}
