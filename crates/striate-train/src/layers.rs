//! The layers of a net as transfer learning sees them: blocks, the head, what is frozen.

use crate::{Freeze, Result, TrainError};
use std::collections::BTreeSet;
use striate_graph::{ParamKind, Parameter};
use striate_nn::{Module, Visitor};
use striate_vision::models::TaskNet;

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
    /// Of a detector: where its backbone is, the rest is its head.
    body: Option<&'static str>,
}

/// Where the backbones of detectors are, what stands behind them (pyramids, more maps) left out: the first of these that there is.
const BODIES: [&str; 3] = ["backbone.body", "backbone.features", BACKBONE];

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
        Layers { layers: walk.layers, auxiliary, body: None }
    }

    /// As [`Layers::of`], with the backbone of a detector.
    pub fn of_task(net: &TaskNet, auxiliary: &'static [&'static str]) -> Layers {
        let layers = Layers::of(&**net, auxiliary);
        let is_there =
            |body: &&str| layers.layers.iter().any(|layer| is_below(&layer.path, body) && layer.path != **body);
        let body = net.detector().and_then(|_| BODIES.into_iter().find(is_there));
        Layers { body, ..layers }
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

    /// Whether a layer belongs to the head: of a detector that is all behind its backbone.
    fn is_head(&self, layer: &Layer) -> bool {
        match self.body {
            Some(body) => !is_below(&layer.path, body),
            None => self.head() == Some(layer.path.as_str()),
        }
    }

    /// The block that a layer belongs to: a child of the net, or of `features` and the like, or of a detector's backbone.
    fn block_of(&self, path: &str) -> String {
        let first = |parts: usize| path.split('.').take(parts).collect::<Vec<_>>().join(".");
        match self.body {
            Some(body) if is_below(path, body) => {
                let parts = body.split('.').count();
                // SSDLite cuts its features in two rows.
                let rows =
                    body == BODIES[1] && self.layers.iter().any(|layer| layer.path.starts_with("backbone.features.0."));
                let contained = path.split('.').nth(parts).is_some_and(|child| CONTAINERS.contains(&child));
                first(parts + if rows || contained { 2 } else { 1 })
            }
            Some(body) => first(if is_below(path, BACKBONE) && body != BACKBONE { 2 } else { 1 }),
            None => first(if CONTAINERS.contains(&first(1).as_str()) { 2 } else { 1 }),
        }
    }

    /// Whether a detector's backbone stands below a layer, whose own parameters then belong to no block.
    fn is_around_body(&self, layer: &Layer) -> bool {
        self.body.is_some_and(|body| is_below(body, &layer.path))
    }

    /// The blocks with parameters, in order: children of the net, those of `features` and the like one by one. The last ends with
    /// the head.
    pub fn blocks(&self) -> Vec<String> {
        let mut blocks: Vec<String> = Vec::new();
        for layer in self.layers.iter().filter(|layer| !layer.parameters.is_empty() && !self.is_around_body(layer)) {
            let block = self.block_of(&layer.path);
            if blocks.last() != Some(&block) {
                blocks.push(block);
            }
        }
        blocks
    }

    /// Where each parameter stands: the number of its block, and whether it belongs to the head.
    pub fn places(&self) -> Vec<(Parameter, usize, bool)> {
        let blocks = self.blocks();
        let place = |layer: &Layer| {
            let block = self.block_of(&layer.path);
            blocks.iter().position(|other| *other == block).unwrap_or(0)
        };
        let all = self.layers.iter().flat_map(|layer| layer.parameters.iter().map(move |p| (layer, p)));
        all.map(|(layer, p)| (p.clone(), place(layer), self.is_head(layer))).collect()
    }

    /// How much of a detector's backbone can be frozen where only arrays of these names have values worth keeping: all of it, or
    /// the blocks before the first that lacks some.
    ///
    /// # Errors
    /// Not even its first block.
    pub fn freezable(&self, taken: &BTreeSet<String>) -> Result<Freeze> {
        let Some(body) = self.body else { return Ok(Freeze::Backbone) };
        let lacks = |layer: &&Layer| {
            let known = |p: &Parameter| taken.contains(&*p.name());
            is_below(&layer.path, body) && !layer.parameters.iter().all(known)
        };
        let Some(first) = self.layers.iter().find(lacks) else { return Ok(Freeze::Backbone) };
        let block = self.block_of(&first.path);
        match self.blocks().iter().position(|other| *other == block) {
            None | Some(0) => {
                let fix = format!("the weights file has no {}: there would be random values in it", first.path);
                Err(TrainError::setting("--freeze", "backbone", &fix))
            }
            Some(blocks) => Ok(Freeze::Blocks(blocks)),
        }
    }

    /// Freezes parameters, and finds the layers that are frozen with them: those without parameters before the last frozen one too,
    /// so that a dropout in the middle of a frozen part is still.
    pub fn freeze(&self, freeze: Option<Freeze>, batch_norm: bool) -> Result<Option<Frozen>> {
        let (blocks, head) = (self.blocks(), self.head().unwrap_or_default().to_owned());
        let wanted: Box<dyn Fn(&Layer) -> bool> = match freeze {
            None => Box::new(|_| false),
            Some(Freeze::Backbone) if self.body.is_some() => Box::new(|layer| !self.is_head(layer)),
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
                let first = blocks[..n].to_vec();
                Box::new(move |layer| !self.is_around_body(layer) && first.contains(&self.block_of(&layer.path)))
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
            (Some(Freeze::Backbone), _) if self.body.is_some() => "the backbone".to_owned(),
            (Some(Freeze::Backbone), _) => "everything but the head".to_owned(),
            (Some(Freeze::Blocks(n)), false) => format!("the first {n} blocks"),
            (Some(Freeze::Blocks(n)), true) => format!("the first {n} blocks and all batch norms"),
            (None, _) => "all batch norms".to_owned(),
        };
        let learns = match self.body {
            None => format!("the head is {head}"),
            Some(_) => format!("what learns begins with {}", self.first_free(&still)),
        };
        let note = format!("frozen: {what}, {values} of {total} values; {learns}");
        Ok(Some(Frozen { layers: frozen().map(|layer| layer.path.clone()).collect(), note }))
    }

    /// The block of the first layer with parameters that is not still.
    fn first_free(&self, still: &[bool]) -> String {
        let free = self.layers.iter().zip(still).find(|(layer, still)| !**still && !layer.parameters.is_empty());
        free.map(|(layer, _)| self.block_of(&layer.path)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use striate_vision::models::detection::find_detector;
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

    fn detector(name: &str) -> TaskNet {
        let spec = find_detector(name).unwrap();
        TaskNet::Detector(spec.structure(spec.labels(3), None).unwrap())
    }

    /// Names of the parameters that learn.
    fn free(net: &TaskNet) -> Vec<String> {
        let free = net.named_parameters().into_iter().filter(|(_, p)| p.requires_grad());
        free.map(|(name, _)| name).collect()
    }

    #[test]
    fn a_detectors_backbone_ends_where_its_pyramid_begins() {
        for (name, first, behind) in [
            ("fasterrcnn_mobilenet_v3_large_320_fpn", ["backbone.body.0", "backbone.body.1"], "backbone.fpn"),
            ("retinanet_resnet50_fpn", ["backbone.body.conv1", "backbone.body.bn1"], "backbone.fpn"),
            ("ssd300_vgg16", ["backbone.features.0", "backbone.features.2"], "backbone.extra"),
            ("ssdlite320_mobilenet_v3_large", ["backbone.features.0.0", "backbone.features.0.1"], "backbone.extra"),
            ("striate_det_n", ["backbone.stem", "backbone.stage1"], "neck"),
        ] {
            let net = detector(name);
            let layers = Layers::of_task(&net, &[]);
            let blocks = layers.blocks();
            assert_eq!(blocks[..2], first, "{name}");
            assert!(blocks.iter().any(|block| block == behind), "{name}: {blocks:?}");
            assert_eq!(layers.places().len(), net.parameters().len(), "{name}");
            let frozen = layers.freeze(Some(Freeze::Backbone), false).unwrap().unwrap();
            let free = free(&net);
            let body = layers.body.unwrap();
            assert!(!free.is_empty() && free.iter().all(|name| !is_below(name, body)), "{name}: {free:?}");
            let learning = layers.places().iter().filter(|(.., in_head)| *in_head).count();
            assert_eq!(free.len(), learning, "{name}");
            assert!(frozen.note.starts_with("frozen: the backbone, "), "{}", frozen.note);
        }
    }

    #[test]
    fn what_is_frozen_has_values_of_the_file() {
        let net = detector("ssdlite320_mobilenet_v3_large");
        let layers = Layers::of_task(&net, &[]);
        let all: BTreeSet<String> = net.named_parameters().into_iter().map(|(name, _)| name).collect();
        assert_eq!(layers.freezable(&all).unwrap(), Freeze::Backbone);
        let known = |without: &str| all.iter().filter(|name| !name.starts_with(without)).cloned().collect();
        // The second half begins with block 14 of these.
        assert_eq!(layers.freezable(&known("backbone.features.1.0.3")).unwrap(), Freeze::Blocks(14));
        let error = layers.freezable(&known("backbone.features.0.0.0")).unwrap_err().to_string();
        assert!(error.contains("--freeze") && error.contains("backbone.features.0.0.0"), "{error}");
        layers.freeze(Some(Freeze::Blocks(14)), false).unwrap().unwrap();
        assert!(free(&net)[0].starts_with("backbone.features.1.0."), "{:?}", free(&net));
    }
}
