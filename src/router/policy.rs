//! Which dyno gets a request.
//!
//! The seam for better than random: whatever decides sees the candidates and their counts.

use super::table::DynoRoute;

/// Uniformly at random among the dynos that are not quarantined.
/// Source: Dev Center, "HTTP Routing", request distribution.
pub(super) fn pick<T: AsRef<DynoRoute>>(candidates: &[T]) -> Option<&T> {
    let open = |dyno: &&T| !(*dyno).as_ref().is_quarantined();
    let count = candidates.iter().filter(open).count();
    if count == 0 {
        return None;
    }
    candidates
        .iter()
        .filter(open)
        .nth(rand::random_range(0..count))
}
