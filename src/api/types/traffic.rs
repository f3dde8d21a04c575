//! Requests as the router counted them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Named;

/// How long something took, over many requests, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// Half took no longer.
    pub p50: f64,
    /// 95 % took no longer.
    pub p95: f64,
    /// 99 % took no longer.
    pub p99: f64,
}

/// Requests that ended in some time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The time, in seconds; 0: since the start.
    pub seconds: f64,
    /// How many ended.
    pub requests: u64,
    /// By class of status: `2xx`; `none` where none was sent.
    pub classes: BTreeMap<String, u64>,
    /// By H code.
    pub errors: BTreeMap<String, u64>,
    /// Waiting for a dyno.
    pub queue: Times,
    /// Connecting to it.
    pub connect: Times,
    /// From there to the end of the answer.
    pub service: Times,
}

/// One web dyno's requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynoTraffic {
    /// Of this run.
    pub id: Uuid,
    /// `web.1`.
    pub name: String,
    /// `up`.
    pub state: String,
    /// Number of its release.
    pub release: u32,
    /// Requests that it serves now.
    pub in_flight: u32,
    /// Since its start.
    pub total: Traffic,
    /// As of the last full look; `null` before the first.
    pub usage: Option<DynoUsage>,
}

/// What a dyno uses.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct DynoUsage {
    /// RSS, cache and swap: what R14 looks at.
    pub memory_bytes: u64,
    /// Its size's.
    pub quota_bytes: u64,
    /// Over a minute.
    pub load: f64,
}

/// One app's requests.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppTraffic {
    /// Which.
    pub app: Named,
    /// Its routing policy.
    pub policy: String,
    /// Requests that a dyno is sent at once; `null`: any number.
    pub limit: Option<u32>,
    /// Requests that wait for a dyno now.
    pub waiting: u64,
    /// Requests that dynos serve now.
    pub in_flight: u64,
    /// The last minute.
    pub recent: Traffic,
    /// Since the supervisor's start.
    pub total: Traffic,
    /// Its web dynos.
    pub dynos: Vec<DynoTraffic>,
}
