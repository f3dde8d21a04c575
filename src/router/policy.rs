//! Which dyno gets a request: a choice on plain numbers.

use std::num::NonZeroU32;

use crate::model::RoutingPolicy;

/// How an app's requests are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) policy: RoutingPolicy,
    /// Requests that a dyno is sent at once; `None`: any number.
    pub(super) limit: Option<NonZeroU32>,
}

impl Rule {
    fn limit(self) -> u32 {
        self.limit.map_or(u32::MAX, NonZeroU32::get)
    }
}

/// What is known of one dyno at the moment of the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    pub(super) in_flight: u32,
    pub(super) health: Health,
}

/// Whether a dyno wants requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Open,
    /// It said that it has too much to do: only if no other has room, and no more than so many.
    Strained(u32),
    /// It refused a connection a moment ago, or is leaving: none.
    Closed,
}

/// The choice: an index into `loads`, or `None` when every dyno is at its limit or closed.
/// `turn` is the place after the last choice (round-robin); `draw(n)` a random number below n.
pub(super) fn choose(
    rule: Rule,
    loads: impl ExactSizeIterator<Item = Load> + Clone,
    turn: &mut usize,
    mut draw: impl FnMut(usize) -> usize,
) -> Option<usize> {
    match rule.policy {
        // The reference: blind to load. Source: Dev Center, "HTTP Routing", request distribution.
        RoutingPolicy::Random => {
            let open = |load: &Load| load.health != Health::Closed;
            let count = loads.clone().filter(open).count();
            let nth = (count > 0).then(|| draw(count))?;
            let mut candidates = loads.enumerate().filter(|(_, load)| open(load));
            candidates.nth(nth).map(|(index, _)| index)
        }
        RoutingPolicy::RoundRobin => {
            let count = loads.len();
            let room = |load: &Load| is_below(*load, rule.limit());
            let fits = |(index, load): (usize, Load)| room(&load).then_some(index);
            let after = loads.clone().enumerate().skip(*turn).find_map(fits);
            let chosen = after
                .or_else(|| loads.clone().enumerate().find_map(fits))
                .or_else(|| least(loads, |load| strained_below(load, rule.limit()), draw))?;
            *turn = (chosen + 1) % count;
            Some(chosen)
        }
        RoutingPolicy::LeastInFlight | RoutingPolicy::GlobalQueue => least(
            loads.clone(),
            |load| is_below(load, rule.limit()),
            &mut draw,
        )
        .or_else(|| least(loads, |load| strained_below(load, rule.limit()), draw)),
    }
}

/// True if a request that must go to this dyno may go there now.
pub(super) fn has_room(rule: Rule, load: Load) -> bool {
    match rule.policy {
        RoutingPolicy::Random => load.health != Health::Closed,
        _ => is_below(load, rule.limit()) || strained_below(load, rule.limit()),
    }
}

fn is_below(load: Load, limit: u32) -> bool {
    load.health == Health::Open && load.in_flight < limit
}

fn strained_below(load: Load, limit: u32) -> bool {
    matches!(load.health, Health::Strained(own) if load.in_flight < own.min(limit))
}

/// The fewest in flight among those that fit, ties at random: a fixed order would send the first
/// request after every quiet moment to the same dyno.
fn least(
    loads: impl Iterator<Item = Load> + Clone,
    fits: impl Fn(Load) -> bool,
    mut draw: impl FnMut(usize) -> usize,
) -> Option<usize> {
    let mut fewest = u32::MAX;
    let (mut ties, mut first) = (0, 0);
    for (index, load) in loads.clone().enumerate() {
        if !fits(load) || load.in_flight > fewest {
            continue;
        }
        if ties == 0 || load.in_flight < fewest {
            (fewest, ties, first) = (load.in_flight, 0, index);
        }
        ties += 1;
    }
    match ties {
        0 => None,
        1 => Some(first),
        _ => {
            let nth = draw(ties);
            let is_one = |(_, load): &(usize, Load)| fits(*load) && load.in_flight == fewest;
            let mut equals = loads.enumerate().filter(is_one);
            equals.nth(nth).map(|(index, _)| index)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn open(in_flight: u32) -> Load {
        Load {
            in_flight,
            health: Health::Open,
        }
    }

    fn rule(policy: RoutingPolicy, limit: u32) -> Rule {
        Rule {
            policy,
            limit: NonZeroU32::new(limit),
        }
    }

    #[track_caller]
    fn check(rule: Rule, loads: &[Load], draw: usize, expected: Option<usize>) {
        let chosen = choose(rule, loads.iter().copied(), &mut 0, |_| draw);
        assert_eq!(chosen, expected, "{rule:?} {loads:?}");
    }

    #[test]
    fn the_least_busy_is_chosen_and_ties_are_drawn() {
        let least = rule(RoutingPolicy::LeastInFlight, 0);
        check(least, &[open(3), open(1), open(2)], 0, Some(1));
        check(least, &[open(1), open(3), open(1), open(1)], 1, Some(2));
        check(least, &[], 0, None);
    }

    #[test]
    fn nobody_is_chosen_past_its_limit() {
        let two = rule(RoutingPolicy::LeastInFlight, 2);
        check(two, &[open(2), open(1)], 0, Some(1));
        check(two, &[open(2), open(2)], 0, None);
        let one = rule(RoutingPolicy::GlobalQueue, 1);
        check(one, &[open(1), open(1), open(0)], 0, Some(2));
        check(one, &[open(1), open(1)], 0, None);
        check(rule(RoutingPolicy::RoundRobin, 1), &[open(1)], 0, None);
    }

    #[test]
    fn random_looks_at_nothing_but_the_quarantine() {
        let random = rule(RoutingPolicy::Random, 0);
        let closed = Load {
            in_flight: 0,
            health: Health::Closed,
        };
        check(random, &[open(100), closed, open(0)], 0, Some(0));
        check(random, &[open(100), closed, open(0)], 1, Some(2));
        check(random, &[closed], 0, None);
    }

    #[test]
    fn round_robin_takes_turns_among_those_with_room() {
        let (rule, mut turn) = (rule(RoutingPolicy::RoundRobin, 2), 0);
        let loads = [open(0), open(2), open(1)];
        let mut next = || choose(rule, loads.iter().copied(), &mut turn, |_| 0);
        assert_eq!([next(), next(), next()], [Some(0), Some(2), Some(0)]);
    }

    #[test]
    fn a_strained_dyno_is_the_last_resort_and_gets_little() {
        let strained = |in_flight, own| Load {
            in_flight,
            health: Health::Strained(own),
        };
        for policy in [RoutingPolicy::LeastInFlight, RoutingPolicy::RoundRobin] {
            let rule = rule(policy, 5);
            check(rule, &[strained(0, 3), open(4)], 0, Some(1));
            check(rule, &[strained(2, 3), open(5)], 0, Some(0));
            check(rule, &[strained(3, 3), open(5)], 0, None);
        }
    }

    proptest! {
        #[test]
        fn whoever_is_chosen_has_room_and_someone_is_if_anyone_has(
            flights in proptest::collection::vec((0u32..4, 0u8..4), 0..8),
            limit in 1u32..4,
            policy in 0usize..4,
            start in 0usize..8,
            seed: usize,
        ) {
            let loads: Vec<Load> = flights.iter().map(|(in_flight, health)| Load {
                in_flight: *in_flight,
                health: match health {
                    0 => Health::Closed,
                    1 => Health::Strained(2),
                    _ => Health::Open,
                },
            }).collect();
            let policy = RoutingPolicy::ALL[policy];
            let limit = if policy == RoutingPolicy::Random { 0 } else { limit };
            let rule = rule(policy, limit);
            let mut turn = start % loads.len().max(1);
            let chosen = choose(rule, loads.iter().copied(), &mut turn, |n| seed % n);
            let room = |load: &Load| match (policy, load.health) {
                (_, Health::Closed) => false,
                (RoutingPolicy::Random, _) => true,
                (_, Health::Open) => load.in_flight < limit,
                (_, Health::Strained(own)) => load.in_flight < own.min(limit),
            };
            match chosen {
                Some(index) => prop_assert!(room(&loads[index]), "{loads:?}: {index}"),
                None => prop_assert!(!loads.iter().any(room), "{loads:?}"),
            }
        }
    }
}
