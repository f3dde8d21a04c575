//! Room `rootfs`.
