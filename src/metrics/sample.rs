//! The looking.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::l2met;
use super::load::Load;
use super::quota::{self, Verdict};
use super::room::{self, Eviction};
use crate::logs::Hub;
use crate::model::{AppId, DynoId, DynoState, Feature};
use crate::settings::Timings;
use crate::supervisor::{AppView, DynoUsage, DynoView, Supervisor, Usages};

/// Between two glances.
const GLANCE: Duration = Duration::from_secs(1);

/// The task that looks at every dyno.
#[derive(Debug)]
pub struct Metrics {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Metrics {
    /// Starts looking.
    pub fn start(supervisor: Supervisor, hub: Hub, timings: &Timings) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let mut looker = Looker {
            supervisor: supervisor.clone(),
            hub,
            period: timings.metrics_period,
            known: BTreeMap::new(),
            eviction: Eviction::default(),
        };
        let task = tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    () = tokio::time::sleep(GLANCE) => {}
                }
                // Reading kernel files blocks: under pressure for long.
                let round = tokio::task::spawn_blocking(move || {
                    let found = looker.look(Instant::now());
                    (looker, found)
                });
                let Ok((back, found)) = round.await else {
                    tracing::error!("looking at dynos ended");
                    return;
                };
                looker = back;
                for over in found {
                    let lines = match over.lines {
                        Some(lines) => lines,
                        None => supervisor.autopsy(over.dyno).await,
                    };
                    supervisor.exceed(over.dyno, lines).await;
                }
            }
        });
        Self { stop, task }
    }

    /// Stops looking.
    pub async fn stop(self) {
        self.stop.cancel();
        if self.task.await.is_err() {
            tracing::error!("the metrics task panicked");
        }
    }
}

/// A dyno that must go; without lines the kernel has killed in it.
struct Over {
    dyno: DynoId,
    lines: Option<Vec<String>>,
}

/// What is remembered of a dyno between two looks.
struct Known {
    load: Load,
    sampled: Instant,
    usage: Option<DynoUsage>,
    is_over: bool,
}

struct Looker {
    supervisor: Supervisor,
    hub: Hub,
    period: Duration,
    known: BTreeMap<DynoId, Known>,
    eviction: Eviction,
}

impl Looker {
    /// One round over all dynos.
    fn look(&mut self, now: Instant) -> Vec<Over> {
        let snapshot = self.supervisor.snapshot();
        let mut over = Vec::new();
        let mut known = std::mem::take(&mut self.known);
        let mut changed = false;
        for (app, view) in &snapshot.apps {
            for dyno in view.dynos.iter().filter(|dyno| is_alive(dyno)) {
                let Some(glance) = self.supervisor.glance(dyno.id) else {
                    continue;
                };
                let mut of_dyno = known.remove(&dyno.id).unwrap_or_else(|| Known {
                    load: Load::default(),
                    sampled: now,
                    usage: None,
                    is_over: false,
                });
                if !of_dyno.is_over && glance.oom_kills > 0 {
                    of_dyno.is_over = true;
                    let dyno = dyno.id;
                    over.push(Over { dyno, lines: None });
                }
                let is_due = now.duration_since(of_dyno.sampled) >= self.period;
                let is_near = quota::is_near(glance.charged_bytes, dyno.size.memory_bytes);
                if is_due || (is_near && !of_dyno.is_over) {
                    changed |= is_due;
                    over.extend(self.sample(*app, view, dyno, &mut of_dyno, is_due, now));
                }
                self.known.insert(dyno.id, of_dyno);
            }
        }
        // Who is gone goes from the figures, too.
        if changed || !known.is_empty() {
            let usages: Usages = self
                .known
                .iter()
                .filter_map(|(id, known)| Some((*id, known.usage?)))
                .collect();
            self.supervisor.publish_usages(usages);
        }
        over.extend(self.evict(now));
        over
    }

    /// The dyno that must go for the host's disk.
    fn evict(&mut self, now: Instant) -> Option<Over> {
        let room = self.supervisor.disk_room()?;
        let supervisor = &self.supervisor;
        let usages = || {
            let ids = self.known.keys();
            let disk = |id: &DynoId| supervisor.sample(*id)?.disk;
            ids.filter_map(|id| Some((*id, disk(id)?.0.host_bytes)))
                .collect()
        };
        let (free, reserve) = (room.free_bytes, room.reserve_bytes);
        let (dyno, bytes) = self.eviction.next(free, reserve, now, usages)?;
        let line = room::told(bytes, free);
        tracing::warn!(%dyno, "a dyno is stopped: {line}");
        let lines = Some(vec![line]);
        Some(Over { dyno, lines })
    }

    /// A full look: the figures, the lines, and whether it must go.
    fn sample(
        &self,
        app: AppId,
        view: &Arc<AppView>,
        dyno: &DynoView,
        known: &mut Known,
        is_due: bool,
        now: Instant,
    ) -> Option<Over> {
        let sample = self.supervisor.sample(dyno.id)?;
        let quota_bytes = dyno.size.memory_bytes;
        let verdict = quota::judge(&sample.memory, quota_bytes);
        if is_due {
            known.load.push(sample.running, now - known.sampled);
            known.sampled = now;
            let usage = DynoUsage {
                sample,
                quota_bytes,
                load: known.load.0,
            };
            known.usage = Some(usage);
            let is_wanted = view.spec.features.contains(&Feature::LogRuntimeMetrics);
            if is_wanted && !dyno.is_build {
                for line in l2met::lines(app, dyno.id, &dyno.name, &usage) {
                    self.hub.platform(app, &dyno.name.to_string(), line);
                }
            }
        }
        match verdict {
            Verdict::Exceeded(lines) if is_due && !dyno.is_build => {
                for line in lines {
                    self.hub.platform(app, &dyno.name.to_string(), line);
                }
                None
            }
            Verdict::VastlyExceeded(lines) if !known.is_over => {
                known.is_over = true;
                Some(Over {
                    dyno: dyno.id,
                    lines: Some(lines.to_vec()),
                })
            }
            _ => None,
        }
    }
}

fn is_alive(dyno: &DynoView) -> bool {
    matches!(dyno.state, DynoState::Starting | DynoState::Up) || dyno.is_stopping
}
