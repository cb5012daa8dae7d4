//! Scenes put together out of the pictures inside the binary, with the boxes of what is on them: a set for detectors that needs no
//! file.

use super::dataset::{Dataset, Sample, labels_of};
use super::error::Result;
use super::picture::{Image, PictureInfo};
use super::source::{DatasetKind, DatasetSource, open_embedded};
use crate::models::Task;
use crate::transforms::{Draws, Interpolation, Scratch, Thing, resize};
use std::sync::Arc;

/// Side of a scene.
const SIDE: usize = 192;
/// Scenes for training, for val and for test.
const SCENES: [usize; 3] = [800, 80, 120];
/// Things on a scene, at least and at most.
const THINGS: [usize; 2] = [2, 6];
/// Side of a picture on a scene, at least and at most.
const SIZES: [f64; 2] = [32.0, 88.0];
/// Part of the smaller of two boxes that may lie inside the other.
const MOST_HIDDEN: f64 = 0.15;
/// Places that are tried for a thing.
const TRIALS: usize = 30;
/// From this brightness on a pixel belongs to the thing.
const VISIBLE: u8 = 24;
/// Pixels between two values of the background's texture.
const TEXTURE: usize = 24;
/// Of the training pictures those of which the val scenes are made: one of so many.
const VAL_EVERY: usize = 10;

/// Classes that are on no scene. Their pictures differ too little from each other's: with them a quarter of what a short training
/// gets wrong would be shirts taken for coats.
const LEFT_OUT: [&str; 3] = ["Pullover", "Coat", "Shirt"];

/// A picture on a scene.
#[derive(Clone, Copy, Debug)]
struct Placed {
    /// Index of the picture.
    source: usize,
    side: usize,
    left: usize,
    top: usize,
    color: [f32; 3],
}

/// Scenes of a part.
pub struct SceneDataset {
    pictures: Arc<dyn Dataset>,
    names: Arc<Vec<String>>,
    scenes: Vec<(Vec<Placed>, Vec<Thing>)>,
    background: Draws,
    name: &'static str,
}

/// The part of a picture that can be seen: left, top, right, bottom, in parts of its side.
fn visible(image: &Image) -> [f64; 4] {
    let bright = |x: usize, y: usize| image.pixel(x, y)[0] >= VISIBLE;
    let columns: Vec<usize> = (0..image.width).filter(|&x| (0..image.height).any(|y| bright(x, y))).collect();
    let rows: Vec<usize> = (0..image.height).filter(|&y| (0..image.width).any(|x| bright(x, y))).collect();
    let ends = |places: &[usize], side: usize| {
        let [first, last] = [places.first(), places.last()].map(|end| end.copied().unwrap_or(0) as f64);
        [first / side as f64, (last + 1.0) / side as f64]
    };
    let ([left, right], [top, bottom]) = (ends(&columns, image.width), ends(&rows, image.height));
    [left, top, right, bottom]
}

/// Whether a box hides too much of another, or the other of it.
fn hides(a: [f64; 4], b: [f64; 4]) -> bool {
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let area = |b: [f64; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    side(0) * side(1) > MOST_HIDDEN * area(a).min(area(b))
}

impl SceneDataset {
    /// So many scenes of those of these pictures whose classes have these names.
    fn new(
        (pictures, sources): (Arc<dyn Dataset>, Vec<usize>),
        names: Arc<Vec<String>>,
        count: usize,
        name: &'static str,
    ) -> Result<SceneDataset> {
        let draws = Draws::new(0, "data.scenes", 0, 0);
        let all = pictures.class_names();
        // The numbers of the classes among those that are on scenes.
        let numbers: Vec<Option<usize>> = all.iter().map(|class| names.iter().position(|n| n == class)).collect();
        let labels = labels_of(&*pictures)?;
        let sources: Vec<usize> = sources.into_iter().filter(|index| numbers[labels[*index]].is_some()).collect();
        let mut image = Image::default();
        let mut scenes = Vec::with_capacity(count);
        for scene in 0..count {
            let mut draws = Draws::new(0, name, 0, scene as u64);
            let (mut placed, mut things) = (Vec::new(), Vec::<Thing>::new());
            for _ in 0..THINGS[0] + draws.below(THINGS[1] - THINGS[0] + 1) {
                let source = sources[draws.below(sources.len())];
                let class = numbers[pictures.get_into(source, &mut image)?].unwrap_or(0);
                let seen = visible(&image);
                let side = draws.range(SIZES[0], SIZES[1]) as usize;
                let bright = draws.range(0.75, 1.0);
                let color = [0; 3].map(|_| (bright * draws.range(0.8, 1.0)) as f32);
                for _ in 0..TRIALS {
                    let [left, top] = [0; 2].map(|_| draws.below(SIDE - side + 1));
                    let at = [left, top].map(|v| v as f64);
                    let xyxy: [f64; 4] = std::array::from_fn(|i| at[i % 2] + seen[i] * side as f64);
                    if things.iter().all(|other| !hides(other.xyxy, xyxy)) {
                        placed.push(Placed { source, side, left, top, color });
                        things.push(Thing { xyxy, class, ..Thing::default() });
                        break;
                    }
                }
            }
            scenes.push((placed, things));
        }
        Ok(SceneDataset { pictures, names, scenes, background: draws, name })
    }

    /// A texture of two scales and noise, of a random colour.
    fn background(&self, index: usize, image: &mut Image) {
        let mut draws = Draws::new(1, self.name, 0, index as u64);
        let base = [0; 3].map(|_| draws.range(20.0, 110.0) as f32);
        let cells = SIDE / TEXTURE + 2;
        let coarse: Vec<f32> = (0..cells * cells).map(|_| draws.range(-30.0, 30.0) as f32).collect();
        let mut noise = vec![0f32; SIDE * SIDE];
        self.background.clone().at(0, index as u64).fill_normal(&mut noise, 0);
        *image = Image::filled(SIDE, SIDE, &[0; 3]);
        for (place, pixel) in image.data.chunks_exact_mut(3).enumerate() {
            let (x, y) = (place % SIDE, place / SIDE);
            let (cx, cy) = (x / TEXTURE, y / TEXTURE);
            let [fx, fy] = [x, y].map(|v| (v % TEXTURE) as f32 / TEXTURE as f32);
            let at = |dx: usize, dy: usize| coarse[(cy + dy) * cells + cx + dx];
            let row = |dy: usize| at(0, dy) + (at(1, dy) - at(0, dy)) * fx;
            let value = row(0) + (row(1) - row(0)) * fy + 6.0 * noise[place];
            pixel.iter_mut().zip(base).for_each(|(byte, base)| *byte = (base + value).clamp(0.0, 255.0) as u8);
        }
    }
}

impl Dataset for SceneDataset {
    fn len(&self) -> usize {
        self.scenes.len()
    }
    fn class_count(&self) -> usize {
        self.names.len()
    }
    fn get(&self, index: usize) -> Result<Sample> {
        let mut image = Image::default();
        let label = self.get_into(index, &mut image)?;
        Ok(Sample { image, label })
    }
    fn get_into(&self, index: usize, image: &mut Image) -> Result<usize> {
        self.background(index, image);
        let (mut part, mut scratch) = (Image::default(), Scratch::default());
        for placed in &self.scenes[index].0 {
            self.pictures.get_into(placed.source, &mut part)?;
            resize(&mut part, placed.side, placed.side, Interpolation::Bilinear, &mut scratch);
            for (y, row) in part.data.chunks_exact(placed.side).enumerate() {
                let at = 3 * ((placed.top + y) * SIDE + placed.left);
                for (value, pixel) in row.iter().zip(image.data[at..].chunks_exact_mut(3)) {
                    // Dark pixels beside a thing are nothing; dark ones of a thing are seen.
                    let share = (f32::from(*value) / f32::from(2 * VISIBLE)).min(1.0);
                    for (byte, color) in pixel.iter_mut().zip(placed.color) {
                        *byte = (f32::from(*byte) * (1.0 - share) + f32::from(*value) * color * share) as u8;
                    }
                }
            }
        }
        self.label(index)
    }
    fn label(&self, index: usize) -> Result<usize> {
        Ok(self.scenes[index].1.first().map_or(0, |thing| thing.class))
    }
    fn boxes(&self, index: usize) -> Option<&[Thing]> {
        Some(&self.scenes[index].1)
    }
    fn name(&self, index: usize) -> String {
        format!("{}, scene {index}", self.name)
    }
    fn class_names(&self) -> Vec<String> {
        self.names.to_vec()
    }
}

/// Scenes of 192x192 pixels with two to six of the pictures inside the binary ([`open_embedded`]), at random places, sizes and
/// tints on textured ground; always the same ones. Those of the three parts are made of different pictures. Seven of the ten classes
/// are on them: no pullovers, coats and shirts.
///
/// ```
/// let scenes = striate_vision::data::open_scenes()?;
/// let train = scenes.train.unwrap();
/// assert_eq!((train.len(), scenes.class_names.len()), (800, 7));
/// assert!(train.boxes(0).unwrap().len() >= 2);
/// # Ok::<(), striate_vision::data::DataError>(())
/// ```
///
/// # Errors
/// As [`open_embedded`].
pub fn open_scenes() -> Result<DatasetSource> {
    let embedded = open_embedded()?;
    let (Some(train), Some(test)) = (embedded.train.clone(), embedded.test.clone()) else { return Ok(embedded) };
    let names = embedded.class_names.iter().filter(|name| !LEFT_OUT.contains(&name.as_str()));
    let names: Arc<Vec<String>> = Arc::new(names.cloned().collect());
    let held = |index: &usize| index.is_multiple_of(VAL_EVERY);
    let (val_sources, train_sources): (Vec<usize>, Vec<usize>) = (0..train.len()).partition(held);
    let test_sources: Vec<usize> = (0..test.len()).collect();
    let part = |sources, part: usize, name| -> Result<Option<Arc<dyn Dataset>>> {
        Ok(Some(Arc::new(SceneDataset::new(sources, names.clone(), SCENES[part], name)?)))
    };
    Ok(DatasetSource {
        kind: DatasetKind::Scenes,
        task: Task::Detect,
        path: None,
        class_names: names.to_vec(),
        train: part((train.clone(), train_sources), 0, "embedded scenes, train")?,
        val: part((train, val_sources), 1, "embedded scenes, val")?,
        test: part((test, test_sources), 2, "embedded scenes, test")?,
        channels: 3,
        fixed_size: Some([SIDE, SIDE]),
        probed: vec![PictureInfo { width: SIDE, height: SIDE, channels: 3 }],
        notes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenes_are_always_the_same_and_their_boxes_are_on_them() {
        let [first, second] = [0, 1].map(|_| open_scenes().unwrap().val.unwrap());
        assert_eq!(first.len(), SCENES[1]);
        let mut things = 0;
        for index in 0..20 {
            let (a, b) = (first.get(index).unwrap().image, second.get(index).unwrap().image);
            assert_eq!((a.width, a.height, a.channels), (SIDE, SIDE, 3));
            assert_eq!(a, b);
            for thing in first.boxes(index).unwrap() {
                let [x1, y1, x2, y2] = thing.xyxy;
                assert!(0.0 <= x1 && x1 < x2 && x2 <= SIDE as f64 && 0.0 <= y1 && y1 < y2 && y2 <= SIDE as f64);
                things += 1;
            }
        }
        assert!(things > 50, "{things}");
    }
}
