//! Conflict resolution between two generations of one family.

use crate::order::Order;

/// How to resolve a conflict with another generation of the same family in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The later generation becomes current.
    #[default]
    Newest,
    /// The store's generation stays current.
    Theirs,
}

/// The generation that becomes or stays current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    /// The generation on our disk.
    Ours,
    /// The generation in the store.
    Theirs,
}

impl Policy {
    /// Returns the winner; `order` compares ours with theirs.
    ///
    /// If the order is unclear, theirs stays: other jobs already use it.
    #[must_use]
    pub fn judge(self, order: Order) -> Winner {
        match (self, order) {
            (Self::Newest, Order::Later) => Winner::Ours,
            (Self::Newest, Order::Earlier | Order::Unclear) | (Self::Theirs, _) => Winner::Theirs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_generation_that_is_surely_later_overwrites_the_store() {
        for (order, newest) in [
            (Order::Later, Winner::Ours),
            (Order::Unclear, Winner::Theirs),
            (Order::Earlier, Winner::Theirs),
        ] {
            assert_eq!(Policy::Newest.judge(order), newest);
            assert_eq!(Policy::Theirs.judge(order), Winner::Theirs);
        }
    }
}
