//! The supervisor's side of the keeper: requests out, replies matched, exits passed on.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};

use super::protocol::{self, Mark, Reply, Request, StepFailure};
use crate::cgroup::Entry;
use crate::dyno::{LaunchPlan, UserRange};
use crate::model::{DynoId, ExitStatus};

/// Requests that may wait for the socket; more senders wait.
const QUEUE: usize = 256;

/// Past it a launch is given up. Source: R99, "Failed to launch the dyno within 10 seconds".
const LAUNCH_DEADLINE: Duration = Duration::from_secs(10);

/// Why the keeper did not do it.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A step of the launch failed; nothing of it is left running.
    #[error(transparent)]
    Step(#[from] StepFailure),
    /// No answer in time.
    #[error("the keeper did not launch the dyno within 10 seconds")]
    Timeout,
    /// The keeper is gone: so are all dynos.
    #[error("the keeper is gone")]
    Gone,
}

/// Descriptors a launch hands over.
#[derive(Debug)]
pub struct LaunchFds {
    /// The dyno's network namespace.
    pub network: OwnedFd,
    /// A detached mount: the bounded file system of its writable layer.
    pub writable: OwnedFd,
    /// stdin, stdout, stderr.
    pub streams: [OwnedFd; 3],
    /// The dyno's group.
    pub cgroup: Entry,
}

/// A launched dyno.
#[derive(Debug)]
pub struct LaunchReply {
    /// Its PID 1.
    pub pid: u32,
    /// The pty master, if one was asked for.
    pub terminal: Option<OwnedFd>,
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Result<LaunchReply, StepFailure>>>>>;

/// The user namespaces made so far. Bounded by the number of slots.
type Users = Arc<Mutex<HashMap<UserRange, OwnedFd>>>;

struct Outgoing {
    request: Request,
    fds: Vec<OwnedFd>,
}

impl Outgoing {
    fn send(&self, socket: &OwnedFd) -> io::Result<()> {
        let fds: Vec<_> = self.fds.iter().map(AsFd::as_fd).collect();
        protocol::send(socket.as_fd(), &self.request, &fds)
    }
}

/// The way to the keeper: at once where nothing waits, else in line.
struct Line {
    socket: Arc<AsyncFd<OwnedFd>>,
    queue: mpsc::Sender<Outgoing>,
    /// Messages in the queue or on their way from there.
    waiting: AtomicUsize,
    /// Told when none of them is left.
    emptied: Notify,
    order: Mutex<()>,
}

impl Line {
    /// One message waits no longer.
    fn one_less(&self) {
        if self.waiting.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.emptied.notify_waiters();
        }
    }

    /// Sends without waiting; what has no room even in the queue comes back.
    fn try_send(&self, message: Outgoing) -> Result<(), mpsc::error::TrySendError<Outgoing>> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        // A task between us and the socket would cost a launch a wake-up of another thread.
        if self.waiting.load(Ordering::Acquire) == 0 {
            match message.send(self.socket.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    lost(&error);
                    return Ok(());
                }
                Ok(()) => return Ok(()),
            }
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.queue
            .try_send(message)
            .inspect_err(|_| self.one_less())
    }

    /// As [`Self::try_send`], waiting for room; false when the keeper is gone.
    async fn send(&self, message: Outgoing) -> bool {
        match self.try_send(message) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(message)) => {
                self.waiting.fetch_add(1, Ordering::AcqRel);
                let sent = self.queue.send(message).await.is_ok();
                if !sent {
                    self.one_less();
                }
                sent
            }
        }
    }
}

/// Its launch runs into its deadline; its dyno's end comes all the same.
fn lost(error: &io::Error) {
    tracing::error!("a request to the keeper was lost: {error}");
}

/// A handle to the keeper. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    outgoing: Arc<Line>,
    waiting: Waiting,
    users: Users,
    next: Arc<std::sync::atomic::AtomicU64>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// Takes over the inherited end of the pair. `exits` gets every end of a launched dyno;
    /// `gone` resolves when the keeper is.
    ///
    /// # Errors
    /// The descriptor is no socket, or cannot be watched.
    pub fn connect(
        socket: OwnedFd,
        exits: mpsc::UnboundedSender<(DynoId, ExitStatus)>,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        crate::sys::inheritable(socket.as_fd(), false)?;
        let flags = nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_GETFL)?;
        let flags = nix::fcntl::OFlag::from_bits_truncate(flags) | nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        let socket = Arc::new(crate::sys::watch(socket)?);
        let (waiting, users) = (Waiting::default(), Users::default());
        let (outgoing, queue) = mpsc::channel(QUEUE);
        let (gone_sender, gone) = oneshot::channel();
        let outgoing = Arc::new(Line {
            socket: Arc::clone(&socket),
            queue: outgoing,
            waiting: AtomicUsize::new(0),
            emptied: Notify::new(),
            order: Mutex::new(()),
        });
        tokio::spawn(write(Arc::downgrade(&outgoing), queue));
        let reader = read(socket, Arc::clone(&waiting), Arc::clone(&users), exits);
        tokio::spawn(async move {
            reader.await;
            // Nobody may wait for a keeper that is gone.
            let _ = gone_sender.send(());
        });
        Ok((
            Self {
                outgoing,
                waiting,
                users,
                next: Arc::default(),
            },
            gone,
        ))
    }

    /// Launches a dyno; resolves when its command was exec'd.
    ///
    /// # Errors
    /// See [`ClientError`]; after `Timeout` the half-made dyno is killed.
    pub async fn launch(
        &self,
        plan: LaunchPlan,
        fds: LaunchFds,
    ) -> Result<LaunchReply, ClientError> {
        let request = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let dyno = plan.dyno;
        let (sender, reply) = oneshot::channel();
        self.lock().insert(request, sender);
        let LaunchFds {
            network,
            writable,
            streams,
            cgroup,
        } = fds;
        let (cgroup, cgroup_v2) = cgroup.into_fds();
        let mut all = vec![network, writable];
        all.extend(streams);
        all.extend(cgroup);
        let user = {
            let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            users.get(&plan.user).map(OwnedFd::try_clone)
        };
        // Without descriptors left for it the keeper makes another.
        let user = user.and_then(Result::ok);
        let has_user = user.is_some();
        all.extend(user);
        let message = Request::Launch {
            request,
            plan: Box::new(plan),
            cgroup_v2,
            has_user,
        };
        let sent = self
            .outgoing
            .send(Outgoing {
                request: message,
                fds: all,
            })
            .await;
        if !sent {
            self.lock().remove(&request);
            return Err(ClientError::Gone);
        }
        match tokio::time::timeout(LAUNCH_DEADLINE, reply).await {
            Ok(Ok(reply)) => Ok(reply?),
            Ok(Err(_)) => Err(ClientError::Gone),
            Err(_) => {
                self.lock().remove(&request);
                self.signal(dyno, nix::libc::SIGKILL);
                Err(ClientError::Timeout)
            }
        }
    }

    /// Says that a launch into this range, network and cgroup is near. Dropped when the queue is
    /// full: it only saves time.
    pub fn warm(&self, user: UserRange, network: OwnedFd, cgroup: Entry) {
        let (cgroup, cgroup_v2) = cgroup.into_fds();
        let mut fds = vec![network];
        fds.extend(cgroup);
        let request = Request::Warm { user, cgroup_v2 };
        let message = Outgoing { request, fds };
        if self.outgoing.try_send(message).is_err() {
            tracing::debug!("a range of ids was not prepared ahead");
        }
    }

    /// Signals a dyno's PID 1. A dyno that is gone is no error; the order of signals is kept.
    pub fn signal(&self, dyno: DynoId, signal: i32) {
        self.tell(Request::Signal { dyno, signal }, Vec::new());
    }

    /// A launched dyno outlives this supervisor from now on, with this parcel for the next one.
    pub fn keep(&self, dyno: DynoId, mark: Mark, parcel: OwnedFd) {
        self.tell(Request::Keep { dyno, mark }, vec![parcel]);
    }

    /// A kept dyno is further now.
    pub fn mark(&self, dyno: DynoId, mark: Mark) {
        self.tell(Request::Mark { dyno, mark }, Vec::new());
    }

    /// The end of a dyno was taken in: the next supervisor hears nothing of it.
    pub fn forget(&self, dyno: DynoId) {
        self.tell(Request::Forget(dyno), Vec::new());
    }

    /// Leaves a parcel that is not of one dyno to the next supervisor; it takes the last one's place.
    pub fn keep_doors(&self, parcel: OwnedFd) {
        self.tell(Request::Doors, vec![parcel]);
    }

    /// Sends, in order, what has no answer.
    fn tell(&self, request: Request, fds: Vec<OwnedFd>) {
        let outgoing = self.outgoing.clone();
        let message = Outgoing { request, fds };
        if let Err(mpsc::error::TrySendError::Full(message)) = outgoing.try_send(message) {
            // The queue is full of launches: wait in line rather than lose it.
            tokio::spawn(async move { outgoing.send(message).await });
        }
    }

    /// Waits until all that was told is on its way; false if that takes longer than `most`.
    pub async fn flush(&self, most: Duration) -> bool {
        let sent = async {
            loop {
                // Before the look, so that no news is missed between look and wait.
                let news = self.outgoing.emptied.notified();
                if self.outgoing.waiting.load(Ordering::Acquire) == 0 {
                    return;
                }
                news.await;
            }
        };
        tokio::time::timeout(most, sent).await.is_ok()
    }

    fn lock(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<u64, oneshot::Sender<Result<LaunchReply, StepFailure>>>>
    {
        self.waiting
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

async fn write(line: Weak<Line>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(message) = queue.recv().await {
        let Some(line) = line.upgrade() else { return };
        let sent = line
            .socket
            .async_io(tokio::io::Interest::WRITABLE, |socket| message.send(socket))
            .await;
        if let Err(error) = sent {
            lost(&error);
        }
        line.one_less();
    }
}

async fn read(
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Waiting,
    users: Users,
    exits: mpsc::UnboundedSender<(DynoId, ExitStatus)>,
) {
    let mut buffer = Vec::new();
    loop {
        let received = socket
            .async_io(tokio::io::Interest::READABLE, |socket| {
                protocol::receive::<Reply>(socket.as_fd(), &mut buffer)
            })
            .await;
        let (reply, mut fds) = match received {
            Ok(Some(received)) => received,
            Ok(None) => break,
            Err(error) => {
                tracing::error!("the keeper's socket failed: {error}");
                break;
            }
        };
        let take = |request| {
            waiting
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .remove(&request)
        };
        match reply {
            Reply::Launched { request, pid } => {
                if let Some(waiter) = take(request) {
                    // A caller that stopped waiting has asked for a kill already.
                    let _ = waiter.send(Ok(LaunchReply {
                        pid,
                        terminal: fds.pop(),
                    }));
                }
            }
            Reply::Failed { request, failure } => {
                if let Some(waiter) = take(request) {
                    let _ = waiter.send(Err(failure));
                }
            }
            Reply::Warmed(range) => {
                if let Some(user) = fds.pop() {
                    let mut users = users.lock().unwrap_or_else(PoisonError::into_inner);
                    users.insert(range, user);
                }
            }
            // Only ever said to a greeting, before anything else.
            Reply::Doors | Reply::Heir { .. } | Reply::Welcome => {}
            Reply::Exited { dyno, status } => {
                if exits.send((dyno, ExitStatus(status))).is_err() {
                    break;
                }
            }
        }
    }
    waiting
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clear();
}
