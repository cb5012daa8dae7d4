//! Rotation and affine maps, as PIL's `transform` and `rotate` have them.

use super::{Draws, Interpolation, Scratch, Transform, TransformError, round_half_even};
use crate::data::Image;

/// Maps an output pixel's centre (x, y) to the source: x' = m0 x + m1 y + m2, y' = m3 x + m4 y + m5.
type Matrix = [f64; 6];

/// Applies a matrix that leads from output to source; what comes from outside of the source is `fill`.
fn transform(
    image: &mut Image,
    [width, height]: [usize; 2],
    m: &Matrix,
    how: Interpolation,
    fill: [u8; 3],
    scratch: &mut Scratch,
) {
    let c = image.channels;
    let out = &mut scratch.spare;
    out.reshape(width, height, c);
    match how {
        Interpolation::Nearest => nearest(image, m, &fill[..c], out),
        Interpolation::Bilinear => interpolated(image, m, &fill[..c], out, bilinear),
        Interpolation::Bicubic => interpolated(image, m, &fill[..c], out, bicubic),
    }
    std::mem::swap(image, &mut scratch.spare);
}

/// In 16.16 fixed point as PIL does it for pictures below 32768 pixels a side (ours are, see `MAX_SIDE`).
fn nearest(image: &Image, m: &Matrix, fill: &[u8], out: &mut Image) {
    let fix = |v: f64| (v * 65536.0 + 0.5).floor() as i64;
    let c = image.channels;
    let (a0, a1, a3, a4) = (fix(m[0]), fix(m[1]), fix(m[3]), fix(m[4]));
    let mut start_x = fix(m[2] + m[0] * 0.5 + m[1] * 0.5);
    let mut start_y = fix(m[5] + m[3] * 0.5 + m[4] * 0.5);
    for row in out.data.chunks_exact_mut(out.width * c) {
        let (mut x, mut y) = (start_x, start_y);
        for pixel in row.chunks_exact_mut(c) {
            let (sx, sy) = (x >> 16, y >> 16);
            let inside = (0..image.width as i64).contains(&sx) && (0..image.height as i64).contains(&sy);
            pixel.copy_from_slice(if inside { image.pixel(sx as usize, sy as usize) } else { fill });
            x += a0;
            y += a3;
        }
        start_x += a1;
        start_y += a4;
    }
}

fn interpolated(image: &Image, m: &Matrix, fill: &[u8], out: &mut Image, value: fn(&Image, f64, f64, usize) -> u8) {
    let c = image.channels;
    let (w, h) = (image.width as f64, image.height as f64);
    for (row, pixels) in out.data.chunks_exact_mut(out.width * c).enumerate() {
        let yo = row as f64 + 0.5;
        for (column, pixel) in pixels.chunks_exact_mut(c).enumerate() {
            let xo = column as f64 + 0.5;
            let (x, y) = (m[0] * xo + m[1] * yo + m[2], m[3] * xo + m[4] * yo + m[5]);
            if x >= 0.0 && x < w && y >= 0.0 && y < h {
                for (channel, byte) in pixel.iter_mut().enumerate() {
                    *byte = value(image, x - 0.5, y - 0.5, channel);
                }
            } else {
                pixel.copy_from_slice(fill);
            }
        }
    }
}

/// The pixel at clamped coordinates.
fn at(image: &Image, x: isize, y: isize, channel: usize) -> f64 {
    let x = x.clamp(0, image.width as isize - 1) as usize;
    let y = y.clamp(0, image.height as isize - 1) as usize;
    f64::from(image.data[(y * image.width + x) * image.channels + channel])
}

fn bilinear(image: &Image, x: f64, y: f64, channel: usize) -> u8 {
    let (x0, y0) = (x.floor(), y.floor());
    let (dx, dy) = (x - x0, y - y0);
    let (x0, y0) = (x0 as isize, y0 as isize);
    let row = |y: isize| {
        let (a, b) = (at(image, x0, y, channel), at(image, x0 + 1, y, channel));
        a + (b - a) * dx
    };
    let (upper, lower) = (row(y0), row(y0 + 1));
    (upper + (lower - upper) * dy) as u8
}

fn bicubic(image: &Image, x: f64, y: f64, channel: usize) -> u8 {
    let (x0, y0) = (x.floor(), y.floor());
    let (dx, dy) = (x - x0, y - y0);
    let (x0, y0) = (x0 as isize, y0 as isize);
    let cubic = |v: [f64; 4], d: f64| {
        let p2 = -v[0] + v[2];
        let p3 = 2.0 * (v[0] - v[1]) + v[2] - v[3];
        let p4 = -v[0] + v[1] - v[2] + v[3];
        v[1] + d * (p2 + d * (p3 + d * p4))
    };
    let row = |y: isize| cubic(std::array::from_fn(|i| at(image, x0 - 1 + i as isize, y, channel)), dx);
    cubic(std::array::from_fn(|i| row(y0 - 1 + i as isize)), dy) as u8
}

/// torchvision's matrix from output to source for a rotation by `angle` degrees (clockwise), then shear (degrees, x and y),
/// scale and translation (pixels), all about `center` (pixels).
pub fn affine_matrix(center: [f64; 2], angle: f64, translate: [f64; 2], scale: f64, shear: [f64; 2]) -> [f64; 6] {
    let rot = angle.to_radians();
    let (sx, sy) = (shear[0].to_radians(), shear[1].to_radians());
    let a = (rot - sy).cos() / sy.cos();
    let b = -(rot - sy).cos() * sx.tan() / sy.cos() - rot.sin();
    let c = (rot - sy).sin() / sy.cos();
    let d = -(rot - sy).sin() * sx.tan() / sy.cos() + rot.cos();
    let mut m = [d / scale, -b / scale, 0.0, -c / scale, a / scale, 0.0];
    let (x, y) = (-center[0] - translate[0], -center[1] - translate[1]);
    m[2] = m[0] * x + m[1] * y + center[0];
    m[5] = m[3] * x + m[4] * y + center[1];
    m
}

/// `torchvision.transforms.functional.affine`: the size stays; `matrix` is that of [`affine_matrix`].
pub fn affine(
    image: &mut Image,
    matrix: &[f64; 6],
    interpolation: Interpolation,
    fill: [u8; 3],
    scratch: &mut Scratch,
) {
    transform(image, [image.width, image.height], matrix, interpolation, fill, scratch);
}

/// `PIL.Image.rotate`: counter-clockwise by `degrees` about the centre. With `expand` the whole turned picture is kept.
pub fn rotate(image: &mut Image, degrees: f64, expand: bool, how: Interpolation, fill: [u8; 3], scratch: &mut Scratch) {
    let degrees = degrees.rem_euclid(360.0);
    let square = image.width == image.height;
    if degrees == 0.0 {
        return;
    } else if degrees == 180.0 {
        super::vertical_flip(image);
        return super::horizontal_flip(image);
    } else if (degrees == 90.0 || degrees == 270.0) && (expand || square) {
        return quarter_turn(image, degrees == 90.0, scratch);
    }
    let angle = -degrees.to_radians();
    let round15 = |v: f64| format!("{v:.15}").parse::<f64>().unwrap_or(v);
    let (cos, sin) = (round15(angle.cos()), round15(angle.sin()));
    let mut m = [cos, sin, 0.0, -sin, cos, 0.0];
    let apply = |x: f64, y: f64, m: &Matrix| (m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5]);
    let (w, h) = (image.width as f64, image.height as f64);
    let (x, y) = apply(-w / 2.0, -h / 2.0, &m);
    (m[2], m[5]) = (x + w / 2.0, y + h / 2.0);
    let mut size = [image.width, image.height];
    if expand {
        let corners = [(0.0, 0.0), (w, 0.0), (w, h), (0.0, h)].map(|(x, y)| apply(x, y, &m));
        let extent = |values: [f64; 4]| {
            let high = values.into_iter().fold(f64::MIN, f64::max).ceil();
            high - values.into_iter().fold(f64::MAX, f64::min).floor()
        };
        let (nw, nh) = (extent(corners.map(|p| p.0)), extent(corners.map(|p| p.1)));
        (m[2], m[5]) = apply(-(nw - w) / 2.0, -(nh - h) / 2.0, &m);
        size = [nw as usize, nh as usize];
    }
    transform(image, size, &m, how, fill, scratch);
}

/// By 90 degrees, exact.
fn quarter_turn(image: &mut Image, counter_clockwise: bool, scratch: &mut Scratch) {
    let (w, h, c) = (image.width, image.height, image.channels);
    scratch.spare.reshape(h, w, c);
    for (i, pixel) in scratch.spare.data.chunks_exact_mut(c).enumerate() {
        let (x, y) = (i % h, i / h);
        let source = if counter_clockwise { image.pixel(w - 1 - y, x) } else { image.pixel(y, h - 1 - x) };
        pixel.copy_from_slice(source);
    }
    std::mem::swap(image, &mut scratch.spare);
}

/// `torchvision.transforms.RandomRotation`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomRotation {
    /// Least and largest angle, counter-clockwise, in degrees.
    pub degrees: [f64; 2],
    /// How to resample.
    pub interpolation: Interpolation,
    /// Whether the result is as large as the turned picture.
    pub expand: bool,
    /// The colour of what comes from outside.
    pub fill: [u8; 3],
}

impl RandomRotation {
    /// Between `-degrees` and `degrees`, nearest, same size, black.
    pub fn new(degrees: f64) -> Self {
        Self { degrees: [-degrees, degrees], interpolation: Interpolation::Nearest, expand: false, fill: [0; 3] }
    }
}

impl Transform for RandomRotation {
    fn apply(&self, image: &mut Image, draws: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        let angle = draws.range(self.degrees[0], self.degrees[1]);
        rotate(image, angle, self.expand, self.interpolation, self.fill, scratch);
        Ok(())
    }
}

/// `torchvision.transforms.RandomAffine`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomAffine {
    /// Least and largest angle, clockwise, in degrees.
    pub degrees: [f64; 2],
    /// Largest shift as a part of the width and of the height.
    pub translate: Option<[f64; 2]>,
    /// Least and largest scale.
    pub scale: Option<[f64; 2]>,
    /// Least and largest shear in degrees: x, then y.
    pub shear: Option<[f64; 4]>,
    /// How to resample.
    pub interpolation: Interpolation,
    /// The colour of what comes from outside.
    pub fill: [u8; 3],
}

impl RandomAffine {
    /// Between `-degrees` and `degrees`, nothing else, nearest, black.
    pub fn new(degrees: f64) -> Self {
        Self {
            degrees: [-degrees, degrees],
            translate: None,
            scale: None,
            shear: None,
            interpolation: Interpolation::Nearest,
            fill: [0; 3],
        }
    }
}

impl Transform for RandomAffine {
    fn apply(&self, image: &mut Image, draws: &mut Draws, scratch: &mut Scratch) -> Result<(), TransformError> {
        let (w, h) = (image.width as f64, image.height as f64);
        let angle = draws.range(self.degrees[0], self.degrees[1]);
        let translate = self
            .translate
            .map_or([0.0; 2], |[x, y]| [draws.range(-x * w, x * w), draws.range(-y * h, y * h)].map(round_half_even));
        let scale = self.scale.map_or(1.0, |[low, high]| draws.range(low, high));
        let shear = self.shear.map_or([0.0; 2], |s| [draws.range(s[0], s[1]), draws.range(s[2], s[3])]);
        let matrix = affine_matrix([w * 0.5, h * 0.5], angle, translate, scale, shear);
        affine(image, &matrix, self.interpolation, self.fill, scratch);
        Ok(())
    }
}
