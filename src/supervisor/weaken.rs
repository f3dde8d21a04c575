//! The attack tests' switch, in builds with debug assertions only: dynos that start as root.
//!
//! Some layers only show when the ones above them are gone: what does the kernel refuse to the
//! root of a dyno's user namespace, what without the filter? Release builds have no such code, it
//! is no setting, and every launch warns.

use crate::dyno::{AppStep, LaunchPlan};

/// `root`: root of the user namespace with all its capabilities. `bare`: without the filter, too.
const SWITCH: &str = "MANIFOLD_TEST_ONLY_WEAKEN_DYNOS";

/// Takes the steps out of a plan that the switch names.
pub(super) fn apply(plan: &mut LaunchPlan) {
    let Ok(how) = std::env::var(SWITCH) else {
        return;
    };
    let is_bare = match how.as_str() {
        "root" => false,
        "bare" => true,
        other => {
            tracing::error!("{SWITCH}={other} is neither root nor bare: dynos stay confined");
            return;
        }
    };
    tracing::error!(
        "{SWITCH}={how}: THIS DYNO IS NOT CONFINED. For tests of isolation only, never for apps"
    );
    plan.app.retain(|step| {
        let is_drop = matches!(step, AppStep::BoundCapabilities | AppStep::NoCapabilities);
        let is_filter = is_bare && *step == AppStep::Seccomp;
        !(is_drop || is_filter)
    });
    for step in &mut plan.app {
        if let AppStep::Ids { uid, gid } = step {
            (*uid, *gid) = (0, 0);
        }
    }
}
