//! `striate val --gt F.json --dt F.json`: the figures of any detector's boxes.

use crate::failure::Failure;
use crate::output::{Output, OutputArgs, print_json, print_line};
use crate::table::{grouped, table};
use clap::Args;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::time::Instant;
use striate::io::write_atomic;
use striate::vision::detection::{
    BoxConfusion, CocoFigures, Instances, STAT_NAMES, confusion_matrix, evaluate_coco, plot_confusion, plot_f1,
    plot_precision_recall, read_detections, read_instances,
};

/// Boxes from files.
#[derive(Args, Debug)]
pub struct BoxArgs {
    /// Ground truth in COCO's json (instances); with --dt, and without MODEL and DATA.
    #[arg(long, value_name = "F.json", requires = "dt", conflicts_with_all = ["model", "data"])]
    gt: Option<PathBuf>,
    /// Detections in COCO's json: a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}.
    #[arg(long, value_name = "F.json", requires = "gt")]
    dt: Option<PathBuf>,
    /// With --gt: a folder for PR_curve.svg, F1_curve.svg, confusion_matrix.svg and metrics.json.
    #[arg(long, value_name = "DIR", requires = "gt")]
    output: Option<PathBuf>,
}

/// What each number is, in the order of [`STAT_NAMES`].
const MEANINGS: [&str; 12] = [
    "average precision, IoU 0.50:0.95, all areas, 100 detections",
    "average precision, IoU 0.50",
    "average precision, IoU 0.75",
    "average precision, IoU 0.50:0.95, area below 32²",
    "average precision, IoU 0.50:0.95, area 32² to 96²",
    "average precision, IoU 0.50:0.95, area above 96²",
    "average recall, IoU 0.50:0.95, 1 detection",
    "average recall, IoU 0.50:0.95, 10 detections",
    "average recall, IoU 0.50:0.95, 100 detections",
    "average recall, IoU 0.50:0.95, area below 32²",
    "average recall, IoU 0.50:0.95, area 32² to 96²",
    "average recall, IoU 0.50:0.95, area above 96²",
];

/// Overlap from which a detection and a thing are the same, for the confusion.
const CONFUSION_IOU: f64 = 0.5;

/// The part that a file's name speaks of.
fn split_of(path: &Path) -> &'static str {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    ["train", "test"].into_iter().find(|part| name.contains(part)).unwrap_or("val")
}

/// All figures of a detector.
struct Judged {
    split: &'static str,
    names: Vec<String>,
    figures: CocoFigures,
    confusion: BoxConfusion,
    /// The confidence at which the mean F1 is best, with that F1.
    best: (f64, f64),
    images: usize,
    seconds: f64,
}

impl Judged {
    /// The object of `metrics.json`.
    fn json(&self) -> Value {
        let class = |(class, name): (&striate::vision::detection::ClassAp, &String)| {
            let [precision, recall] = class.curve.at(self.best.0);
            json!({
                "id": class.category, "name": name, "AP": class.ap, "AP50": class.ap50, "AP75": class.ap75,
                "precision": precision, "recall": recall, "f1": class.curve.f1(self.best.0),
                "things": class.things, "detections": class.detections,
            })
        };
        let mut object = Map::new();
        object.insert("split".into(), self.split.into());
        object.insert("mAP50".into(), self.figures.stats[1].into());
        object.insert("mAP50_95".into(), self.figures.stats[0].into());
        object.extend(STAT_NAMES.iter().zip(self.figures.stats).map(|(name, stat)| ((*name).to_owned(), stat.into())));
        object.insert("confidence".into(), self.best.0.into());
        object.insert("f1".into(), self.best.1.max(0.0).into());
        object.insert("images".into(), self.images.into());
        object.insert("classes".into(), self.figures.classes.iter().zip(&self.names).map(class).collect());
        object.insert("confusion".into(), json!(self.confusion.counts));
        object.insert("seconds".into(), self.seconds.into());
        Value::Object(object)
    }

    fn print(&self) {
        let figure = |value: f64| format!("{value:.4}");
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), figure);
        let numbers = STAT_NAMES.iter().zip(self.figures.stats).zip(MEANINGS);
        let rows: Vec<Vec<String>> =
            numbers.map(|((name, stat), what)| vec![(*name).to_owned(), figure(stat), what.to_owned()]).collect();
        print_line(&table(&["", "value", "what"], &rows, &[0, 2]));
        let class = |(class, name): (&striate::vision::detection::ClassAp, &String)| {
            let [precision, recall] = class.curve.at(self.best.0);
            let f1 = class.curve.f1(self.best.0);
            let counts = [class.things, class.detections].map(|n| grouped(n as u64));
            let figures = [shown(class.ap), shown(class.ap50), shown(class.ap75), figure(precision), figure(recall)];
            [name.clone()].into_iter().chain(figures).chain([figure(f1)]).chain(counts).collect::<Vec<String>>()
        };
        let rows: Vec<Vec<String>> = self.figures.classes.iter().zip(&self.names).map(class).collect();
        let head = ["class", "AP", "AP50", "AP75", "precision", "recall", "F1", "things", "detections"];
        print_line(&format!("\n{}", table(&head, &rows, &[0])));
        print_line(&format!(
            "\n{} ({} pictures): precision, recall and F1 at IoU 0.5 and confidence {:.3}, where the mean F1 is best ({:.4})  ({:.1} s)",
            self.split,
            self.images,
            self.best.0,
            self.best.1.max(0.0),
            self.seconds
        ));
    }

    fn write(&self, folder: &Path) -> Result<(), Failure> {
        std::fs::create_dir_all(folder).map_err(|error| Failure::io(folder, "make the folder", &error))?;
        let mut files = vec![
            ("PR_curve.svg", plot_precision_recall(&self.figures, &self.names)),
            ("F1_curve.svg", plot_f1(&self.figures, &self.names)),
            ("metrics.json", format!("{:#}\n", self.json())),
        ];
        files.extend(plot_confusion(&self.confusion, &self.names).map(|svg| ("confusion_matrix.svg", svg)));
        for (name, text) in files {
            write_atomic(&folder.join(name), text.as_bytes()).map_err(|error| Failure::array_file(&error))?;
        }
        Ok(())
    }
}

/// Judges the boxes of a file.
fn judge(gt: &Path, dt: &Path, started: Instant) -> Result<Judged, Failure> {
    let truth = read_instances(gt)?;
    let found = read_detections(dt, &truth)?;
    truth.notes.iter().chain(&found.notes).for_each(|note| eprintln!("note: {note}"));
    let Instances { images, categories, truth, .. } = truth;
    let (ids, names): (Vec<i64>, Vec<String>) = categories.into_iter().unzip();
    let figures = evaluate_coco(&images, &ids, &truth, &found.found);
    let best = figures.best_f1();
    let confusion = confusion_matrix(&ids, &truth, &found.found, (best.0, CONFUSION_IOU));
    let (split, images) = (split_of(gt), images.len());
    Ok(Judged { split, names, figures, confusion, best, images, seconds: started.elapsed().as_secs_f64() })
}

/// Runs the verb on files of boxes.
pub fn run(args: &BoxArgs, output: OutputArgs, started: Instant) -> Result<(), Failure> {
    let (Some(gt), Some(dt)) = (&args.gt, &args.dt) else {
        return Err(Failure::usage("give a MODEL, or --gt and --dt"));
    };
    let judged = judge(gt, dt, started)?;
    if let Some(folder) = &args.output {
        judged.write(folder)?;
    }
    match output.choose() {
        Output::Json => print_json(&judged.json()),
        _ => judged.print(),
    }
    Ok(())
}
