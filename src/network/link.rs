//! One network namespace and its veth pair.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use futures_util::TryStreamExt as _;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{NetworkError, Subnet};

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

/// Makes the namespace on a thread of its own (unshare changes the calling thread for good) and
/// the inner half of its network; the outer half then lies in the caller's namespace.
pub(super) async fn make(plan: LinkPlan) -> Result<OwnedFd, NetworkError> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let slot = plan.slot;
    let inner = plan.clone();
    let host =
        File::open("/proc/self/ns/net").map_err(namespace("open our own namespace", slot))?;
    std::thread::Builder::new()
        .name(format!("netns-{slot}"))
        .spawn(move || {
            // A receiver that is gone no longer wants the namespace: it ends here.
            let _ = sender.send(inside(&inner, &host));
        })
        .map_err(namespace("start a thread", slot))?;
    let made = receiver
        .await
        .map_err(|_| namespace("make a namespace", slot)(io::ErrorKind::BrokenPipe.into()))??;
    outside(&plan).await?;
    Ok(made)
}

fn namespace(act: &'static str, slot: u16) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| NetworkError::Namespace { act, slot, source }
}

fn netlink(act: &'static str, slot: u16) -> impl FnOnce(rtnetlink::Error) -> NetworkError {
    move |source| NetworkError::Netlink {
        act,
        slot,
        source: Box::new(source),
    }
}

fn inside(plan: &LinkPlan, host: &File) -> Result<OwnedFd, NetworkError> {
    let slot = plan.slot;
    unshare(CloneFlags::CLONE_NEWNET).map_err(|e| namespace("make a namespace", slot)(e.into()))?;
    let made =
        File::open("/proc/thread-self/ns/net").map_err(namespace("open a namespace", slot))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(namespace("start netlink", slot))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(namespace("open netlink", slot))?;
        let connection = tokio::spawn(connection);
        let result = fill(plan, &handle, host).await;
        connection.abort();
        result
    })?;
    Ok(made.into())
}

/// lo up; a veth `eth0` here whose other end goes to the host.
async fn fill(plan: &LinkPlan, handle: &Handle, host: &File) -> Result<(), NetworkError> {
    let slot = plan.slot;
    let lo = LinkUnspec::new_with_index(1).up().build();
    handle
        .link()
        .change(lo)
        .execute()
        .await
        .map_err(netlink("bring up lo", slot))?;
    let veth = LinkVeth::new("eth0", &plan.name).mtu(plan.mtu).build();
    handle
        .link()
        .add(veth)
        .execute()
        .await
        .map_err(netlink("make a veth pair", slot))?;
    let peer = index(handle, &plan.name)
        .await
        .map_err(netlink("find the veth", slot))?;
    let eth0 = index(handle, "eth0")
        .await
        .map_err(netlink("find eth0", slot))?;
    let outer = LinkUnspec::new_with_index(peer)
        .mtu(plan.mtu)
        .setns_by_fd(host.as_raw_fd())
        .build();
    handle
        .link()
        .change(outer)
        .execute()
        .await
        .map_err(netlink("move the veth", slot))?;
    let (address, prefix) = (plan.subnet.dyno.into(), Subnet::PREFIX);
    let add = handle.address().add(eth0, address, prefix);
    add.execute()
        .await
        .map_err(netlink("set the dyno's address", slot))?;
    let up = LinkUnspec::new_with_index(eth0).up().build();
    handle
        .link()
        .change(up)
        .execute()
        .await
        .map_err(netlink("bring up eth0", slot))?;
    let route = RouteMessageBuilder::<std::net::Ipv4Addr>::new()
        .gateway(plan.subnet.host)
        .build();
    handle
        .route()
        .add(route)
        .execute()
        .await
        .map_err(netlink("add the default route", slot))
}

async fn outside(plan: &LinkPlan) -> Result<(), NetworkError> {
    let slot = plan.slot;
    let (connection, handle, _) =
        rtnetlink::new_connection().map_err(namespace("open netlink", slot))?;
    let connection = tokio::spawn(connection);
    let result = async {
        let link = index(&handle, &plan.name)
            .await
            .map_err(netlink("find the veth", slot))?;
        let (address, prefix) = (plan.subnet.host.into(), Subnet::PREFIX);
        let add = handle.address().add(link, address, prefix);
        add.execute()
            .await
            .map_err(netlink("set the host's address", slot))?;
        let up = LinkUnspec::new_with_index(link).up().build();
        handle
            .link()
            .change(up)
            .execute()
            .await
            .map_err(netlink("bring up the veth", slot))
    }
    .await;
    connection.abort();
    result
}

async fn index(handle: &Handle, name: &str) -> Result<u32, rtnetlink::Error> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    match links.try_next().await? {
        Some(link) => Ok(link.header.index),
        None => Err(rtnetlink::Error::RequestFailed),
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
