//! Git over the API's own socket.

/// Value of `Upgrade`: from then on both ends speak git's pack protocol.
/// Source: gitprotocol-pack(5).
pub const PROTOCOL: &str = "git";
