//! What can be wrong with annotated pictures, and how a box is judged.

use super::annotations::BoxLabel;
use std::path::PathBuf;

/// Kinds of faults. Names are stable: `data check --json` prints them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Labels whose picture is not there.
    MissingPicture,
    /// A picture that no label file speaks of.
    MissingLabel,
    /// A label file that cannot be read.
    UnreadableLabel,
    /// An object that cannot be read.
    BadLabel,
    /// A picture whose file ends too early.
    TruncatedPicture,
    /// A picture that cannot be decoded.
    UnreadablePicture,
    /// A picture of another format than its ending says.
    WrongFormat,
    /// The annotated size is not the picture's.
    WrongSize,
    /// A box of no width or height.
    NoArea,
    /// A box beyond the picture's edge.
    Outside,
    /// A box whose corners are swapped.
    SwappedCorners,
    /// A class that the set does not have.
    UnknownClass,
    /// The same box of the same class twice.
    RepeatedBox,
    /// The same picture twice in one part.
    Duplicate,
    /// Two pictures of one part that are nearly the same.
    NearDuplicate,
    /// The same picture, or nearly, in two parts.
    Leak,
    /// A picture that its EXIF data turns.
    ExifTurn,
}

impl FaultKind {
    /// As `data check` prints it.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::MissingPicture => "missing_picture",
            FaultKind::MissingLabel => "missing_label",
            FaultKind::UnreadableLabel => "unreadable_label",
            FaultKind::BadLabel => "bad_label",
            FaultKind::TruncatedPicture => "truncated_picture",
            FaultKind::UnreadablePicture => "unreadable_picture",
            FaultKind::WrongFormat => "wrong_format",
            FaultKind::WrongSize => "wrong_size",
            FaultKind::NoArea => "no_area",
            FaultKind::Outside => "outside",
            FaultKind::SwappedCorners => "swapped_corners",
            FaultKind::UnknownClass => "unknown_class",
            FaultKind::RepeatedBox => "repeated_box",
            FaultKind::Duplicate => "duplicate",
            FaultKind::NearDuplicate => "near_duplicate",
            FaultKind::Leak => "leak",
            FaultKind::ExifTurn => "exif_turn",
        }
    }

    /// In words, for counts.
    pub fn describe(self) -> &'static str {
        match self {
            FaultKind::MissingPicture => "label without picture",
            FaultKind::MissingLabel => "picture without label",
            FaultKind::UnreadableLabel => "unreadable label file",
            FaultKind::BadLabel => "unreadable object",
            FaultKind::TruncatedPicture => "truncated picture",
            FaultKind::UnreadablePicture => "unreadable picture",
            FaultKind::WrongFormat => "picture of another format than its name says",
            FaultKind::WrongSize => "annotated size that is not the picture's",
            FaultKind::NoArea => "box without area",
            FaultKind::Outside => "box outside its picture",
            FaultKind::SwappedCorners => "box with swapped corners",
            FaultKind::UnknownClass => "object of an unknown class",
            FaultKind::RepeatedBox => "box that is there twice",
            FaultKind::Duplicate => "picture that is there twice",
            FaultKind::NearDuplicate => "picture that is there nearly twice",
            FaultKind::Leak => "picture that is in two parts",
            FaultKind::ExifTurn => "picture turned by its EXIF data",
        }
    }
}

/// What was done about a fault, in memory alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Repair {
    /// Nothing.
    None,
    /// The object, or the picture, is not used.
    LeftOut,
    /// The box was cut at the picture's edge.
    Cut,
    /// The corners were put in order.
    Ordered,
}

impl Repair {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Repair::None => "left as it is",
            Repair::LeftOut => "left out",
            Repair::Cut => "cut at the picture's edge",
            Repair::Ordered => "put in order",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// The file to blame.
    pub file: PathBuf,
    /// The object in it, such as `object 13 (RBC)`, `annotation 7` or `line 3`, where one is to blame.
    pub object: Option<String>,
    /// What is wrong, with the numbers.
    pub message: String,
    /// What was done.
    pub repair: Repair,
}

/// How far a box may reach beyond its picture before anybody is told: files round coordinates to hundredths of a pixel.
const TOLERANCE: f64 = 0.02;

/// The place of an object, for faults.
pub(crate) struct Place<'a> {
    pub file: &'a std::path::Path,
    pub object: String,
    /// Its picture, where the file speaks of several; else nothing.
    pub picture: Option<&'a std::path::Path>,
}

/// Judges a box. Gives it back in order and inside a picture of `size` (width, height), or nothing if nothing of it is left.
pub(crate) fn check_box(
    mut label: BoxLabel,
    size: Option<[u32; 2]>,
    place: &Place<'_>,
    faults: &mut Vec<Fault>,
) -> Option<BoxLabel> {
    let [x1, y1, x2, y2] = label.xyxy;
    let of = place.picture.map(|picture| format!(" of {}", picture.display())).unwrap_or_default();
    let shown = format!("({}, {}, {}, {}){of}", short(x1), short(y1), short(x2), short(y2));
    let mut tell = |kind, what: String, repair| {
        let message = format!("{}, {}: the box {shown} {what}", place.file.display(), place.object);
        faults.push(Fault { kind, file: place.file.into(), object: Some(place.object.clone()), message, repair });
    };
    if !label.xyxy.iter().all(|v| v.is_finite()) {
        tell(FaultKind::BadLabel, "has corners that are no numbers".into(), Repair::LeftOut);
        return None;
    }
    if x1 == x2 || y1 == y2 {
        let what = format!("is {} wide and {} high: it has no area", short((x2 - x1).abs()), short((y2 - y1).abs()));
        tell(FaultKind::NoArea, what, Repair::LeftOut);
        return None;
    }
    if x1 > x2 || y1 > y2 {
        let which = if x1 > x2 { "its left edge right of its right one" } else { "its top below its bottom" };
        tell(FaultKind::SwappedCorners, format!("has {which}"), Repair::Ordered);
        label.xyxy = [x1.min(x2), y1.min(y2), x1.max(x2), y1.max(y2)];
    }
    let Some([width, height]) = size else { return Some(label) };
    let edges = [f64::from(width), f64::from(height)];
    let inside: [f64; 4] = std::array::from_fn(|i| label.xyxy[i].clamp(0.0, edges[i % 2]));
    let beyond = (0..4).map(|i| (label.xyxy[i] - inside[i]).abs()).fold(0.0, f64::max);
    if inside[0] >= inside[2] || inside[1] >= inside[3] {
        tell(FaultKind::Outside, format!("lies wholly outside the picture of {width}x{height}"), Repair::LeftOut);
        return None;
    }
    if beyond > TOLERANCE {
        let what = format!("reaches {} pixels beyond the picture of {width}x{height}", short(beyond));
        tell(FaultKind::Outside, what, Repair::Cut);
    }
    label.xyxy = inside;
    Some(label)
}

/// Up to four decimals, as few as there are.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn judge(xyxy: [f64; 4]) -> (Option<[f64; 4]>, Vec<(FaultKind, Repair)>) {
        let (label, mut faults) = (BoxLabel { xyxy, ..BoxLabel::default() }, Vec::new());
        let place = Place { file: Path::new("a.xml"), object: "object 1 (cat)".into(), picture: None };
        let kept = check_box(label, Some([100, 50]), &place, &mut faults);
        (kept.map(|label| label.xyxy), faults.iter().map(|fault| (fault.kind, fault.repair)).collect())
    }

    #[test]
    fn a_box_is_kept_repaired_or_left_out() {
        use FaultKind::*;
        assert_eq!(judge([0.0, 0.0, 100.0, 50.0]), (Some([0.0, 0.0, 100.0, 50.0]), vec![]));
        assert_eq!(judge([5.0, 5.0, 5.0, 9.0]), (None, vec![(NoArea, Repair::LeftOut)]));
        assert_eq!(judge([9.0, 5.0, 1.0, 7.0]), (Some([1.0, 5.0, 9.0, 7.0]), vec![(SwappedCorners, Repair::Ordered)]));
        assert_eq!(judge([-3.0, 5.0, 9.0, 51.0]), (Some([0.0, 5.0, 9.0, 50.0]), vec![(Outside, Repair::Cut)]));
        assert_eq!(judge([100.0, 5.0, 120.0, 9.0]), (None, vec![(Outside, Repair::LeftOut)]));
        assert_eq!(judge([f64::NAN, 5.0, 120.0, 9.0]), (None, vec![(BadLabel, Repair::LeftOut)]));
        // What rounding does is no fault, but stays inside too.
        assert_eq!(judge([0.0, 0.0, 100.01, 50.0]), (Some([0.0, 0.0, 100.0, 50.0]), vec![]));
        let far = judge([f64::MAX, 0.0, f64::MIN, 1.0]);
        assert_eq!(far.0, Some([0.0, 0.0, 100.0, 1.0]));
    }
}
