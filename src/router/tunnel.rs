//! Bytes both ways, once a dyno has switched protocols.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::deadline::Deadline;
use super::exchange::{Progress, READ, Side};

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Whoever closed first.
    Closed(Side),
    /// Both were silent for too long.
    Idle,
}

/// Pipes until both sides have closed, one is torn down, or both are silent. A side that closes is
/// closed to the other one too, which may still say its last words.
pub(super) async fn run(
    client: (
        &mut (impl AsyncRead + Unpin),
        &mut (impl AsyncWrite + Unpin),
    ),
    dyno: (
        &mut (impl AsyncRead + Unpin),
        &mut (impl AsyncWrite + Unpin),
    ),
    from_client: &mut BytesMut,
    from_dyno: &mut BytesMut,
    progress: &Progress,
    deadline: &mut Deadline,
) -> End {
    progress.touch();
    let up = pipe(
        (client.0, Side::Client),
        (dyno.1, Side::Dyno),
        from_client,
        |_| progress.touch(),
    );
    let down = pipe(
        (dyno.0, Side::Dyno),
        (client.1, Side::Client),
        from_dyno,
        |count| progress.add(count),
    );
    let clock = progress.clock(deadline);
    tokio::pin!(up, down, clock);
    let (mut is_up, mut is_down) = (true, true);
    let mut first = None;
    while is_up || is_down {
        let closed = tokio::select! {
            biased;
            end = &mut up, if is_up => { is_up = false; end }
            end = &mut down, if is_down => { is_down = false; end }
            _ = &mut clock => return first.map_or(End::Idle, End::Closed),
        };
        match closed {
            Ok(side) => {
                first.get_or_insert(side);
            }
            Err(side) => return End::Closed(*first.get_or_insert(side)),
        }
    }
    End::Closed(first.unwrap_or(Side::Client))
}

/// The side that closed; as an error, the one whose connection is torn.
async fn pipe(
    (from, source): (&mut (impl AsyncRead + Unpin), Side),
    (to, target): (&mut (impl AsyncWrite + Unpin), Side),
    buffer: &mut BytesMut,
    moved: impl Fn(usize),
) -> Result<Side, Side> {
    loop {
        while !buffer.is_empty() {
            match to.write(buffer).await {
                Ok(count @ 1..) => {
                    moved(count);
                    bytes::Buf::advance(buffer, count);
                }
                _ => return Err(target),
            }
        }
        to.flush().await.map_err(|_| target)?;
        buffer.reserve(READ);
        if from.read_buf(buffer).await.map_err(|_| source)? == 0 {
            to.shutdown().await.map_err(|_| target)?;
            return Ok(source);
        }
    }
}
