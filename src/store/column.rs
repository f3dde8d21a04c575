//! The nouns as SQL columns: ids and names as text, times as microseconds, maps as JSON.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::Row;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::model::{
    AppId, AppName, BuildId, ConfigVars, Digest, HostPort, Hostname, ProcessType, ReleaseId,
    ReleaseStatus, ReleaseVersion, RoutingPolicy, SlugId, StackName,
};

macro_rules! text_columns {
    ($($name:ty),*) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                Ok(self.to_string().into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_str()?.parse().map_err(FromSqlError::other)
            }
        }
    )*};
}

text_columns!(
    AppId,
    AppName,
    BuildId,
    Digest,
    HostPort,
    Hostname,
    ProcessType,
    ReleaseId,
    RoutingPolicy,
    SlugId,
    StackName
);

impl ToSql for ReleaseVersion {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        self.0.to_sql()
    }
}

impl FromSql for ReleaseVersion {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        u32::column_result(value).map(Self)
    }
}

impl ToSql for ReleaseStatus {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(self.to_string().into())
    }
}

impl FromSql for ReleaseStatus {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value.as_str()? {
            "pending" => Ok(Self::Pending),
            "succeeded" => Ok(Self::Succeeded),
            "failed" => Ok(Self::Failed),
            "expired" => Ok(Self::Expired),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A time as microseconds since 1970.
pub(super) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// The time in column `name`.
pub(super) fn time(row: &Row<'_>, name: &str) -> rusqlite::Result<Timestamp> {
    let micros: i64 = row.get(name)?;
    Timestamp::from_microsecond(micros).map_err(|error| broken(row, name, error))
}

/// Config vars as JSON.
pub(super) fn config_text(config: &ConfigVars) -> String {
    serde_json::to_string(config).expect("a map of texts is JSON")
}

/// The config vars in column `name`.
pub(super) fn config(row: &Row<'_>, name: &str) -> rusqlite::Result<ConfigVars> {
    let text: String = row.get(name)?;
    serde_json::from_str(&text).map_err(|error| broken(row, name, error))
}

/// Process types as JSON.
pub(super) fn processes_text(processes: &BTreeMap<ProcessType, String>) -> String {
    serde_json::to_string(processes).expect("a map of texts is JSON")
}

/// The process types in column `name`.
pub(super) fn processes(
    row: &Row<'_>,
    name: &str,
) -> rusqlite::Result<BTreeMap<ProcessType, String>> {
    let text: String = row.get(name)?;
    serde_json::from_str(&text).map_err(|error| broken(row, name, error))
}

fn broken(
    row: &Row<'_>,
    name: &str,
    error: impl std::error::Error + Send + Sync + 'static,
) -> rusqlite::Error {
    let column = row.as_ref().column_index(name).unwrap_or_default();
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}
