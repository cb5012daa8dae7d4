//! Task-aligned assignment (Feng et al. 2021, TOOD, section 3.2): the cells that score an object's class highest and overlap it most
//! are to find it, by as much as they do both. It looks at what the net says, so it is a host function in the training graph; no
//! gradient flows through it.

use super::boxes::{Corners, SideCoder, sigmoid};
use super::heads::{by_picture, four};
use crate::detection::iou_xyxy;
use std::cmp::Ordering;
use std::sync::{Arc, Once};
use striate_graph::{Array, DType, Error, Shape, Tensor, register_host_function};

const ALIGN: &str = "striate.detection.align";

/// What the best cell of an object is to score at least: the boxes of a fresh net hardly overlap anything, and objects would count
/// for nothing.
const LEAST_QUALITY: f64 = 0.1;

/// What is left above the last bin, so that a side lies between two.
const BELOW_LAST: f32 = 0.01;

/// The pixels of one map, each a square of the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    pub rows: usize,
    pub columns: usize,
    /// Side of the squares, in pixels of the picture.
    pub stride: usize,
}

impl Grid {
    /// The square of the pixel in this row and column.
    fn cell(&self, row: usize, column: usize) -> Corners {
        let at = |index: usize| (index * self.stride) as f32;
        [at(column), at(row), at(column + 1), at(row + 1)]
    }

    /// The squares of all pixels, row after row.
    pub fn cells(self) -> impl Iterator<Item = Corners> {
        (0..self.rows).flat_map(move |row| (0..self.columns).map(move |column| self.cell(row, column)))
    }

    /// The rows, or columns, of which the centres lie strictly between two places.
    fn between(&self, low: f32, high: f32, count: usize) -> std::ops::Range<usize> {
        let stride = self.stride as f32;
        let first = (low / stride - 0.5).floor() + 1.0;
        let end = (high / stride - 0.5).ceil();
        (first.max(0.0) as usize).min(count)..(end.max(0.0) as usize).min(count)
    }
}

/// How objects and cells are matched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct AlignRules {
    /// Exponent of the score of the object's class.
    pub alpha: f64,
    /// Exponent of the overlap.
    pub beta: f64,
    /// So many cells are to find an object, at most.
    pub most: usize,
    /// Sides of boxes are less than so many cells.
    pub reach: usize,
}

/// What cells are to find.
pub(super) struct Aligned {
    /// What each class of each cell is to score, `[N, cells, classes]`.
    pub scores: Tensor,
    /// Corners, `[N, cells, 4]`; zeros where there is no object.
    pub boxes: Tensor,
    /// Distances of the sides from the cell's centre in cells, `[N, cells, 4]`, from 0 to less than the reach; zeros where there is no
    /// object.
    pub sides: Tensor,
    /// The score of the object's class, `[N, cells, 1]`; 0 where there is no object.
    pub weight: Tensor,
}

/// Assigns boxes `[N, most, 4]` and labels `[N, most]` (negative: none) to cells, by logits `[N, cells, classes]` and corners
/// `[N, cells, 4]` that the net gives.
#[track_caller]
pub(super) fn align(truths: [&Tensor; 2], said: [&Tensor; 2], grids: &[Grid], rules: AlignRules) -> Aligned {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let align = |inputs: &[Array]| align_on_host(inputs).map_err(|error| error.to_string());
        register_host_function(ALIGN, Arc::new(align));
    });
    let [logits, corners] = said.map(Tensor::detach);
    let (trace, n, cells) = (logits.trace(), logits.size(0), logits.size(1));
    let mut settings = vec![rules.alpha, rules.beta, rules.most as f64, rules.reach as f64];
    settings.extend(grids.iter().flat_map(|grid| [grid.rows, grid.columns, grid.stride]).map(|n| n as f64));
    let settings = Array::from_vec([settings.len()], settings).expect("as many values as the shape has");
    let inputs = [truths[0], truths[1], &logits, &corners, &trace.constant(settings)];
    let of_cells = |columns: usize| (Shape::from([n, cells, columns]), DType::F32);
    let outputs = [of_cells(logits.size(2)), of_cells(4), of_cells(4), of_cells(1)];
    let found = trace.host_call(ALIGN, &inputs, &outputs, None);
    let [scores, boxes, sides, weight] = [0, 1, 2, 3].map(|index| found[index].clone());
    Aligned { scores, boxes, sides, weight }
}

/// What the net says of one picture.
struct Said<'a> {
    /// `[cells, classes]`
    logits: &'a [f32],
    /// `[cells, 4]`
    corners: &'a [f32],
    classes: usize,
}

/// An object of a picture.
#[derive(Clone, Copy, Debug)]
struct Object {
    corners: Corners,
    label: usize,
}

/// A cell that is to find an object.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Claim {
    cell: usize,
    object: usize,
    /// How well score and overlap are aligned.
    alignment: f64,
    overlap: f64,
    /// From centre to centre, squared.
    distance: f32,
}

/// The host side of [`align`].
fn align_on_host(inputs: &[Array]) -> striate_graph::Result<Vec<Array>> {
    let [boxes, labels, logits, corners, settings] = inputs else {
        return Err(Error::Internal(format!("{ALIGN} takes 5 inputs")));
    };
    let settings = settings.to_f64_vec();
    let (head, tail) = settings.split_at(4);
    let rules = AlignRules { alpha: head[0], beta: head[1], most: head[2] as usize, reach: head[3] as usize };
    let grid = |v: &[f64]| Grid { rows: v[0] as usize, columns: v[1] as usize, stride: v[2] as usize };
    let grids: Vec<Grid> = tail.chunks_exact(3).map(grid).collect();
    let cells: Vec<Corners> = grids.iter().flat_map(|grid| grid.cells()).collect();
    let [n, count, classes] = [0, 1, 2].map(|axis| logits.shape()[axis]);
    let (labels, most) = (labels.to_i64_vec(), labels.numel() / n.max(1));
    let mut scores = vec![0f32; n * count * classes];
    let (mut wanted, mut sides) = (vec![0f32; n * count * 4], vec![0f32; n * count * 4]);
    let mut weight = vec![0f32; n * count];
    let pictures = by_picture(boxes)?.zip(by_picture(logits)?.zip(by_picture(corners)?)).enumerate();
    for (picture, (boxes, (logits, corners))) in pictures {
        let objects = objects(boxes, &labels[picture * most..][..most], classes)?;
        for (claim, quality) in claims(&objects, &Said { logits, corners, classes }, (&grids, &cells), &rules) {
            let (place, object) = (picture * count + claim.cell, objects[claim.object]);
            scores[place * classes + object.label] = quality as f32;
            weight[place] = quality as f32;
            wanted[4 * place..][..4].copy_from_slice(&object.corners);
            let far = SideCoder.encode(object.corners, cells[claim.cell]);
            let most = rules.reach as f32 - 1.0 - BELOW_LAST;
            sides[4 * place..][..4].copy_from_slice(&far.map(|side| side.clamp(0.0, most)));
        }
    }
    Ok(vec![
        Array::from_vec([n, count, classes], scores)?,
        Array::from_vec([n, count, 4], wanted)?,
        Array::from_vec([n, count, 4], sides)?,
        Array::from_vec([n, count, 1], weight)?,
    ])
}

fn objects(boxes: &[f32], labels: &[i64], classes: usize) -> striate_graph::Result<Vec<Object>> {
    let there = labels.iter().enumerate().filter(|(_, label)| **label >= 0);
    there
        .map(|(index, &label)| match label as usize {
            label if label < classes => Ok(Object { corners: four(boxes, index), label }),
            label => {
                Err(Error::Internal(format!("box {index} is of class {label}, and the net has {classes} classes")))
            }
        })
        .collect()
}

/// Which cells are to find which objects, and what they are to score. Each cell finds one object at most.
fn claims(
    objects: &[Object],
    said: &Said<'_>,
    (grids, cells): (&[Grid], &[Corners]),
    rules: &AlignRules,
) -> Vec<(Claim, f64)> {
    let mut owners: Vec<Option<Claim>> = vec![None; cells.len()];
    for index in 0..objects.len() {
        for claim in candidates(objects, index, said, (grids, cells), rules) {
            let owner = &mut owners[claim.cell];
            // Of objects that overlap the cell's box equally, the better aligned one; then the one that stands first.
            let is_better = |other: &Claim| {
                claim.overlap.total_cmp(&other.overlap).then(claim.alignment.total_cmp(&other.alignment)).is_gt()
            };
            if owner.as_ref().is_none_or(is_better) {
                *owner = Some(claim);
            }
        }
    }
    let mut best = vec![(0f64, 0f64); objects.len()];
    for claim in owners.iter().flatten() {
        let (alignment, overlap) = &mut best[claim.object];
        (*alignment, *overlap) = (alignment.max(claim.alignment), overlap.max(claim.overlap));
    }
    let quality = |claim: Claim| {
        let (alignment, overlap) = best[claim.object];
        let part = if alignment > 0.0 { claim.alignment / alignment } else { 1.0 };
        (claim, part * overlap.max(LEAST_QUALITY))
    };
    owners.into_iter().flatten().map(quality).collect()
}

/// The cells that may find an object, the best first, at most as many as the rules say.
fn candidates(
    objects: &[Object],
    index: usize,
    said: &Said<'_>,
    (grids, cells): (&[Grid], &[Corners]),
    rules: &AlignRules,
) -> Vec<Claim> {
    let object = objects[index];
    let (x, y) = centre(object.corners);
    let mut found = Vec::new();
    let mut first = 0;
    for (level, grid) in grids.iter().enumerate() {
        // The finest map has a cell for every object, also for one between its centres.
        let least = if level == 0 { grid.stride as f32 } else { 0.0 };
        let [x1, y1, x2, y2] = object.corners;
        let (half_w, half_h) = (((x2 - x1) / 2.0).max(least), ((y2 - y1) / 2.0).max(least));
        for row in grid.between(y - half_h, y + half_h, grid.rows) {
            for column in grid.between(x - half_w, x + half_w, grid.columns) {
                let cell = first + row * grid.columns + column;
                let score = f64::from(sigmoid(said.logits[cell * said.classes + object.label]));
                let overlap = f64::from(iou_xyxy(four(said.corners, cell), object.corners));
                let alignment = score.powf(rules.alpha) * overlap.powf(rules.beta);
                let (cx, cy) = centre(cells[cell]);
                let distance = (cx - x) * (cx - x) + (cy - y) * (cy - y);
                found.push(Claim { cell, object: index, alignment, overlap, distance });
            }
        }
        first += grid.rows * grid.columns;
    }
    let order = |a: &Claim, b: &Claim| -> Ordering {
        b.alignment.total_cmp(&a.alignment).then(a.distance.total_cmp(&b.distance)).then(a.cell.cmp(&b.cell))
    };
    if found.len() > rules.most && rules.most > 0 {
        found.select_nth_unstable_by(rules.most - 1, order);
    }
    found.truncate(rules.most);
    found.sort_unstable_by(order);
    found
}

fn centre([x1, y1, x2, y2]: Corners) -> (f32, f32) {
    ((x1 + x2) / 2.0, (y1 + y2) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRIDS: [Grid; 2] = [Grid { rows: 8, columns: 8, stride: 8 }, Grid { rows: 4, columns: 4, stride: 16 }];
    const RULES: AlignRules = AlignRules { alpha: 1.0, beta: 6.0, most: 3, reach: 16 };

    fn cells() -> Vec<Corners> {
        GRIDS.iter().flat_map(|grid| grid.cells()).collect()
    }

    /// What a net says that scores all classes equally and sees a box of this half width around each centre.
    fn claimed(objects: &[(Corners, usize)], half: f32, logits: &[(usize, f32)]) -> Vec<(usize, usize, f64)> {
        let cells = cells();
        let around = |cell: &Corners| {
            let (x, y) = centre(*cell);
            [x - half, y - half, x + half, y + half]
        };
        let corners: Vec<f32> = cells.iter().flat_map(around).collect();
        let mut said = vec![0f32; cells.len() * 2];
        logits.iter().for_each(|(place, logit)| said[*place] = *logit);
        let objects: Vec<Object> = objects.iter().map(|&(corners, label)| Object { corners, label }).collect();
        let said = Said { logits: &said, corners: &corners, classes: 2 };
        let found = claims(&objects, &said, (&GRIDS, &cells), &RULES);
        found.into_iter().map(|(claim, quality)| (claim.cell, claim.object, quality)).collect()
    }

    #[test]
    fn of_equally_aligned_cells_the_nearest_and_first_find_an_object() {
        // Its centre is a corner of four cells, of which three may find it.
        let found = claimed(&[([8.0, 8.0, 24.0, 24.0], 0)], 8.0, &[]);
        let cells: Vec<usize> = found.iter().map(|found| found.0).collect();
        assert_eq!(cells, [8 + 1, 8 + 2, 2 * 8 + 1]);
        // 12 x 12 of two squares of 16 x 16.
        let overlap = 144.0 / (2.0 * 256.0 - 144.0);
        assert!(found.iter().all(|(_, object, quality)| *object == 0 && (quality - overlap).abs() < 1e-6), "{found:?}");
    }

    #[test]
    fn a_higher_score_makes_a_cell_the_best_and_others_score_their_part_of_it() {
        let cell = 2 * 8 + 2;
        let found = claimed(&[([8.0, 8.0, 24.0, 24.0], 1)], 8.0, &[(2 * cell + 1, 1e3)]);
        let overlap = 144.0 / 368.0;
        let quality = |wanted: usize| found.iter().find(|(cell, ..)| *cell == wanted).map(|found| found.2);
        assert!((quality(cell).unwrap() - overlap).abs() < 1e-6, "{found:?}");
        // The others have half its score.
        assert!((quality(8 + 1).unwrap() - overlap / 2.0).abs() < 1e-6, "{found:?}");
    }

    #[test]
    fn an_object_between_the_centres_is_found_by_the_finest_map_and_counts_though_nothing_overlaps_it() {
        let found = claimed(&[([15.0, 15.0, 17.0, 17.0], 0)], 0.0, &[]);
        assert_eq!(found.len(), 3);
        let corner = [8 + 1, 8 + 2, 2 * 8 + 1];
        assert!(found.iter().all(|(cell, _, quality)| corner.contains(cell) && *quality == LEAST_QUALITY), "{found:?}");
    }

    #[test]
    fn a_cell_finds_the_object_that_its_box_overlaps_more_and_of_equals_the_first() {
        let (small, large) = ([20.0, 20.0, 28.0, 28.0], [0.0, 0.0, 64.0, 64.0]);
        let found = claimed(&[(large, 0), (small, 0)], 4.0, &[]);
        assert!(found.iter().any(|(cell, object, _)| *cell == 2 * 8 + 2 && *object == 1), "{found:?}");
        let twins = claimed(&[(small, 0), (small, 0)], 4.0, &[]);
        assert!(!twins.is_empty() && twins.iter().all(|(_, object, _)| *object == 0), "{twins:?}");
        assert!(claimed(&[], 4.0, &[]).is_empty());
    }

    #[test]
    fn boxes_beside_the_picture_are_found_by_nothing_and_harm_nothing() {
        for corners in [[-50.0, -50.0, -20.0, -20.0], [100.0, 100.0, 120.0, 130.0], [5.0, 5.0, 5.0, 5.0], [f32::NAN; 4]]
        {
            let found = claimed(&[(corners, 0)], 8.0, &[]);
            assert!(found.iter().all(|found| found.2.is_finite()), "{found:?}");
        }
    }

    #[test]
    fn the_host_gives_what_cells_are_to_find() {
        let array = |shape: &[usize], values: Vec<f32>| Array::from_vec(shape, values).unwrap();
        let boxes = array(&[1, 2, 4], vec![16.0, 16.0, 32.0, 32.0, 0.0, 0.0, 0.0, 0.0]);
        let labels = Array::from_vec([1, 2], vec![1i64, -1]).unwrap();
        let cells = cells();
        let logits = array(&[1, 80, 2], vec![0.0; 160]);
        let corners = array(&[1, 80, 4], cells.iter().flatten().copied().collect());
        let settings = vec![1.0, 6.0, 3.0, 16.0, 8.0, 8.0, 8.0, 4.0, 4.0, 16.0];
        let settings = Array::from_vec([10], settings).unwrap();
        let given = [boxes, labels, logits, corners, settings];
        let found = align_on_host(&given).unwrap();
        let [scores, boxes, sides, weight] = [0, 1, 2, 3].map(|index| found[index].f32s().unwrap());
        let cell = (0..80).find(|cell| weight[*cell] > 0.0).unwrap();
        assert_eq!([scores[2 * cell], scores[2 * cell + 1]], [0.0, weight[cell]]);
        assert_eq!(four(boxes, cell), [16.0, 16.0, 32.0, 32.0]);
        assert_eq!(SideCoder.decode(four(sides, cell), cells[cell]), [16.0, 16.0, 32.0, 32.0]);
        let mut wrong = given;
        wrong[1] = Array::from_vec([1, 2], vec![2i64, -1]).unwrap();
        assert!(align_on_host(&wrong).unwrap_err().to_string().contains("class 2"));
    }
}
