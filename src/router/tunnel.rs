//! Bytes both ways, once a dyno has switched protocols.
//!
//! A WebSocket's client is told when the router ends: between two frames of the dyno's it gets a
//! Close, its own one goes to the dyno, and both end in form.

use std::cell::Cell;

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::deadline::Deadline;
use super::exchange::{Progress, READ, Side};
use super::worker::{self, Ear};

/// Who ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Whoever closed first.
    Closed(Side),
    /// Both were silent for too long.
    Idle,
    /// The router, in form.
    Parted,
}

/// A frame of a WebSocket: Close, "Service Restart". Source: RFC 6455 section 5.5.1; IANA, "WebSocket
/// Close Code Number Registry", 1012.
const CLOSE: [u8; 4] = [0x88, 2, 0x03, 0xf4];

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
    is_websocket: bool,
) -> End {
    progress.touch();
    let has_parted = Cell::new(false);
    let up = pipe(
        (client.0, Side::Client),
        (dyno.1, Side::Dyno),
        from_client,
        |_| progress.touch(),
        None,
    );
    let down = async {
        let from = (&mut *dyno.0, Side::Dyno);
        let to = (&mut *client.1, Side::Client);
        let moved = |count| progress.add(count);
        let frames = is_websocket.then(Frames::default);
        if let Some(side) = pipe(from, to, from_dyno, moved, frames).await? {
            return Ok(Some(side));
        }
        has_parted.set(true);
        part(from_dyno, dyno.0, client.1).await.map(Some)
    };
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
            Ok(side) => first = first.or(side),
            Err(_) if has_parted.get() => return End::Parted,
            Err(side) => return End::Closed(*first.get_or_insert(side)),
        }
    }
    if has_parted.get() {
        return End::Parted;
    }
    End::Closed(first.unwrap_or(Side::Client))
}

/// The side that closed; as an error, the one whose connection is torn. Where frames are followed, it
/// also ends when the router parts, as soon as the last one that began has ended: `None`.
async fn pipe(
    (from, source): (&mut (impl AsyncRead + Unpin), Side),
    (to, target): (&mut (impl AsyncWrite + Unpin), Side),
    buffer: &mut BytesMut,
    moved: impl Fn(usize),
    mut frames: Option<Frames>,
) -> Result<Option<Side>, Side> {
    let ear = frames.is_some().then(Ear::new);
    loop {
        while !buffer.is_empty() {
            let piece = match &frames {
                Some(frames) if worker::is_parting() => {
                    if frames.is_between() {
                        return Ok(None);
                    }
                    frames.clone().pass(buffer)
                }
                _ => buffer.len(),
            };
            match to.write(&buffer[..piece]).await {
                Ok(count @ 1..) => {
                    moved(count);
                    if let Some(frames) = &mut frames {
                        frames.follow(&buffer[..count]);
                    }
                    buffer.advance(count);
                }
                _ => return Err(target),
            }
        }
        to.flush().await.map_err(|_| target)?;
        let is_between = frames.as_ref().is_some_and(Frames::is_between);
        if is_between && worker::is_parting() {
            return Ok(None);
        }
        let parted = async {
            match &ear {
                Some(ear) if !worker::is_parting() => ear.parted().await,
                _ => std::future::pending().await,
            }
        };
        buffer.reserve(READ);
        tokio::select! {
            read = from.read_buf(buffer) => if read.map_err(|_| source)? == 0 {
                to.shutdown().await.map_err(|_| target)?;
                return Ok(Some(source));
            },
            () = parted => {}
        }
    }
}

/// Says Close to the client. What the dyno says behind that would be against the rules: its own Close
/// answers the client's, and is its last word.
async fn part(
    buffer: &mut BytesMut,
    dyno: &mut (impl AsyncRead + Unpin),
    client: &mut (impl AsyncWrite + Unpin),
) -> Result<Side, Side> {
    client.write_all(&CLOSE).await.map_err(|_| Side::Client)?;
    client.flush().await.map_err(|_| Side::Client)?;
    loop {
        buffer.clear();
        buffer.reserve(READ);
        if dyno.read_buf(buffer).await.map_err(|_| Side::Dyno)? == 0 {
            client.shutdown().await.map_err(|_| Side::Client)?;
            return Ok(Side::Dyno);
        }
    }
}

/// Follows one direction of a WebSocket, to know where a frame ends.
/// Source: RFC 6455 section 5.2.
#[derive(Clone, Debug, Default)]
struct Frames {
    /// Of the frame's head, as far as it has come.
    head: [u8; 14],
    count: usize,
    /// Bytes of it behind its head.
    left: u64,
}

impl Frames {
    /// No frame has begun that has not ended.
    fn is_between(&self) -> bool {
        self.count == 0
    }

    /// How long its head is, as far as that can be said now.
    fn head_length(&self) -> usize {
        if self.count < 2 {
            return 2;
        }
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        mask + match self.head[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn body_length(&self) -> u64 {
        let [_, short, long @ ..] = self.head;
        match short & 0x7f {
            126 => u64::from(u16::from_be_bytes([long[0], long[1]])),
            127 => u64::from_be_bytes(*long.first_chunk().expect("twelve bytes have eight")),
            short => short.into(),
        }
    }

    /// Takes all of them.
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes.advance(self.pass(bytes));
        }
    }

    /// Takes bytes, at most up to the end of the frame: so many.
    fn pass(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            if self.left > 0 {
                let rest = (bytes.len() - taken) as u64;
                let count = rest.min(self.left);
                self.left -= count;
                taken += usize::try_from(count).expect("no more than there are");
            } else {
                self.head[self.count] = bytes[taken];
                self.count += 1;
                taken += 1;
                if self.count < self.head_length() {
                    continue;
                }
                self.left = self.body_length();
            }
            if self.left == 0 {
                self.count = 0;
                return taken;
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(length: usize, is_masked: bool) -> Vec<u8> {
        let (flag, mask) = if is_masked { (0x80, 4) } else { (0, 0) };
        let mut frame = vec![0x82];
        match length {
            0..126 => frame.push(flag + u8::try_from(length).expect("small")),
            126..65_536 => {
                frame.push(flag + 126);
                frame.extend(u16::try_from(length).expect("small").to_be_bytes());
            }
            _ => {
                frame.push(flag + 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(std::iter::repeat_n(0xff, length + mask));
        frame
    }

    proptest! {
        #[test]
        fn a_frame_ends_where_it_ends_however_the_bytes_are_cut(
            kinds in proptest::collection::vec(
                (prop_oneof![0usize..4, 124usize..128, 65_534usize..65_538], any::<bool>()), 1..5),
            step in 1usize..70_000,
        ) {
            let all: Vec<Vec<u8>> = kinds.iter().map(|(l, m)| frame(*l, *m)).collect();
            let ends: Vec<usize> = all.iter().scan(0, |sum, frame| {
                *sum += frame.len();
                Some(*sum)
            }).collect();
            let bytes = all.concat();
            let (mut frames, mut at, mut found) = (Frames::default(), 0, Vec::new());
            while at < bytes.len() {
                at += frames.pass(&bytes[at..bytes.len().min(at + step)]);
                if frames.is_between() {
                    found.push(at);
                }
            }
            prop_assert_eq!(found, ends);
        }
    }

    /// What a client gets when the router ends after `first` came from the dyno and before `second`.
    async fn parted(first: &[u8], second: &[u8]) -> Vec<u8> {
        let (mut dyno, mut from) = tokio::io::duplex(1 << 20);
        let (mut to, mut client) = tokio::io::duplex(1 << 20);
        let mut buffer = BytesMut::new();
        dyno.write_all(first).await.expect("room");
        let piped = async {
            let (from, to) = ((&mut from, Side::Dyno), (&mut to, Side::Client));
            let piped = pipe(from, to, &mut buffer, |_| {}, Some(Frames::default())).await;
            assert_eq!(piped, Ok(None));
        };
        let meanwhile = async {
            let mut heard = vec![0; first.len()];
            client.read_exact(&mut heard).await.expect("it comes");
            assert_eq!(heard, first);
            worker::part();
            dyno.write_all(second).await.expect("room");
        };
        tokio::join!(piped, meanwhile);
        worker::stay();
        // The dyno's last word is not the client's to hear.
        dyno.write_all(&frame(2, false)).await.expect("room");
        drop(dyno);
        let side = part(&mut buffer, &mut from, &mut to).await;
        assert_eq!(side, Ok(Side::Dyno));
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.expect("closed");
        heard
    }

    #[tokio::test]
    async fn goodbye_is_said_between_two_frames() {
        let (one, two) = (frame(200, false), frame(3, false));
        assert_eq!(parted(&one, &[]).await, CLOSE);
        // Inside of one: behind its end, and what comes behind that is nobody's.
        let rest = [&one[50..], &two].concat();
        let expected = [&one[50..], &CLOSE].concat();
        assert_eq!(parted(&one[..50], &rest).await, expected);
        // Inside of a head.
        let rest = [&one[1..], &two, &two].concat();
        let expected = [&one[1..], &CLOSE].concat();
        assert_eq!(parted(&one[..1], &rest).await, expected);
    }
}
