//! Anchors: the boxes from which a detector's boxes are offsets. They are constants of the shapes of picture and maps.

use super::boxes::Corners;

/// Anchors of some sizes and aspect ratios around each pixel's corner, as torchvision's class of this name (Ren et al. 2015,
/// Faster R-CNN).
///
/// ```
/// use striate_vision::models::detection::AnchorGenerator;
/// let anchors = AnchorGenerator::new(vec![vec![32.0]], vec![0.5, 1.0, 2.0]).anchors([64, 64], &[[2, 2]]);
/// assert_eq!(anchors.len(), 12);
/// assert_eq!(anchors[1], [-16.0, -16.0, 16.0, 16.0]);
/// assert_eq!(anchors[4], [16.0, -16.0, 48.0, 16.0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct AnchorGenerator {
    /// Around 0, by level.
    cells: Vec<Vec<Corners>>,
}

impl AnchorGenerator {
    /// `sizes` by level, in pixels: roots of the anchors' areas. `aspect_ratios` are heights over widths, the same on each level.
    pub fn new(sizes: Vec<Vec<f32>>, aspect_ratios: Vec<f32>) -> AnchorGenerator {
        let cell = |sizes: &Vec<f32>| {
            let of_ratio = |ratio: &f32| {
                let tall = ratio.sqrt();
                let (wide, half) = (1.0 / tall, |v: f32| (v / 2.0).round_ties_even());
                sizes.iter().map(move |size| {
                    let (w, h) = (wide * size, tall * size);
                    [half(-w), half(-h), half(w), half(h)]
                })
            };
            aspect_ratios.iter().flat_map(of_ratio).collect()
        };
        AnchorGenerator { cells: sizes.iter().map(cell).collect() }
    }

    /// Anchors of each pixel, by level.
    pub fn per_pixel(&self) -> Vec<usize> {
        self.cells.iter().map(Vec::len).collect()
    }

    /// All anchors of a picture of this height and width, whose maps have these: level after level, row after row, those of a
    /// pixel together. They may lie outside of the picture.
    ///
    /// # Panics
    /// Where there are more levels than the generator has, or a map is empty.
    pub fn anchors(&self, picture: [usize; 2], levels: &[[usize; 2]]) -> Vec<Corners> {
        let mut anchors = Vec::new();
        for (level, &[rows, columns]) in levels.iter().enumerate() {
            let [dy, dx] = [picture[0] / rows, picture[1] / columns];
            for (row, column) in (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column))) {
                let (x, y) = ((column * dx) as f32, (row * dy) as f32);
                anchors.extend(self.cells[level].iter().map(|&[x1, y1, x2, y2]| [x + x1, y + y1, x + x2, y + y2]));
            }
        }
        anchors
    }
}

/// The default boxes of SSD around each pixel's centre, as torchvision's class of this name (Liu et al. 2015, page 6).
///
/// ```
/// use striate_vision::models::detection::DefaultBoxGenerator;
/// let boxes = DefaultBoxGenerator::new(vec![vec![2.0]], vec![0.5, 1.0]).boxes([100, 100], &[[1, 1]]);
/// assert_eq!(boxes[0], [25.0, 25.0, 75.0, 75.0]);
/// assert_eq!(boxes.len(), 4);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct DefaultBoxGenerator {
    /// Width and height as fractions of the picture, by level.
    sizes: Vec<Vec<[f32; 2]>>,
    /// Pixels of the picture from centre to centre, by level; else the picture's over the map's size.
    steps: Option<Vec<f64>>,
}

impl DefaultBoxGenerator {
    /// `aspect_ratios` by level, each once upright and once across, beside two squares; `scales` are fractions of the picture,
    /// one for each level and one more.
    ///
    /// # Panics
    /// Where the number of scales is not that of the levels and one.
    pub fn new(aspect_ratios: Vec<Vec<f64>>, scales: Vec<f64>) -> DefaultBoxGenerator {
        assert_eq!(scales.len(), aspect_ratios.len() + 1, "one scale for each level, and one more");
        let of_level = |(ratios, scale): (&Vec<f64>, &[f64])| {
            let (this, between) = (scale[0], (scale[0] * scale[1]).sqrt());
            let mut sizes = vec![[this, this], [between, between]];
            for ratio in ratios {
                let (w, h) = (this * ratio.sqrt(), this / ratio.sqrt());
                sizes.extend([[w, h], [h, w]]);
            }
            sizes.into_iter().map(|size| size.map(|v| (v as f32).clamp(0.0, 1.0))).collect()
        };
        let sizes = aspect_ratios.iter().zip(scales.windows(2)).map(of_level).collect();
        DefaultBoxGenerator { sizes, steps: None }
    }

    /// The scales of evenly spaced fractions, and 1: `levels` from `least` to `most`.
    pub fn spaced(levels: usize, least: f64, most: f64) -> Vec<f64> {
        let step = |k: usize| least + (most - least) * k as f64 / (levels as f64 - 1.0);
        (0..levels).map(step).chain([1.0]).collect()
    }

    /// With so many pixels of the picture from centre to centre, by level.
    pub fn steps(self, steps: Vec<f64>) -> DefaultBoxGenerator {
        DefaultBoxGenerator { steps: Some(steps), ..self }
    }

    /// Default boxes of each pixel, by level.
    pub fn per_pixel(&self) -> Vec<usize> {
        self.sizes.iter().map(Vec::len).collect()
    }

    /// All default boxes of a picture of this height and width, whose maps have these: level after level, row after row, those of
    /// a pixel together. They may lie outside of the picture.
    ///
    /// # Panics
    /// Where there are more levels than the generator has.
    pub fn boxes(&self, picture: [usize; 2], levels: &[[usize; 2]]) -> Vec<Corners> {
        let [height, width] = picture.map(|n| n as f32);
        let mut boxes = Vec::new();
        for (level, &map) in levels.iter().enumerate() {
            let cells = [0, 1].map(|axis| match &self.steps {
                Some(steps) => picture[axis] as f64 / steps[level],
                None => map[axis] as f64,
            });
            let centre = |axis: usize, at: usize| (at as f32 + 0.5) / cells[axis] as f32;
            for (row, column) in (0..map[0]).flat_map(|row| (0..map[1]).map(move |column| (row, column))) {
                let (x, y) = (centre(1, column), centre(0, row));
                boxes.extend(self.sizes[level].iter().map(|&[w, h]| {
                    let (half_w, half_h) = (0.5 * w, 0.5 * h);
                    [(x - half_w) * width, (y - half_h) * height, (x + half_w) * width, (y + half_h) * height]
                }));
            }
        }
        boxes
    }
}
