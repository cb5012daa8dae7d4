//! Einstein's sums, as matrix products of operands whose axes are brought into order.

use super::call::{Answer, Call, Halt, Handler};
use striate_graph::{ReduceKind, Tensor};

pub(super) fn handler(operator: &str) -> Option<Handler> {
    (operator == "Einsum").then_some(einsum as Handler)
}

/// The name of an axis: a letter, or the number of an axis that an ellipsis stands for, counted from the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    Hidden(usize),
    Letter(char),
}

/// A tensor with the names of its axes.
#[derive(Clone)]
struct Named {
    tensor: Tensor,
    labels: Vec<Label>,
}

/// The names in a term, in which an ellipsis stands for `hidden` axes.
fn labels(term: &str, hidden: usize) -> Result<Vec<Label>, Halt> {
    let mut found = Vec::new();
    let mut rest = term;
    while let Some(first) = rest.chars().next() {
        if let Some(behind) = rest.strip_prefix("...") {
            found.extend((0..hidden).rev().map(Label::Hidden));
            rest = behind;
        } else if first.is_ascii_alphabetic() {
            found.push(Label::Letter(first));
            rest = &rest[first.len_utf8()..];
        } else {
            return Err(format!("`{first}` in the equation").into());
        }
    }
    Ok(found)
}

fn einsum(call: &mut Call) -> Answer {
    let equation: String = call.attributes.word("equation", "").chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match equation.split_once("->") {
        Some((left, right)) => (left, Some(right)),
        None => (equation.as_str(), None),
    };
    let (terms, tensors): (Vec<&str>, Vec<Tensor>) = (left.split(',').collect(), call.all()?);
    if terms.len() != tensors.len() {
        return Err(format!("{} inputs for the terms of `{left}`", tensors.len()).into());
    }
    let mut operands = Vec::with_capacity(terms.len());
    let mut most_hidden = 0;
    for (term, tensor) in terms.iter().zip(tensors) {
        let letters = labels(term, 0)?.len();
        let rank = tensor.shape().rank();
        let hidden = rank.checked_sub(letters).filter(|&hidden| hidden == 0 || term.contains("..."));
        let hidden = hidden.ok_or_else(|| format!("the term `{term}` for an input of shape {}", tensor.shape()))?;
        most_hidden = most_hidden.max(hidden);
        operands.push(diagonal(Named { tensor, labels: labels(term, hidden)? })?);
    }
    let output = match right {
        Some(right) => labels(right, most_hidden)?,
        None => implied(&terms, most_hidden)?,
    };
    check_sizes(&operands)?;
    let mut rest = operands.into_iter();
    let mut joined = rest.next().ok_or("it has no inputs")?;
    let others: Vec<Named> = rest.collect();
    for (index, other) in others.iter().enumerate() {
        let later = |label: &Label| others[index + 1..].iter().any(|named| named.labels.contains(label));
        joined = product(joined, other.clone(), |label| output.contains(label) || later(label));
    }
    let joined = summed(joined, |label| output.contains(label));
    arranged(joined, &output)
}

/// Without an arrow: the hidden axes, then all letters that stand once, by the alphabet.
fn implied(terms: &[&str], hidden: usize) -> Result<Vec<Label>, Halt> {
    let mut all: Vec<Label> = Vec::new();
    for term in terms {
        all.extend(labels(term, 0)?);
    }
    let mut once: Vec<Label> = all.iter().filter(|l| all.iter().filter(|m| m == l).count() == 1).copied().collect();
    once.sort_unstable();
    Ok((0..hidden).rev().map(Label::Hidden).chain(once).collect())
}

/// An axis has one size in all operands, or 1.
fn check_sizes(operands: &[Named]) -> Result<(), Halt> {
    let mut known: Vec<(Label, usize)> = Vec::new();
    for (label, size) in operands.iter().flat_map(|o| o.labels.iter().copied().zip(o.tensor.shape().to_vec())) {
        match known.iter_mut().find(|(other, _)| *other == label) {
            Some((_, before)) if *before == 1 => *before = size,
            Some((_, before)) if *before == size || size == 1 => {}
            Some((_, before)) => return Err(format!("an axis has the sizes {before} and {size}").into()),
            None => known.push((label, size)),
        }
    }
    Ok(())
}

/// A label that stands twice in one operand: its diagonal.
fn diagonal(named: Named) -> Result<Named, Halt> {
    let Named { mut tensor, mut labels } = named;
    while let Some(second) = (0..labels.len()).find(|&at| labels[..at].contains(&labels[at])) {
        let first = labels.iter().position(|label| *label == labels[second]).unwrap_or(0);
        let shape = tensor.shape();
        let size = shape[first];
        if shape[second] != size {
            return Err(format!("a diagonal of axes of {size} and {}", shape[second]).into());
        }
        let others: Vec<usize> = (0..shape.rank()).filter(|axis| ![first, second].contains(axis)).collect();
        let lead: Vec<usize> = others.iter().map(|&axis| shape[axis]).collect();
        let square =
            tensor.permute(&[&others[..], &[first, second]].concat()).reshape([&lead[..], &[size * size]].concat());
        // Every `size + 1`th element of the matrix lies on its diagonal.
        let padded = square.pad(&[0, size as isize], striate_graph::PadMode::Constant(0.0));
        let rows = padded.reshape([&lead[..], &[size, size + 1]].concat());
        let label = labels[first];
        tensor = rows.select(-1, 0);
        labels = others.iter().map(|&axis| labels[axis]).chain([label]).collect();
    }
    Ok(Named { tensor, labels })
}

/// Summed over all axes that are not kept.
fn summed(named: Named, keep: impl Fn(&Label) -> bool) -> Named {
    let axes: Vec<isize> =
        (0..named.labels.len()).filter(|&at| !keep(&named.labels[at])).map(|at| at as isize).collect();
    if axes.is_empty() {
        return named;
    }
    let labels = named.labels.iter().copied().filter(|label| keep(label)).collect();
    Named { tensor: named.tensor.reduce(ReduceKind::Sum, &axes, false), labels }
}

/// The product of two operands, summed over what they share and nobody else needs.
fn product(a: Named, b: Named, keep: impl Fn(&Label) -> bool) -> Named {
    let (in_a, in_b) = (a.labels.clone(), b.labels.clone());
    let a = summed(a, |label| keep(label) || in_b.contains(label));
    let b = summed(b, |label| keep(label) || in_a.contains(label));
    let (a, b) = stretched(a, b);
    let of = |from: &Named, wanted: &dyn Fn(&Label) -> bool| -> Vec<Label> {
        from.labels.iter().copied().filter(|label| wanted(label)).collect()
    };
    let batch = of(&a, &|label| b.labels.contains(label) && keep(label));
    let inner = of(&a, &|label| b.labels.contains(label) && !keep(label));
    let rows = of(&a, &|label| !b.labels.contains(label));
    let columns = of(&b, &|label| !a.labels.contains(label));
    let sizes = |from: &Named, labels: &[Label]| -> Vec<usize> {
        let at = |label: &Label| from.labels.iter().position(|l| l == label).unwrap_or(0);
        labels.iter().map(|label| from.tensor.size(at(label))).collect()
    };
    let (lead, m, n) = (sizes(&a, &batch), sizes(&a, &rows), sizes(&b, &columns));
    let count = |sizes: &[usize]| sizes.iter().product::<usize>();
    let k = count(&sizes(&a, &inner));
    let left = turned(&a, &[&batch[..], &rows, &inner].concat()).reshape([&lead[..], &[count(&m), k]].concat());
    let right = turned(&b, &[&batch[..], &inner, &columns].concat()).reshape([&lead[..], &[k, count(&n)]].concat());
    let tensor = left.matmul(&right).reshape([lead, m, n].concat());
    Named { tensor, labels: [batch, rows, columns].concat() }
}

/// Axes of size 1 made as long as those of the same name in the other operand.
fn stretched(a: Named, b: Named) -> (Named, Named) {
    let like = |x: &Named, other: &Named| {
        let own = x.tensor.shape();
        let size = |(at, label): (usize, &Label)| match other.labels.iter().position(|l| l == label) {
            Some(there) if own[at] == 1 => other.tensor.size(there),
            _ => own[at],
        };
        let sizes: Vec<usize> = x.labels.iter().enumerate().map(size).collect();
        Named { tensor: x.tensor.expand(sizes), labels: x.labels.clone() }
    };
    (like(&a, &b), like(&b, &a))
}

fn turned(named: &Named, order: &[Label]) -> Tensor {
    let at = |label: &Label| named.labels.iter().position(|l| l == label).unwrap_or(0);
    named.tensor.permute(&order.iter().map(at).collect::<Vec<_>>())
}

/// The axes in the order of the output.
fn arranged(named: Named, output: &[Label]) -> Answer {
    if output.len() != named.labels.len() || output.iter().any(|label| !named.labels.contains(label)) {
        return Err("the output names an axis that no input has, or one twice".into());
    }
    Ok(turned(&named, output).into())
}
