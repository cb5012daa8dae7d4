//! The shape of a thing, from its file to the pixels of a batch.

use super::plane::PlaneMap;
use crate::detection::{Mask, Segmentation, ShapeError};
use std::sync::Arc;

/// What a file says of a shape, in pixels of the picture.
#[derive(Debug, PartialEq)]
enum Outline {
    /// Together they are the shape; what one encloses twice is outside of it.
    Polygons(Vec<Vec<[f32; 2]>>),
    Mask(Mask),
}

/// The shape of a thing: what its file says, and the map from there to where the thing is. Moving it multiplies matrices, and its pixels
/// are only known when they are asked for: so it is never resampled twice, and copies of a thing share what the file says.
///
/// ```
/// use striate_vision::detection::{Rle, RleCounts, Segmentation};
/// use striate_vision::transforms::Shape;
/// let square = Segmentation::Polygons(vec![vec![1.0, 1.0, 3.0, 1.0, 3.0, 3.0, 1.0, 3.0]]);
/// let same = Segmentation::Rle(Rle { size: [4, 4], counts: RleCounts::Plain(vec![5, 2, 2, 2, 5]) });
/// for segmentation in [square, same] {
///     let mask = Shape::new(&segmentation, Some([4, 4]))?.mask([4, 4]);
///     assert_eq!(mask.pixels().collect::<Vec<_>>(), [[1, 1], [1, 2], [2, 1], [2, 2]]);
/// }
/// # Ok::<(), striate_vision::detection::ShapeError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    outline: Arc<Outline>,
    map: PlaneMap,
}

/// Points of a polygon that encloses anything.
const LEAST_POINTS: usize = 3;

/// A polygon of a file; nothing where it has too few points to enclose anything.
fn polygon((index, numbers): (usize, &Vec<f64>)) -> Result<Option<Vec<[f32; 2]>>, ShapeError> {
    let refuse = |why| ShapeError::Polygon { polygon: index + 1, why };
    let points: Vec<[f32; 2]> = numbers.chunks_exact(2).map(|point| [point[0] as f32, point[1] as f32]).collect();
    if numbers.len() % 2 == 1 {
        return Err(refuse("has an odd number of coordinates"));
    }
    if !points.iter().flatten().all(|v| v.is_finite()) {
        return Err(refuse("has a coordinate that is not finite"));
    }
    Ok((points.len() >= LEAST_POINTS).then_some(points))
}

impl Shape {
    /// The shape of a thing on a picture of this height and width, where they are known. Polygons of fewer than three points enclose
    /// nothing and are passed over.
    ///
    /// # Errors
    /// [`ShapeError`] for polygons that are none, a mask that lies about itself or is not of the picture's size.
    pub fn new(segmentation: &Segmentation, picture: Option<[usize; 2]>) -> Result<Shape, ShapeError> {
        let outline = match segmentation {
            Segmentation::Polygons(list) => {
                let polygons = list.iter().enumerate().filter_map(|one| polygon(one).transpose());
                let polygons: Vec<_> = polygons.collect::<Result<_, _>>()?;
                match list.len() {
                    0 => return Err(ShapeError::Empty),
                    _ if polygons.is_empty() => {
                        return Err(ShapeError::Polygon {
                            polygon: 1,
                            why: "has fewer than three points, as all of them",
                        });
                    }
                    _ => Outline::Polygons(polygons),
                }
            }
            Segmentation::Rle(rle) => {
                let mask = Mask::of_rle(rle)?;
                if let Some(picture) = picture.filter(|picture| *picture != mask.size()) {
                    return Err(ShapeError::Size { mask: mask.size(), picture });
                }
                Outline::Mask(mask)
            }
        };
        Ok(Shape { outline: Arc::new(outline), map: PlaneMap::identity() })
    }

    /// The pixels of a picture of this height and width that belong to it: those whose centre lies inside.
    pub fn mask(&self, [height, width]: [usize; 2]) -> Mask {
        let mut pixels = Vec::new();
        self.raster([0, 0, width, height], &mut pixels);
        Mask::of([height, width], [0, 0, width, height], |x, y| pixels[y * width + x] != 0)
    }

    /// The shape where a map brings it.
    pub(crate) fn moved(&self, map: &PlaneMap) -> Shape {
        Shape { outline: self.outline.clone(), map: self.map.then(*map) }
    }

    /// Makes `pixels` those of a window `[x1, y1, x2, y2]`, row by row: 1 where the centre of one lies inside of the shape, else 0.
    pub(crate) fn raster(&self, window: [usize; 4], pixels: &mut Vec<u8>) {
        let [x1, y1, x2, y2] = window;
        pixels.clear();
        pixels.resize((x2 - x1) * (y2 - y1), 0);
        if pixels.is_empty() {
            return;
        }
        match &*self.outline {
            Outline::Polygons(polygons) => {
                polygons.iter().for_each(|polygon| fill_polygon(polygon, &self.map, window, pixels));
                pixels.iter_mut().for_each(|pixel| *pixel = u8::from(*pixel != 0));
            }
            Outline::Mask(mask) => {
                let back = self.map.inverse();
                for (index, pixel) in pixels.iter_mut().enumerate() {
                    let (x, y) = (x1 + index % (x2 - x1), y1 + index / (x2 - x1));
                    let [x, y] = back.apply([x as f64 + 0.5, y as f64 + 0.5]);
                    *pixel = u8::from(x >= 0.0 && y >= 0.0 && mask.contains(x as usize, y as usize));
                }
            }
        }
    }
}

/// In pixels that are filled: an edge of the polygon at hand lies on the left, and there is something already.
const EDGE: u8 = 1;
const INSIDE: u8 = 2;

/// Fills what a polygon encloses where the map brings it: each edge leaves a mark in the rows whose middle it crosses, on the first
/// pixel whose centre is right of it; right of an odd number of marks is inside.
fn fill_polygon(polygon: &[[f32; 2]], map: &PlaneMap, [x1, y1, x2, y2]: [usize; 4], pixels: &mut [u8]) {
    let width = x2 - x1;
    let moved = |point: &[f32; 2]| map.apply(point.map(f64::from));
    // What is no number becomes the lowest place.
    let first_after = |v: f64, low: usize, high: usize| (v - 0.5).ceil().max(low as f64).min(high as f64) as usize;
    let Some(last) = polygon.last() else { return };
    let (mut from, mut rows) = (moved(last), [y2, y1]);
    for to in polygon.iter().map(moved) {
        let [above, below] = if from[1] <= to[1] { [from, to] } else { [to, from] };
        let slope = (below[0] - above[0]) / (below[1] - above[1]);
        let crossed = first_after(above[1], y1, y2)..first_after(below[1], y1, y2);
        rows = [rows[0].min(crossed.start), rows[1].max(crossed.end)];
        for y in crossed {
            let x = first_after(above[0] + (y as f64 + 0.5 - above[1]) * slope, x1, x2);
            if x < x2 {
                pixels[(y - y1) * width + x - x1] ^= EDGE;
            }
        }
        from = to;
    }
    for row in pixels.chunks_exact_mut(width).take(rows[1] - y1).skip(rows[0] - y1) {
        let mut inside = 0;
        for pixel in row {
            inside ^= *pixel & EDGE;
            *pixel = (*pixel & INSIDE) | (inside * INSIDE);
        }
    }
}
