//! Whose generation stays current when two of one family meet.

use crate::order::Order;

/// What to do when the store holds another generation of the same family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The later one becomes current.
    #[default]
    Newest,
    /// What is in the store stays current.
    Theirs,
}

/// Who stays current.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    /// The generation on our disk.
    Ours,
    /// The generation in the store.
    Theirs,
}

impl Policy {
    /// Returns whose generation is to be current; `order` is how ours stands to theirs.
    ///
    /// If it is unclear which is later, theirs stays: other jobs see it already.
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
    fn only_what_is_surely_later_replaces_what_is_in_the_store() {
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
