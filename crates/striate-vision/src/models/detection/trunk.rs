//! Any classifier under a pyramid. Which of its values are the maps is no table: it is found from the graph that the net records.

use super::pyramid::{BackboneWithFpn, FeaturePyramidNetwork, LastLevel, Taps, WIDTH};
use crate::models::parts::Net;
use crate::models::{ModelError, ModelSpec};
use striate_graph::{DType, Mode, Tensor, Trace};
use striate_nn::{Module, assign_names};

/// Height and width of the picture on which a net is looked at. No two strides have a side in common, so that what lies with other
/// axes (a permuted map) or has a fixed size (a pool's) is not taken for a map.
const PROBE: [usize; 2] = [384, 640];
/// Pixels of the picture by pixel of the maps, the finest first.
pub(super) const STRIDES: [usize; 4] = [4, 8, 16, 32];

/// What of a classifier stands under a pyramid.
pub(super) struct Trunk {
    spec: &'static ModelSpec,
    /// So many of its first layers.
    layers: usize,
    /// Paths of the layers that give the maps of stride 4, 8 and 16; that of stride 32 is what the last one gives.
    taps: [String; 3],
    /// Channels of the maps.
    widths: [usize; 4],
}

impl Trunk {
    /// The layers of a classifier up to its last map of stride 32, and the last value of each finer stride that everything behind it
    /// comes from: of a residual net the values of its stages, of inverted residuals what an expansion gives to the strided
    /// convolution behind it.
    ///
    /// # Errors
    /// [`ModelError::Backbone`] for a net that has no such maps; `name` is the detector's.
    pub fn find(name: &str, spec: &'static ModelSpec) -> Result<Trunk, ModelError> {
        let refuse = |why: String| ModelError::Backbone { name: name.to_owned(), backbone: spec.name, why };
        let missing = |stride: usize| refuse(format!("it has no map of which a pixel is {stride} of the picture's"));
        let Some(net) = spec.row() else { return Err(missing(STRIDES[3])) };
        let trace = Trace::new(Mode::Eval);
        let x = trace.input("x", [1, 3, PROBE[0], PROBE[1]], DType::F32);
        let layers = net.layers_until(&x, |y| is_map(y, STRIDES[3])).ok_or_else(|| missing(STRIDES[3]))?;
        let net = net.first_layers(layers);
        assign_names(&net);
        let y = net.call(&x);
        trace.check().map_err(|error| refuse(error.to_string()))?;
        let stages = bottlenecks(&x, &y);
        let of = |stride: usize| {
            let found = stages.iter().rev().find(|(_, value)| is_map(value, stride));
            found.map(|(path, value)| (path.clone(), value.size(1))).ok_or_else(|| missing(stride))
        };
        let [(a, first), (b, second), (c, third)] = [of(STRIDES[0])?, of(STRIDES[1])?, of(STRIDES[2])?];
        Ok(Trunk { spec, layers, taps: [a, b, c], widths: [first, second, third, y.size(1)] })
    }

    /// The classifier.
    pub fn spec(&self) -> &'static ModelSpec {
        self.spec
    }

    /// The layers with a pyramid on the maps from the stride number `first` on.
    pub fn backbone(&self, first: usize, last: LastLevel) -> BackboneWithFpn {
        // It was there when the trunk was found.
        let net = self.spec.row().unwrap_or_else(|| Net::new("Sequential"));
        let fpn = FeaturePyramidNetwork::new(&self.widths[first..], WIDTH, last);
        BackboneWithFpn::new(net.first_layers(self.layers), Taps::Paths(self.taps[first..].to_vec()), fpn)
    }
}

/// True for `[N, C, H, W]` of which a pixel is so many of the probe's.
fn is_map(value: &Tensor, stride: usize) -> bool {
    let shape = value.shape();
    shape.rank() == 4 && [shape[2], shape[3]] == PROBE.map(|side| side / stride)
}

/// The values of layers, by path and in order, that every way from `x` to `y` leads through: no use of an earlier value passes them
/// by. Where several layers give the same value, the shortest path stands last.
fn bottlenecks(x: &Tensor, y: &Tensor) -> Vec<(String, Tensor)> {
    let mut named = x.trace().with_graph(|graph| {
        let (first, last) = (x.id().index(), y.id().index());
        let inputs = |index: usize| graph.nodes[index].inputs.iter().map(|id| id.index());
        let mut needed = vec![false; last + 1];
        needed[last] = true;
        for index in (first..=last).rev() {
            if needed[index] {
                inputs(index).for_each(|input| needed[input] = true);
            }
        }
        // Of what comes from x and y needs: the last value that uses it.
        let mut between = vec![false; last + 1];
        let mut last_use = vec![first; last + 1];
        between[first] = true;
        for index in first + 1..=last {
            between[index] = needed[index] && inputs(index).any(|input| between[input]);
            if between[index] {
                inputs(index).for_each(|input| last_use[input] = index);
            }
        }
        let mut reach = first;
        let mut narrow = vec![false; last + 1];
        for index in (first..=last).filter(|index| between[*index]) {
            narrow[index] = reach <= index;
            reach = reach.max(last_use[index]);
        }
        let values = graph.taps.iter().filter(|(_, id)| id.index() <= last && narrow[id.index()]);
        values.map(|(path, id)| (*id, path.to_string())).collect::<Vec<_>>()
    });
    named.sort_by_key(|(id, path)| (*id, std::cmp::Reverse(path.len())));
    named.into_iter().map(|(id, path)| (path, x.trace().at(id))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Detector, Truth, find_detector, pad_truths};
    use super::*;
    use crate::models::{Task, find_model, models};
    use striate_graph::{Array, CompileOptions, Program, Session};
    use striate_nn::optim::SGD;

    #[test]
    fn maps_are_found_where_stages_end() {
        for (name, taps, widths) in [
            ("resnet50", ["layer1", "layer2", "layer3"], [256, 512, 1024, 2048]),
            ("shufflenet_v2_x0_5", ["maxpool", "stage2", "stage3"], [24, 48, 96, 1024]),
            // What the expansions of the strided blocks give.
            ("mobilenet_v2", ["features.4.conv.0", "features.7.conv.0", "features.14.conv.0"], [144, 192, 576, 1280]),
            // In front of the pools.
            ("vgg11_bn", ["features.13", "features.20", "features.27"], [256, 512, 512, 512]),
            // What the norms in front of the strided convolutions give.
            ("convnext_tiny", ["features.2.0", "features.4.0", "features.6.0"], [96, 192, 384, 768]),
        ] {
            let trunk = Trunk::find("x", find_model(name).unwrap()).unwrap();
            assert_eq!((trunk.taps.each_ref().map(String::as_str), trunk.widths), (taps, widths), "{name}");
        }
    }

    #[test]
    fn every_classifier_has_maps_but_those_that_never_get_so_small_or_cut_edges_off() {
        let without: Vec<&str> = models()
            .filter(|spec| spec.task == Task::Classify)
            .filter(|spec| matches!(Trunk::find("x", spec), Err(ModelError::Backbone { .. })))
            .map(|spec| spec.name)
            .collect();
        let wanted = ["small", "lenet", "resnet18_cifar", "squeezenet1_0", "squeezenet1_1", "inception_v3", "alexnet"];
        assert_eq!(without, wanted);
        let error = find_detector("fcos_lenet_fpn").unwrap_err().to_string();
        assert!(error.contains("`fcos_lenet_fpn`") && error.contains("lenet has no maps"), "{error}");
        let error = find_detector("fcos_resnet19_fpn").unwrap_err().to_string();
        assert!(error.contains("did you mean `fcos_resnet18_fpn`?"), "{error}");
        // Those of torchvision are as they were.
        assert_eq!(
            find_detector("fasterrcnn_mobilenet_v3_large_fpn").unwrap().summary,
            "Faster R-CNN on MobileNetV3-Large"
        );
    }

    const SIDE: usize = 64;

    fn pictures() -> Array {
        let value = |i: usize| (i as f32 * 0.37).sin();
        Array::from_vec([2, 3, SIDE, SIDE], (0..6 * SIDE * SIDE).map(value).collect::<Vec<f32>>()).unwrap()
    }

    /// The loss of a batch, after which every parameter has taken a step.
    fn step(detector: &Detector) -> f64 {
        let x = pictures();
        let truth = Truth { boxes: vec![[4.0, 6.0, 30.0, 40.0], [20.0, 20.0, 60.0, 50.0]], labels: vec![1, 2] };
        let (boxes, labels) = pad_truths(&[truth.clone(), truth], 3);
        let optimizer = SGD::new(1.0).over(detector.net().parameters());
        let trace = Trace::new(Mode::Train);
        let input = trace.input("x", x.shape(), DType::F32);
        let given =
            [trace.input("boxes", boxes.shape(), DType::F32), trace.input("labels", labels.shape(), DType::I64)];
        let losses = detector.net().losses(&input, [&given[0], &given[1]]);
        let loss = losses.into_iter().map(|(_, loss)| loss).reduce(|a, b| a + b).unwrap();
        optimizer.minimize(&loss).unwrap();
        let graph = trace.finish(&[("loss", &loss)]).unwrap();
        let mut session = Session::new(Program::compile(&graph, &CompileOptions::default()).unwrap());
        let hyper = optimizer.hyper_inputs();
        let mut inputs = vec![("x", &x), ("boxes", &boxes), ("labels", &labels)];
        inputs.extend(hyper.iter().map(|(name, array)| (name.as_str(), array)));
        session.run(&inputs).unwrap()[0].item().unwrap()
    }

    #[test]
    fn classifiers_of_several_families_give_detectors_that_learn() {
        for name in [
            "fasterrcnn_shufflenet_v2_x0_5_fpn",
            "retinanet_mobilenet_v3_small_fpn",
            "retinanet_efficientnet_b0_fpn",
            "fcos_resnet18_fpn",
            "fcos_regnet_y_400mf_fpn",
        ] {
            let detector = Detector::new(name, 3, 0).unwrap();
            let graph = detector.graph([2, 3, SIDE, SIDE]).unwrap();
            let mut session = Session::new(Program::compile(&graph, &CompileOptions::default()).unwrap());
            let heads = session.run(&[("input", &pictures())]).unwrap();
            assert!(heads[0].f32s().unwrap().iter().all(|value| value.is_finite()), "{name}");
            let before = detector.state_dict();
            let loss = step(&detector);
            assert!(loss.is_finite() && loss > 0.0, "{name}: {loss}");
            // All layers lead to the maps: none has stood still.
            let after = detector.state_dict();
            let body = before.iter().filter(|(key, value)| key.starts_with("backbone.") && value.shape().rank() == 4);
            for (key, value) in body {
                assert!(!value.bits_eq(&after[key]), "{name}: {key} has not learnt");
            }
        }
    }
}
