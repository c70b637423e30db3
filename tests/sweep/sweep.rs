//! The faults of a run, and its report.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use libtest_mimic::Failed;

use crate::{
    argued::argued,
    calls::ERRORS,
    judge::{Finding, Verdict, judge},
    parts::Part,
    position::{Call, Fault},
    scene::Scene,
    store::Store,
    table::Tally,
};

/// How many faults the gate injects in each part on the file store, and on the server.
const SAMPLE: [usize; 2] = [12, 2];

/// Sweeps one part: every call whose number is divisible by `every`, each with each fault. `shard`:
/// the index and the number of the runs that share the faults.
pub(crate) fn sweep(
    name: &str,
    part: &Part,
    store: &Store,
    every: usize,
    shard: (usize, usize),
) -> Result<(), Failed> {
    let scene = Scene::new(part, store)?;
    let clean = scene.faulted(part, None)?;
    if clean.trace.code != Some(0) {
        return Err(format!("without a fault: {clean:?}").into());
    }
    drop(scene);
    let swept = |call: &Call| {
        let process = call.position.process.split('>').next().unwrap_or_default();
        part.swept.contains(&process)
    };
    let calls: Vec<Call> = clean.trace.calls.into_iter().filter(swept).collect();
    let seed = seed();
    let chosen = calls.iter().enumerate().step_by(every);
    let faults = chosen.flat_map(|(number, call)| {
        // The seed draws the error: another run injects another error at the same call.
        let drawn = usize::try_from(seed)
            .unwrap_or_default()
            .wrapping_add(number);
        [Fault::Kill, Fault::Fail(ERRORS[drawn % ERRORS.len()])].map(|fault| (call, fault))
    });
    let mut faults: Vec<_> = faults.collect();
    if let Ok(replayed) = env::var("AUTHFERRY_TEST_CALL") {
        let errors = ERRORS.into_iter().map(Fault::Fail);
        let all: Vec<Fault> = [Fault::Kill].into_iter().chain(errors).collect();
        let wanted = |call: &&Call| call.position.to_string() == replayed || call.name == replayed;
        let found = calls.iter().filter(wanted);
        faults = found
            .flat_map(|call| all.iter().map(move |&fault| (call, fault)))
            .collect();
    } else if !is_whole() {
        faults = drawn(&faults, SAMPLE[usize::from(every > 1)], seed);
    }
    // Both faults of a call are in one shard.
    let of_shard = |(number, fault)| (number / 2 % shard.1 == shard.0).then_some(fault);
    let faults: Vec<_> = faults
        .into_iter()
        .enumerate()
        .filter_map(of_shard)
        .collect();
    let mut tally = Tally::new(name, calls.len());
    let mut bad = Vec::new();
    let mut log = fs::File::create(log_of(name)?)?;
    writeln!(log, "{} calls, {} faults", calls.len(), faults.len())?;
    for (call, fault) in faults {
        let finding = judge(part, store, call, fault)?;
        let why = argued(&finding);
        tally.add(&finding, why);
        let is_good = matches!(finding.verdict, Verdict::Stored | Verdict::NotReached);
        if !is_good {
            writeln!(log, "{finding}; {}", why.unwrap_or("not argued"))?;
        }
        if !is_good && why.is_none() {
            writeln!(log, "{}\n", finding.output)?;
            bad.push(finding);
        }
    }
    tally.keep();
    if bad.is_empty() {
        return Ok(());
    }
    let shown: Vec<String> = bad.iter().map(Finding::to_string).collect();
    Err(shown.join("\n").into())
}

/// Whether every fault is injected.
pub(crate) fn is_whole() -> bool {
    env::var_os("AUTHFERRY_TEST_ALL").is_some()
}

/// The seed of the run, as `tests/run` gives it.
fn seed() -> u64 {
    let seed = env::var("AUTHFERRY_TEST_SEED").ok();
    seed.and_then(|it| it.parse().ok()).unwrap_or(1)
}

fn drawn<T: Clone>(from: &[T], count: usize, mut seed: u64) -> Vec<T> {
    let count = count.min(from.len());
    let mut draw = || {
        // The multiplier and the increment of Knuth's MMIX.
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap_or_default() % from.len()
    };
    (0..count).map(|_| from[draw()].clone()).collect()
}

fn log_of(name: &str) -> std::io::Result<PathBuf> {
    let kind = if is_whole() { "whole" } else { "sample" };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/sweep");
    let folder = folder.join(kind);
    fs::create_dir_all(&folder)?;
    Ok(folder.join(name.replace("::", "-") + ".log"))
}
