//! The kernel's messages. Source: `dev-kmsg` in the kernel's ABI documentation.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

/// Most of the kernel's buffer that is looked at.
const BYTES_MAX: usize = 4 << 20;

/// The texts of the messages that the kernel still has, oldest first.
///
/// # Errors
/// No `/dev/kmsg`, or no right to read it.
pub fn kernel_messages() -> io::Result<Vec<String>> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")?;
    let mut messages = Vec::new();
    let mut record = vec![0; 8192];
    let mut total = 0;
    while total < BYTES_MAX {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                total += length;
                let text = String::from_utf8_lossy(&record[..length]);
                // `6,339,5140900,-;text`, then lines of properties.
                let text = text.split_once(';').map_or("", |(_, text)| text);
                messages.push(text.lines().next().unwrap_or_default().to_owned());
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            // The kernel wrote over what was to be read next; the read goes on behind it.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(messages)
}
