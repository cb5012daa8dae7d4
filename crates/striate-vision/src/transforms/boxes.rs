//! What happens to pictures and the boxes on them together.
//!
//! Everything that moves pixels is one map from a picture to the result: scaling, turning, mirroring, the window of a crop, the place
//! in a mosaic. So each pixel is interpolated once, and boxes and shapes go through the same map.

use super::plane::PlaneMap;
use super::shapes::Shape;
use super::{Draws, Interpolation, Scratch, Transform, TransformError, resize};
use crate::data::Image;
use crate::detection::Mask;

/// The grey beside pictures.
pub const GREY: u8 = 114;
/// Boxes are dropped of which less than this part is left inside the result.
const LEAST_VISIBLE: f64 = 0.1;
/// And those of which a side becomes shorter than this, in pixels.
const LEAST_SIDE: f64 = 2.0;
/// Overlaps of which a crop in the manner of SSD draws the least that its boxes must have; above 1 there is no crop.
const CROP_OVERLAPS: [f64; 7] = [0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 2.0];
/// Windows that are tried for one overlap.
const CROP_TRIALS: usize = 40;
/// How much larger a canvas gets at most when zoomed out, by side.
const MOST_ZOOM: f64 = 4.0;

/// A thing on a picture.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Thing {
    /// Corners x1, y1, x2, y2 in pixels.
    pub xyxy: [f64; 4],
    /// Its class, from 0.
    pub class: usize,
    /// Many things in one box: neither taught nor counted.
    pub crowd: bool,
    /// Pixels of the thing itself where they are known, else those of its box count.
    pub area: Option<f64>,
    /// Its shape, where the data say it.
    pub shape: Option<Shape>,
}

impl Thing {
    /// The pixels of a picture of this height and width that belong to it, as its shape says: those inside of its box, to whole pixels.
    /// Nothing where it has no shape.
    ///
    /// ```
    /// use striate_vision::detection::Segmentation;
    /// use striate_vision::transforms::{Shape, Thing};
    /// let triangle = Segmentation::Polygons(vec![vec![0.0, 0.0, 8.0, 0.0, 0.0, 8.0]]);
    /// let shape = Some(Shape::new(&triangle, Some([8, 8]))?);
    /// let thing = Thing { xyxy: [0.0, 0.0, 8.0, 4.0], shape, ..Thing::default() };
    /// assert_eq!(thing.mask([8, 8]).unwrap().area(), 7 + 6 + 5 + 4);
    /// # Ok::<(), striate_vision::detection::ShapeError>(())
    /// ```
    pub fn mask(&self, size: [usize; 2]) -> Option<Mask> {
        let window = self.window(size);
        let mut pixels = Vec::new();
        self.shape.as_ref()?.raster(window, &mut pixels);
        let [x1, y1, x2, _] = window;
        Some(Mask::of(size, window, |x, y| pixels[(y - y1) * (x2 - x1) + x - x1] != 0))
    }

    /// The whole pixels `[x1, y1, x2, y2]` of a picture of this height and width that its box touches.
    pub(crate) fn window(&self, [height, width]: [usize; 2]) -> [usize; 4] {
        let [x1, y1, x2, y2] = self.xyxy;
        // A box without area, or that lies beside the picture, touches nothing: its ends are then in order all the same.
        let span = |low: f64, high: f64, most: usize| {
            let low = (low.floor().max(0.0) as usize).min(most);
            (low, (high.ceil().max(0.0) as usize).clamp(low, most))
        };
        let ((left, right), (top, bottom)) = (span(x1, x2, width), span(y1, y2, height));
        [left, top, right, bottom]
    }

    /// The thing where a map brings it, with the box that it has there. The area is not known any more.
    pub(crate) fn moved(&self, xyxy: [f64; 4], map: &PlaneMap) -> Thing {
        let shape = self.shape.as_ref().map(|shape| shape.moved(map));
        Thing { xyxy, class: self.class, crowd: self.crowd, area: None, shape }
    }

    /// Width times height of the box.
    pub fn box_area(&self) -> f64 {
        let [x1, y1, x2, y2] = self.xyxy;
        (x2 - x1) * (y2 - y1)
    }
}

/// Brings pictures into a frame, their aspect kept: resized until they just fit, in the upper left, with grey on the right and below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Letterbox {
    /// Height and width of the frame.
    pub size: [usize; 2],
    /// How to resample.
    pub interpolation: Interpolation,
}

impl Letterbox {
    /// Height and width that a picture of this height and width gets inside the frame.
    ///
    /// ```
    /// use striate_vision::transforms::Letterbox;
    /// assert_eq!(Letterbox::fitted([480, 640], [320, 320]), [240, 320]);
    /// ```
    pub fn fitted(size: [usize; 2], frame: [usize; 2]) -> [usize; 2] {
        let factor =
            [0, 1].map(|axis| frame[axis] as f64 / size[axis].max(1) as f64).into_iter().fold(f64::MAX, f64::min);
        [0, 1].map(|axis| ((size[axis] as f64 * factor).round() as usize).clamp(1, frame[axis].max(1)))
    }
}

impl Transform for Letterbox {
    fn apply(&self, image: &mut Image, _: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        let [height, width] = Letterbox::fitted([image.height, image.width], self.size);
        resize(image, width, height, self.interpolation, scratch);
        let out = &mut scratch.spare;
        out.reshape(self.size[1], self.size[0], image.channels);
        out.data.fill(GREY);
        let (row, pitch) = (image.width * image.channels, out.width * out.channels);
        let rows = image.data.chunks_exact(row).zip(out.data.chunks_exact_mut(pitch));
        rows.for_each(|(from, to)| to[..row].copy_from_slice(from));
        std::mem::swap(image, out);
        Ok(())
    }
}

/// Draws the picture into `out` where the map brings it, bilinearly; all else stays.
fn paint(image: &Image, map: &PlaneMap, out: &mut Image) {
    let back = map.inverse().0;
    let c = image.channels;
    let (width, height) = (image.width as f64, image.height as f64);
    let ([x1, y1, x2, y2], columns) = (map.around([0.0, 0.0, width, height]), out.width);
    let within = |value: f64, most: usize| value.clamp(0.0, most as f64) as usize;
    let (left, right) = (within(x1.floor(), columns), within(x2.ceil(), columns));
    let (top, bottom) = (within(y1.floor(), out.height), within(y2.ceil(), out.height));
    for y in top..bottom {
        let row = &mut out.data[(y * columns + left) * c..(y * columns + right) * c];
        for (index, pixel) in row.chunks_exact_mut(c).enumerate() {
            let (x, y) = ((left + index) as f64 + 0.5, y as f64 + 0.5);
            let of = |i: usize| back[i][0] * x + back[i][1] * y + back[i][2];
            let w = of(2);
            let (sx, sy) = (of(0) / w, of(1) / w);
            if sx >= 0.0 && sy >= 0.0 && sx < width && sy < height {
                sample(image, sx - 0.5, sy - 0.5, pixel);
            }
        }
    }
}

/// The value between four pixels, by weights of 1/256 so that whole numbers do.
#[inline(always)]
fn sample(image: &Image, x: f64, y: f64, pixel: &mut [u8]) {
    let c = image.channels;
    let (fx, fy) = ((x.max(0.0) * 256.0) as usize, (y.max(0.0) * 256.0) as usize);
    let (x0, y0) = ((fx >> 8).min(image.width - 1), (fy >> 8).min(image.height - 1));
    let (dx, dy) = ((fx & 255) as u32, (fy & 255) as u32);
    let (right, below) = (usize::from(x0 + 1 < image.width) * c, usize::from(y0 + 1 < image.height) * image.width * c);
    let at = (y0 * image.width + x0) * c;
    for (channel, value) in pixel.iter_mut().enumerate() {
        let byte = |place: usize| u32::from(image.data[place + channel]);
        let upper = byte(at) * (256 - dx) + byte(at + right) * dx;
        let lower = byte(at + below) * (256 - dx) + byte(at + below + right) * dx;
        *value = ((upper * (256 - dy) + lower * dy + (1 << 15)) >> 16) as u8;
    }
}

/// Moves the things by a map into a result of this height and width; those of which too little is left are dropped.
fn move_things(things: &[Thing], map: &PlaneMap, [height, width]: [usize; 2], out: &mut Vec<Thing>) {
    for thing in things {
        let whole = map.around(thing.xyxy);
        let limits = [width as f64, height as f64];
        let xyxy: [f64; 4] = std::array::from_fn(|i| whole[i].clamp(0.0, limits[i % 2]));
        let sides = |[x1, y1, x2, y2]: [f64; 4]| [x2 - x1, y2 - y1];
        let ([w, h], [whole_w, whole_h]) = (sides(xyxy), sides(whole));
        if w >= LEAST_SIDE && h >= LEAST_SIDE && w * h >= LEAST_VISIBLE * whole_w * whole_h {
            out.push(thing.moved(xyxy, map));
        }
    }
}

/// A picture with its things, ready to be put somewhere.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The picture.
    pub image: &'a Image,
    /// What is on it, in its pixels.
    pub things: &'a [Thing],
}

/// Random changes of pictures with boxes, from one or four pictures to one of a given size.
///
/// ```
/// use striate_vision::data::Image;
/// use striate_vision::transforms::{BoxAugment, Draws, Part, Thing};
/// let image = Image::filled(40, 30, &[9, 9, 9]);
/// let things = [Thing { xyxy: [10.0, 10.0, 20.0, 20.0], ..Thing::default() }];
/// let (mut out, mut moved) = (Image::default(), Vec::new());
/// let part = Part { image: &image, things: &things };
/// BoxAugment::plain().apply(&[part], [60, 80], &mut Draws::new(0, "augment", 0, 0), (&mut out, &mut moved));
/// assert_eq!((out.height, out.width, moved[0].xyxy), (60, 80, [20.0, 20.0, 40.0, 40.0]));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BoxAugment {
    /// Probability that four pictures are put together (Bochkovskiy et al. 2020, YOLOv4).
    pub mosaic: f64,
    /// Probability that another result is laid half over it (Zhang et al. 2018; for boxes Zhang et al. 2019).
    pub mixup: f64,
    /// Probability that things of another picture are put on it (Dwibedi et al. 2017; Ghiasi et al. 2021): the pixels of their shapes,
    /// of things without a shape those of their boxes.
    pub copy_paste: f64,
    /// Turned by up to so many degrees to either side.
    pub degrees: f64,
    /// Shifted by up to this part of the sides.
    pub translate: f64,
    /// Least and largest factor of the size.
    pub scale: [f64; 2],
    /// Sheared by up to so many degrees.
    pub shear: f64,
    /// Perspective: by how much the far side may shrink, as a part.
    pub perspective: f64,
    /// Probability of left becoming right.
    pub flip: f64,
    /// Probability of up becoming down.
    pub flip_vertical: f64,
    /// Hue is turned by up to this part of the circle, saturation and value are multiplied by 1 plus or minus up to so much.
    pub hsv: [f64; 3],
    /// Probability that a single picture is put onto a canvas up to four times as wide (Liu et al. 2016, SSD).
    pub zoom_out: f64,
    /// Probability that of a single picture a window is taken that some boxes overlap enough (Liu et al. 2016, SSD).
    pub iou_crop: f64,
}

impl BoxAugment {
    /// Nothing random: fitted into the frame, in its middle.
    pub fn plain() -> BoxAugment {
        BoxAugment {
            mosaic: 0.0,
            mixup: 0.0,
            copy_paste: 0.0,
            degrees: 0.0,
            translate: 0.0,
            scale: [1.0, 1.0],
            shear: 0.0,
            perspective: 0.0,
            flip: 0.0,
            flip_vertical: 0.0,
            hsv: [0.0; 3],
            zoom_out: 0.0,
            iou_crop: 0.0,
        }
    }

    /// How many pictures [`BoxAugment::apply`] needs at most for one.
    pub fn most_parts(&self) -> usize {
        let mosaic = if self.mosaic > 0.0 { 4 } else { 1 };
        mosaic * if self.mixup > 0.0 { 2 } else { 1 } + usize::from(self.copy_paste > 0.0)
    }

    /// Puts four parts together, or one, into `out` of this height and width, with their things.
    pub fn apply(
        &self,
        parts: &[Part<'_>],
        size: [usize; 2],
        draws: &mut Draws,
        (out, things): (&mut Image, &mut Vec<Thing>),
    ) {
        let channels = parts.first().map_or(3, |part| part.image.channels);
        out.reshape(size[1], size[0], channels);
        out.data.fill(GREY);
        things.clear();
        match parts {
            [one] => {
                let map = self.window(one, size, draws).then(self.about_middle(size, size, draws));
                self.put(one, &map, size, (out, things));
            }
            parts => self.mosaic(parts, size, draws, (out, things)),
        }
        if channels == 3 {
            jitter(out, self.hsv, draws);
        }
    }

    fn put(&self, part: &Part<'_>, map: &PlaneMap, size: [usize; 2], (out, things): (&mut Image, &mut Vec<Thing>)) {
        paint(part.image, map, out);
        move_things(part.things, map, size, things);
    }

    /// Four pictures around a point of a canvas twice as large in each direction.
    fn mosaic(&self, parts: &[Part<'_>], size: [usize; 2], draws: &mut Draws, to: (&mut Image, &mut Vec<Thing>)) {
        let [height, width] = size.map(|side| side as f64);
        let centre = [draws.range(0.5, 1.5) * width, draws.range(0.5, 1.5) * height];
        let map = self.about_middle([2 * size[0], 2 * size[1]], size, draws);
        let (out, things) = to;
        for (index, part) in parts.iter().take(4).enumerate() {
            let fit = fit(part.image, size);
            let [w, h] = [fit * part.image.width as f64, fit * part.image.height as f64];
            let x = if index % 2 == 0 { centre[0] - w } else { centre[0] };
            let y = if index < 2 { centre[1] - h } else { centre[1] };
            let place = PlaneMap::scale(fit, fit).then(PlaneMap::shift(x, y));
            self.put(part, &place.then(map), size, (&mut *out, &mut *things));
        }
    }

    /// From a single picture into the frame: fitted, or a window of it, or on a larger canvas.
    fn window(&self, part: &Part<'_>, size: [usize; 2], draws: &mut Draws) -> PlaneMap {
        let (w, h) = (part.image.width as f64, part.image.height as f64);
        let mut window = [0.0, 0.0, w, h];
        if draws.chance(self.zoom_out) {
            let factor = draws.range(1.0, MOST_ZOOM);
            let (x, y) = (draws.unit() * (factor - 1.0) * w, draws.unit() * (factor - 1.0) * h);
            window = [-x, -y, factor * w - x, factor * h - y];
        }
        if draws.chance(self.iou_crop) {
            window = overlapping_window(part.things, window, draws);
        }
        let [x1, y1, x2, y2] = window;
        let [height, width] = size.map(|side| side as f64);
        let fit = (width / (x2 - x1)).min(height / (y2 - y1));
        let middle = [(width - fit * (x2 - x1)) / 2.0, (height - fit * (y2 - y1)) / 2.0];
        PlaneMap::shift(-x1, -y1).then(PlaneMap::scale(fit, fit)).then(PlaneMap::shift(middle[0], middle[1]))
    }

    /// The random map about the middle of a canvas, whose middle becomes that of the result but for the shift.
    fn about_middle(&self, canvas: [usize; 2], size: [usize; 2], draws: &mut Draws) -> PlaneMap {
        let [ch, cw] = canvas.map(|side| side as f64 / 2.0);
        let [h, w] = size.map(|side| side as f64);
        let scale = draws.range(self.scale[0], self.scale[1]);
        let (sin, cos) = draws.range(-self.degrees, self.degrees).to_radians().sin_cos();
        let [sx, sy] = [0, 1].map(|_| draws.range(-self.shear, self.shear).to_radians().tan());
        let [px, py] = [cw, ch].map(|half| draws.range(-self.perspective, self.perspective) / half);
        let [dx, dy] = [w, h].map(|side| draws.range(-self.translate, self.translate) * side);
        let mirror = [self.flip, self.flip_vertical].map(|p| if draws.chance(p) { -1.0 } else { 1.0 });
        let perspective = PlaneMap([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [px, py, 1.0]]);
        PlaneMap::shift(-cw, -ch)
            .then(perspective)
            .then(PlaneMap::affine([cos * scale, -sin * scale, 0.0, sin * scale, cos * scale, 0.0]))
            .then(PlaneMap::affine([1.0, sx, 0.0, sy, 1.0, 0.0]))
            .then(PlaneMap::scale(mirror[0], mirror[1]))
            .then(PlaneMap::shift(w / 2.0 + dx, h / 2.0 + dy))
    }

    /// Lays `other` over `out`, a random part of around half of each, and joins the things.
    pub fn mix(&self, other: (&Image, &[Thing]), draws: &mut Draws, (out, things): (&mut Image, &mut Vec<Thing>)) {
        let share = (draws.beta(32.0) * 256.0) as u32;
        for (a, b) in out.data.iter_mut().zip(&other.0.data) {
            *a = ((u32::from(*a) * share + u32::from(*b) * (256 - share)) >> 8) as u8;
        }
        things.extend_from_slice(other.1);
    }

    /// Puts each of another picture's things half of the time where nothing lies yet, as it is there: the pixels of its shape, where
    /// it has one.
    pub fn paste(&self, part: &Part<'_>, draws: &mut Draws, (out, things): (&mut Image, &mut Vec<Thing>)) {
        let mut pixels = Vec::new();
        for thing in part.things.iter().filter(|thing| !thing.crowd) {
            let [x1, y1, x2, y2] = thing.xyxy.map(|v| v.round().max(0.0) as usize);
            let (x2, y2) = (x2.min(part.image.width), y2.min(part.image.height));
            let fits = x2 > x1 + 1 && y2 > y1 + 1 && x2 - x1 < out.width && y2 - y1 < out.height;
            if !draws.chance(0.5) || !fits {
                continue;
            }
            let (w, h) = (x2 - x1, y2 - y1);
            let (left, top) = (draws.below(out.width - w), draws.below(out.height - h));
            let xyxy = [left, top, left + w, top + h].map(|v| v as f64);
            if things.iter().any(|other| overlap(other.xyxy, xyxy) > 0.0) {
                continue;
            }
            match &thing.shape {
                Some(shape) => shape.raster([x1, y1, x2, y2], &mut pixels),
                None => fill_with(&mut pixels, w * h, 1),
            }
            // Nothing of a shape that lies beside its box.
            if pixels.iter().all(|&belongs| belongs == 0) {
                continue;
            }
            copy_pixels((part.image, [x1, y1]), (out, [left, top]), (&pixels, w));
            let map = PlaneMap::shift(left as f64 - x1 as f64, top as f64 - y1 as f64);
            things.push(thing.moved(xyxy, &map));
        }
    }
}

/// Makes `values` so many of this one.
fn fill_with(values: &mut Vec<u8>, count: usize, value: u8) {
    values.clear();
    values.resize(count, value);
}

/// Copies the pixels of a window that belong, in rows of `w`, from one place to another of the same number of channels.
fn copy_pixels(
    (from, [x, y]): (&Image, [usize; 2]),
    (to, [left, top]): (&mut Image, [usize; 2]),
    (pixels, w): (&[u8], usize),
) {
    let c = to.channels;
    for (row, belong) in pixels.chunks_exact(w).enumerate() {
        let source = &from.data[((y + row) * from.width + x) * c..][..w * c];
        let target = &mut to.data[((top + row) * to.width + left) * c..][..w * c];
        let pairs = source.chunks_exact(c).zip(target.chunks_exact_mut(c)).zip(belong);
        pairs.filter(|(_, belongs)| **belongs != 0).for_each(|((from, to), _)| to.copy_from_slice(from));
    }
}

/// By how much a picture is scaled to fit just into the frame.
fn fit(image: &Image, size: [usize; 2]) -> f64 {
    (size[0] as f64 / image.height as f64).min(size[1] as f64 / image.width as f64)
}

/// Intersection over union.
fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let side = |axis: usize| (a[axis + 2].min(b[axis + 2]) - a[axis].max(b[axis])).max(0.0);
    let area = |b: [f64; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let common = side(0) * side(1);
    if common > 0.0 { common / (area(a) + area(b) - common) } else { 0.0 }
}

/// A window of `whole` with at least 0.3 of its sides that has the centre of a box, all boxes of which the centre lies in it
/// overlapping it by a drawn least overlap; `whole` where none is found.
fn overlapping_window(things: &[Thing], whole: [f64; 4], draws: &mut Draws) -> [f64; 4] {
    let least = CROP_OVERLAPS[draws.below(CROP_OVERLAPS.len())];
    let (w, h) = (whole[2] - whole[0], whole[3] - whole[1]);
    for _ in 0..if least > 1.0 { 0 } else { CROP_TRIALS } {
        let (cw, ch) = (w * draws.range(0.3, 1.0), h * draws.range(0.3, 1.0));
        let (x, y) = (whole[0] + draws.unit() * (w - cw), whole[1] + draws.unit() * (h - ch));
        let window = [x, y, x + cw, y + ch];
        let centred = |thing: &&Thing| {
            let [x1, y1, x2, y2] = thing.xyxy;
            let (cx, cy) = ((x1 + x2) / 2.0, (y1 + y2) / 2.0);
            cx > window[0] && cx < window[2] && cy > window[1] && cy < window[3]
        };
        let mut inside = things.iter().filter(centred).peekable();
        let sound = (0.5..=2.0).contains(&(cw / ch)) && inside.peek().is_some();
        if sound && inside.all(|thing| overlap(thing.xyxy, window) >= least) {
            return window;
        }
    }
    whole
}

/// Turns the hue and multiplies saturation and value of RGB, by random amounts up to these.
fn jitter(image: &mut Image, hsv: [f64; 3], draws: &mut Draws) {
    let [hue, saturation, value] = hsv.map(|most| draws.range(-most, most) as f32);
    if hsv == [0.0; 3] {
        return;
    }
    for pixel in image.data.chunks_exact_mut(3) {
        let rgb = [0, 1, 2].map(|channel| f32::from(pixel[channel]));
        let changed = change_hsv(rgb, [hue * 6.0, 1.0 + saturation, 1.0 + value]);
        pixel.iter_mut().zip(changed).for_each(|(byte, value)| *byte = (value + 0.5) as u8);
    }
}

/// RGB from 0 to 255 with the hue turned by so many sixths, saturation and value multiplied.
fn change_hsv([r, g, b]: [f32; 3], [turn, saturation, value]: [f32; 3]) -> [f32; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let span = most - least;
    let hue = match span {
        0.0 => 0.0,
        _ if most == r => (g - b) / span,
        _ if most == g => 2.0 + (b - r) / span,
        _ => 4.0 + (r - g) / span,
    };
    let part = if most > 0.0 { (span / most * saturation).min(1.0) } else { 0.0 };
    let bright = (most * value).min(255.0);
    let hue = hue + turn;
    // Each channel's distance from its own hue, on the circle of six.
    let channel = |own: f32| {
        let k = (own + hue + 12.0) % 6.0;
        bright - bright * part * k.min(4.0 - k).clamp(0.0, 1.0)
    };
    [channel(5.0), channel(3.0), channel(1.0)]
}

#[cfg(test)]
impl BoxAugment {
    /// What moves a picture without turning it, all of it.
    pub(super) fn wild() -> BoxAugment {
        BoxAugment {
            translate: 0.2,
            scale: [0.6, 1.6],
            flip: 0.5,
            flip_vertical: 0.5,
            zoom_out: 0.3,
            iou_crop: 0.3,
            ..BoxAugment::plain()
        }
    }

    /// What leaves no rectangle a rectangle.
    pub(super) fn turned() -> BoxAugment {
        BoxAugment { degrees: 30.0, shear: 8.0, perspective: 0.1, translate: 0.1, ..BoxAugment::plain() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHITE: [u8; 3] = [250, 250, 250];

    /// Black, with a white rectangle where the thing is.
    fn scene(width: usize, height: usize, [x1, y1, x2, y2]: [usize; 4]) -> (Image, Thing) {
        let mut image = Image::filled(width, height, &[0, 0, 0]);
        for (y, x) in (y1..y2).flat_map(|y| (x1..x2).map(move |x| (y, x))) {
            image.data[3 * (y * width + x)..][..3].copy_from_slice(&WHITE);
        }
        (image, Thing { xyxy: [x1, y1, x2, y2].map(|v| v as f64), ..Thing::default() })
    }

    /// Draws until `augment` has made this of the scene; what comes out.
    fn made(augment: BoxAugment, scene: &(Image, Thing), size: [usize; 2], sample: u64) -> (Image, Vec<Thing>) {
        let (mut out, mut things) = (Image::default(), Vec::new());
        let part = Part { image: &scene.0, things: std::slice::from_ref(&scene.1) };
        augment.apply(&[part], size, &mut Draws::new(0, "test", 0, sample), (&mut out, &mut things));
        (out, things)
    }

    /// The box around the white pixels.
    fn white(image: &Image) -> Option<[f64; 4]> {
        let bright = |i: &usize| image.data[3 * i] > 190;
        let places: Vec<[usize; 2]> =
            (0..image.width * image.height).filter(bright).map(|i| [i % image.width, i / image.width]).collect();
        let least = |axis: usize| places.iter().map(|p| p[axis]).min();
        let most = |axis: usize| places.iter().map(|p| p[axis] + 1).max();
        Some([least(0)? as f64, least(1)? as f64, most(0)? as f64, most(1)? as f64])
    }

    fn near(a: [f64; 4], b: [f64; 4], by: f64) -> bool {
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= by)
    }

    #[test]
    fn plain_fits_the_picture_into_the_middle() {
        let scene = scene(40, 20, [10, 5, 20, 15]);
        let (out, things) = made(BoxAugment::plain(), &scene, [60, 80], 0);
        assert_eq!(things[0].xyxy, [20.0, 20.0, 40.0, 40.0]);
        assert_eq!((out.pixel(0, 9), out.pixel(0, 10)), (&[GREY; 3][..], &[0; 3][..]), "grey above, then the picture");
        assert!(near(white(&out).unwrap(), things[0].xyxy, 1.0));
    }

    #[test]
    fn mirrored_boxes_change_sides() {
        let scene = scene(40, 20, [2, 3, 8, 9]);
        let flips = |flip, flip_vertical| BoxAugment { flip, flip_vertical, ..BoxAugment::plain() };
        assert_eq!(made(flips(1.0, 0.0), &scene, [20, 40], 0).1[0].xyxy, [32.0, 3.0, 38.0, 9.0]);
        assert_eq!(made(flips(0.0, 1.0), &scene, [20, 40], 0).1[0].xyxy, [2.0, 11.0, 8.0, 17.0]);
        let (out, things) = made(flips(1.0, 1.0), &scene, [20, 40], 0);
        assert_eq!((things[0].xyxy, white(&out)), ([32.0, 11.0, 38.0, 17.0], Some([32.0, 11.0, 38.0, 17.0])));
    }

    #[test]
    fn boxes_stay_on_their_things_whatever_happens() {
        let scene = scene(80, 60, [30, 20, 50, 44]);
        let mut found = 0;
        for (augment, sample) in
            [BoxAugment::wild(), BoxAugment::turned()].into_iter().flat_map(|a| (0..40).map(move |s| (a, s)))
        {
            let (out, things) = made(augment, &scene, [96, 128], sample);
            let Some(thing) = things.first() else { continue };
            // A turned rectangle fills its box up to the corners.
            assert!(near(white(&out).unwrap(), thing.xyxy, 2.5), "{sample}: {:?} {:?}", white(&out), thing.xyxy);
            found += 1;
        }
        assert!(found > 50, "{found}");
    }

    #[test]
    fn what_is_hardly_left_is_dropped() {
        let map = PlaneMap::shift(-9.5, 0.0);
        let things = [[0.0, 0.0, 10.0, 10.0], [8.0, 0.0, 18.0, 10.0], [30.0, 0.0, 31.0, 10.0]];
        let things = things.map(|xyxy| Thing { xyxy, ..Thing::default() });
        let mut out = Vec::new();
        move_things(&things, &map, [20, 30], &mut out);
        assert_eq!(out.iter().map(|t| t.xyxy).collect::<Vec<_>>(), [[0.0, 0.0, 8.5, 10.0]]);
    }

    #[test]
    fn a_mosaic_has_the_things_of_all_four() {
        let scenes = [0usize, 1, 2, 3].map(|class| {
            let (image, thing) = scene(64, 64, [8 + 8 * class, 24, 28 + 8 * class, 40]);
            (image, Thing { class, ..thing })
        });
        let parts = [0, 1, 2, 3].map(|i| Part { image: &scenes[i].0, things: std::slice::from_ref(&scenes[i].1) });
        let augment = BoxAugment { scale: [0.5, 0.5], ..BoxAugment::plain() };
        let (mut out, mut things, mut seen) = (Image::default(), Vec::new(), 0);
        for sample in 0..20 {
            augment.apply(&parts, [64, 64], &mut Draws::new(0, "test", 0, sample), (&mut out, &mut things));
            for thing in &things {
                let [x1, y1, x2, y2] = thing.xyxy.map(|v| v as usize);
                let inner =
                    (y1 + 2..y2.saturating_sub(2)).flat_map(|y| (x1 + 2..x2.saturating_sub(2)).map(move |x| (x, y)));
                assert!(inner.into_iter().all(|(x, y)| out.pixel(x, y)[0] > 240), "{sample} {thing:?}");
            }
            seen += things.len();
        }
        assert!(seen > 60, "{seen} of 80 things");
    }

    #[test]
    fn pasted_things_lie_where_nothing_was() {
        let (image, thing) = scene(40, 40, [5, 5, 15, 12]);
        let (mut out, mut things) = (Image::filled(40, 40, &[7, 7, 7]), vec![thing.clone()]);
        let augment = BoxAugment::plain();
        for sample in 0..10 {
            let part = Part { image: &image, things: std::slice::from_ref(&thing) };
            augment.paste(&part, &mut Draws::new(0, "test", 0, sample), (&mut out, &mut things));
        }
        assert!(things.len() > 3, "{}", things.len());
        for (i, a) in things.iter().enumerate() {
            assert!(things[..i].iter().all(|b| overlap(a.xyxy, b.xyxy) == 0.0));
        }
        assert!(things[1..].iter().all(|t| out.pixel(t.xyxy[0] as usize, t.xyxy[1] as usize) == WHITE));
    }

    #[test]
    fn mixed_pictures_have_the_things_of_both() {
        let (mut out, mut things) = (Image::filled(4, 4, &[100, 0, 0]), vec![Thing::default()]);
        let other = (Image::filled(4, 4, &[0, 0, 200]), [Thing { class: 1, ..Thing::default() }]);
        BoxAugment::plain().mix((&other.0, &other.1), &mut Draws::new(0, "test", 0, 0), (&mut out, &mut things));
        assert_eq!(things.len(), 2);
        assert!((20..80).contains(&out.data[0]) && (40..160).contains(&out.data[2]), "{:?}", out.pixel(0, 0));
    }

    #[test]
    fn colours_change_as_hsv_says() {
        let near = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 0.01);
        assert!(near(change_hsv([200.0, 100.0, 50.0], [0.0, 1.0, 1.0]), [200.0, 100.0, 50.0]));
        assert!(near(change_hsv([200.0, 0.0, 0.0], [2.0, 1.0, 1.0]), [0.0, 200.0, 0.0]));
        assert!(near(change_hsv([200.0, 100.0, 100.0], [0.0, 0.0, 1.0]), [200.0; 3]));
        assert!(near(change_hsv([200.0, 100.0, 50.0], [0.0, 1.0, 0.5]), [100.0, 50.0, 25.0]));
    }

    #[test]
    fn a_letterbox_keeps_the_aspect_and_is_grey_beside() {
        let mut image = Image::filled(40, 20, &[9, 9, 9]);
        let letterbox = Letterbox { size: [32, 32], interpolation: Interpolation::Bilinear };
        letterbox.apply(&mut image, &mut Draws::new(0, "test", 0, 0), &mut Scratch::default()).unwrap();
        assert_eq!((image.width, image.height), (32, 32));
        assert_eq!((image.pixel(31, 15), image.pixel(0, 16)), (&[9; 3][..], &[GREY; 3][..]));
    }
}
