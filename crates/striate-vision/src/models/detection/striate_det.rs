//! striate_det: a one-stage detector without anchors, small enough to be trained on a processor.
//!
//! The backbone is made of 3x3 convolutions in cross-stage partial layers (Wang et al. 2019, CSPNet). A pyramid and a path back up
//! (Liu et al. 2018, PANet) join its maps of strides 8, 16 and 32. Two heads share their convolutions among the maps, each map with
//! its own norms (Lyu et al. 2022, RTMDet): one scores classes, the other says how far the four sides of the box are, each as a
//! distribution over distances (Li et al. 2020, GFL). Which cell is to find what is decided by how well it does so already (Feng et
//! al. 2021, TOOD).

use super::assign::{AlignRules, Grid, align};
use super::boxes::{Corners, SideCoder, clip_to, logit_below, sigmoid};
use super::decoded::{Decoded, Groups, inside};
use super::detector::{DetectionNet, Detections, Frame, RawHeads, detection_module};
use super::heads::{LevelCandidates, Selection, all_rows, by_picture, sizes_of};
use super::losses;
use super::picture::PictureTransform;
use super::registry::DetectorShape;
use super::ssd::softmax;
use crate::models::parts::{Net, Norm, Residual};
use striate_graph::{Array, Tensor};
use striate_nn::{
    Conv2d, Conv2dNormActivation, MaxPool2d, Module, ModuleList, Path, SiLU, Upsample, display_module, interpolate,
    visit_fields,
};

/// Pixels of the picture by pixel of the maps.
const STRIDES: [usize; 3] = [8, 16, 32];
/// Bins of a side's distribution: a bin is a cell long, and the box reaches from 0 to 15 cells to each side.
pub(super) const BINS: usize = 16;
/// Convolutions in front of each head.
const DEPTH: usize = 2;
const NORM: Norm = Norm::Batch { eps: 1e-3, momentum: 0.1 };
const RULES: AlignRules = AlignRules { alpha: 1.0, beta: 6.0, most: 13, reach: BINS };
/// By how much less likely, as a logarithm, each bin of a fresh net is than the one before it.
const SLOPE: f32 = 0.2;
/// Side of the square that pictures are fitted into.
const SIDE: usize = 640;

/// How large a net of the family is.
struct Size {
    /// Channels at stride 2.
    stem: usize,
    /// Channels at strides 4, 8, 16 and 32.
    widths: [usize; 4],
    /// Residual blocks at these.
    depths: [usize; 4],
    /// Channels of the pyramid and the heads.
    neck: usize,
    /// Residual blocks of each layer of the pyramid.
    neck_depth: usize,
}

/// Convolution, norm, SiLU.
fn conv(from: usize, to: usize, kernel: usize) -> Conv2dNormActivation {
    Conv2dNormActivation::new(from, to, kernel).norm(NORM.layer(to)).activation(SiLU::new())
}

fn halving(from: usize, to: usize) -> Conv2dNormActivation {
    conv(from, to, 3).stride(2)
}

/// Half of the channels through residual blocks of two 3x3 convolutions, the other half past them, then both joined.
struct CspLayer {
    main: Conv2dNormActivation,
    short: Conv2dNormActivation,
    blocks: Net,
    joined: Conv2dNormActivation,
    path: Path,
}

impl CspLayer {
    fn new(from: usize, to: usize, depth: usize) -> CspLayer {
        let inner = to / 2;
        let block = || {
            let convs = Net::new("Sequential").add(conv(inner, inner, 3)).add(conv(inner, inner, 3));
            Residual::new("ResidualBlock", ("convs", convs), true)
        };
        CspLayer {
            main: conv(from, inner, 1),
            short: conv(from, inner, 1),
            blocks: (0..depth).fold(Net::new("Sequential"), |row, _| row.add(block())),
            joined: conv(2 * inner, to, 1),
            path: Path::default(),
        }
    }
}

impl Module for CspLayer {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let main = self.blocks.call(&self.main.call(x));
        let short = self.short.call(x);
        self.joined.call(&Tensor::cat(&[&main, &short], 1))
    }
    visit_fields!(main, short, blocks, joined);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(CspLayer);

/// The greatest values of 1, 5, 9 and 13 pixels beside each other (He et al. 2014, spatial pyramid pooling): three pools of 5 in a
/// row see as much.
struct PyramidPooling {
    squeeze: Conv2dNormActivation,
    pool: MaxPool2d,
    joined: Conv2dNormActivation,
    path: Path,
}

impl PyramidPooling {
    fn new(width: usize) -> PyramidPooling {
        PyramidPooling {
            squeeze: conv(width, width / 2, 1),
            pool: MaxPool2d::new(5).stride(1).padding(2),
            joined: conv(2 * width, width, 1),
            path: Path::default(),
        }
    }
}

impl Module for PyramidPooling {
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        let one = self.squeeze.call(x);
        let five = self.pool.call(&one);
        let nine = self.pool.call(&five);
        let thirteen = self.pool.call(&nine);
        self.joined.call(&Tensor::cat(&[&one, &five, &nine, &thirteen], 1))
    }
    visit_fields!(squeeze, joined);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(PyramidPooling);

/// The names of the layers whose maps the neck sees.
const TAPS: [&str; 3] = ["stage2", "stage3", "stage4"];

fn backbone(size: &Size) -> Net {
    let mut net = Net::new("CspBackbone").named("stem", halving(3, size.stem));
    let mut from = size.stem;
    for (index, (&width, &depth)) in size.widths.iter().zip(&size.depths).enumerate() {
        let mut stage = Net::new("Sequential").add(halving(from, width));
        if index == 3 {
            stage = stage.add(PyramidPooling::new(width));
        }
        net = net.named(format!("stage{}", index + 1), stage.add(CspLayer::new(width, width, depth)));
        from = width;
    }
    net
}

/// From the coarsest map down, and up again.
struct PathAggregation {
    /// Of each map, the finest first.
    lateral: ModuleList<Conv2dNormActivation>,
    /// On the finest map and on the one above.
    down: ModuleList<CspLayer>,
    halving: ModuleList<Conv2dNormActivation>,
    /// On the middle map and on the coarsest one.
    up: ModuleList<CspLayer>,
    path: Path,
}

impl PathAggregation {
    fn new(from: &[usize], to: usize, depth: usize) -> PathAggregation {
        let joins = || ModuleList::new((1..from.len()).map(|_| CspLayer::new(2 * to, to, depth)).collect());
        PathAggregation {
            lateral: ModuleList::new(from.iter().map(|from| conv(*from, to, 1)).collect()),
            down: joins(),
            halving: ModuleList::new((1..from.len()).map(|_| halving(to, to)).collect()),
            up: joins(),
            path: Path::default(),
        }
    }

    #[track_caller]
    fn levels(&self, maps: &[Tensor]) -> Vec<Tensor> {
        let mut levels: Vec<Tensor> = Vec::with_capacity(maps.len());
        for (layer, map) in self.lateral.modules.iter().zip(maps) {
            levels.push(layer.call(map));
        }
        for (finer, layer) in self.down.modules.iter().enumerate().rev() {
            let size = [levels[finer].size(2), levels[finer].size(3)];
            let coarser = interpolate(&levels[finer + 1], &Upsample::new().size(size));
            levels[finer] = layer.call(&Tensor::cat(&[&coarser, &levels[finer]], 1));
        }
        for (finer, (halving, layer)) in self.halving.modules.iter().zip(&self.up.modules).enumerate() {
            let halved = halving.call(&levels[finer]);
            levels[finer + 1] = layer.call(&Tensor::cat(&[&halved, &levels[finer + 1]], 1));
        }
        levels
    }
}

impl Module for PathAggregation {
    /// It needs three maps; the net gives them.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.levels(&vec![x.clone(); self.lateral.modules.len()]).swap_remove(0)
    }
    visit_fields!(lateral, down, halving, up);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(PathAggregation);

/// A convolution that all maps share, with a norm for each.
struct SharedConv {
    conv: Conv2d,
    norms: ModuleList<Box<dyn Module>>,
    path: Path,
}

impl SharedConv {
    fn new(width: usize) -> SharedConv {
        SharedConv {
            conv: Conv2d::new(width, width, 3).padding(1).bias(false),
            norms: ModuleList::new(STRIDES.map(|_| NORM.layer(width)).into()),
            path: Path::default(),
        }
    }

    #[track_caller]
    fn on(&self, x: &Tensor, level: usize) -> Tensor {
        self.norms.modules[level].call(&self.conv.call(x)).silu()
    }
}

impl Module for SharedConv {
    /// Of the finest map.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.on(x, 0)
    }
    visit_fields!(conv, norms);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(SharedConv);

/// Convolutions, and one to the values of each cell.
struct Branch {
    convs: ModuleList<SharedConv>,
    values: Conv2d,
    path: Path,
}

impl Branch {
    fn new(width: usize, values: usize) -> Branch {
        let convs = (0..DEPTH).map(|_| SharedConv::new(width)).collect();
        Branch { convs: ModuleList::new(convs), values: Conv2d::new(width, values, 1), path: Path::default() }
    }

    #[track_caller]
    fn on(&self, x: &Tensor, level: usize) -> Tensor {
        let mut x = x.clone();
        for conv in &self.convs.modules {
            x = conv.on(&x, level);
        }
        self.values.call(&x)
    }

    /// The values of all maps, `[N, cells, columns]`.
    #[track_caller]
    fn rows(&self, maps: &[Tensor], columns: usize) -> Tensor {
        let mut found = Vec::with_capacity(maps.len());
        for (level, map) in maps.iter().enumerate() {
            found.push(self.on(map, level));
        }
        all_rows(&found, columns)
    }
}

impl Module for Branch {
    /// Of the finest map.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.on(x, 0)
    }
    visit_fields!(convs, values);
    fn path(&self) -> Option<&Path> {
        Some(&self.path)
    }
}
display_module!(Branch);

/// What it is, and where.
struct Head {
    classes: Branch,
    sides: Branch,
}

impl Module for Head {
    /// The classes of the finest map.
    #[track_caller]
    fn forward(&self, x: &Tensor) -> Tensor {
        self.classes.call(x)
    }
    visit_fields!(classes, sides);
    fn class_name(&self) -> String {
        "StriateDetHead".to_owned()
    }
}

/// A detector of this kind.
struct StriateDet {
    backbone: Net,
    neck: PathAggregation,
    head: Head,
    transform: PictureTransform,
    selection: Selection,
    classes: usize,
    path: Path,
}

/// The maps' pixels.
fn grids(levels: &[[usize; 2]]) -> Vec<Grid> {
    let grid = |([rows, columns], stride): (&[usize; 2], usize)| Grid { rows: *rows, columns: *columns, stride };
    levels.iter().zip(STRIDES).map(grid).collect()
}

/// The squares of all cells: a side's unit of length.
fn cells(levels: &[[usize; 2]]) -> Vec<Corners> {
    grids(levels).into_iter().flat_map(Grid::cells).collect()
}

/// The expected distances of a cell's sides, of `[4 * BINS]` logits.
fn expected(bins: &[f32]) -> [f32; 4] {
    [0, 1, 2, 3].map(|side| {
        let parts = softmax(&bins[side * BINS..][..BINS]);
        parts.iter().enumerate().map(|(bin, part)| bin as f32 * part).sum()
    })
}

impl DetectionNet for StriateDet {
    fn transform(&self) -> &PictureTransform {
        &self.transform
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn first_class(&self) -> usize {
        0
    }

    /// Sides start about 4 cells long instead of 7.5: a fresh net finds objects on the map of their size.
    fn start(&self) {
        if let Some(bias) = &self.head.sides.values.bias {
            let slope = |values: &mut Array| {
                let values = values.as_mut_slice::<f32>().unwrap_or_default();
                values.iter_mut().enumerate().for_each(|(place, value)| *value = -SLOPE * (place % BINS) as f32);
            };
            bias.update(slope);
        }
    }

    #[track_caller]
    fn heads(&self, x: &Tensor, _: [usize; 2]) -> RawHeads {
        let (_, found) = self.backbone.walk(x, &TAPS);
        let maps: Vec<Tensor> = found.into_iter().map(|(_, map)| map).collect();
        let maps = self.neck.levels(&maps);
        let logits = self.head.classes.rows(&maps, self.classes);
        let bins = self.head.sides.rows(&maps, 4 * BINS);
        RawHeads { outputs: vec![("cls_logits", logits), ("bbox_bins", bins)], levels: sizes_of(&maps) }
    }

    #[track_caller]
    fn losses(&self, x: &Tensor, truths: [&Tensor; 2]) -> Vec<(&'static str, Tensor)> {
        let RawHeads { outputs, levels } = self.heads(x, [x.size(2), x.size(3)]);
        let (logits, bins) = (&outputs[0].1, &outputs[1].1);
        let corners = losses::corners_of_bins(bins, &cells(&levels));
        let aligned = align(truths, [logits, &corners], &grids(&levels), RULES);
        losses::striate_det([logits, bins, &corners], &aligned)
    }

    fn selection(&self) -> Selection {
        self.selection
    }

    #[track_caller]
    fn decoded(&self, x: &Tensor, first: usize) -> Decoded {
        let batch = [x.size(2), x.size(3)];
        let RawHeads { outputs, levels } = self.heads(x, batch);
        let boxes = losses::corners_of_bins(&outputs[1].1, &cells(&levels));
        let groups = Groups::Levels(levels.iter().map(|[h, w]| h * w).collect());
        Decoded {
            boxes: inside(&boxes, batch),
            scores: outputs[0].1.sigmoid().narrow(-1, first, self.classes - first),
            groups,
            chosen_from: Vec::new(),
        }
    }

    fn decode(&self, outputs: &[Array], frame: &Frame) -> striate_graph::Result<Vec<Detections>> {
        let cells = cells(&frame.levels);
        let chooser = LevelCandidates {
            classes: self.classes,
            anchors: frame.levels.iter().map(|[h, w]| h * w).collect(),
            least_logit: logit_below(self.selection.score),
            selection: self.selection,
        };
        let pictures = by_picture(&outputs[0])?.zip(by_picture(&outputs[1])?);
        let decode = |bins: &[f32], cell: usize| {
            clip_to(frame.size, SideCoder.decode(expected(&bins[cell * 4 * BINS..]), cells[cell]))
        };
        let found = |(logits, bins)| chooser.choose(logits, |logit, _| sigmoid(logit), |cell| decode(bins, cell));
        Ok(pictures.map(found).collect())
    }
}
detection_module!(StriateDet, backbone, neck, head);

fn build(size: &Size, shape: DetectorShape) -> Box<dyn DetectionNet> {
    Box::new(StriateDet {
        backbone: backbone(size),
        neck: PathAggregation::new(&size.widths[1..], size.neck, size.neck_depth),
        head: Head { classes: Branch::new(size.neck, shape.classes), sides: Branch::new(size.neck, 4 * BINS) },
        transform: PictureTransform::letterbox(SIDE),
        selection: Selection { score: 0.001, iou: 0.65, candidates: 1000, most: 300 },
        classes: shape.classes,
        path: Path::default(),
    })
}

/// The smallest: for a processor.
pub(super) fn striate_det_n(shape: DetectorShape) -> Box<dyn DetectionNet> {
    build(&Size { stem: 16, widths: [32, 64, 128, 256], depths: [1, 2, 2, 1], neck: 64, neck_depth: 1 }, shape)
}

/// Four times the work of the smallest.
pub(super) fn striate_det_s(shape: DetectorShape) -> Box<dyn DetectionNet> {
    build(&Size { stem: 32, widths: [64, 128, 256, 512], depths: [1, 2, 2, 1], neck: 128, neck_depth: 1 }, shape)
}

/// Ten times the work of the smallest.
pub(super) fn striate_det_m(shape: DetectorShape) -> Box<dyn DetectionNet> {
    build(&Size { stem: 48, widths: [96, 192, 384, 768], depths: [2, 4, 4, 2], neck: 192, neck_depth: 2 }, shape)
}

#[cfg(test)]
mod tests {
    use super::super::assign::Aligned;
    use super::super::{Detector, PictureSize, Truth, find_detector, pad_truths};
    use super::*;
    use crate::detection::iou_xyxy;
    use std::sync::Arc;
    use striate_graph::machine::Team;
    use striate_graph::{CompileOptions, DType, Mode, Program, Session, Trace, gradients};
    use striate_nn::optim::SGD;

    /// A bright rectangle on a dark ground, `[3, side, side]`.
    fn picture(side: usize, [x1, y1, x2, y2]: Corners) -> Array {
        let inside = |x: f32, y: f32| x >= x1 && x < x2 && y >= y1 && y < y2;
        let value = |i: usize| {
            let (x, y) = ((i % side) as f32, (i / side % side) as f32);
            if inside(x, y) { 0.9 - 0.2 * (i / (side * side)) as f32 } else { 0.1 }
        };
        Array::from_vec([3, side, side], (0..3 * side * side).map(value).collect::<Vec<f32>>()).unwrap()
    }

    /// Trains on one picture; gives the first and the last sum of the losses.
    fn overfit(detector: &Detector, picture: &Array, truth: Truth, (steps, threads): (usize, usize)) -> [f64; 2] {
        let batch = detector.transform().batch(&[picture]).unwrap();
        let (boxes, labels) = pad_truths(&[truth], 3);
        let trace = Trace::new(Mode::Train);
        let x = trace.input("x", batch.shape(), DType::F32);
        let given =
            [trace.input("boxes", boxes.shape(), DType::F32), trace.input("labels", labels.shape(), DType::I64)];
        let losses = detector.net().losses(&x, [&given[0], &given[1]]);
        let loss = losses.into_iter().map(|(_, loss)| loss).reduce(|a, b| a + b).unwrap();
        let cells = detector.net().parameters();
        let weights: Vec<_> = cells.iter().map(|cell| trace.parameter(cell)).collect();
        let found = gradients(&loss, &weights.iter().collect::<Vec<_>>()).unwrap();
        let optimizer = SGD::new(0.01).momentum(0.9).over(cells.clone());
        optimizer.record(&trace, &cells.into_iter().zip(found).collect::<Vec<_>>());
        let graph = trace.finish(&[("loss", &loss)]).unwrap();
        let options = CompileOptions { threads, ..CompileOptions::default() };
        let team = Arc::new(Team::new(threads));
        let mut session = Session::with_team(Program::compile(&graph, &options).unwrap(), team);
        let mut run = || {
            let hyper = optimizer.hyper_inputs();
            let mut inputs = vec![("x", &batch), ("boxes", &boxes), ("labels", &labels)];
            inputs.extend(hyper.iter().map(|(name, array)| (name.as_str(), array)));
            session.run(&inputs).unwrap()[0].item().unwrap()
        };
        let first = run();
        [first, (1..steps).map(|_| run()).last().unwrap()]
    }

    fn small(classes: usize, side: usize) -> Detector {
        Detector::new("striate_det_n", classes, 0).unwrap().with_size(PictureSize::Letterbox([side, side]))
    }

    #[test]
    fn one_picture_is_learned_in_a_few_steps() {
        let object = [24.0, 40.0, 88.0, 104.0];
        let truth = Truth { boxes: vec![object], labels: vec![1] };
        let mut detector = small(3, 128);
        let picture = picture(128, object);
        let [first, last] = overfit(&detector, &picture, truth, (60, 2));
        assert!(last < 0.3 * first, "{first} to {last}");
        let found = detector.detect(&[picture]).unwrap().remove(0);
        let overlap = iou_xyxy(found.boxes[0], object);
        assert!(overlap > 0.8 && found.labels[0] == 1 && found.scores[0] > 0.3, "{overlap} {:?}", found.scores[0]);
    }

    /// The sum of the losses of one cell row, and its gradients for logits and bins.
    fn loss_and_gradients(values: &[Array; 2]) -> (f64, [Vec<f32>; 2]) {
        let trace = Trace::new(Mode::Train);
        let [logits, bins] = ["logits", "bins"].map(|name| {
            let array = &values[usize::from(name == "bins")];
            trace.input(name, array.shape(), DType::F32)
        });
        let constant = |shape: [usize; 3], values: Vec<f32>| trace.constant(Array::from_vec(shape, values).unwrap());
        let cells = [[0.0, 0.0, 8.0, 8.0], [8.0, 0.0, 16.0, 8.0]];
        let corners = losses::corners_of_bins(&bins, &cells);
        let object = [-5.0, -11.0, 30.0, 14.0];
        let sides = SideCoder.encode(object, cells[0]);
        let aligned = Aligned {
            scores: constant([1, 2, 2], vec![0.0, 0.7, 0.0, 0.0]),
            boxes: constant([1, 2, 4], [object, [0.0; 4]].concat()),
            sides: constant([1, 2, 4], [sides, [0.0; 4]].concat()),
            weight: constant([1, 2, 1], vec![0.7, 0.0]),
        };
        let losses = losses::striate_det([&logits, &bins, &corners], &aligned);
        let loss = losses.into_iter().map(|(_, loss)| loss).reduce(|a, b| a + b).unwrap();
        let found = gradients(&loss, &[&logits, &bins]).unwrap();
        let graph = trace.finish(&[("loss", &loss), ("logits", &found[0]), ("bins", &found[1])]).unwrap();
        let mut session = Session::new(Program::compile(&graph, &CompileOptions::default()).unwrap());
        let found = session.run(&[("logits", &values[0]), ("bins", &values[1])]).unwrap();
        (found[0].item().unwrap(), [1, 2].map(|index| found[index].f32s().unwrap().to_vec()))
    }

    #[test]
    fn losses_have_the_gradients_that_their_differences_show() {
        let waves = |count: usize| (0..count).map(|i| (i as f32 * 1.7).sin()).collect::<Vec<f32>>();
        let values = [([1, 2, 2], 4), ([1, 2, 4 * BINS], 8 * BINS)];
        let values = values.map(|(shape, count)| Array::from_vec(shape, waves(count)).unwrap());
        let (_, gradients) = loss_and_gradients(&values);
        for (place, gradient) in gradients.iter().enumerate() {
            let length = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let step = 0.01 / length;
            let at = |by: f64| {
                let mut moved = values.clone();
                let cells = moved[place].as_mut_slice::<f32>().unwrap();
                cells.iter_mut().zip(gradient).for_each(|(v, g)| *v += (by * f64::from(*g)) as f32);
                loss_and_gradients(&moved).0
            };
            let slope = (at(step) - at(-step)) / (2.0 * step * length);
            assert!(length > 0.0 && (slope / length - 1.0).abs() < 5e-3, "{place}: {slope} instead of {length}");
        }
    }

    #[test]
    fn training_does_not_depend_on_the_threads() {
        let object = [3.0, 5.0, 40.0, 50.0];
        let truth = Truth { boxes: vec![object, [10.0, 10.0, 14.0, 14.0]], labels: vec![0, 0] };
        let of = |threads: usize| {
            let detector = small(1, 64);
            let losses = overfit(&detector, &picture(64, object), truth.clone(), (3, threads));
            (losses, detector.state_dict())
        };
        let ((losses, one), (others, two)) = (of(1), of(2));
        assert_eq!(losses, others);
        assert!(one.iter().all(|(key, array)| array.bits_eq(&two[key])));
    }

    #[test]
    fn sizes_are_those_of_the_family() {
        for (name, parameters) in
            [("striate_det_n", 1_604_704), ("striate_det_s", 6_381_616), ("striate_det_m", 19_354_560)]
        {
            let spec = find_detector(name).unwrap();
            assert_eq!(spec.structure(80, None).unwrap().num_parameters(), parameters, "{name}");
        }
    }

    #[test]
    fn pictures_are_fitted_into_the_frame_beside_grey_and_boxes_come_back() {
        let detector = small(2, 64);
        let transform = detector.transform();
        assert_eq!(transform.resized([30, 60]), [32, 64]);
        assert_eq!(transform.padded([32, 64]), [64, 64]);
        let batch = transform.batch(&[&Array::full([3, 30, 60], 0.5f32)]).unwrap();
        let values = batch.f32s().unwrap();
        assert_eq!((values[0], values[31 * 64 + 63], values[32 * 64]), (0.5, 0.5, 114.0 / 255.0));
        let found = small(2, 64).detect(&[Array::full([3, 30, 60], 0.5f32)]).unwrap().remove(0);
        let inside = |[x1, y1, x2, y2]: &Corners| *x1 >= 0.0 && *y1 >= 0.0 && *x2 <= 60.0 && *y2 <= 30.0;
        assert!(!found.boxes.is_empty() && found.boxes.iter().all(inside));
        assert!(found.labels.contains(&0) && found.labels.contains(&1));
    }
}
