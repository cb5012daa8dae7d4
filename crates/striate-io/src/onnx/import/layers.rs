//! The layers of a model, by the names of its cells.

use super::model::OnnxModel;
use std::collections::HashSet;
use striate_graph::{Parameter, Tensor};
use striate_nn::{Module, Visitor};

/// The cells of one layer, by the last part of their names.
pub(super) struct Layer {
    pub name: String,
    pub cells: Vec<(String, Parameter)>,
}

impl Module for Layer {
    fn forward(&self, x: &Tensor) -> Tensor {
        x.clone()
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        self.cells.iter().for_each(|(name, cell)| visitor.parameter(name, cell));
    }

    fn class_name(&self) -> String {
        "OnnxLayer".to_owned()
    }
}

/// Layer and own name: `layer1.0.conv1` and `weight`. A name without parts is a layer of its own.
pub(super) fn parts(name: &str) -> (&str, &str) {
    name.rsplit_once('.').unwrap_or((name, "weight"))
}

/// Cells by layer, in the order in which nodes read them.
pub(super) fn layers_of(model: &OnnxModel) -> Vec<Layer> {
    let mut layers: Vec<Layer> = Vec::new();
    let mut taken: HashSet<String> = HashSet::new();
    for cell in model.parameters() {
        let full = cell.name();
        let (layer, name) = parts(&full);
        let mut name = name.to_owned();
        while !taken.insert(format!("{layer}.{name}")) {
            name.push('_');
        }
        match layers.iter_mut().find(|known| known.name == layer) {
            Some(known) => known.cells.push((name, cell.clone())),
            None => layers.push(Layer { name: layer.to_owned(), cells: vec![(name, cell.clone())] }),
        }
    }
    layers
}

/// The cells under the names that they have in a state dict.
pub(super) fn state_names(model: &OnnxModel) -> Vec<(String, Parameter)> {
    let of_layer = |layer: Layer| -> Vec<(String, Parameter)> {
        layer.cells.into_iter().map(|(name, cell)| (format!("{}.{name}", layer.name), cell)).collect()
    };
    layers_of(model).into_iter().flat_map(of_layer).collect()
}
