//! malloc's heaps.

/// Bounds how many heaps malloc makes, one more than there are processors. Threads beyond that
/// share one. glibc's own bound is eight for each processor, and what one of many blocking threads
/// freed stays in a heap that no other thread uses. To be called before there are threads.
/// Source: mallopt(3), `M_ARENA_MAX`.
pub fn bound_heaps() {
    #[cfg(target_env = "gnu")]
    {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let most = i32::try_from(processors + 1).unwrap_or(i32::MAX);
        // SAFETY: two numbers; no thread is there that could be in malloc.
        if unsafe { libc::mallopt(libc::M_ARENA_MAX, most) } == 0 {
            tracing::debug!("malloc keeps its own bound of heaps");
        }
    }
}
