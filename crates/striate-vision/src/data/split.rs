//! A validation part out of the training part.

use super::dataset::{Dataset, Subset, labels_of};
use super::error::{DataError, Result};
use std::sync::Arc;
use striate_kernels::rng;

/// Splits so that each class gives the same fraction to the second part, at least one sample and never its last.
///
/// A function of (`labels`, `fraction`, `seed`) and nothing else. Both lists are ascending. Class `c` of `n` samples gives
/// `round(n * fraction)`; a class of one sample gives none.
///
/// # Errors
/// [`DataError::Config`] unless `0 < fraction < 1`, or if there would be nothing in the second part.
pub fn stratified_split(labels: &[usize], fraction: f64, seed: u64) -> Result<(Vec<usize>, Vec<usize>)> {
    if !(fraction > 0.0 && fraction < 1.0) {
        return Err(DataError::Config(format!("the validation fraction is {fraction}; it must lie between 0 and 1")));
    }
    let classes = labels.iter().max().map_or(0, |m| m + 1);
    let mut members = vec![Vec::new(); classes];
    for (index, &label) in labels.iter().enumerate() {
        members[label].push(index);
    }
    let key = rng::stream_key(seed, "data.val_split");
    let (mut kept, mut held) = (Vec::new(), Vec::new());
    for (class, indices) in members.iter().enumerate() {
        let n = indices.len();
        let give = if n < 2 { 0 } else { ((n as f64 * fraction).round() as usize).clamp(1, n - 1) };
        let order = rng::permutation(key, class as u64, n);
        held.extend(order[..give].iter().map(|&i| indices[i]));
        kept.extend(order[give..].iter().map(|&i| indices[i]));
    }
    if held.is_empty() {
        return Err(DataError::Config(format!(
            "{} samples are too few to take validation samples from: no class has two",
            labels.len()
        )));
    }
    kept.sort_unstable();
    held.sort_unstable();
    Ok((kept, held))
}

/// [`stratified_split`] of a data set: (training part, validation part).
///
/// # Errors
/// As [`stratified_split`] and [`labels_of`].
pub fn split_dataset(dataset: &Arc<dyn Dataset>, fraction: f64, seed: u64) -> Result<(Subset, Subset)> {
    let (train, val) = stratified_split(&labels_of(dataset.as_ref())?, fraction, seed)?;
    Ok((Subset::new(dataset.clone(), train)?, Subset::new(dataset.clone(), val)?))
}
