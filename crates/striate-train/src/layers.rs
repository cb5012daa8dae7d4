//! The layers of a net as transfer learning sees them: blocks, the head, what is frozen.

use crate::{Freeze, Result, TrainError};
use striate_graph::{ParamKind, Parameter};
use striate_nn::{Module, Visitor};

/// Containers that stand for the whole backbone: their children are its blocks.
const CONTAINERS: [&str; 3] = ["features", "layers", "blocks"];

/// A layer with values of its own, or without any layer below.
struct Layer {
    path: String,
    class: String,
    parameters: Vec<Parameter>,
}

struct Walk {
    prefix: String,
    layers: Vec<Layer>,
}

/// The parameters of one module itself.
#[derive(Default)]
struct Own {
    parameters: Vec<Parameter>,
    children: usize,
}

impl Visitor for Own {
    fn module(&mut self, _: &str, _: &dyn Module) {
        self.children += 1;
    }
    fn parameter(&mut self, _: &str, parameter: &Parameter) {
        if parameter.kind() == ParamKind::Weight {
            self.parameters.push(parameter.clone());
        }
    }
}

impl Visitor for Walk {
    fn module(&mut self, name: &str, module: &dyn Module) {
        let longer = if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) };
        let outer = std::mem::replace(&mut self.prefix, longer);
        let mut own = Own::default();
        module.visit(&mut own);
        if own.children == 0 || !own.parameters.is_empty() {
            let (path, class) = (self.prefix.clone(), module.class_name());
            self.layers.push(Layer { path, class, parameters: own.parameters });
        }
        module.visit(self);
        self.prefix = outer;
    }
    fn parameter(&mut self, _: &str, _: &Parameter) {}
}

/// A net's layers in its own order.
pub(crate) struct Layers {
    layers: Vec<Layer>,
    /// How the names begin of heads that only training uses.
    auxiliary: &'static [&'static str],
}

/// What torchvision calls the part of a segmentation net before its heads.
const BACKBONE: &str = "backbone";

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// What was frozen.
pub(crate) struct Frozen {
    /// Layers that behave as in evaluation.
    pub layers: Vec<String>,
    /// In words.
    pub note: String,
}

impl Layers {
    pub fn of(net: &dyn Module, auxiliary: &'static [&'static str]) -> Layers {
        let mut walk = Walk { prefix: String::new(), layers: Vec::new() };
        net.visit(&mut walk);
        Layers { layers: walk.layers, auxiliary }
    }

    fn is_auxiliary(&self, layer: &Layer) -> bool {
        self.auxiliary.iter().any(|start| layer.path.starts_with(start))
    }

    /// The path of the head: the last layer with a weight matrix or kernel, heads that only training uses left out.
    pub fn head(&self) -> Option<&str> {
        let is_head =
            |layer: &&Layer| !self.is_auxiliary(layer) && layer.parameters.iter().any(|p| p.shape().rank() >= 2);
        self.layers.iter().rev().find(is_head).map(|layer| layer.path.as_str())
    }

    /// The blocks with parameters, in order: children of the net, those of `features` and the like one by one. The last ends with
    /// the head.
    pub fn blocks(&self) -> Vec<String> {
        let mut blocks: Vec<String> = Vec::new();
        for layer in self.layers.iter().filter(|layer| !layer.parameters.is_empty()) {
            let mut parts = layer.path.splitn(3, '.');
            let block = match (parts.next(), parts.next()) {
                (Some(first), Some(second)) if CONTAINERS.contains(&first) => format!("{first}.{second}"),
                (first, _) => first.unwrap_or_default().to_owned(),
            };
            if blocks.last() != Some(&block) {
                blocks.push(block);
            }
        }
        blocks
    }

    /// Where each parameter stands: the number of its block, and whether it belongs to the head.
    pub fn places(&self) -> Vec<(Parameter, usize, bool)> {
        let (blocks, head) = (self.blocks(), self.head().unwrap_or_default());
        let place = |layer: &Layer| blocks.iter().position(|block| is_below(&layer.path, block)).unwrap_or(0);
        let all = self.layers.iter().flat_map(|layer| layer.parameters.iter().map(move |p| (layer, p)));
        all.map(|(layer, p)| (p.clone(), place(layer), layer.path == head)).collect()
    }

    /// Freezes parameters, and finds the layers that are frozen with them: those without parameters before the last frozen one too,
    /// so that a dropout in the middle of a frozen part is still.
    pub fn freeze(&self, freeze: Option<Freeze>, batch_norm: bool) -> Result<Option<Frozen>> {
        let (blocks, head) = (self.blocks(), self.head().unwrap_or_default().to_owned());
        let wanted: Box<dyn Fn(&Layer) -> bool> = match freeze {
            None => Box::new(|_| false),
            // Nets that call a part so mean it.
            Some(Freeze::Backbone) if blocks.iter().any(|block| block == BACKBONE) => {
                Box::new(|layer| is_below(&layer.path, BACKBONE) || self.is_auxiliary(layer))
            }
            Some(Freeze::Backbone) => Box::new(|layer| layer.path != head),
            Some(Freeze::Blocks(n)) if n >= blocks.len() => {
                let fix =
                    format!("the net has {} blocks ({}), and the last is the head's", blocks.len(), blocks.join(", "));
                return Err(TrainError::setting("--freeze", n, &fix));
            }
            Some(Freeze::Blocks(n)) => {
                Box::new(move |layer| blocks[..n].iter().any(|block| is_below(&layer.path, block)))
            }
        };
        let mut still: Vec<bool> = self.layers.iter().map(|l| !l.parameters.is_empty() && wanted(l)).collect();
        if let Some(last) = still.iter().rposition(|&still| still) {
            for (layer, still) in self.layers[..last].iter().zip(&mut still) {
                *still |= layer.parameters.is_empty();
            }
        }
        for (layer, still) in self.layers.iter().zip(&mut still) {
            *still |= batch_norm && layer.class.starts_with("BatchNorm");
        }
        let frozen = || self.layers.iter().zip(&still).filter(|(_, still)| **still).map(|(layer, _)| layer);
        let mut values = 0;
        for parameter in frozen().flat_map(|layer| &layer.parameters) {
            parameter.set_requires_grad(false);
            values += parameter.shape().numel();
        }
        if values == 0 {
            return Ok(None);
        }
        let total: usize = self.layers.iter().flat_map(|layer| &layer.parameters).map(|p| p.shape().numel()).sum();
        let what = match (freeze, batch_norm) {
            (Some(Freeze::Backbone), _) => "everything but the head".to_owned(),
            (Some(Freeze::Blocks(n)), false) => format!("the first {n} blocks"),
            (Some(Freeze::Blocks(n)), true) => format!("the first {n} blocks and all batch norms"),
            (None, _) => "all batch norms".to_owned(),
        };
        let note = format!("frozen: {what}, {values} of {total} values; the head is {head}");
        Ok(Some(Frozen { layers: frozen().map(|layer| layer.path.clone()).collect(), note }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use striate_vision::models::find_model;

    fn net(name: &str) -> Box<dyn Module> {
        find_model(name).unwrap().structure([3, 64, 64], 5).unwrap()
    }

    #[test]
    fn blocks_and_heads_are_what_a_reader_of_the_net_would_say() {
        for (name, head, blocks, first, last) in [
            ("resnet18", "fc", 7, "conv1", "fc"),
            ("mobilenet_v2", "classifier.1", 20, "features.0", "classifier"),
            ("vgg11", "classifier.6", 9, "features.0", "classifier"),
        ] {
            let net = net(name);
            let layers = Layers::of(&*net, &[]);
            let found = layers.blocks();
            assert_eq!(layers.head(), Some(head), "{name}");
            assert_eq!(
                (found.len(), found[0].as_str(), found[found.len() - 1].as_str()),
                (blocks, first, last),
                "{name}"
            );
            assert_eq!(layers.places().len(), net.parameters().len(), "{name}");
        }
    }

    #[test]
    fn a_frozen_backbone_leaves_the_head_and_what_stands_before_it() {
        let net = net("mobilenet_v2");
        let frozen = Layers::of(&*net, &[]).freeze(Some(Freeze::Backbone), false).unwrap().unwrap();
        let free: Vec<String> =
            net.named_parameters().into_iter().filter(|(_, p)| p.requires_grad()).map(|(name, _)| name).collect();
        assert_eq!(free, ["classifier.1.weight", "classifier.1.bias"]);
        assert!(frozen.layers.iter().any(|path| path == "features.0.1"));
        assert!(!frozen.layers.iter().any(|path| path.starts_with("classifier")), "its dropout stays");
        assert!(frozen.note.contains("classifier.1"), "{}", frozen.note);
    }

    #[test]
    fn heads_for_training_alone_are_no_heads_and_a_backbone_is_what_the_net_calls_so() {
        for (name, wanted) in [
            ("googlenet", "fc"),
            ("inception_v3", "fc"),
            ("fcn_resnet50", "classifier.4"),
            ("lraspp_mobilenet_v3_large", "classifier.high_classifier"),
        ] {
            let spec = find_model(name).unwrap();
            let net = spec.structure([3, 96, 96], 5).unwrap();
            let layers = Layers::of(&*net, spec.auxiliary);
            assert_eq!(layers.head(), Some(wanted), "{name}");
            if name != "fcn_resnet50" {
                continue;
            }
            layers.freeze(Some(Freeze::Backbone), false).unwrap().unwrap();
            let free = net.named_parameters().into_iter().filter(|(_, p)| p.requires_grad());
            let free: Vec<String> = free.map(|(name, _)| name).collect();
            assert!(!free.is_empty() && free.iter().all(|name| name.starts_with("classifier.")), "{free:?}");
        }
    }

    #[test]
    fn dropout_within_the_frozen_part_is_still() {
        let net = net("vgg11");
        let frozen = Layers::of(&*net, &[]).freeze(Some(Freeze::Backbone), false).unwrap().unwrap();
        let still = |path: &str| frozen.layers.iter().any(|layer| layer == path);
        assert!(still("classifier.2") && still("classifier.3") && !still("classifier.5") && !still("classifier.6"));
    }

    #[test]
    fn a_number_of_blocks_or_batch_norms_alone_can_be_frozen() {
        let first = net("resnet18");
        Layers::of(&*first, &[]).freeze(Some(Freeze::Blocks(3)), false).unwrap().unwrap();
        let is_free = |net: &dyn Module, name: &str| {
            net.named_parameters().iter().find(|(found, _)| found == name).unwrap().1.requires_grad()
        };
        assert!(!is_free(&*first, "bn1.bias") && !is_free(&*first, "layer1.1.conv2.weight"));
        assert!(is_free(&*first, "layer2.0.conv1.weight"));
        let norms = net("resnet18");
        Layers::of(&*norms, &[]).freeze(None, true).unwrap().unwrap();
        assert!(!is_free(&*norms, "layer4.1.bn2.weight") && is_free(&*norms, "layer4.1.conv2.weight"));
        let error = Layers::of(&*norms, &[]).freeze(Some(Freeze::Blocks(7)), false).err().unwrap().to_string();
        assert!(error.contains("7 blocks"), "{error}");
        assert!(Layers::of(&*net("lenet"), &[]).freeze(None, true).unwrap().is_none());
    }
}
