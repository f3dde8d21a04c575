//! PID 1's steps: from a fresh clone to a root of its own.
//!
//! Nothing is ever resolved by path inside a tenant's tree with our privileges: targets are
//! opened below the new root by openat2 (in-root, no magic links), mounts are moved onto those
//! descriptors, and masks come from the keeper's own templates.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::dyno::{APP_UID, Attributes, LaunchPlan, Layer, SetUpStep, ShownSize, UserRange};
use crate::sys::{self, FsContext, MountAttributes, TreeFlags};

/// The group that owns terminals inside. Source: Debian's base-passwd ("tty").
const TTY_GID: u32 = 5;

/// Most layers below an overlay.
const LAYERS_MAX: usize = 8;

const INERT: MountAttributes = MountAttributes {
    read_only: true,
    no_suid: true,
    no_dev: true,
    no_exec: true,
};

/// Directories and templates of the keeper, in a mount namespace and a tmpfs of its own.
#[derive(Debug)]
pub(super) struct Scratch {
    dir: PathBuf,
    /// What `size-N` shows.
    sizes: Vec<ShownSize>,
    /// Processes are in the v2 hierarchy, with controllers or not.
    has_unified: bool,
}

impl Scratch {
    /// Makes the keeper's own mount namespace and fills `dir` (an existing, empty directory).
    pub(super) fn make(dir: &Path) -> io::Result<Self> {
        let none: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(
            Some("manifold"),
            dir,
            Some("tmpfs"),
            flags,
            Some("mode=755,size=16m"),
        )?;
        mount(none, dir, none, MsFlags::MS_PRIVATE, none)?;
        for layer in 0..LAYERS_MAX {
            std::fs::create_dir(dir.join(layer.to_string()))?;
        }
        for name in ["upper", "root", "empty", "dev"] {
            std::fs::create_dir(dir.join(name))?;
        }
        File::create(dir.join("nothing"))?;
        devices(&dir.join("dev"))?;
        let flags = MountAttributes {
            no_dev: false,
            ..INERT
        };
        template(&dir.join("empty"), &dir.join("empty"), INERT)?;
        // A cover over a file is the null device, which has to keep working.
        template(&dir.join("dev/null"), &dir.join("nothing"), flags)?;
        template(&dir.join("dev"), &dir.join("dev"), flags)?;
        std::fs::write(dir.join("controllers"), ShownSize::controllers())?;
        template(&dir.join("controllers"), &dir.join("controllers"), INERT)?;
        let groups = std::fs::read_to_string("/proc/self/cgroup")?;
        Ok(Self {
            dir: dir.to_owned(),
            sizes: Vec::new(),
            has_unified: groups.lines().any(|line| line.starts_with("0::")),
        })
    }

    /// Makes what a launch shows of its size, once for each size.
    pub(super) fn prepare(&mut self, plan: &LaunchPlan) -> io::Result<()> {
        for step in &plan.set_up {
            if let SetUpStep::Size(size) = step
                && !self.sizes.contains(size)
            {
                let dir = self.dir.join(format!("size-{}", self.sizes.len()));
                for (name, text) in size.files() {
                    let path = dir.join(name);
                    std::fs::create_dir_all(path.parent().unwrap_or(&dir))?;
                    std::fs::write(path, text)?;
                }
                template(&dir, &dir, INERT)?;
                self.sizes.push(*size);
            }
        }
        Ok(())
    }

    fn size(&self, size: &ShownSize) -> io::Result<PathBuf> {
        let at = self.sizes.iter().position(|known| known == size);
        let at = at.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
        Ok(self.dir.join(format!("size-{at}")))
    }
}

/// A mount with its attributes, to be cloned as it is: that costs a launch one call each. By path,
/// since a descriptor of it stands in the keeper's mount namespace and not in the dyno's copy.
fn template(source: &Path, target: &Path, flags: MountAttributes) -> io::Result<()> {
    let tree = sys::open_tree(source, TreeFlags::Clone)?;
    sys::mount_setattr(tree.as_fd(), flags, None, false)?;
    let place = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
    let target = nix::fcntl::open(target, place, nix::sys::stat::Mode::empty())?;
    sys::attach(tree.as_fd(), target.as_fd())
}

/// The /dev every dyno sees: nodes that are safe for all, links, mount points.
fn devices(dir: &Path) -> io::Result<()> {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let none: Option<&str> = None;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(
        Some("dev"),
        dir,
        Some("tmpfs"),
        flags,
        Some("mode=755,size=64k"),
    )?;
    mount(none, dir, none, MsFlags::MS_PRIVATE, none)?;
    let nodes = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    for (name, major, minor) in nodes {
        let path = dir.join(name);
        mknod(
            &path,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(major, minor),
        )?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    }
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ];
    for (name, target) in links {
        std::os::unix::fs::symlink(target, dir.join(name))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        std::fs::create_dir(dir.join(name))?;
    }
    Ok(())
}

/// What the steps need beside the plan, and what they build up.
pub(super) struct SetUp<'a> {
    scratch: &'a Scratch,
    user: BorrowedFd<'a>,
    range: UserRange,
    network: BorrowedFd<'a>,
    writable: BorrowedFd<'a>,
    tasks: &'a [OwnedFd],
    root: Option<OwnedFd>,
    /// The dyno's devpts, for its terminal.
    pub(super) terminals: Option<OwnedFd>,
}

impl<'a> SetUp<'a> {
    pub(super) fn new(
        scratch: &'a Scratch,
        user: BorrowedFd<'a>,
        range: UserRange,
        network: BorrowedFd<'a>,
        writable: BorrowedFd<'a>,
        tasks: &'a [OwnedFd],
    ) -> Self {
        Self {
            scratch,
            user,
            range,
            network,
            writable,
            tasks,
            root: None,
            terminals: None,
        }
    }

    /// Applies one step.
    pub(super) fn apply(&mut self, step: &SetUpStep) -> io::Result<()> {
        match step {
            SetUpStep::Neutral => neutral(),
            SetUpStep::JoinCgroup => self.join_cgroup(),
            SetUpStep::EnterNetwork => Ok(setns(self.network, CloneFlags::CLONE_NEWNET)?),
            SetUpStep::NewCgroupNamespace => Ok(unshare(CloneFlags::CLONE_NEWCGROUP)?),
            SetUpStep::PrivateMounts => {
                let none: Option<&str> = None;
                Ok(mount(
                    none,
                    "/",
                    none,
                    MsFlags::MS_REC | MsFlags::MS_PRIVATE,
                    none,
                )?)
            }
            SetUpStep::Overlay { lowers } => self.overlay(lowers),
            SetUpStep::Bind {
                source,
                target,
                attributes,
                must_map,
            } => {
                let tree = self.mapped(source, *attributes, *must_map)?;
                self.attach_made(&tree, target)
            }
            SetUpStep::Proc => {
                let flags = MountAttributes {
                    read_only: false,
                    ..INERT
                };
                self.attach(&FsContext::open(c"proc")?.mount(flags)?, "proc")
            }
            SetUpStep::Sys => self.attach(&FsContext::open(c"sysfs")?.mount(INERT)?, "sys"),
            SetUpStep::Size(size) => self.size(size),
            SetUpStep::Devices => {
                let tree = sys::open_tree(&self.scratch.dir.join("dev"), TreeFlags::Clone)?;
                self.attach(&tree, "dev")
            }
            SetUpStep::Terminals => self.terminals(),
            SetUpStep::SharedMemory { bytes } => {
                let fs = FsContext::open(c"tmpfs")?;
                fs.set(c"mode", "1777")?;
                fs.set(c"size", &bytes.to_string())?;
                let flags = MountAttributes {
                    read_only: false,
                    ..INERT
                };
                self.attach(&fs.mount(flags)?, "dev/shm")
            }
            SetUpStep::MessageQueues => {
                let flags = MountAttributes {
                    read_only: false,
                    ..INERT
                };
                self.attach(&FsContext::open(c"mqueue")?.mount(flags)?, "dev/mqueue")
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

    /// "0" is the writing task itself: the kernel then needs no lock over all thread groups.
    fn join_cgroup(&self) -> io::Result<()> {
        for tasks in self.tasks {
            File::from(tasks.try_clone()?).write_all(b"0")?;
        }
        Ok(())
    }

    /// A detached, id-mapped clone of a host directory.
    fn mapped(&self, source: &Path, attributes: Attributes, must: bool) -> io::Result<OwnedFd> {
        let attributes = MountAttributes {
            read_only: attributes.read_only,
            no_suid: attributes.no_suid,
            no_dev: attributes.no_dev,
            no_exec: attributes.no_exec,
        };
        let tree = sys::open_tree(source, TreeFlags::Clone)?;
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
        std::env::set_current_dir(&self.scratch.dir)?;
        let here = File::open(".")?;
        let mut names = Vec::new();
        for (at, layer) in lowers.iter().enumerate() {
            if at >= LAYERS_MAX {
                return Err(io::Error::from_raw_os_error(libc::E2BIG));
            }
            let name = at.to_string();
            let tree = self.mapped(&layer.source, inert, layer.must_map)?;
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
            self.attach(&FsContext::open(c"cgroup2")?.mount(INERT)?, place)?;
        }
        let tree = sys::open_tree(&self.scratch.size(size)?, TreeFlags::Clone)?;
        self.attach(&tree, place)?;
        let tree = sys::open_tree(&self.scratch.dir.join("controllers"), TreeFlags::Clone)?;
        self.attach(&tree, "proc/cgroups")
    }

    fn terminals(&mut self) -> io::Result<()> {
        let fs = FsContext::open(c"devpts")?;
        fs.set(c"ptmxmode", "0666")?;
        fs.set(c"mode", "0620")?;
        fs.set(c"gid", &(self.range.base + TTY_GID).to_string())?;
        fs.set(c"max", "64")?;
        let mounted = fs.mount(MountAttributes {
            no_suid: true,
            no_exec: true,
            ..Default::default()
        })?;
        self.attach(&mounted, "dev/pts")?;
        self.terminals = Some(mounted);
        Ok(())
    }

    fn read_only(&self, path: &Path) -> io::Result<()> {
        let Some(target) = self.existing(path)? else {
            return Ok(());
        };
        let tree = sys::open_tree_at(target.as_fd(), TreeFlags::CloneRecursive)?;
        sys::mount_setattr(tree.as_fd(), INERT, None, true)?;
        sys::attach(tree.as_fd(), target.as_fd())
    }

    fn mask(&self, path: &Path) -> io::Result<()> {
        let Some(target) = self.existing(path)? else {
            return Ok(());
        };
        let mode = nix::sys::stat::fstat(&target)?.st_mode;
        let cover = if mode & libc::S_IFMT == libc::S_IFDIR {
            "empty"
        } else {
            "nothing"
        };
        let tree = sys::open_tree(&self.scratch.dir.join(cover), TreeFlags::Clone)?;
        sys::attach(tree.as_fd(), target.as_fd())
    }

    fn existing(&self, path: &Path) -> io::Result<Option<OwnedFd>> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        match sys::open_in_root(self.root()?, relative, libc::O_PATH) {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `pivot_root`(".", "."): the old root ends up on top of the new one and is detached.
    fn pivot(&mut self) -> io::Result<()> {
        nix::unistd::fchdir(self.root()?)?;
        nix::unistd::pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        nix::unistd::chdir("/")?;
        self.root = None;
        Ok(())
    }
}

/// /proc is the host's here, opened before anything of the tenant's is mounted.
fn neutral() -> io::Result<()> {
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
