//! The launch plan: what happens between clone and exec, in order.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize as _;

use super::ShownSize;
use crate::model::DynoId;

/// The `dyno` user inside every dyno (a host uid of its own outside).
pub const APP_UID: u32 = 1000;

/// Its group.
pub const APP_GID: u32 = 1000;

/// Ids each dyno's user namespace maps: 0..65536 inside.
pub const IDS_PER_DYNO: u32 = 65_536;

/// Where a dyno's ids lie on the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserRange {
    /// Host id of the dyno's id 0; [`IDS_PER_DYNO`] ids from here on are its own.
    pub base: u32,
}

/// Mount attributes in a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent mount flags of the kernel"
)]
pub struct Attributes {
    /// `MS_RDONLY`.
    pub read_only: bool,
    /// `MS_NOSUID`.
    pub no_suid: bool,
    /// `MS_NODEV`.
    pub no_dev: bool,
    /// `MS_NOEXEC`.
    pub no_exec: bool,
}

/// A host directory under the overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// The directory.
    pub source: PathBuf,
    /// False: a file system without id mapping may be used as it is (files appear as nobody's).
    pub must_map: bool,
}

/// A step of PID 1, as root of the host in fresh namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetUpStep {
    /// Nothing of how the supervisor was started comes along: priority, OOM score, timer slack,
    /// personality.
    Neutral,
    /// Write itself into the handed-over v1 `tasks` files (on v2 the clone did it).
    JoinCgroup,
    /// Enter the handed-over network namespace.
    EnterNetwork,
    /// A cgroup namespace whose root is the dyno's own group; after joining it.
    NewCgroupNamespace,
    /// No mount of ours reaches the host, none of the host's reaches us.
    PrivateMounts,
    /// The root: id-mapped lowers (top first) and a fresh upper, on the handed-over mount of a
    /// bounded file system with `upper/` and `work/`.
    Overlay {
        /// Read-only layers, the topmost first.
        lowers: Vec<Layer>,
    },
    /// A host directory below the new root.
    Bind {
        /// On the host.
        source: PathBuf,
        /// Absolute path inside, made if missing.
        target: PathBuf,
        /// Flags of the mount.
        attributes: Attributes,
        /// As in [`Layer`].
        must_map: bool,
    },
    /// A fresh /proc of this pid namespace.
    Proc,
    /// A fresh read-only /sys of this network namespace.
    Sys,
    /// What the dyno's cgroup gives it, at /sys/fs/cgroup, for programs that look there.
    Size(ShownSize),
    /// The keeper's /dev template, read-only.
    Devices,
    /// A fresh devpts at /dev/pts.
    Terminals,
    /// A tmpfs at /dev/shm.
    SharedMemory {
        /// Its size in bytes.
        bytes: u64,
    },
    /// POSIX message queues at /dev/mqueue.
    MessageQueues,
    /// Bind these paths onto themselves, read-only; missing ones are skipped.
    ReadOnly(Vec<PathBuf>),
    /// Cover these with /dev/null (files) or an empty directory; missing ones are skipped.
    Mask(Vec<PathBuf>),
    /// Make the new root the only one.
    Pivot,
    /// `uname -n`.
    Hostname(String),
}

/// A step of PID 1 in its new root, and after [`AppStep::Fork`] of the process that becomes the
/// app; after `EnterUser` without any host privilege.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppStep {
    /// Own session and process group.
    NewSession,
    /// Standard streams onto 0, 1, 2; a terminal becomes the controlling one.
    Streams,
    /// Soft and hard limits by name of the resource.
    Limit {
        /// Each resource the kernel knows has its step: none is inherited.
        resource: Resource,
        /// Soft limit.
        soft: u64,
        /// Hard limit; lowered to the inherited one where raising is not allowed.
        hard: u64,
    },
    /// File mode creation mask.
    Umask(u32),
    /// Enter the dyno's user namespace.
    EnterUser,
    /// Bounding and ambient sets empty, securebits locked (needs the privilege it removes).
    BoundCapabilities,
    /// Drop groups, become uid and gid.
    Ids {
        /// Inside.
        uid: u32,
        /// Inside.
        gid: u32,
    },
    /// Effective, permitted and inheritable sets empty.
    NoCapabilities,
    /// A session keyring of its own, not the one of whoever started the supervisor.
    SessionKeyring,
    /// All signals default and unblocked.
    DefaultSignals,
    /// `no_new_privs`.
    NoNewPrivileges,
    /// Working directory, and that it is below the root.
    Directory(PathBuf),
    /// The compiled filter.
    Seccomp,
    /// PID 1 makes the app's process, which inherits all that came before: none of the two ever
    /// runs a program with fewer walls.
    Fork,
    /// Nothing open but 0, 1, 2.
    CloseFds,
}

/// Resources a plan limits. Source: getrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Resource {
    /// Open files.
    Nofile,
    /// Processes and threads of the uid.
    Nproc,
    /// Core file size in bytes.
    Core,
    /// Seconds of CPU time.
    Cpu,
    /// Bytes of a file.
    Fsize,
    /// Bytes of data.
    Data,
    /// Bytes of the main thread's stack.
    Stack,
    /// Bytes of resident memory (not enforced by Linux).
    Rss,
    /// Bytes that may be locked in memory.
    Memlock,
    /// Bytes of address space.
    As,
    /// Locks and leases (not enforced by Linux).
    Locks,
    /// Queued signals.
    Sigpending,
    /// Bytes in POSIX message queues.
    Msgqueue,
    /// Ceiling of the nice value, as 20 - nice.
    Nice,
    /// Ceiling of the real-time priority.
    Rtprio,
    /// Microseconds of real-time scheduling without a blocking call.
    Rttime,
}

/// What is executed last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exec {
    /// Absolute program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Executed instead when there is no profile script; the program is looked for on the
    /// environment's `PATH`. Empty: only a shell can run the command.
    pub plain: Vec<String>,
}

impl Exec {
    /// Leaves nothing of it in memory.
    pub fn wipe(&mut self) {
        for (name, value) in &mut self.env {
            name.zeroize();
            value.zeroize();
        }
        self.argv.zeroize();
        self.plain.zeroize();
    }
}

/// A launch, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// Which dyno.
    pub dyno: DynoId,
    /// Its ids on the host.
    pub user: UserRange,
    /// PID 1's steps.
    pub set_up: Vec<SetUpStep>,
    /// The steps that close the dyno, and the app's own.
    pub app: Vec<AppStep>,
    /// The app.
    pub exec: Exec,
    /// Columns and rows of a pty, if one is asked for.
    pub terminal: Option<(u16, u16)>,
    /// Milliseconds that processes left behind get between SIGTERM and SIGKILL.
    pub stop_grace_ms: u64,
}

/// What a plan is made from.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// Which dyno.
    pub dyno: DynoId,
    /// Its host name: the dyno's name with a dash (`web-1`).
    pub hostname: String,
    /// Its ids.
    pub user: UserRange,
    /// Read-only layers, topmost first.
    pub lowers: Vec<Layer>,
    /// Host directories of the stack, read-only: source and target.
    pub stack_binds: Vec<(PathBuf, PathBuf)>,
    /// Host directories of a build: source, target, read-only.
    pub binds: Vec<(PathBuf, PathBuf, bool)>,
    /// Paths covered with nothing.
    pub masked: Vec<PathBuf>,
    /// Paths made read-only.
    pub read_only: Vec<PathBuf>,
    /// Its size.
    pub size: ShownSize,
    /// The app.
    pub exec: Exec,
    /// A pty's columns and rows.
    pub terminal: Option<(u16, u16)>,
    /// See [`LaunchPlan::stop_grace_ms`].
    pub stop_grace_ms: u64,
}

/// `/dev/shm` of a dyno in bytes. Source: the platform's contract (64 MB).
pub const SHM_BYTES: u64 = 64 << 20;

/// Open files, hard limit. Source: the platform's contract ("suggested").
pub const OPEN_FILES_MAX: u64 = 1_048_576;

/// Open files: soft and hard.
const NOFILE: (u64, u64) = (10_000, OPEN_FILES_MAX);

/// No limit. Source: `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

/// The kernel's own defaults: soft, hard. Memory, time and tasks are bounded by the cgroup, queued
/// signals and message queues by these. Source: getrlimit(2), `INIT_RLIMITS`.
const DEFAULTS: [(Resource, u64, u64); 13] = [
    (Resource::Cpu, UNLIMITED, UNLIMITED),
    (Resource::Fsize, UNLIMITED, UNLIMITED),
    (Resource::Data, UNLIMITED, UNLIMITED),
    (Resource::Stack, 8 << 20, UNLIMITED),
    (Resource::Rss, UNLIMITED, UNLIMITED),
    (Resource::Memlock, 8 << 20, 8 << 20),
    (Resource::As, UNLIMITED, UNLIMITED),
    (Resource::Locks, UNLIMITED, UNLIMITED),
    (Resource::Sigpending, 4096, 4096),
    (Resource::Msgqueue, 819_200, 819_200),
    (Resource::Nice, 0, 0),
    (Resource::Rtprio, 0, 0),
    (Resource::Rttime, UNLIMITED, UNLIMITED),
];

impl LaunchPlan {
    /// The one order in which a dyno is made.
    pub fn new(request: PlanRequest) -> Self {
        let inert = Attributes {
            read_only: true,
            no_suid: true,
            no_dev: true,
            ..Attributes::default()
        };
        let mut set_up = vec![
            SetUpStep::Neutral,
            SetUpStep::JoinCgroup,
            SetUpStep::EnterNetwork,
            SetUpStep::NewCgroupNamespace,
            SetUpStep::PrivateMounts,
            SetUpStep::Overlay {
                lowers: request.lowers,
            },
        ];
        set_up.extend(
            request
                .stack_binds
                .into_iter()
                .map(|(source, target)| SetUpStep::Bind {
                    source,
                    target,
                    attributes: inert,
                    must_map: false,
                }),
        );
        set_up.extend(
            request
                .binds
                .into_iter()
                .map(|(source, target, read_only)| {
                    let attributes = Attributes { read_only, ..inert };
                    SetUpStep::Bind {
                        source,
                        target,
                        attributes,
                        must_map: true,
                    }
                }),
        );
        set_up.extend([
            SetUpStep::Proc,
            SetUpStep::Sys,
            SetUpStep::Size(request.size),
            SetUpStep::Devices,
            SetUpStep::Terminals,
            SetUpStep::SharedMemory { bytes: SHM_BYTES },
            SetUpStep::MessageQueues,
            SetUpStep::ReadOnly(request.read_only),
            SetUpStep::Mask(request.masked),
            SetUpStep::Pivot,
            SetUpStep::Hostname(request.hostname),
        ]);
        let limit = |resource, soft, hard| AppStep::Limit {
            resource,
            soft,
            hard,
        };
        let mut app = Vec::from(DEFAULTS.map(|(resource, soft, hard)| limit(resource, soft, hard)));
        app.extend([
            limit(Resource::Nofile, NOFILE.0, NOFILE.1),
            limit(
                Resource::Nproc,
                request.size.tasks_max,
                request.size.tasks_max,
            ),
            // 1, not 0: a limit of 0 does not stop a piped core handler. Source: core(5).
            limit(Resource::Core, 1, 1),
            AppStep::Umask(0o022),
            AppStep::EnterUser,
            AppStep::BoundCapabilities,
            AppStep::Ids {
                uid: APP_UID,
                gid: APP_GID,
            },
            AppStep::NoCapabilities,
            AppStep::SessionKeyring,
            AppStep::NoNewPrivileges,
            AppStep::Seccomp,
            AppStep::Fork,
            AppStep::NewSession,
            AppStep::Streams,
            AppStep::DefaultSignals,
            AppStep::Directory(PathBuf::from("/app")),
            AppStep::CloseFds,
        ]);
        Self {
            dyno: request.dyno,
            user: request.user,
            set_up,
            app,
            exec: request.exec,
            terminal: request.terminal,
            stop_grace_ms: request.stop_grace_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> PlanRequest {
        PlanRequest {
            dyno: "11111111-2222-4333-8444-555555555555"
                .parse()
                .expect("an id"),
            hostname: "web-1".to_owned(),
            user: UserRange { base: 0x4000_0000 },
            lowers: vec![
                Layer {
                    source: "/state/trees/slug".into(),
                    must_map: true,
                },
                Layer {
                    source: "/state/stacks/host".into(),
                    must_map: false,
                },
            ],
            stack_binds: vec![("/usr".into(), "/usr".into())],
            binds: vec![(
                "/state/builds/1/source".into(),
                "/tmp/build_1".into(),
                false,
            )],
            masked: vec!["/proc/kcore".into()],
            read_only: vec!["/proc/sys".into()],
            size: ShownSize {
                memory_bytes: 512 << 20,
                cpu_shares: 1024,
                cpu_weight: 100,
                cpu_quota_us: None,
                tasks_max: 256,
            },
            exec: Exec {
                argv: vec!["/bin/bash".into(), "-c".into(), "true".into()],
                env: vec![("DYNO".into(), "web.1".into())],
                plain: vec!["true".into()],
            },
            terminal: None,
            stop_grace_ms: 30_000,
        }
    }

    #[test]
    fn the_plan_of_a_web_dyno() {
        insta::assert_json_snapshot!(LaunchPlan::new(request()));
    }

    #[test]
    fn privileges_go_before_the_filter_and_descriptors_go_last() {
        let plan = LaunchPlan::new(request());
        let at = |wanted: &AppStep| plan.app.iter().position(|s| s == wanted).expect("a step");
        assert!(at(&AppStep::EnterUser) < at(&AppStep::NoCapabilities));
        assert!(at(&AppStep::NoNewPrivileges) < at(&AppStep::Seccomp));
        assert!(at(&AppStep::Seccomp) < at(&AppStep::Fork));
        assert_eq!(plan.app.last(), Some(&AppStep::CloseFds));
    }
}
