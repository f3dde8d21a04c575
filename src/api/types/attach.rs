//! Frames of an attached one-off over an upgraded connection.
//!
//! The client sends `GET /attach/SECRET` with `Connection: Upgrade` and `Upgrade: manifold-attach`;
//! after `101` both sides speak frames: one byte of kind, four bytes of length (big endian), then
//! that many bytes. Frames above [`PAYLOAD_MAX`] end the connection.

/// Value of the `Upgrade` header.
pub const PROTOCOL: &str = "manifold-attach";

/// Largest payload of one frame in bytes.
pub const PAYLOAD_MAX: usize = 64 * 1024;

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 5;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Client to dyno. An empty one is the end of stdin.
    Stdin(Vec<u8>),
    /// Dyno to client (a terminal's whole output too).
    Stdout(Vec<u8>),
    /// Dyno to client, pipes only.
    Stderr(Vec<u8>),
    /// Client to dyno: columns, rows.
    Resize(u16, u16),
    /// Dyno to client, last: the command's exit status.
    Exit(u8),
    /// Dyno to client, last: it never ran, and why.
    Failed(String),
}

/// Bytes that are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such kind.
    #[error("unknown attach frame kind {0}")]
    Kind(u8),
    /// Too long, or of the wrong length for its kind.
    #[error("attach frame of {0} bytes")]
    Length(usize),
}

impl Frame {
    /// The bytes on the wire.
    ///
    /// # Panics
    /// On a payload of 4 GiB or more (callers cut at [`PAYLOAD_MAX`]).
    pub fn encode(&self) -> Vec<u8> {
        let window;
        let status;
        let (kind, payload): (u8, &[u8]) = match self {
            Self::Stdin(bytes) => (0, bytes),
            Self::Stdout(bytes) => (1, bytes),
            Self::Stderr(bytes) => (2, bytes),
            Self::Resize(columns, rows) => {
                let (c, r) = (columns.to_be_bytes(), rows.to_be_bytes());
                window = [c[0], c[1], r[0], r[1]];
                (3, &window)
            }
            Self::Exit(code) => {
                status = [*code];
                (4, &status)
            }
            Self::Failed(reason) => (5, reason.as_bytes()),
        };
        let length = u32::try_from(payload.len()).expect("a payload fits 32 bits");
        let mut frame = Vec::with_capacity(HEADER_BYTES + payload.len());
        frame.push(kind);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    /// Takes the first frame off `buffer`; `None` when it is not whole yet.
    ///
    /// # Errors
    /// [`FrameError`]: the connection cannot go on.
    pub fn decode(buffer: &mut Vec<u8>) -> Result<Option<Self>, FrameError> {
        let Some(header) = buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [kind, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if length > PAYLOAD_MAX {
            return Err(FrameError::Length(length));
        }
        if buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let payload = buffer[HEADER_BYTES..HEADER_BYTES + length].to_vec();
        buffer.drain(..HEADER_BYTES + length);
        let frame = match (kind, payload.as_slice()) {
            (0, _) => Self::Stdin(payload),
            (1, _) => Self::Stdout(payload),
            (2, _) => Self::Stderr(payload),
            (3, &[a, b, c, d]) => {
                Self::Resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
            }
            (4, &[code]) => Self::Exit(code),
            (5, _) => Self::Failed(String::from_utf8_lossy(&payload).into_owned()),
            (3 | 4, _) => return Err(FrameError::Length(length)),
            _ => return Err(FrameError::Kind(kind)),
        };
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_round_trip_at_every_split() {
        let frames = [
            Frame::Stdin(b"hello\n".to_vec()),
            Frame::Stdin(Vec::new()),
            Frame::Resize(80, 24),
            Frame::Exit(7),
            Frame::Failed("no".to_owned()),
        ];
        let wire: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for split in 0..wire.len() {
            let mut buffer = wire[..split].to_vec();
            let mut got = Vec::new();
            while let Some(frame) = Frame::decode(&mut buffer).expect("a frame") {
                got.push(frame);
            }
            buffer.extend_from_slice(&wire[split..]);
            while let Some(frame) = Frame::decode(&mut buffer).expect("a frame") {
                got.push(frame);
            }
            assert_eq!(got, frames, "split at {split}");
        }
    }

    #[test]
    fn a_frame_of_a_gigabyte_ends_the_connection() {
        let mut buffer = vec![0, 0x40, 0, 0, 0];
        assert_eq!(Frame::decode(&mut buffer), Err(FrameError::Length(1 << 30)));
    }
}
