//! Fidelity: what striate computes against what PyTorch computed, for every layer, loss, optimizer, schedule, initialiser and
//! for printing. `tools/ref` makes the fixtures.

#[path = "../common/mod.rs"]
mod common;

mod build;
mod detectors;
mod engine;
mod initial;
mod layers;
mod losses;
mod optimizers;
mod printing;
mod schedules;
mod trajectories;
mod zoo;

/// Fails with all the failures of a family, not with the first.
fn report(family: &str, cases: usize, failures: &[String]) {
    assert!(cases > 0, "{family}: no cases");
    assert!(failures.is_empty(), "{family}: {} of {cases} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// The failures of the nets that fail in each of their runs. A ReLU whose input lies within rounding of 0 may fall on the other side
/// than in float64, which is as much as 1e-2 of a gradient, in PyTorch's float32 as in ours; but not in every batch, as what is wrong does.
fn of_all_runs(cases: &[common::Case], follow: impl Fn(&common::Case) -> Result<(), String>) -> Vec<String> {
    let mut runs = std::collections::BTreeMap::<&str, (usize, Vec<String>)>::new();
    for case in cases {
        let (count, failures) = runs.entry(&case.layer).or_default();
        *count += 1;
        failures.extend(follow(case).err());
    }
    runs.into_values().filter(|(count, failures)| failures.len() == *count).flat_map(|(_, failures)| failures).collect()
}
