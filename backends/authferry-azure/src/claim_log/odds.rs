//! How often two bids win: a simulation of vaults that promise nothing, in a time of its own. What decides is what decides in earnest.
//!
//! The table in the crate's documentation is what this prints:
//!
//!     cargo test -p authferry-azure odds -- --nocapture

use std::{cmp::Reverse, collections::BinaryHeap, fmt::Write};

use authferry_core::Bid;

use super::{Entry, Verdict, first_of_last_epoch, judge};

/// How often each case is tried.
pub(crate) const ROUNDS: u32 = 10_000;

/// How many want the claim at once, and within which time they begin.
const BIDDERS: usize = 4;
pub(crate) const SPREAD: u64 = 1000;

/// How many machines the vault is. Each has a clock of its own.
pub(crate) const FRONTS: usize = 3;

/// How long a bidder waits, in seconds.
const WAITS: [u64; 8] = [0, 1, 2, 3, 5, 8, 12, 20];

/// What a vault is like. Times are milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Nature {
    /// How far a clock is off at the most.
    pub(crate) skew: u64,
    /// How long after a write it is listed, at the most.
    pub(crate) lag: u64,
    /// Of how many writes one is stuck, and how long at the most after it was stamped.
    pub(crate) stuck: Option<(u64, u64)>,
}

pub(crate) const NATURES: [Nature; 4] = [
    Nature {
        skew: 200,
        lag: 200,
        stuck: None,
    },
    Nature {
        skew: 1000,
        lag: 500,
        stuck: None,
    },
    Nature {
        skew: 1000,
        lag: 3000,
        stuck: None,
    },
    Nature {
        skew: 1000,
        lag: 3000,
        stuck: Some((100, 15_000)),
    },
];

#[test]
#[expect(clippy::print_stdout, reason = "the table is what it is run for")]
fn the_documented_odds_are_those_of_the_simulation() {
    let table = table();
    println!("{table}");
    let documented: Vec<_> = include_str!("../lib.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .skip_while(|line| !line.starts_with("| commit wait"))
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(documented, table.lines().collect::<Vec<_>>());
}

/// The proof that the simulation can see what it looks for, and that the wait is what helps.
#[test]
fn a_wait_that_is_longer_than_everything_else_has_one_winner() {
    for nature in NATURES {
        let stuck = nature.stuck.map_or(0, |(_, stuck)| stuck);
        let enough = 2 * nature.skew + 1000 + SPREAD + nature.lag + stuck + 1000;
        assert!(doubles(nature, 0) > 0, "two win without a wait");
        assert_eq!(doubles(nature, enough), 0);
    }
}

fn table() -> String {
    let mut table = String::from("| commit wait |");
    for Nature { skew, lag, stuck } in NATURES {
        let [skew, lag] = [skew, lag].map(seconds);
        write!(table, " clocks ±{skew} s, lists ≤ {lag} s late").expect("room");
        if let Some((one_of, stuck)) = stuck {
            write!(table, ", 1 write of {one_of} stuck ≤ {} s", seconds(stuck)).expect("room");
        }
        table.push_str(" |");
    }
    write!(table, "\n|---|{}", "---|".repeat(NATURES.len())).expect("room");
    for wait in WAITS {
        write!(table, "\n| {wait} s |").expect("room");
        for nature in NATURES {
            let doubles = doubles(nature, wait * 1000);
            let percent = f64::from(doubles) * 100.0 / f64::from(ROUNDS);
            write!(table, " {percent:.2} % |").expect("room");
        }
    }
    table
}

fn seconds(milliseconds: u64) -> String {
    let tenths = milliseconds / 100;
    match tenths % 10 {
        0 => (tenths / 10).to_string(),
        rest => format!("{}.{rest}", tenths / 10),
    }
}

/// Returns in how many rounds more than one bid has won.
fn doubles(nature: Nature, wait: u64) -> u32 {
    let rounds = (0..ROUNDS).map(|round| winners(nature, wait, u64::from(round)));
    rounds.map(|winners| u32::from(winners > 1)).sum()
}

/// Where a bidder is.
enum Step {
    /// Its list has reached the vault.
    Looks,
    /// Its bid has.
    Bids { epoch: u64, before: Option<Entry> },
    /// Its list has, once it has waited.
    Judges {
        ours: String,
        before: Option<Entry>,
        tries: u32,
    },
}

struct Written {
    entry: Entry,
    /// From when on it is listed.
    visible: u64,
}

/// Plays one round, and returns how many bids have won.
fn winners(nature: Nature, wait: u64, round: u64) -> usize {
    // Whatever the wait, a round has the same clocks and the same beginnings.
    let mut chance = Chance(round.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let offsets = clocks(nature, &mut chance);
    let mut log: Vec<Written> = Vec::new();
    let mut winners = 0;
    let mut steps: Vec<Option<Step>> = (0..BIDDERS).map(|_| Some(Step::Looks)).collect();
    let mut due = BinaryHeap::new();
    for bidder in 0..BIDDERS {
        due.push(Reverse((chance.below(SPREAD), bidder)));
    }
    while let Some(Reverse((now, bidder))) = due.pop() {
        let step = steps[bidder].take().expect("whoever is due has a step");
        let bid = bid(bidder);
        let listed = || -> Vec<Entry> {
            let visible = log.iter().filter(|it| it.visible <= now);
            visible.map(|it| it.entry.clone()).collect()
        };
        let travel = 20 + chance.below(80);
        let next = match step {
            Step::Looks => {
                let found = first_of_last_epoch(&listed());
                if found
                    .as_ref()
                    .is_some_and(|it| it.must_be_over(&bid).is_err())
                {
                    continue;
                }
                let epoch = found.as_ref().map_or(0, |it| it.epoch) + 1;
                (
                    now + travel,
                    Step::Bids {
                        epoch,
                        before: found,
                    },
                )
            }
            Step::Bids { epoch, before } => {
                let created = stamp(now, &offsets, &mut chance);
                let applied = now + nature.delay(&mut chance);
                let ours = format!(
                    "{:032x}",
                    u128::from(chance.next()) << 64 | u128::from(chance.next())
                );
                let entry = Entry {
                    epoch,
                    created,
                    version: ours.clone(),
                    holder: bid.holder,
                    owner: bid.owner,
                    until: Some(bid.until),
                    note: None,
                };
                log.push(Written {
                    entry,
                    visible: applied + chance.below(nature.lag + 1),
                });
                (
                    applied + travel + wait,
                    Step::Judges {
                        ours,
                        before,
                        tries: 0,
                    },
                )
            }
            Step::Judges {
                ours,
                before,
                tries,
            } => match judge(&listed(), &ours, before.as_ref(), &bid) {
                Verdict::Unlisted => {
                    let tries = tries + 1;
                    (
                        now + travel + u64::from(20 * tries.min(20)),
                        Step::Judges {
                            ours,
                            before,
                            tries,
                        },
                    )
                }
                Verdict::Counts(_) => {
                    winners += 1;
                    continue;
                }
                Verdict::Second(_) | Verdict::Renewed(_) => continue,
            },
        };
        let (when, step) = next;
        steps[bidder] = Some(step);
        due.push(Reverse((when, bidder)));
    }
    winners
}

/// The clocks of the machines that the vault is, each ahead by up to twice the skew, so that
/// there is nothing below zero.
pub(crate) fn clocks(nature: Nature, chance: &mut Chance) -> [u64; FRONTS] {
    std::array::from_fn(|_| chance.below(2 * nature.skew + 1))
}

/// What one of them puts on a version: whole seconds, rounded.
pub(crate) fn stamp(now: u64, clocks: &[u64; FRONTS], chance: &mut Chance) -> i64 {
    let front = usize::try_from(chance.next()).unwrap_or_default() % FRONTS;
    i64::try_from((now + clocks[front] + 500) / 1000).expect("a time")
}

impl Nature {
    /// How long it is from the stamp until a write is there.
    pub(crate) fn delay(self, chance: &mut Chance) -> u64 {
        match self.stuck {
            Some((one_of, stuck)) if chance.below(one_of) == 0 => chance.below(stuck),
            Some(_) | None => 5 + chance.below(40),
        }
    }
}

/// All want it for longer than a round lasts.
fn bid(bidder: usize) -> Bid {
    Bid {
        owner: format!("bidder {bidder}"),
        holder: u64::try_from(bidder).expect("few"),
        now: 1_000_000,
        until: 1_000_600,
    }
}

/// Random numbers that are the same at every run: `SplitMix64`.
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}
