//! PID 1's steps: from a fresh clone to a root of its own.
//!
//! Nothing is ever resolved by path inside a tenant's tree with our privileges: targets are
//! opened below the new root by openat2 (in-root, no magic links), mounts are moved onto those
//! descriptors, and masks come from the keeper's own templates.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::ahead::{self, PROC, QUEUES, SHARED_MEMORY, SYS, TERMINALS, TTY_GID, UNIFIED};
use super::child::DynoChild;
use super::scratch::{self, INERT, LAYERS_MAX, Scratch};
use crate::dyno::{APP_UID, Attributes, Layer, SHM_BYTES, SetUpStep, ShownSize, UserRange};
use crate::sys::{self, FsContext, MountAttributes, TreeFlags};

/// What the steps need beside the plan, and what they build up.
pub(super) struct SetUp<'a> {
    scratch: &'a Scratch,
    /// Where the scratch is seen: at the root of namespaces that were made ahead.
    dir: PathBuf,
    /// The mount namespace of a PID 1 that was made ahead.
    ahead: Option<BorrowedFd<'a>>,
    steps: &'a [SetUpStep],
    user: BorrowedFd<'a>,
    range: UserRange,
    network: BorrowedFd<'a>,
    writable: BorrowedFd<'a>,
    tasks: &'a [OwnedFd],
    /// The host's directories in the order of the steps that use them, opened while in sight.
    sources: VecDeque<io::Result<OwnedFd>>,
    root: Option<OwnedFd>,
    /// The dyno's devpts, for its terminal.
    pub(super) terminals: Option<OwnedFd>,
}

impl<'a> SetUp<'a> {
    pub(super) fn new(child: &'a DynoChild<'a>) -> Self {
        Self {
            scratch: child.scratch,
            dir: child.scratch.dir.clone(),
            ahead: child.ahead,
            steps: &child.plan.set_up,
            user: child.user,
            range: child.plan.user,
            network: child.network,
            writable: child.writable,
            tasks: child.tasks,
            sources: VecDeque::new(),
            root: None,
            terminals: None,
        }
    }

    /// Applies one step.
    pub(super) fn apply(&mut self, step: &SetUpStep) -> io::Result<()> {
        match step {
            // `ahead::prepare` did it.
            SetUpStep::Neutral
            | SetUpStep::JoinCgroup
            | SetUpStep::EnterNetwork
            | SetUpStep::NewCgroupNamespace
                if self.ahead.is_some() =>
            {
                Ok(())
            }
            SetUpStep::Neutral => neutral(),
            SetUpStep::JoinCgroup => join_cgroup(self.tasks),
            SetUpStep::EnterNetwork => Ok(setns(self.network, CloneFlags::CLONE_NEWNET)?),
            SetUpStep::NewCgroupNamespace => Ok(unshare(CloneFlags::CLONE_NEWCGROUP)?),
            SetUpStep::PrivateMounts => self.private_mounts(),
            SetUpStep::Overlay { lowers } => self.overlay(lowers),
            SetUpStep::Bind {
                target,
                attributes,
                must_map,
                ..
            } => {
                let tree = self.mapped(*attributes, *must_map)?;
                self.attach_made(&tree, target)
            }
            SetUpStep::Proc => self.attach(&self.made(PROC, ahead::processes)?, "proc"),
            SetUpStep::Sys => self.attach(&self.made(SYS, ahead::kernel)?, "sys"),
            SetUpStep::Size(size) => self.size(size),
            SetUpStep::Devices => {
                let tree = sys::open_tree(&self.dir.join("dev"), TreeFlags::Clone)?;
                self.attach(&tree, "dev")
            }
            SetUpStep::Terminals => {
                let made = self.made(TERMINALS, || ahead::terminals(self.range))?;
                self.attach(&made, "dev/pts")?;
                self.terminals = Some(made);
                Ok(())
            }
            SetUpStep::SharedMemory { bytes } => {
                let made = if *bytes == SHM_BYTES {
                    self.made(SHARED_MEMORY, || ahead::shared_memory(*bytes))?
                } else {
                    ahead::shared_memory(*bytes)?
                };
                self.attach(&made, "dev/shm")
            }
            SetUpStep::MessageQueues => {
                self.attach(&self.made(QUEUES, ahead::queues)?, "dev/mqueue")
            }
            SetUpStep::ReadOnly(paths) => paths.iter().try_for_each(|p| self.read_only(p)),
            SetUpStep::Mask(paths) => paths.iter().try_for_each(|p| self.mask(p)),
            SetUpStep::Pivot => self.pivot(),
            SetUpStep::Hostname(name) => {
                nix::unistd::sethostname(name)?;
                // A new UTS namespace starts with the host's. "(none)" is the kernel's own default.
                sys::set_domain_name("(none)")
            }
        }
    }

    /// A mount that was made ahead, else made now.
    fn made(&self, name: &str, make: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<OwnedFd> {
        if self.ahead.is_some() {
            scratch::place(&self.dir.join(name))
        } else {
            make()
        }
    }

    /// The last look at the host's directories is before namespaces made ahead are entered: these
    /// have none of them. A source that is missing fails the step that needs it.
    fn private_mounts(&mut self) -> io::Result<()> {
        let open = |path: &Path| sys::open_tree(path, TreeFlags::Clone);
        for step in self.steps {
            match step {
                SetUpStep::Overlay { lowers } => {
                    let opened = lowers.iter().map(|layer| open(&layer.source));
                    self.sources.extend(opened);
                }
                SetUpStep::Bind { source, .. } => self.sources.push_back(open(source)),
                _ => {}
            }
        }
        if let Some(ahead) = self.ahead {
            setns(ahead, CloneFlags::CLONE_NEWNS)?;
            self.dir = PathBuf::from("/");
            return Ok(());
        }
        scratch::keep_mounts_private()
    }

    /// A detached, id-mapped clone of the next host directory.
    fn mapped(&mut self, attributes: Attributes, must: bool) -> io::Result<OwnedFd> {
        let missing = || io::Error::from_raw_os_error(libc::ENODATA);
        let tree = self.sources.pop_front().ok_or_else(missing)??;
        let attributes = MountAttributes {
            read_only: attributes.read_only,
            no_suid: attributes.no_suid,
            no_dev: attributes.no_dev,
            no_exec: attributes.no_exec,
        };
        match sys::mount_setattr(tree.as_fd(), attributes, Some(self.user), false) {
            // This file system cannot be id-mapped: its files then appear as nobody's.
            Err(error) if !must && error.raw_os_error() == Some(libc::EINVAL) => {
                sys::mount_setattr(tree.as_fd(), attributes, None, false)?;
            }
            other => other?,
        }
        Ok(tree)
    }

    fn overlay(&mut self, lowers: &[Layer]) -> io::Result<()> {
        let inert = Attributes {
            read_only: true,
            no_suid: true,
            no_dev: true,
            no_exec: false,
        };
        // Short relative names: mountinfo then tells nothing of the host.
        std::env::set_current_dir(&self.dir)?;
        let here = File::open(".")?;
        let mut names = Vec::new();
        for (at, layer) in lowers.iter().enumerate() {
            if at >= LAYERS_MAX {
                return Err(io::Error::from_raw_os_error(libc::E2BIG));
            }
            let name = at.to_string();
            let tree = self.mapped(inert, layer.must_map)?;
            let target = sys::open_in_root(here.as_fd(), Path::new(&name), libc::O_PATH)?;
            sys::attach(tree.as_fd(), target.as_fd())?;
            names.push(name);
        }
        // Made for this dyno alone, so it is moved here and ends with this namespace.
        let target = sys::open_in_root(here.as_fd(), Path::new("upper"), libc::O_PATH)?;
        sys::attach(self.writable, target.as_fd())?;
        let fs = FsContext::open(c"overlay")?;
        fs.set(c"source", "overlay")?;
        fs.set(c"lowerdir", &names.join(":"))?;
        fs.set(c"upperdir", "upper/upper")?;
        fs.set(c"workdir", "upper/work")?;
        for (key, value) in [
            (c"redirect_dir", "off"),
            (c"metacopy", "off"),
            (c"index", "off"),
            (c"xino", "off"),
        ] {
            fs.set(key, value)?;
        }
        // Nothing of a dyno's files outlives it, so nothing needs to reach the disk.
        fs.flag(c"volatile")?;
        let flags = MountAttributes {
            no_suid: true,
            no_dev: true,
            ..MountAttributes::default()
        };
        let mounted = fs.mount(flags)?;
        let target = sys::open_in_root(here.as_fd(), Path::new("root"), libc::O_PATH)?;
        sys::attach(mounted.as_fd(), target.as_fd())?;
        let flags = libc::O_PATH | libc::O_DIRECTORY;
        self.root = Some(sys::open_in_root(here.as_fd(), Path::new("root"), flags)?);
        Ok(())
    }

    fn root(&self) -> io::Result<BorrowedFd<'_>> {
        let missing = || io::Error::from_raw_os_error(libc::ENOTCONN);
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(missing)
    }

    /// No link is followed: a slug's `dev` that points elsewhere ends the launch.
    fn attach(&self, tree: &OwnedFd, target: impl AsRef<Path>) -> io::Result<()> {
        let target = sys::open_in_root_without_links(self.root()?, target.as_ref())?;
        sys::attach(tree.as_fd(), target.as_fd())
    }

    /// As [`Self::attach`], making the directory (and its parents, as the dyno's root) first.
    fn attach_made(&self, tree: &OwnedFd, target: &Path) -> io::Result<()> {
        let relative = target.strip_prefix("/").unwrap_or(target);
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
        let mut parent = self.root()?.try_clone_to_owned()?;
        for part in relative.components() {
            let std::path::Component::Normal(name) = part else {
                return Err(io::Error::from_raw_os_error(libc::EINVAL));
            };
            let open = || sys::open_in_root(parent.as_fd(), Path::new(name), flags);
            let next = match open() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let mode = nix::sys::stat::Mode::from_bits_truncate(0o755);
                    nix::sys::stat::mkdirat(&parent, name, mode)?;
                    let owner = nix::unistd::Uid::from_raw(self.range.base);
                    let group = nix::unistd::Gid::from_raw(self.range.base);
                    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
                    nix::unistd::fchownat(&parent, name, Some(owner), Some(group), flags)?;
                    open()?
                }
                other => other?,
            };
            parent = next;
        }
        sys::attach(tree.as_fd(), parent.as_fd())
    }

    /// The size's files, over the dyno's own v2 group: some runtimes look in the list of mounts
    /// for the kind of file system, then open the files at its place.
    fn size(&self, size: &ShownSize) -> io::Result<()> {
        let place = "sys/fs/cgroup";
        if self.scratch.has_unified {
            self.attach(&self.made(UNIFIED, ahead::unified)?, place)?;
        }
        let shown = self.dir.join(self.scratch.size(size)?);
        let tree = sys::open_tree(&shown, TreeFlags::Clone)?;
        self.attach(&tree, place)?;
        let tree = sys::open_tree(&self.dir.join("controllers"), TreeFlags::Clone)?;
        self.attach(&tree, "proc/cgroups")
    }

    fn read_only(&self, path: &Path) -> io::Result<()> {
        let Some(target) = self.existing(path)? else {
            return Ok(());
        };
        let tree = sys::open_tree_at(target.as_fd(), TreeFlags::CloneRecursive)?;
        sys::mount_setattr(tree.as_fd(), INERT, None, true)?;
        sys::attach(tree.as_fd(), target.as_fd())
    }

    /// One call a cover where the kernel's own files are covered: their mounts are fresh and reached
    /// without a link (`attach`), so a path through them leads nowhere else.
    fn mask(&self, path: &Path) -> io::Result<()> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        let is_kernels = relative.starts_with("proc") || relative.starts_with("sys");
        if !is_kernels {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        nix::unistd::fchdir(self.root()?)?;
        let none: Option<&str> = None;
        let cover = |cover| {
            mount(
                Some(&self.dir.join(cover)),
                relative,
                none,
                MsFlags::MS_BIND,
                none,
            )
        };
        let covered = match cover("nothing") {
            Err(Errno::ENOTDIR) => cover("empty"),
            other => other,
        };
        match covered {
            // Not every kernel has each; a cover that is missing must not pass for that.
            Err(Errno::ENOENT) if self.existing(path)?.is_none() => Ok(()),
            other => Ok(other?),
        }
    }

    fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        match sys::open_in_root(self.root()?, relative, libc::O_PATH) {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn pivot(&mut self) -> io::Result<()> {
        nix::unistd::fchdir(self.root()?)?;
        scratch::pivot_here()?;
        self.root = None;
        Ok(())
    }
}

/// "0" is the writing task itself: the kernel then needs no lock over all thread groups.
pub(super) fn join_cgroup(tasks: &[OwnedFd]) -> io::Result<()> {
    for tasks in tasks {
        File::from(tasks.try_clone()?).write_all(b"0")?;
    }
    Ok(())
}

/// /proc is the host's here, opened before anything of the tenant's is mounted.
pub(super) fn neutral() -> io::Result<()> {
    let score = std::fs::read("/proc/self/oom_score_adj")?;
    // Going below what was inherited needs a privilege that not every host grants.
    if score != b"0\n" {
        match std::fs::write("/proc/self/oom_score_adj", "0") {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    sys::normal_priority()?;
    sys::default_timer_slack()?;
    nix::sys::personality::set(nix::sys::personality::Persona::empty())?;
    Ok(())
}

/// A pty of the dyno's own devpts: master and slave, the slave owned by the `dyno` user.
pub(super) fn open_terminal(
    terminals: &OwnedFd,
    range: UserRange,
    size: (u16, u16),
) -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{OFlag, openat};
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = openat(terminals, "ptmx", flags, nix::sys::stat::Mode::empty())?;
    sys::unlock(master.as_fd())?;
    let slave = sys::open_slave(master.as_fd())?;
    let owner = nix::unistd::Uid::from_raw(range.base + APP_UID);
    let group = nix::unistd::Gid::from_raw(range.base + TTY_GID);
    nix::unistd::fchown(&slave, Some(owner), Some(group))?;
    sys::set_window_size(master.as_fd(), size.0, size.1)?;
    Ok((master, slave))
}

/// The name of a step, for people.
pub(super) fn name(step: &SetUpStep) -> String {
    match step {
        SetUpStep::Neutral => "forget how the supervisor was started".to_owned(),
        SetUpStep::JoinCgroup => "join the cgroup".to_owned(),
        SetUpStep::EnterNetwork => "enter the network namespace".to_owned(),
        SetUpStep::NewCgroupNamespace => "make a cgroup namespace".to_owned(),
        SetUpStep::PrivateMounts => "make mounts private".to_owned(),
        SetUpStep::Overlay { .. } => "mount the overlay".to_owned(),
        SetUpStep::Bind { source, target, .. } => {
            format!("bind {} at {}", source.display(), target.display())
        }
        SetUpStep::Proc => "mount /proc".to_owned(),
        SetUpStep::Sys => "mount /sys".to_owned(),
        SetUpStep::Size(_) => "show the size at /sys/fs/cgroup".to_owned(),
        SetUpStep::Devices => "mount /dev".to_owned(),
        SetUpStep::Terminals => "mount /dev/pts".to_owned(),
        SetUpStep::SharedMemory { .. } => "mount /dev/shm".to_owned(),
        SetUpStep::MessageQueues => "mount /dev/mqueue".to_owned(),
        SetUpStep::ReadOnly(_) => "make kernel files read-only".to_owned(),
        SetUpStep::Mask(_) => "mask kernel files".to_owned(),
        SetUpStep::Pivot => "pivot the root".to_owned(),
        SetUpStep::Hostname(_) => "set the host name".to_owned(),
    }
}

/// Makes a directory that only root may enter, if it is missing.
pub(super) fn private_dir(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}
