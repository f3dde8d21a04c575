//! Network namespaces with their veth pairs, made one after the other by one thread.
//!
//! The pair is made with its inner end in the dyno's namespace already: moving a link waits for
//! the kernel's grace period (13 ms), which would bound the rate of launches.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

use super::netlink::{Message, Netlink, Refused};
use super::{NetworkError, Subnet};
use crate::sys::{self, FsContext, MountAttributes};

/// What a namespace is made with.
#[derive(Clone, Debug)]
pub(super) struct LinkPlan {
    pub(super) slot: u16,
    /// The host-side link's name, at most 15 bytes.
    pub(super) name: String,
    pub(super) subnet: Subnet,
    /// Copied from the uplink.
    pub(super) mtu: u32,
}

/// Makes namespaces. Stays on the thread that made it: that thread enters them.
#[derive(Debug)]
pub(super) struct Maker {
    home: File,
    netlink: Netlink,
    settings: RefCell<Settings>,
}

/// A `/proc` of our own for the settings of a few namespaces, then another: one that many share has
/// entries of the same name for each of them, and looks through them all.
#[derive(Debug)]
struct Settings {
    proc: OwnedFd,
    left: u8,
}

/// Namespaces for each `/proc`: making one costs as much as looking through hundreds of entries.
const SHARED_BY: u8 = 64;

impl Settings {
    fn open() -> io::Result<Self> {
        Ok(Self {
            proc: FsContext::open(c"proc")?.mount(MountAttributes::default())?,
            left: SHARED_BY,
        })
    }

    /// For one more namespace.
    fn turn(&mut self) -> io::Result<()> {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => *self = Self::open()?,
        }
        Ok(())
    }

    /// Turns IPv6 off for a link of the calling thread's network namespace.
    fn no_ipv6(&self, link: &str) -> io::Result<()> {
        let file = format!("sys/net/ipv6/conf/{link}/disable_ipv6");
        match sys::open_in_root(self.proc.as_fd(), Path::new(&file), libc::O_WRONLY) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            file => File::from(file?).write_all(b"1"),
        }
    }
}

impl Maker {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self {
            home: File::open("/proc/thread-self/ns/net")?,
            netlink: Netlink::open()?,
            settings: RefCell::new(Settings::open()?),
        })
    }

    /// A namespace with `lo` and `eth0` up, an address and a default route.
    ///
    /// # Errors
    /// See [`NetworkError`]; a thread that cannot come back home aborts the process.
    pub(super) fn make(&self, plan: &LinkPlan) -> Result<OwnedFd, NetworkError> {
        let slot = plan.slot;
        let (netns, inner) = self.enter().map_err(namespace("make a namespace", slot))?;
        let pair = Message::veth(&plan.name, "eth0", netns.as_fd(), plan.mtu);
        sys::fault("make a veth pair").map_err(namespace("make a veth pair", slot))?;
        let made = self.netlink.request(&[pair]);
        made.map_err(netlink(&["make a veth pair"], slot))?;
        let outer = self.netlink.index(&plan.name);
        let outer = outer.map_err(namespace("find the veth", slot))?;
        let eth0 = inner.index("eth0");
        let eth0 = eth0.map_err(namespace("find eth0", slot))?;
        let subnet = plan.subnet;
        // Before they are up: no address of their own, no neighbour discovery.
        let off = self.settings.borrow().no_ipv6(&plan.name);
        off.map_err(namespace("turn IPv6 off", slot))?;
        let outside = [
            Message::address(outer, subnet.host, Subnet::PREFIX),
            Message::up(outer),
        ];
        let acts = ["set the host's address", "bring up the veth"];
        let done = self.netlink.request(&outside);
        done.map_err(netlink(&acts, slot))?;
        let inside = [
            Message::up(1),
            Message::address(eth0, subnet.dyno, Subnet::PREFIX),
            Message::up(eth0),
            Message::default_route(subnet.host),
        ];
        let acts = [
            "bring up lo",
            "set the dyno's address",
            "bring up eth0",
            "add the default route",
        ];
        inner.request(&inside).map_err(netlink(&acts, slot))?;
        Ok(netns)
    }

    /// A new namespace and a netlink socket of it; the thread is back home afterwards.
    fn enter(&self) -> io::Result<(OwnedFd, Netlink)> {
        sys::fault("make a network namespace")?;
        self.settings.borrow_mut().turn()?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        // IPv6 is off for links made from here on; lo keeps ::1, which programs expect to bind.
        let made = self
            .settings
            .borrow()
            .no_ipv6("default")
            .and_then(|()| File::open("/proc/thread-self/ns/net"))
            .and_then(|netns| Ok((netns.into(), Netlink::open()?)));
        if let Err(errno) = setns(self.home.as_fd(), CloneFlags::CLONE_NEWNET) {
            tracing::error!("cannot leave a new network namespace: {errno}; aborting");
            std::process::abort();
        }
        made
    }
}

fn namespace(act: &'static str, slot: u16) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Namespace { act, slot, source }
}

/// `acts`: in words, one for each message.
fn netlink(acts: &[&'static str], slot: u16) -> impl FnOnce(Refused) -> NetworkError {
    move |Refused { at, source }| {
        let act = acts.get(at).or(acts.first()).copied().unwrap_or("link");
        NetworkError::Namespace { act, slot, source }
    }
}

/// MTU of the link that the default route leaves by; 1500 without one.
pub(super) fn uplink_mtu() -> u32 {
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let default = routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace();
        let name = fields.next()?;
        (fields.next()? == "00000000").then_some(name)
    });
    default
        .and_then(|name| std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok())
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(1500)
}
