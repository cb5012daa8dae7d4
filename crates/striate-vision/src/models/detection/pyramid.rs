//! Feature pyramids (Lin et al. 2016): maps of all scales with as much meaning as the coarsest one.

use crate::models::mobilenet::{LARGE, V3Style, features_v3};
use crate::models::parts::{Net, Norm};
use crate::models::resnet::{ResNetSpec, trunk};
use striate_graph::Tensor;
use striate_nn::{
    Conv2d, Conv2dNormActivation, MaxPool2d, Module, ModuleList, Path, Upsample, Visitor, display_module, interpolate,
    visit_fields,
};

/// Channels of all maps of a pyramid.
pub(super) const WIDTH: usize = 256;

/// What stands above the coarsest map of a pyramid, under torchvision's names.
pub enum LastLevel {
    /// Every other pixel of it.
    MaxPool,
    /// Two convolutions of stride 2, on it or on the map below it.
    P6P7 {
        /// Gives the first map.
        p6: Box<Conv2d>,
        /// Gives the second, behind a ReLU.
        p7: Box<Conv2d>,
        /// Whether `p6` sees the pyramid's map, else the backbone's.
        of_pyramid: bool,
    },
}

impl LastLevel {
    /// [`LastLevel::P6P7`] on a map of so many channels: the pyramid's where they are as many as it gives.
    pub fn p6p7(from: usize, to: usize) -> LastLevel {
        let conv = |from| Box::new(Conv2d::new(from, to, 3).stride(2).padding(1));
        LastLevel::P6P7 { p6: conv(from), p7: conv(to), of_pyramid: from == to }
    }

    /// The maps above: `pyramid` and `backbone` are the coarsest ones.
    #[track_caller]
    fn above(&self, pyramid: &Tensor, backbone: &Tensor) -> Vec<Tensor> {
        match self {
            LastLevel::MaxPool => vec![MaxPool2d::new(1).stride(2).call(pyramid)],
            LastLevel::P6P7 { p6, p7, of_pyramid } => {
                let first = p6.call(if *of_pyramid { pyramid } else { backbone });
                let second = p7.call(&first.relu());
                vec![first, second]
            }
        }
    }
}

impl Module for LastLevel {
    /// It needs two maps; the pyramid gives them.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.above(x, x).swap_remove(0)
    }

    fn visit(&self, visitor: &mut dyn Visitor) {
        if let LastLevel::P6P7 { p6, p7, .. } = self {
            visitor.module("p6", p6);
            visitor.module("p7", p7);
        }
    }

    fn class_name(&self) -> String {
        match self {
            LastLevel::MaxPool => "LastLevelMaxPool".to_owned(),
            LastLevel::P6P7 { .. } => "LastLevelP6P7".to_owned(),
        }
    }
}

/// torchvision's `FeaturePyramidNetwork`: from the coarsest map down, each is brought to one width, the coarser one is added, and a
/// 3x3 convolution smooths the sum.
///
/// ```
/// use striate_graph::{DType, Mode, Trace};
/// use striate_vision::models::detection::{FeaturePyramidNetwork, LastLevel};
/// let pyramid = FeaturePyramidNetwork::new(&[10, 20], 5, LastLevel::MaxPool);
/// let trace = Trace::new(Mode::Eval);
/// let maps = [([1, 10, 16, 16]), ([1, 20, 8, 8])].map(|shape| trace.input("x", shape, DType::F32));
/// let sizes: Vec<_> = pyramid.levels(&maps).iter().map(|map| map.shape().to_vec()).collect();
/// assert_eq!(sizes, [[1, 5, 16, 16], [1, 5, 8, 8], [1, 5, 4, 4]]);
/// ```
pub struct FeaturePyramidNetwork {
    inner_blocks: ModuleList<Conv2dNormActivation>,
    layer_blocks: ModuleList<Conv2dNormActivation>,
    extra_blocks: LastLevel,
    path: Path,
}

impl FeaturePyramidNetwork {
    /// On maps of so many channels, the finest first, without norms.
    pub fn new(from: &[usize], to: usize, last: LastLevel) -> FeaturePyramidNetwork {
        FeaturePyramidNetwork::with_norm(from, to, last, None)
    }

    /// With a norm behind each convolution instead of a bias.
    pub(super) fn with_norm(from: &[usize], to: usize, last: LastLevel, norm: Option<Norm>) -> FeaturePyramidNetwork {
        let block = |from: usize, kernel: usize| {
            let block = Conv2dNormActivation::new(from, to, kernel).no_activation();
            norm.map_or_else(
                || Conv2dNormActivation::new(from, to, kernel).no_activation().no_norm(),
                |norm| block.norm(norm.layer(to)),
            )
        };
        FeaturePyramidNetwork {
            inner_blocks: ModuleList::new(from.iter().map(|from| block(*from, 1)).collect()),
            layer_blocks: ModuleList::new(from.iter().map(|_| block(to, 3)).collect()),
            extra_blocks: last,
            path: Path::default(),
        }
    }

    /// The maps of the pyramid, the finest first, from as many as it was made for.
    #[track_caller]
    pub fn levels(&self, maps: &[Tensor]) -> Vec<Tensor> {
        let mut coarser: Option<Tensor> = None;
        let mut levels = Vec::new();
        let blocks = self.inner_blocks.modules.iter().zip(&self.layer_blocks.modules);
        for (map, (inner, layer)) in maps.iter().zip(blocks).rev() {
            let mut sum = inner.call(map);
            if let Some(coarser) = coarser {
                let size = [sum.size(2), sum.size(3)];
                sum = &sum + &interpolate(&coarser, &Upsample::new().size(size));
            }
            levels.push(layer.call(&sum));
            coarser = Some(sum);
        }
        levels.reverse();
        if let (Some(pyramid), Some(backbone)) = (levels.last(), maps.last()) {
            levels.extend(self.extra_blocks.above(pyramid, backbone));
        }
        levels
    }
}

impl Module for FeaturePyramidNetwork {
    /// Of a pyramid of one map: the finest level.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.levels(std::slice::from_ref(x)).swap_remove(0)
    }
    visit_fields!(inner_blocks, layer_blocks, extra_blocks);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(FeaturePyramidNetwork);

/// Which values of a net a pyramid sees, the finest first.
pub(super) enum Taps {
    /// Those of these of its layers.
    Layers(&'static [&'static str]),
    /// Those of the layers with these paths inside of it, at any depth, and what it gives at the end.
    Paths(Vec<String>),
}

/// A backbone under a pyramid.
pub(super) struct BackboneWithFpn {
    body: Net,
    taps: Taps,
    fpn: FeaturePyramidNetwork,
    path: Path,
}

/// How the pyramid on a ResNet-50 is made.
pub(super) struct ResNetPyramid {
    /// Whether it begins at stride 4, else at 8.
    pub from_layer1: bool,
    pub last: LastLevel,
    /// Of the backbone.
    pub norm: Norm,
    /// Of the pyramid.
    pub fpn_norm: Option<Norm>,
}

impl BackboneWithFpn {
    /// On these values of any net.
    pub fn new(body: Net, taps: Taps, fpn: FeaturePyramidNetwork) -> BackboneWithFpn {
        BackboneWithFpn { body, taps, fpn, path: Path::default() }
    }

    /// On a ResNet-50.
    pub fn resnet50(channels: usize, pyramid: ResNetPyramid) -> BackboneWithFpn {
        let spec = ResNetSpec::bottleneck([3, 4, 6, 3]).norm(pyramid.norm);
        let (body, _) = trunk("IntermediateLayerGetter", &spec, channels);
        let (taps, widths): (&[&str], &[usize]) = match pyramid.from_layer1 {
            true => (&["layer1", "layer2", "layer3", "layer4"], &[256, 512, 1024, 2048]),
            false => (&["layer2", "layer3", "layer4"], &[512, 1024, 2048]),
        };
        let fpn = FeaturePyramidNetwork::with_norm(widths, WIDTH, pyramid.last, pyramid.fpn_norm);
        BackboneWithFpn::new(body, Taps::Layers(taps), fpn)
    }

    /// On MobileNetV3-Large: its last stage and its last convolution, both of stride 32.
    pub fn mobilenet_v3(channels: usize, norm: Norm) -> BackboneWithFpn {
        let body = features_v3(&LARGE, channels, V3Style { dilated: false, norm });
        let fpn = FeaturePyramidNetwork::new(&[160, 960], WIDTH, LastLevel::MaxPool);
        BackboneWithFpn::new(body, Taps::Layers(&["13", "16"]), fpn)
    }

    /// The maps of the pyramid, the finest first.
    #[track_caller]
    pub fn levels(&self, x: &Tensor) -> Vec<Tensor> {
        let maps: Vec<Tensor> = match &self.taps {
            Taps::Layers(names) => self.body.walk(x, names).1.into_iter().map(|(_, value)| value).collect(),
            Taps::Paths(paths) => {
                let last = self.body.call(x);
                let inside = paths.iter().map(|path| self.value_of(path, x));
                inside.chain([last.clone()]).collect()
            }
        };
        self.fpn.levels(&maps)
    }

    /// What the layer with this path in the body has given, on the way from `x`.
    #[track_caller]
    fn value_of(&self, path: &str, x: &Tensor) -> Tensor {
        let body = self.body.path().map(Path::get).unwrap_or_default();
        let path = if body.is_empty() { path.to_owned() } else { format!("{body}.{path}") };
        match x.trace().with_graph(|graph| graph.tap(&path)) {
            Ok(id) => x.trace().at(id),
            Err(error) => {
                x.trace().refuse("BackboneWithFPN", error.to_string(), "name the layers first (assign_names)")
            }
        }
    }
}

impl Module for BackboneWithFpn {
    /// The finest level.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.levels(x).swap_remove(0)
    }
    visit_fields!(body, fpn);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
    fn class_name(&self) -> String {
        "BackboneWithFPN".to_owned()
    }
}
display_module!(BackboneWithFpn);
