//! What can be computed when a model is opened: constants become data, and which initializers are cells is decided.

use super::binder::fold_node;
use super::model::{Initial, OnnxModel, used_names};
use crate::onnx::proto::NodeProto;
use std::collections::{BTreeMap, HashMap, HashSet};
use striate_graph::{Array, Parameter};

/// What an input of an operator holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// Sizes, bounds, factors: asked for as values.
    Setting,
    /// An operand like any other.
    Operand,
    /// Running statistics.
    Statistic,
    /// What is learned.
    Weight,
}

fn role(node: &NodeProto, index: usize) -> Role {
    match (node.op_type.as_str(), index) {
        ("BatchNormalization", 3 | 4) => Role::Statistic,
        ("Conv" | "ConvTranspose" | "Gemm", 1 | 2) => Role::Weight,
        ("BatchNormalization" | "InstanceNormalization" | "LayerNormalization" | "GroupNormalization", 1 | 2) => {
            Role::Weight
        }
        ("PRelu", 1) | ("MatMul", _) => Role::Weight,
        (
            "Resize" | "Upsample" | "Pad" | "Clip" | "Slice" | "Reshape" | "Expand" | "Tile" | "Unsqueeze" | "Squeeze"
            | "TopK" | "OneHot" | "Dropout" | "Split" | "CumSum",
            1..,
        )
        | ("Range" | "ConstantOfShape" | "If", _) => Role::Setting,
        _ => Role::Operand,
    }
}

/// Movements that are carried out on a weight itself: a matrix stored transposed, filters stored in another type.
fn moves(node: &NodeProto) -> bool {
    let operator = node.op_type.as_str();
    matches!(
        operator,
        "Identity" | "Cast" | "Transpose" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" | "DequantizeLinear"
    )
}

/// Computes the nodes whose inputs are all given, and sorts the initializers.
pub(super) fn fold(model: &mut OnnxModel, data: HashMap<String, Result<Array, String>>) {
    let mut wrong = HashMap::new();
    let mut known: BTreeMap<String, Array> = BTreeMap::new();
    for (name, array) in data {
        match array {
            Ok(array) => drop(known.insert(name, array)),
            Err(why) => drop(wrong.insert(name, Initial::Wrong(why))),
        }
    }
    let produced: HashSet<String> = known.keys().cloned().collect();
    let nodes = std::mem::take(&mut model.nodes);
    let mut left = Vec::with_capacity(nodes.len());
    // A weight that is moved keeps its name where nothing else reads it.
    let mut names: HashMap<String, String> = HashMap::new();
    for node in nodes {
        let is_known = |name: &String| name.is_empty() || known.contains_key(name);
        let constant = node.op_type == "Constant";
        let ready = node.input.iter().all(is_known) && node.output.len() == 1;
        if !(ready
            && (constant
                || !node.input.is_empty() && (moves(&node) || node.input.iter().all(|name| !is_float(&known, name)))))
        {
            left.push(node);
            continue;
        }
        match fold_node(model, &node, &known) {
            Some(array) => {
                if let Some(source) = node
                    .input
                    .first()
                    .filter(|name| moves(&node) && (produced.contains(*name) || names.contains_key(*name)))
                {
                    names.insert(node.output[0].clone(), names.get(source).unwrap_or(source).clone());
                }
                known.insert(node.output[0].clone(), array);
            }
            None => left.push(node),
        }
    }
    let mut roles: HashMap<&str, Role> = HashMap::new();
    let mut nested: HashSet<&str> = HashSet::new();
    for node in &left {
        for (index, name) in node.input.iter().enumerate() {
            let role = role(node, index);
            roles.entry(name).and_modify(|old| *old = role.max(*old)).or_insert(role);
        }
        nested.extend(used_names(std::slice::from_ref(node)));
    }
    let mut initial = wrong;
    let mut taken: HashSet<String> = HashSet::new();
    for (name, array) in known {
        let role = roles.get(name.as_str()).copied();
        if role.is_none() && !nested.contains(name.as_str()) && !model.outputs.contains(&name) {
            continue;
        }
        let is_cell = array.dtype().is_float()
            && match role {
                None | Some(Role::Setting) => false,
                Some(Role::Operand) => array.numel() > 1,
                Some(Role::Statistic | Role::Weight) => true,
            };
        let value = match is_cell {
            false => Initial::Data(array),
            true => {
                let cell = if role == Some(Role::Statistic) { Parameter::buffer(array) } else { Parameter::new(array) };
                let own = names.get(&name).filter(|own| !roles.contains_key(own.as_str()));
                let label = own.filter(|own| taken.insert((*own).clone())).unwrap_or(&name);
                cell.set_name(label);
                Initial::Cell(cell)
            }
        };
        initial.insert(name, value);
    }
    model.nodes = left;
    model.initial = initial;
}

fn is_float(known: &BTreeMap<String, Array>, name: &str) -> bool {
    known.get(name).is_some_and(|array| array.dtype().is_float() && array.numel() > 1)
}
