//! From what is asked for to what must change.

use std::collections::{BTreeMap, BTreeSet};

use super::AppSpec;
use crate::model::{DynoName, DynoSize, ProcessType};

/// The places an app should have, each with its size: `TYPE.1` to `TYPE.N` for every type its
/// release declares. `release` is no part of a formation.
pub(super) fn wanted(spec: &AppSpec) -> BTreeMap<DynoName, DynoSize> {
    let Some(slug) = spec.release.as_ref().and_then(|r| r.slug.as_ref()) else {
        return BTreeMap::new();
    };
    let runs = |process: &&ProcessType| **process != ProcessType::release();
    let types = slug.process_types.keys().filter(runs);
    types
        .filter_map(|process| Some((process, spec.formation.get(process)?)))
        .flat_map(|(process, entry)| {
            (1..=entry.quantity).map(|n| (DynoName::new(process.clone(), n), entry.size.clone()))
        })
        .collect()
}

/// What must be done to get from one set of places to another.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// To be stopped, the highest numbers first.
    pub(super) down: Vec<DynoName>,
    /// To be restarted.
    pub(super) restart: Vec<DynoName>,
    /// To be started.
    pub(super) up: Vec<DynoName>,
}

/// Compares; `is_roll` restarts every place that stays.
pub(super) fn changes(
    have: &BTreeMap<DynoName, DynoSize>,
    want: &BTreeMap<DynoName, DynoSize>,
    is_roll: bool,
) -> Changes {
    let names: BTreeSet<&DynoName> = have.keys().chain(want.keys()).collect();
    let mut changes = Changes::default();
    for name in names {
        match (have.get(name), want.get(name)) {
            (Some(_), None) => changes.down.push(name.clone()),
            (None, Some(_)) => changes.up.push(name.clone()),
            (Some(old), Some(new)) if is_roll || old != new => changes.restart.push(name.clone()),
            _ => {}
        }
    }
    changes.down.reverse();
    changes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(sizes: &[(&str, u32, &str)]) -> BTreeMap<DynoName, DynoSize> {
        let place = |(process, number, size): &(&str, u32, &str)| {
            let process = process.parse().expect("a type");
            let size = DynoSize::find(size).expect("a size");
            (DynoName::new(process, *number), size)
        };
        sizes.iter().map(place).collect()
    }

    fn texts(names: &[DynoName]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_what_differs_is_touched() {
        let have = places(&[("web", 1, "1X"), ("web", 2, "1X"), ("worker", 1, "1X")]);
        let want = places(&[("web", 1, "1X"), ("worker", 1, "2X"), ("worker", 2, "2X")]);
        let changes = changes(&have, &want, false);
        assert_eq!(texts(&changes.down), ["web.2"]);
        assert_eq!(texts(&changes.restart), ["worker.1"]);
        assert_eq!(texts(&changes.up), ["worker.2"]);
    }

    proptest! {
        #[test]
        fn applying_the_changes_gives_what_was_wanted(
            have in proptest::collection::btree_map((0u8..3, 1u32..6), 0u8..2, 0..12),
            want in proptest::collection::btree_map((0u8..3, 1u32..6), 0u8..2, 0..12),
            is_roll: bool,
        ) {
            let build = |map: &BTreeMap<(u8, u32), u8>| -> BTreeMap<DynoName, DynoSize> {
                map.iter().map(|((t, n), s)| {
                    let process = ["web", "worker", "clock"][usize::from(*t)];
                    let size = ["1X", "2X"][usize::from(*s)];
                    (
                        DynoName::new(process.parse().expect("a type"), *n),
                        DynoSize::find(size).expect("a size"),
                    )
                }).collect()
            };
            let (have, want) = (build(&have), build(&want));
            let changes = changes(&have, &want, is_roll);
            let mut now = have.clone();
            for name in &changes.down {
                prop_assert!(now.remove(name).is_some());
            }
            for name in changes.restart.iter().chain(&changes.up) {
                now.insert(name.clone(), want[name].clone());
            }
            prop_assert_eq!(&now, &want);
            if is_roll {
                let stay = have.keys().filter(|n| want.contains_key(*n)).count();
                prop_assert_eq!(changes.restart.len(), stay);
            }
        }
    }
}
