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
