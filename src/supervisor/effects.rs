//! The real host: from a launch order to a plan, descriptors and the keeper.
//!
//! launch: slot and namespace (pooled) → cgroup → upper layer → streams → plan → keeper.
//! Whatever fails takes back what was made before it.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use tokio::sync::{mpsc, oneshot};

use super::groups::{Groups, take_away};
use super::memory;
use super::upper;
use super::usage::{DiskRoom, Eyes, Sample};
use super::{
    Adopted, Backend, Estate, Exited, Failure, LaunchOrder, Launched, LaunchedStdio, Machine,
    Record, StdioOrder, StopSignal, Task, WindowSize,
};
use crate::cgroup::{CgroupError, Glance, Group, Limits, Manager};
use crate::disk::{Changes, DiskError, Disks, Keep, Volume};
use crate::dyno::{Exec, LaunchPlan, Layer, PlanRequest, ShownSize, UserRange, argv, plain_words};
use crate::keeper::{Client, ClientError, LaunchFds, Mark};
use crate::model::{Digest, DynoId, ExitStatus, StackRef};
use crate::network::{self, Block, DynoNetwork, Network, NetworkError};
use crate::rootfs::{RootfsError, Stacks};
use crate::settings::{NetworkSettings, Paths};
use crate::slug::{SlugError, Trees};
use crate::sys;

/// Room in a log pipe: an app goes on while the supervisor is busy or being replaced.
const PIPE_BYTES: i32 = 256 * 1024;

/// The machine cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Control groups.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Addresses and rules.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Stacks.
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    /// The keeper's socket.
    #[error("cannot talk to the keeper")]
    Keeper(#[source] io::Error),
    /// `/dev/null`.
    #[error("cannot open /dev/null")]
    Null(#[source] io::Error),
}

/// This host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LinuxMachine {
    pub(super) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// What this host cannot enforce.
    lacks: Vec<String>,
    stacks: Stacks,
    trees: Trees,
    pub(super) cgroups: Manager,
    groups: Groups,
    pub(super) disks: Disks,
    network: Arc<Network>,
    pub(super) block: Block,
    pub(super) keeper: Client,
    null: OwnedFd,
    live: Mutex<HashMap<DynoId, Live>>,
}

/// What a dyno holds until its teardown.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) group: Group,
    /// Made when it runs.
    pub(super) eyes: Option<Eyes>,
    pub(super) quota_bytes: u64,
    pub(super) volume: Arc<Volume>,
    /// What lies below its writable layer.
    pub(super) lowers: Vec<PathBuf>,
    pub(super) hostname: String,
    pub(super) terminal: Option<OwnedFd>,
    pub(super) network: DynoNetwork,
}

/// What [`LinuxMachine::open`] hands out beside the machine.
#[derive(Debug)]
pub struct MachineEvents {
    /// Every end of a launched dyno.
    pub exits: mpsc::UnboundedReceiver<Exited>,
    /// Resolves when the keeper is gone, and every dyno with it.
    pub keeper_gone: oneshot::Receiver<()>,
    /// Dynos of the supervisor before.
    pub adopted: Vec<Adopted>,
}

impl LinuxMachine {
    /// Opens cgroups, network, stacks and the keeper's socket. `instance` is eight hex digits.
    /// What an earlier run left must have been swept, but for what its `estate` holds.
    ///
    /// # Errors
    /// See [`MachineError`].
    pub async fn open(
        paths: &Paths,
        instance: &str,
        cgroups: Manager,
        disks: Disks,
        keeper: OwnedFd,
        network: &NetworkSettings,
        estate: Estate,
    ) -> Result<(Self, MachineEvents), MachineError> {
        let resolv_conf = network::resolv_conf(&network.resolvers);
        let options = NetworkSettings {
            resolvers: network::resolvers(&resolv_conf),
            ..network.clone()
        };
        if options.resolvers.is_empty() {
            tracing::warn!(
                "dynos have no resolver: the host's are loopback addresses or IPv6; name others by `resolvers` below [network] in the settings"
            );
        }
        let stacks = Stacks::open(paths, &resolv_conf)?;
        let (block, slots) = estate.claim()?;
        let (sender, mut ends) = mpsc::unbounded_channel::<(DynoId, ExitStatus)>();
        let (keeper, keeper_gone) =
            Client::connect(keeper, sender).map_err(MachineError::Keeper)?;
        let groups = Groups::default();
        let warm = groups.warmer(cgroups.clone(), keeper.clone());
        let was_forwarding = network::is_forwarding();
        let living = slots.iter().map(|slot| slot.subnet().dyno).collect();
        let network = Network::open(instance, &block, options, &living, warm).await?;
        super::recover::remember_forwarding(paths, was_forwarding);
        let (news, exits) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some((id, status)) = ends.recv().await {
                let at = Instant::now();
                if news.send(Exited { id, status, at }).is_err() {
                    break;
                }
            }
        });
        let null = OpenOptions::new().read(true).write(true).open("/dev/null");
        let lacks = super::lacks::lacks(&cgroups, &disks);
        for lack in &lacks {
            tracing::warn!("{lack}");
        }
        let inner = Inner {
            lacks,
            stacks,
            trees: Trees::new(paths),
            cgroups,
            groups,
            disks,
            network: Arc::new(network),
            block,
            keeper,
            null: null.map_err(MachineError::Null)?.into(),
            live: Mutex::default(),
        };
        let adopted = inner.adopt(estate, slots);
        let machine = Self {
            inner: Arc::new(inner),
        };
        let events = MachineEvents {
            exits,
            keeper_gone,
            adopted,
        };
        Ok((machine, events))
    }

    /// The holes in the wall from now on.
    pub(super) fn set_openings(&self, openings: Vec<network::Opening>) {
        self.inner.network.set_openings(openings);
    }

    /// Removes what no dyno needs any more: the firewall table and the parent cgroup.
    ///
    /// # Errors
    /// The first that stayed.
    pub async fn close(&self) -> Result<(), MachineError> {
        let network = self.inner.network.close().await;
        self.inner.groups.remove_all();
        let cgroups = self.inner.cgroups.close();
        network?;
        Ok(cgroups?)
    }
}

impl Inner {
    pub(super) fn live(&self) -> std::sync::MutexGuard<'_, HashMap<DynoId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn launch(&self, order: LaunchOrder) -> Result<Launched, Failure> {
        let started = Instant::now();
        let root = self.stacks.image(&order.stack, order.image);
        let root = root.map_err(failure("find the stack"))?;
        let slug = match order.slug {
            Some(digest) => Some(self.tree(digest).await?),
            None => None,
        };
        let lowers = layers(slug, root.lower);
        sys::fault("take a network").map_err(failure("take a network"))?;
        let network = self.network.acquire().await;
        let network = network.map_err(failure("make a network"))?;
        let user = UserRange {
            base: network.slot.uid_base(),
        };
        let limits = Limits::from(&order.size);
        let group = self
            .groups
            .take(network.slot.number, &self.cgroups, &limits);
        let group = group.map_err(failure("make a cgroup"))?;
        let step = "make a bounded writable layer";
        let volume = match sys::fault(step) {
            Ok(()) => self.disks.take(order.id, order.size.disk).await,
            Err(source) => Err(DiskError::Mount {
                act: "take",
                source,
            }),
        };
        let volume = volume.inspect_err(|_| take_away(&group));
        let volume = volume.map_err(failure(step))?;
        let dir = volume.path();
        let live = Live {
            hostname: hostname(&order),
            lowers: lowers.iter().map(|layer| layer.source.clone()).collect(),
            group,
            eyes: None,
            quota_bytes: order.size.memory_bytes,
            volume,
            terminal: None,
            network,
        };
        let upper = sys::fault("make the writable layer")
            .and_then(|()| upper::make(&dir, user.base, &live.hostname));
        let prepared = upper
            .map_err(failure("make the writable layer"))
            .and_then(|()| sys::fault("make pipes").map_err(failure("make pipes")))
            .and_then(|()| self.streams(order.stdio).map_err(failure("make pipes")));
        let (streams, ours) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => {
                self.remove(order.id, live).await;
                return Err(error);
            }
        };
        let (id, plan) = (order.id, plan(order, lowers, root.binds, user));
        match self.start(plan, &live, streams, ours).await {
            Ok((pid, stdio, terminal)) => {
                let backend = Backend {
                    address: Some(live.network.slot.subnet().dyno),
                    netns: Some(Arc::clone(&live.network.netns)),
                };
                let eyes = Eyes::open(&live.group);
                self.live().insert(
                    id,
                    Live {
                        eyes,
                        terminal,
                        ..live
                    },
                );
                Ok(Launched {
                    pid,
                    backend,
                    stdio,
                    took: started.elapsed(),
                })
            }
            Err(error) => {
                self.remove(id, live).await;
                Err(error)
            }
        }
    }

    async fn tree(&self, digest: Digest) -> Result<PathBuf, Failure> {
        self.trees.ensure(digest).await.map_err(|error| {
            let checksum = match &error {
                SlugError::Checksum { expected, actual } => Some((*expected, *actual)),
                _ => None,
            };
            Failure {
                checksum,
                ..failure("unpack the slug")(error)
            }
        })
    }

    /// Takes back everything a dyno held. Never fails its caller: what stays is swept at next
    /// start.
    async fn remove(&self, id: DynoId, live: Live) {
        let Live {
            group,
            volume,
            network,
            terminal,
            ..
        } = live;
        drop(terminal);
        let (disks, networks) = (self.disks.clone(), Arc::clone(&self.network));
        let work = move || {
            // Ids, addresses and the volume are free for another dyno only when nothing can carry
            // them any more: no task. Otherwise they are not used again by this supervisor.
            if let Err(error) = group.remove() {
                tracing::warn!(%error, "a dyno's cgroup stays until the next start");
                disks.give_up(id);
                std::mem::forget(network.slot);
            } else {
                disks.put_back(id, volume);
                networks.release(network);
            }
        };
        if tokio::task::spawn_blocking(work).await.is_err() {
            tracing::error!("removing a dyno's leftovers panicked");
        }
    }

    /// Hands everything to the keeper; the pid, our ends, and a master for later resizes.
    async fn start(
        &self,
        plan: LaunchPlan,
        live: &Live,
        streams: [OwnedFd; 3],
        ours: Option<LaunchedStdio>,
    ) -> Result<(u32, LaunchedStdio, Option<OwnedFd>), Failure> {
        let cgroup = live.group.entry().map_err(failure("open the cgroup"))?;
        let network = live.network.netns.try_clone();
        let fds = LaunchFds {
            network: network.map_err(failure("share the network"))?,
            writable: live
                .volume
                .share()
                .map_err(failure("share the writable layer"))?,
            streams,
            cgroup,
        };
        let reply = self.keeper.launch(plan, fds).await;
        let reply = reply.map_err(|error| match error {
            ClientError::Step(step) => Failure {
                reason: nix::errno::Errno::from_raw(step.errno).desc().to_owned(),
                step: step.step,
                checksum: None,
            },
            other => failure("launch")(other),
        })?;
        match (ours, reply.terminal) {
            (Some(stdio), _) => Ok((reply.pid, stdio, None)),
            (None, Some(master)) => {
                let ready = nonblocking(&master).and_then(|()| master.try_clone());
                let kept = ready.map_err(failure("use the terminal"))?;
                Ok((reply.pid, LaunchedStdio::Terminal(master), Some(kept)))
            }
            (None, None) => Err(failure("use the terminal")(io::Error::other(
                "the keeper sent none",
            ))),
        }
    }

    /// The dyno's three descriptors, and our ends (a terminal's comes from the keeper).
    fn streams(&self, order: StdioOrder) -> io::Result<([OwnedFd; 3], Option<LaunchedStdio>)> {
        let null = || self.null.try_clone();
        match order {
            StdioOrder::Logged => {
                let (read, write) = pipe()?;
                nonblocking(&read)?;
                // A smaller pipe works too: root may be over its user's limit.
                let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
                let error = write.try_clone()?;
                Ok(([null()?, write, error], Some(LaunchedStdio::Logged(read))))
            }
            StdioOrder::Pipes => {
                let (stdin, ours_in) = pipe()?;
                let (ours_out, stdout) = pipe()?;
                let (ours_err, stderr) = pipe()?;
                for ours in [&ours_in, &ours_out, &ours_err] {
                    nonblocking(ours)?;
                }
                let ours = LaunchedStdio::Pipes {
                    stdin: ours_in,
                    stdout: ours_out,
                    stderr: ours_err,
                };
                Ok(([stdin, stdout, stderr], Some(ours)))
            }
            StdioOrder::Terminal(_) => Ok(([null()?, null()?, null()?], None)),
        }
    }
}

/// Read-only layers, the topmost first.
fn layers(slug: Option<PathBuf>, stack: PathBuf) -> Vec<Layer> {
    let layer = |source| Layer {
        source,
        must_map: true,
    };
    slug.into_iter().chain([stack]).map(layer).collect()
}

/// The dyno's name with a dash.
fn hostname(order: &LaunchOrder) -> String {
    order.name.to_string().replace('.', "-")
}

/// What is applied for an order, and what `security` tells.
fn plan(
    order: LaunchOrder,
    lowers: Vec<Layer>,
    stack_binds: Vec<(PathBuf, PathBuf)>,
    user: UserRange,
) -> LaunchPlan {
    let (masked, read_only) = super::sketch::covers();
    launch_plan(PlanRequest {
        dyno: order.id,
        hostname: hostname(&order),
        user,
        lowers,
        stack_binds,
        binds: order
            .binds
            .into_iter()
            .map(|bind| (bind.source, bind.target, bind.read_only))
            .collect(),
        masked,
        read_only,
        size: shown(&Limits::from(&order.size)),
        exec: Exec {
            argv: argv(&order.command),
            plain: plain_words(&order.command, &order.env),
            env: order.env,
        },
        terminal: match order.stdio {
            StdioOrder::Terminal(size) => Some((size.columns, size.rows)),
            _ => None,
        },
        stop_grace_ms: u64::try_from(order.stop_grace.as_millis()).unwrap_or(u64::MAX),
    })
}

fn shown(limits: &Limits) -> ShownSize {
    ShownSize {
        memory_bytes: limits.memory_bytes,
        cpu_shares: limits.cpu_shares,
        cpu_weight: limits.cpu_weight(),
        cpu_quota_us: limits.cpu_quota_us(),
        tasks_max: limits.tasks_max,
    }
}

/// The plan; in test builds the attack tests may take layers out of it.
fn launch_plan(request: PlanRequest) -> LaunchPlan {
    #[cfg_attr(
        not(debug_assertions),
        expect(unused_mut, reason = "weakened in tests")
    )]
    let mut plan = LaunchPlan::new(request);
    #[cfg(debug_assertions)]
    super::weaken::apply(&mut plan);
    plan
}

/// For `map_err`: the step, and the whole chain as its reason.
fn failure<E: std::error::Error>(step: &'static str) -> impl FnOnce(E) -> Failure {
    move |error| {
        let chain = std::iter::successors(error.source(), |error| error.source());
        let reason = chain.fold(error.to_string(), |text, source| {
            format!("{text}: {source}")
        });
        Failure {
            step: step.to_owned(),
            reason,
            checksum: None,
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Only for ends that are ours alone: the flag belongs to the description, not the descriptor.
fn nonblocking(fd: &OwnedFd) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFL)?);
    fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}

impl Machine for LinuxMachine {
    fn launch(&self, order: LaunchOrder) -> Task<'_, Result<Launched, Failure>> {
        Box::pin(self.inner.launch(order))
    }

    fn sketch(&self, order: LaunchOrder) -> Task<'_, Result<super::Sketch, Failure>> {
        Box::pin(async move {
            let inner = &self.inner;
            let root = inner.stacks.image(&order.stack, order.image);
            let root = root.map_err(failure("find the stack"))?;
            let network = inner.network.facts();
            let user = UserRange {
                base: network.uid_first,
            };
            let slug = order.slug.map(|_| PathBuf::from("slug"));
            let size = order.size.clone();
            let lowers = layers(slug, PathBuf::from("stack"));
            Ok(super::Sketch {
                plan: plan(order, lowers, root.binds, user),
                size,
                network,
            })
        })
    }

    fn signal(&self, id: DynoId, signal: StopSignal) {
        let signal = match signal {
            StopSignal::Term => Signal::SIGTERM,
            StopSignal::Hup => Signal::SIGHUP,
            StopSignal::Kill => Signal::SIGKILL,
        };
        self.inner.keeper.signal(id, signal as i32);
    }

    fn keep(&self, id: DynoId, record: &Record, mark: Mark, output: BorrowedFd<'_>) {
        self.inner.keep(id, record, mark, output);
    }

    fn mark(&self, id: DynoId, mark: Mark) {
        self.inner.keeper.mark(id, mark);
    }

    fn forget(&self, id: DynoId) {
        self.inner.keeper.forget(id);
    }

    fn resize(&self, id: DynoId, size: WindowSize) {
        let live = self.inner.live();
        let terminal = live.get(&id).and_then(|live| live.terminal.as_ref());
        if let Some(terminal) = terminal
            && let Err(error) = sys::set_window_size(terminal.as_fd(), size.columns, size.rows)
        {
            tracing::debug!(%error, "window size not set");
        }
    }

    fn teardown(&self, id: DynoId) -> Task<'_, ()> {
        Box::pin(async move {
            let live = self.inner.live().remove(&id);
            if let Some(live) = live {
                self.inner.remove(id, live).await;
            }
        })
    }

    fn glance(&self, id: DynoId) -> Option<Glance> {
        let mut live = self.inner.live();
        let eyes = live.get_mut(&id)?.eyes.as_mut()?;
        let glance = eyes.sampler.glance().ok()?;
        // A dead group's memory is gone: that is no part of the story.
        if glance.charged_bytes > 0 {
            eyes.curve.push(glance.charged_bytes);
        }
        Some(glance)
    }

    fn sample(&self, id: DynoId) -> Option<Sample> {
        let (sampler, volume) = {
            let live = self.inner.live();
            let live = live.get(&id)?;
            (
                Arc::clone(&live.eyes.as_ref()?.sampler),
                Arc::clone(&live.volume),
            )
        };
        let (tasks, running) = sampler.tasks().ok()?;
        Some(Sample {
            memory: sampler.memory().ok()?,
            tasks,
            running,
            disk: volume.usage().ok().map(|usage| (usage, volume.limit())),
        })
    }

    fn changes(&self, id: DynoId) -> Task<'_, Result<Option<Changes>, Failure>> {
        let live = self.inner.live();
        let parts = live.get(&id).map(|live| {
            let (volume, lowers) = (Arc::clone(&live.volume), live.lowers.clone());
            (volume, lowers, live.hostname.clone())
        });
        Box::pin(async move {
            let Some((volume, lowers, hostname)) = parts else {
                return Ok(None);
            };
            let found = upper::changes(volume, lowers, hostname).await;
            found.map(Some).map_err(failure("read the dyno's files"))
        })
    }

    fn disk_room(&self) -> Option<DiskRoom> {
        let disks = &self.inner.disks;
        let (free_bytes, reserve_bytes) = disks.room().ok()?;
        Some(DiskRoom {
            mechanism: disks.mechanism().to_string(),
            free_bytes,
            reserve_bytes,
            idle_bytes: disks.idle_bytes(),
        })
    }

    fn notices(&self) -> Vec<String> {
        let firewall = self.inner.network.notices();
        let firewall = firewall.borrow();
        [self.inner.lacks.as_slice(), &firewall].concat()
    }

    fn autopsy(&self, id: DynoId) -> Task<'_, Vec<String>> {
        let story = {
            let live = self.inner.live();
            live.get(&id).map(|live| {
                let curve = live.eyes.as_ref().map(|eyes| eyes.curve.clone());
                (
                    live.group.name(),
                    curve.unwrap_or_default(),
                    live.quota_bytes,
                    live.group.peak(),
                )
            })
        };
        Box::pin(async move {
            let Some((group, curve, quota, peak)) = story else {
                return Vec::new();
            };
            let read = tokio::task::spawn_blocking(sys::kernel_messages).await;
            let messages = match read {
                Ok(Ok(messages)) => messages,
                // The kernel's words are the better half of the story, not all of it.
                _ => Vec::new(),
            };
            let victim = memory::victim(&messages, &group);
            let peak = peak.or(curve.last()).unwrap_or_default();
            memory::out_of_memory_lines(victim.as_ref(), &curve.shown(), peak, quota)
        })
    }

    fn bound(&self, path: PathBuf, keep: Keep) -> Task<'_, Result<(), Failure>> {
        let disks = self.inner.disks.clone();
        Box::pin(async move {
            let work = move || disks.bound(&path, &keep);
            match tokio::task::spawn_blocking(work).await {
                Ok(result) => result.map_err(failure("bound the build's disk")),
                Err(_) => Err(failure("bound the build's disk")(io::Error::other(
                    "the supervisor is stopping",
                ))),
            }
        })
    }

    fn filled(&self, path: &Path) -> Option<u64> {
        Some(self.inner.disks.filled(path)?.bytes)
    }

    fn unbound(&self, path: &Path) {
        self.inner.disks.unbound(path);
    }

    fn prepare(&self, stack: &StackRef, slug: Option<Digest>) -> Task<'_, Result<(), Failure>> {
        let stack = stack.clone();
        Box::pin(async move {
            let root = self
                .inner
                .stacks
                .image(&stack, crate::model::StackImage::Run);
            root.map_err(failure("find the stack"))?;
            if let Some(digest) = slug {
                self.inner.tree(digest).await?;
            }
            Ok(())
        })
    }
}
