//! Attached one-offs: a secret is handed out, a client comes with it, bytes go both ways.
//!
//! Backpressure: a client that does not read stops the dyno's writes (its pipe fills); a dyno that
//! does not read stops the client after [`STDIN_BUFFER`] bytes. A client that is gone is noticed by
//! its end of stream, or by the heartbeat when we cannot read any more; then the dyno gets SIGHUP.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::error::{ApiError, chain};
use super::sessions::secret;
use super::state::Api;
use super::types::attach::{Frame, PAYLOAD_MAX};
use crate::model::{AppId, DynoId, DynoName, ExitStatus};
use crate::supervisor::{Attachment, Failure, LaunchedStdio, Selector, Supervisor, WindowSize};
use crate::sys;

/// Attached one-offs that wait for their client at once; beyond, new ones are refused. Far below
/// the number of dynos of a host: who never comes must leave room for apps.
const WAITING_MAX: usize = 64;

/// Input held for a dyno that does not read, in bytes.
const STDIN_BUFFER: usize = 256 * 1024;

/// An empty frame is sent after so long without output, to notice clients that are gone.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// After the exit, streams that somebody still holds open are given up.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// End of transmission (Ctrl-D): the end of input on a terminal.
const EOT: u8 = 4;

/// A one-off that waits for its client.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) app: AppId,
    pub(super) dyno: DynoId,
    pub(super) name: DynoName,
}

/// One-offs that wait, by secret.
#[derive(Debug, Default)]
pub(super) struct Attaches {
    by_secret: Mutex<HashMap<String, Waiting>>,
}

impl Attaches {
    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Waiting>> {
        self.by_secret
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses when too many wait.
    pub(super) fn check_room(&self) -> Result<(), ApiError> {
        if self.locked().len() < WAITING_MAX {
            return Ok(());
        }
        let message = format!("{WAITING_MAX} one-off dynos wait for their client already.");
        Err(ApiError::too_many(message))
    }

    /// Takes the one-off of a secret: a second client finds nothing.
    pub(super) fn take(&self, secret: &str) -> Option<Waiting> {
        self.locked().remove(secret)
    }
}

/// Keeps a one-off for its client and returns the path to come to. If none comes in time the
/// one-off is stopped.
pub(super) fn offer(api: &Api, waiting: Waiting) -> String {
    let secret = secret();
    let path = format!("/attach/{secret}");
    api.attaches.locked().insert(secret.clone(), waiting);
    let task = api.clone();
    api.tasks.spawn(async move {
        tokio::select! {
            () = tokio::time::sleep(task.settings.timings.attach_timeout) => {}
            () = task.stop.cancelled() => {}
        }
        if let Some(waiting) = task.attaches.take(&secret) {
            give_up(&task.supervisor, waiting).await;
        }
    });
    path
}

/// Stops a one-off whose client did not come.
pub(super) async fn give_up(supervisor: &Supervisor, waiting: Waiting) {
    let which = Selector::Dyno(waiting.name);
    if let Err(error) = supervisor.stop(waiting.app, which).await {
        tracing::debug!(%error, "one-off without a client");
    }
}

/// Serves one client on its upgraded connection, to the end.
pub(super) async fn serve(
    supervisor: Supervisor,
    waiting: Waiting,
    stream: impl AsyncRead + AsyncWrite + Send,
) {
    let (reader, mut writer) = tokio::io::split(stream);
    let attachment = match supervisor.attach(waiting.dyno).await {
        Ok(attachment) => attachment,
        Err(error) => {
            let frame = Frame::Failed(error.to_string());
            send_last(&mut writer, &frame).await;
            return;
        }
    };
    let Attachment {
        stdio,
        exit,
        connection,
    } = attachment;
    let streams = match Streams::new(stdio) {
        Ok(streams) => streams,
        Err(error) => {
            let frame = Frame::Failed(format!("cannot watch the dyno's streams: {error}"));
            send_last(&mut writer, &frame).await;
            return;
        }
    };
    let (inputs, outputs) = (streams.stdin, streams.outputs);
    tokio::select! {
        () = feed(reader, inputs, streams.is_terminal, &supervisor, waiting.dyno) => {
            tracing::debug!(dyno = %waiting.name, "client of a one-off is gone");
        }
        result = drain(&mut writer, outputs, exit) => {
            if let Err(error) = result {
                tracing::debug!(dyno = %waiting.name, %error, "client of a one-off is gone");
            }
        }
    }
    drop(connection);
}

async fn send_last(writer: &mut (impl AsyncWrite + Unpin), frame: &Frame) {
    let sent = async {
        writer.write_all(&frame.encode()).await?;
        writer.shutdown().await
    };
    // A client that is gone or stuck misses its last frame; nobody else cares.
    timeout(LAST_BYTES, sent).await.ok();
}

type Fd = Arc<AsyncFd<OwnedFd>>;

/// Which frame an output becomes.
type Wrap = fn(Vec<u8>) -> Frame;

struct Streams {
    stdin: Option<Fd>,
    outputs: [Option<(Fd, Wrap)>; 2],
    is_terminal: bool,
}

impl Streams {
    fn new(stdio: LaunchedStdio) -> io::Result<Self> {
        let watch = |fd: OwnedFd| sys::watch(fd).map(Arc::new);
        Ok(match stdio {
            LaunchedStdio::Terminal(master) => {
                let master = watch(master)?;
                Self {
                    stdin: Some(Arc::clone(&master)),
                    outputs: [Some((master, Frame::Stdout)), None],
                    is_terminal: true,
                }
            }
            LaunchedStdio::Pipes {
                stdin,
                stdout,
                stderr,
            } => Self {
                stdin: Some(watch(stdin)?),
                outputs: [
                    Some((watch(stdout)?, Frame::Stdout)),
                    Some((watch(stderr)?, Frame::Stderr)),
                ],
                is_terminal: false,
            },
            LaunchedStdio::Logged(output) => Self {
                stdin: None,
                outputs: [Some((watch(output)?, Frame::Stdout)), None],
                is_terminal: false,
            },
        })
    }
}

/// From the client to the dyno, until the client is gone.
async fn feed(
    mut reader: impl AsyncRead + Unpin,
    mut stdin: Option<Fd>,
    is_terminal: bool,
    supervisor: &Supervisor,
    dyno: DynoId,
) {
    let mut wire = Vec::with_capacity(8 * 1024);
    let mut pending: Vec<u8> = Vec::new();
    let mut has_ended = false;
    loop {
        tokio::select! {
            read = reader.read_buf(&mut wire), if pending.len() < STDIN_BUFFER => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                loop {
                    match Frame::decode(&mut wire) {
                        Ok(None) => break,
                        Ok(Some(Frame::Stdin(bytes))) if bytes.is_empty() && is_terminal => {
                            pending.push(EOT);
                        }
                        Ok(Some(Frame::Stdin(bytes))) if bytes.is_empty() => has_ended = true,
                        Ok(Some(Frame::Stdin(bytes))) => pending.extend_from_slice(&bytes),
                        Ok(Some(Frame::Resize(columns, rows))) => {
                            supervisor.resize(dyno, WindowSize { columns, rows }).await;
                        }
                        // Frames a client has no business to send, or garbage.
                        Ok(Some(_)) | Err(_) => return,
                    }
                }
            }
            written = write_some(stdin.as_ref(), &pending), if !pending.is_empty() => {
                match written {
                    Ok(count) => { pending.drain(..count); }
                    // The dyno closed its stdin: what comes is of no use to anyone.
                    Err(_) => stdin = None,
                }
            }
        }
        if stdin.is_none() {
            pending.clear();
        }
        if has_ended && pending.is_empty() {
            stdin = None;
        }
    }
}

/// Writes what fits now. Cancel-safe: bytes are written only in the last step.
async fn write_some(fd: Option<&Fd>, bytes: &[u8]) -> io::Result<usize> {
    let Some(fd) = fd else {
        return Ok(bytes.len());
    };
    loop {
        let mut guard = fd.writable().await?;
        let attempt = guard
            .try_io(|fd| nix::unistd::write(fd.get_ref().as_fd(), bytes).map_err(io::Error::from));
        if let Ok(result) = attempt {
            return result;
        }
    }
}

/// Reads what is there. `None` at the end. Cancel-safe.
async fn read_some(fd: Option<&(Fd, Wrap)>) -> Option<Vec<u8>> {
    let Some((fd, _)) = fd else {
        return std::future::pending().await;
    };
    let mut buffer = vec![0; PAYLOAD_MAX / 4];
    loop {
        let mut guard = fd.readable().await.ok()?;
        let attempt = guard.try_io(|fd| {
            nix::unistd::read(fd.get_ref().as_fd(), &mut buffer).map_err(io::Error::from)
        });
        match attempt {
            Ok(Ok(0)) => return None,
            Ok(Ok(count)) => {
                buffer.truncate(count);
                return Some(buffer);
            }
            Ok(Err(error)) if error.raw_os_error() == Some(Errno::EINTR as i32) => {}
            // EIO: nobody has the terminal open any more.
            Ok(Err(_)) => return None,
            Err(_would_block) => {}
        }
    }
}

type Exit = Result<Result<ExitStatus, Arc<Failure>>, oneshot::error::RecvError>;

/// From the dyno to the client: all output, then how it ended.
async fn drain(
    writer: &mut (impl AsyncWrite + Unpin),
    mut outputs: [Option<(Fd, Wrap)>; 2],
    mut exit: oneshot::Receiver<Result<ExitStatus, Arc<Failure>>>,
) -> io::Result<()> {
    let mut ended: Option<Exit> = None;
    let mut give_up = Instant::now() + HEARTBEAT;
    while ended.is_none() || outputs.iter().any(Option::is_some) {
        let (at, bytes) = tokio::select! {
            bytes = read_some(outputs[0].as_ref()), if outputs[0].is_some() => (0, bytes),
            bytes = read_some(outputs[1].as_ref()), if outputs[1].is_some() => (1, bytes),
            result = &mut exit, if ended.is_none() => {
                ended = Some(result);
                give_up = Instant::now() + LAST_BYTES;
                continue;
            }
            () = tokio::time::sleep_until(give_up), if ended.is_some() => break,
            () = tokio::time::sleep(HEARTBEAT), if ended.is_none() => (0, Some(Vec::new())),
        };
        match (bytes, outputs[at].as_ref().map(|(_, wrap)| *wrap)) {
            (Some(bytes), Some(wrap)) => writer.write_all(&wrap(bytes).encode()).await?,
            (Some(bytes), None) => writer.write_all(&Frame::Stdout(bytes).encode()).await?,
            (None, _) => outputs[at] = None,
        }
    }
    let last = match ended {
        Some(Ok(Ok(status))) => Frame::Exit(status.0),
        Some(Ok(Err(failure))) => Frame::Failed(chain(&*failure)),
        Some(Err(_)) | None => Frame::Failed("the supervisor stopped".to_owned()),
    };
    writer.write_all(&last.encode()).await?;
    writer.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    type Ends = (
        io::PipeWriter,
        io::PipeWriter,
        oneshot::Sender<Result<ExitStatus, Arc<Failure>>>,
        tokio::task::JoinHandle<Vec<Frame>>,
    );

    /// A dyno with two outputs, drained to a client that reads to the end.
    fn dyno() -> Ends {
        let (stdout, out) = io::pipe().expect("a pipe");
        let (stderr, err) = io::pipe().expect("a pipe");
        let (sender, exit) = oneshot::channel();
        let (ours, mut theirs) = tokio::io::duplex(1024);
        for pipe in [&stdout, &stderr] {
            nix::fcntl::fcntl(pipe, nix::fcntl::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))
                .expect("non-blocking");
        }
        let watch =
            |pipe: io::PipeReader| Arc::new(sys::watch(OwnedFd::from(pipe)).expect("watched"));
        let outputs: [Option<(Fd, Wrap)>; 2] = [
            Some((watch(stdout), Frame::Stdout)),
            Some((watch(stderr), Frame::Stderr)),
        ];
        tokio::spawn(async move {
            let mut ours = ours;
            drain(&mut ours, outputs, exit).await.expect("drained");
        });
        let client = tokio::spawn(async move {
            let mut wire = Vec::new();
            theirs.read_to_end(&mut wire).await.expect("read");
            let mut frames = Vec::new();
            while let Some(frame) = Frame::decode(&mut wire).expect("a frame") {
                frames.push(frame);
            }
            frames
        });
        (out, err, sender, client)
    }

    #[tokio::test]
    async fn all_output_comes_before_the_exit_status_also_when_the_exit_is_known_first() {
        use std::io::Write as _;
        let (mut out, mut err, exit, client) = dyno();
        exit.send(Ok(ExitStatus(7))).expect("sent");
        let bytes = vec![b'x'; 60_000];
        out.write_all(&bytes).expect("written");
        err.write_all(b"oops").expect("written");
        drop((out, err));
        let frames = client.await.expect("frames");
        let (last, before) = frames.split_last().expect("some");
        assert_eq!(*last, Frame::Exit(7));
        let stdout: usize = before
            .iter()
            .map(|frame| {
                if let Frame::Stdout(bytes) = frame {
                    bytes.len()
                } else {
                    0
                }
            })
            .sum();
        assert_eq!(stdout, 60_000);
        assert!(before.contains(&Frame::Stderr(b"oops".to_vec())));
    }

    #[tokio::test]
    async fn a_stream_held_open_after_the_exit_is_given_up() {
        let (out, _err, exit, client) = dyno();
        exit.send(Ok(ExitStatus(0))).expect("sent");
        let frames = client.await.expect("frames");
        assert_eq!(frames, [Frame::Exit(0)]);
        drop(out);
    }

    #[tokio::test]
    async fn a_launch_that_failed_is_told_with_its_reason() {
        let (out, err, exit, client) = dyno();
        let failure = Failure {
            step: "mount /proc".to_owned(),
            reason: "EPERM".to_owned(),
            checksum: None,
        };
        exit.send(Err(Arc::new(failure))).expect("sent");
        drop((out, err));
        let frames = client.await.expect("frames");
        assert_eq!(frames, [Frame::Failed("mount /proc: EPERM".to_owned())]);
    }
}
