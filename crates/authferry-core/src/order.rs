//! The order of two generations of one family.

use core::cmp::Ordering;

use crate::Issued;

/// Tolerated clock skew between token issuers, in seconds.
const ISSUER_CLOCK_SKEW: i64 = 300;

/// The order of one generation relative to another of its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Order {
    /// Surely earlier.
    Earlier,
    /// Surely later.
    Later,
    /// The clocks contradict each other, or only runners' clocks are known.
    Unclear,
}

/// Compares two generations by the times in their auth files.
///
/// A difference of more than five minutes by the provider's clock decides: `iat`, or `exp` where
/// one side has no `iat`. Within five minutes, a difference decides only if `last_refresh` (a
/// runner's clock) does not contradict it. For `exp` that holds at any distance, because the
/// provider may change the lifetime of its tokens. A runner's clock alone never decides.
#[must_use]
pub fn by_times(ours: &Issued, theirs: &Issued) -> Order {
    let apart = |ours: Option<i64>, theirs: Option<i64>| Some(ours?.saturating_sub(theirs?));
    let by_issue = apart(ours.iat, theirs.iat);
    let Some(seconds) = by_issue.or_else(|| apart(ours.exp, theirs.exp)) else {
        return Order::Unclear;
    };
    let is_near = by_issue.is_none() || seconds.saturating_abs() <= ISSUER_CLOCK_SKEW;
    let order = seconds.cmp(&0);
    let runner = ours.last_refresh.zip(theirs.last_refresh);
    let runner = runner.map(|(ours, theirs)| ours.cmp(&theirs));
    match (order, runner) {
        (Ordering::Equal, _) => Order::Unclear,
        (_, Some(runner)) if is_near && runner == order.reverse() => Order::Unclear,
        (Ordering::Less, _) => Order::Earlier,
        (Ordering::Greater, _) => Order::Later,
    }
}

/// Compares two positions in one list of ancestors, oldest first.
pub(crate) fn by_rank(ours: usize, theirs: usize) -> Order {
    match ours.cmp(&theirs) {
        Ordering::Less => Order::Earlier,
        Ordering::Greater => Order::Later,
        Ordering::Equal => Order::Unclear,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issued(iat: Option<i64>, exp: Option<i64>, last_refresh: Option<i128>) -> Issued {
        Issued {
            iat,
            exp,
            last_refresh,
        }
    }

    #[test]
    fn the_providers_clock_decides_beyond_five_minutes() {
        let base = issued(Some(0), Some(1000), Some(0));
        for (other, order) in [
            (issued(Some(301), Some(0), Some(-9)), Order::Later),
            (issued(Some(-301), Some(9999), Some(9)), Order::Earlier),
            (issued(None, Some(1301), Some(9)), Order::Later),
            (issued(None, Some(699), Some(-9)), Order::Earlier),
            // The lifetime of a token may have changed.
            (issued(None, Some(1301), Some(-9)), Order::Unclear),
            (issued(None, Some(699), Some(9)), Order::Unclear),
        ] {
            assert_eq!(by_times(&other, &base), order, "{other:?}");
        }
    }

    #[test]
    fn within_five_minutes_the_clocks_must_not_contradict_each_other() {
        let base = issued(Some(0), None, Some(0));
        for (other, order) in [
            (issued(Some(300), None, Some(1)), Order::Later),
            (issued(Some(300), None, Some(0)), Order::Later),
            (issued(Some(300), None, None), Order::Later),
            (issued(Some(300), None, Some(-1)), Order::Unclear),
            (issued(Some(-300), None, Some(-1)), Order::Earlier),
            (issued(Some(-300), None, Some(1)), Order::Unclear),
            (issued(Some(0), None, Some(1)), Order::Unclear),
            (issued(None, None, Some(1 << 70)), Order::Unclear),
            (issued(None, None, None), Order::Unclear),
        ] {
            assert_eq!(by_times(&other, &base), order, "{other:?}");
        }
    }

    #[test]
    fn the_order_is_the_same_from_both_sides() {
        let times = [None, Some(0), Some(299), Some(301)];
        let refreshed = [None, Some(0), Some(1)];
        let all: std::vec::Vec<Issued> = times
            .iter()
            .flat_map(|iat| refreshed.iter().map(|it| issued(*iat, Some(7), *it)))
            .collect();
        for ours in &all {
            for theirs in &all {
                let mirrored = match by_times(theirs, ours) {
                    Order::Earlier => Order::Later,
                    Order::Later => Order::Earlier,
                    Order::Unclear => Order::Unclear,
                };
                assert_eq!(by_times(ours, theirs), mirrored, "{ours:?} {theirs:?}");
            }
        }
    }
}
