//! The arrays of a weights file.

use crate::failure::Failure;
use crate::output::{Output, print_json, print_line};
use crate::table::{bytes, grouped, shape, significant, table};
use serde_json::json;
use std::path::Path;
use striate::graph::{Array, Buffer};
use striate::io::{Weights, printable};

/// What the values of an array are like.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Values {
    /// Of those that are numbers; nothing without one.
    min: Option<f64>,
    max: Option<f64>,
    /// Of those that are finite.
    mean: Option<f64>,
    /// NaN and infinite ones.
    not_finite: u64,
}

impl Values {
    fn of(array: &Array) -> Values {
        let (mut min, mut max, mut sum, mut finite) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0u64);
        each(array, |value| {
            // a NaN changes neither
            min = min.min(value);
            max = max.max(value);
            if value.is_finite() {
                sum += value;
                finite += 1;
            }
        });
        let known = min <= max;
        Values {
            min: known.then_some(min),
            max: known.then_some(max),
            mean: (finite > 0).then(|| sum / finite as f64),
            not_finite: array.numel() as u64 - finite,
        }
    }
}

fn each(array: &Array, mut see: impl FnMut(f64)) {
    match array.buffer() {
        Buffer::F32(values) => values.iter().for_each(|&v| see(v.into())),
        Buffer::F64(values) => values.iter().for_each(|&v| see(v)),
        Buffer::F16(values) => values.iter().for_each(|&v| see(v.into())),
        Buffer::BF16(values) => values.iter().for_each(|&v| see(v.into())),
        Buffer::I8(values) => values.iter().for_each(|&v| see(v.into())),
        Buffer::I16(values) => values.iter().for_each(|&v| see(v.into())),
        Buffer::I32(values) => values.iter().for_each(|&v| see(v.into())),
        Buffer::I64(values) => values.iter().for_each(|&v| see(v as f64)),
        Buffer::U8(values) => values.iter().for_each(|&v| see(v.into())),
        Buffer::Bool(values) => values.iter().for_each(|&v| see(u8::from(v).into())),
    }
}

fn byte_len(array: &Array) -> u64 {
    array.numel() as u64 * array.dtype().size() as u64
}

/// Prints the table, or the object.
pub fn show(path: &Path, weights: &Weights, output: Output) -> Result<(), Failure> {
    let elements: u64 = weights.arrays.iter().map(|(_, array)| array.numel() as u64).sum();
    let total: u64 = weights.arrays.iter().map(|(_, array)| byte_len(array)).sum();
    if output == Output::Json {
        let arrays: Vec<serde_json::Value> = weights.arrays.iter().map(|(name, array)| one(name, array)).collect();
        let unknown = weights.unknown.iter().map(|(entry, class)| json!({"entry": entry, "class": class}));
        print_json(&json!({
            "file": path, "format": weights.format.to_string(), "arrays": arrays, "elements": elements, "bytes": total,
            "metadata": weights.metadata, "unknown": unknown.collect::<Vec<_>>(), "notes": weights.notes,
        }));
        return Ok(());
    }
    let cells = |(name, array): (&str, &Array)| {
        let values = Values::of(array);
        let number = |value: Option<f64>| value.map_or("-".to_owned(), significant);
        let count = if values.not_finite == 0 { String::new() } else { grouped(values.not_finite) };
        vec![
            printable(name),
            shape(array.shape()),
            array.dtype().to_string(),
            grouped(array.numel() as u64),
            number(values.min),
            number(values.max),
            number(values.mean),
            count,
        ]
    };
    let mut rows: Vec<Vec<String>> = weights.arrays.iter().map(cells).collect();
    let mut head = vec!["array", "shape", "dtype", "elements", "min", "max", "mean"];
    match rows.iter().any(|row| !row[7].is_empty()) {
        true => head.push("not finite"),
        false => rows.iter_mut().for_each(|row| row.truncate(7)),
    }
    print_line(&table(&head, &rows, &[0, 1, 2]));
    let count = weights.arrays.len();
    let of = path.display();
    let format = weights.format;
    print_line(&format!("\n{of} ({format}): {count} array(s), {} elements, {}", grouped(elements), bytes(total)));
    for (key, value) in &weights.metadata {
        print_line(&format!("metadata {}: {}", printable(key), printable(value)));
    }
    for (entry, class) in &weights.unknown {
        print_line(&format!("of an unknown class: `{entry}` ({class}); nothing was called"));
    }
    weights.notes.iter().for_each(|note| print_line(&format!("note: {note}")));
    Ok(())
}

fn one(name: &str, array: &Array) -> serde_json::Value {
    let values = Values::of(array);
    json!({
        "name": name, "shape": array.shape().dims(), "dtype": array.dtype().to_string(), "elements": array.numel(),
        "bytes": byte_len(array), "min": values.min, "max": values.max, "mean": values.mean,
        "not_finite": values.not_finite,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_no_numbers_are_counted() {
        let of = |values: &[f32]| Values::of(&Array::from_vec([values.len()], values.to_vec()).unwrap());
        let plain = of(&[1.0, -2.0, 4.0]);
        assert_eq!(plain, Values { min: Some(-2.0), max: Some(4.0), mean: Some(1.0), not_finite: 0 });
        let odd = of(&[f32::NAN, 3.0, f32::INFINITY]);
        assert_eq!(odd, Values { min: Some(3.0), max: Some(f64::INFINITY), mean: Some(3.0), not_finite: 2 });
        assert_eq!(of(&[]), Values { min: None, max: None, mean: None, not_finite: 0 });
        assert_eq!(of(&[f32::NAN]).min, None);
    }
}
