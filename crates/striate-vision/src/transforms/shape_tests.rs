//! Shapes beside the pictures that they were drawn on: whatever moves a picture moves its shapes.

use super::boxes::{BoxAugment, Part, Thing};
use super::plane::PlaneMap;
use super::{Draws, Shape};
use crate::data::Image;
use crate::detection::{Mask, Rle, RleCounts, Segmentation, ShapeError};

const WHITE: u8 = 250;
/// Grey levels beyond this are the thing's: halfway to black, and above the grey beside pictures.
const THING: u8 = 125;

/// A ring with a notch, and a triangle beside it: nothing that its box could stand for.
fn polygons() -> Vec<Vec<f64>> {
    let ring = vec![20.0, 10.0, 60.0, 12.0, 66.0, 40.0, 44.0, 30.0, 40.0, 52.0, 18.0, 44.0];
    vec![ring, vec![58.0, 44.0, 70.0, 52.0, 54.0, 54.0]]
}

fn shape_of(segmentation: &Segmentation) -> Shape {
    Shape::new(segmentation, Some([60, 80])).unwrap()
}

/// The same shape as polygons and as a mask.
fn both() -> [Shape; 2] {
    let drawn = shape_of(&Segmentation::Polygons(polygons()));
    let rle = drawn.mask([60, 80]).to_rle();
    [drawn, shape_of(&Segmentation::Rle(rle))]
}

/// Black, with the shape in white.
fn scene(shape: Shape) -> (Image, Thing) {
    let mut image = Image::filled(80, 60, &[0; 3]);
    shape.mask([60, 80]).pixels().for_each(|[x, y]| image.data[3 * (y * 80 + x)..][..3].fill(WHITE));
    (image, Thing { xyxy: [18.0, 10.0, 70.0, 54.0], shape: Some(shape), ..Thing::default() })
}

/// Intersection over union of what is bright and the masks of all things.
fn agreement(image: &Image, things: &[Thing]) -> f64 {
    let size = [image.height, image.width];
    let masks: Vec<Mask> = things.iter().filter_map(|thing| thing.mask(size)).collect();
    let (mut common, mut union) = (0, 0);
    for (y, x) in (0..size[0]).flat_map(|y| (0..size[1]).map(move |x| (y, x))) {
        let (bright, inside) = (image.pixel(x, y)[0] > THING, masks.iter().any(|mask| mask.contains(x, y)));
        (common, union) = (common + usize::from(bright && inside), union + usize::from(bright || inside));
    }
    common as f64 / union.max(1) as f64
}

#[test]
fn a_shape_covers_what_it_covered_whatever_moves_it() {
    let flips = BoxAugment { flip: 1.0, flip_vertical: 1.0, ..BoxAugment::plain() };
    for scene in both().map(scene) {
        let part = Part { image: &scene.0, things: std::slice::from_ref(&scene.1) };
        let mut seen = 0;
        let cases = [BoxAugment::plain(), flips, BoxAugment::wild(), BoxAugment::turned()];
        for (augment, sample) in cases.into_iter().flat_map(|augment| (0..25).map(move |sample| (augment, sample))) {
            let (mut out, mut things) = (Image::default(), Vec::new());
            augment.apply(&[part], [96, 128], &mut Draws::new(0, "test", 0, sample), (&mut out, &mut things));
            // Small ones are border for the most part.
            let Some(thing) = things.first().filter(|thing| thing.box_area() > 1500.0) else { continue };
            let iou = agreement(&out, &things);
            assert!(iou > 0.9, "{sample}: {iou} at {:?}", thing.xyxy);
            seen += 1;
        }
        assert!(seen > 75, "{seen}");
    }
}

#[test]
fn mosaics_and_mixtures_have_the_shapes_of_all() {
    let scenes = [0, 1, 2, 3].map(|index| scene(both()[index % 2].clone()));
    let parts = [0, 1, 2, 3].map(|i| Part { image: &scenes[i].0, things: std::slice::from_ref(&scenes[i].1) });
    let augment = BoxAugment { scale: [0.6, 0.9], flip: 0.5, degrees: 10.0, ..BoxAugment::plain() };
    let (mut out, mut things) = (Image::default(), Vec::new());
    for sample in 0..10 {
        let mut draws = Draws::new(0, "test", 0, sample);
        augment.apply(&parts, [192, 256], &mut draws, (&mut out, &mut things));
        // Slivers at the edge are dropped with their boxes, and stay white.
        let iou = agreement(&out, &things);
        assert!(things.len() >= 2 && iou > 0.85, "{sample}: {iou} of {}", things.len());
        let before = things.clone();
        augment.mix((&out.clone(), &before), &mut draws, (&mut out, &mut things));
        assert_eq!((&things[..before.len()], &things[before.len()..]), (&before[..], &before[..]));
    }
}

#[test]
fn pasted_things_are_their_shapes_and_not_their_boxes() {
    let mut pasted = 0;
    for scene in both().map(scene) {
        let part = Part { image: &scene.0, things: std::slice::from_ref(&scene.1) };
        for sample in 0..12 {
            let (mut out, mut things) = (Image::filled(160, 120, &[7; 3]), Vec::new());
            BoxAugment::plain().paste(&part, &mut Draws::new(0, "test", 0, sample), (&mut out, &mut things));
            if things.is_empty() {
                continue;
            }
            // A border that runs through the middle of a pixel may fall to either side.
            assert!(agreement(&out, &things) > 0.995, "{sample}");
            let black = out.data.iter().filter(|byte| **byte == 0).count();
            assert_eq!(black, 0, "what lies beside the shape is not pasted");
            pasted += 1;
        }
    }
    assert!(pasted > 6, "{pasted}");
}

#[test]
fn a_shape_beside_its_box_is_not_pasted() {
    let (image, thing) = scene(both()[0].clone());
    let empty = Thing { xyxy: [2.0, 2.0, 12.0, 9.0], ..thing };
    let (mut out, mut things) = (Image::filled(160, 120, &[7; 3]), Vec::new());
    let part = Part { image: &image, things: &[empty] };
    (0..12).for_each(|sample| {
        BoxAugment::plain().paste(&part, &mut Draws::new(0, "test", 0, sample), (&mut out, &mut things));
    });
    assert!(things.is_empty() && out.data.iter().all(|byte| *byte == 7));
}

#[test]
fn polygons_are_filled_as_pycocotools_fills_them() {
    // `pycocotools.mask.merge(frPyObjects(polygons, 60, 80))`: of 1416 pixels; the rules for borders differ.
    let text = r"kR19R1b0G80001O00001O00001O010O00001O00001O00001OM3K5J6K5M31O001O00010O001O001\OZO0f0M]O3d0J^O6b0GA9`0E@<`0E_O=?D@a0<^ODg07ZOHj05VOJo01QOOT1MlN2`1N101OQc0";
    let theirs = Mask::of_rle(&Rle { size: [60, 80], counts: RleCounts::Text(text.to_owned()) }).unwrap();
    let own = shape_of(&Segmentation::Polygons(polygons())).mask([60, 80]);
    let common = own.pixels().filter(|[x, y]| theirs.contains(*x, *y)).count();
    let iou = common as f64 / (own.area() + theirs.area() - common) as f64;
    assert!(iou > 0.99, "{iou}: {} and {} pixels", own.area(), theirs.area());
}

#[test]
fn what_is_enclosed_twice_is_outside_and_polygons_are_joined() {
    let square = |low: f64, high: f64| vec![low, low, high, low, high, high, low, high];
    // A square that goes on as a smaller one inside of itself.
    let hole = [square(0.0, 8.0), vec![0.0, 0.0], square(2.0, 6.0), vec![2.0, 2.0]].concat();
    let area = |list: Vec<Vec<f64>>| Shape::new(&Segmentation::Polygons(list), None).unwrap().mask([10, 10]).area();
    assert_eq!(area(vec![hole]), 64 - 16);
    assert_eq!(area(vec![square(0.0, 8.0), square(2.0, 6.0)]), 64);
    assert_eq!(area(vec![square(-50.0, 3.0), square(8.0, 1e30)]), 9 + 4);
    assert_eq!(area(vec![square(0.0, 8.0), vec![1.0, 2.0]]), 64, "a point encloses nothing");
}

#[test]
fn shapes_that_lie_are_refused_by_name() {
    let error = |segmentation: Segmentation| Shape::new(&segmentation, Some([60, 80])).unwrap_err();
    let polygon = |list: Vec<Vec<f64>>| error(Segmentation::Polygons(list)).to_string();
    assert_eq!(error(Segmentation::Polygons(Vec::new())), ShapeError::Empty);
    assert!(polygon(vec![vec![1.0; 6], vec![1.0; 7]]).contains("its polygon 2 has an odd number"));
    assert!(polygon(vec![vec![1.0, 2.0, 3.0, 1e300, 5.0, 6.0]]).contains("not finite"));
    assert!(polygon(vec![vec![1.0; 4]]).contains("fewer than three points"));
    let rle = |size| Segmentation::Rle(Rle { size, counts: RleCounts::Plain(vec![size[0] * size[1]]) });
    assert_eq!(error(rle([80, 60])), ShapeError::Size { mask: [80, 60], picture: [60, 80] });
    assert!(Shape::new(&rle([80, 60]), None).is_ok());
}

#[test]
fn no_map_makes_a_shape_panic() {
    let maps = [f64::NAN, 0.0, 1e300, -1.0].map(|v| PlaneMap([[v, 0.0, 3.0], [0.0, 1.0, v], [v, 0.0, 0.0]]));
    let mut pixels = Vec::new();
    for (shape, map) in both().iter().flat_map(|shape| maps.iter().map(move |map| (shape, map))) {
        shape.moved(map).raster([3, 2, 9, 7], &mut pixels);
        assert_eq!(pixels.len(), 30);
        assert!(pixels.iter().all(|pixel| *pixel <= 1));
    }
}
