//! `striate data stats`.

use super::DataSetArgs;
use super::check::parts;
use crate::failure::Failure;
use crate::output::{Output, print_json, print_line};
use crate::table::{grouped, table};
use crate::val::open_data;
use serde_json::json;
use std::path::Path;
use striate::vision::data::{DataError, Dataset, DatasetSource, IGNORE, Image, Wanted, channel_stats, class_counts};
use striate::vision::detection::{AnnotatedSet, PARTS, open_annotations, recognise_annotations};
use striate::vision::metrics::imbalance_remark;
use striate::vision::models::Task;
use striate::vision::transforms::Compose;

/// Pictures that mean and deviation are taken over.
const SAMPLE: usize = 2000;

/// Least, middle and largest of one side of the pictures that were looked at.
fn spread(mut sides: Vec<usize>) -> Option<[usize; 3]> {
    sides.sort_unstable();
    Some([*sides.first()?, sides[sides.len() / 2], *sides.last()?])
}

fn sizes(source: &DatasetSource) -> [Option<[usize; 3]>; 2] {
    [spread(source.probed.iter().map(|p| p.height).collect()), spread(source.probed.iter().map(|p| p.width).collect())]
}

/// How often each class occurs: pictures, or pixels of masks. The numbers of a regression are not counted.
fn count(task: Task, part: &dyn Dataset) -> Result<Vec<usize>, DataError> {
    let mut counts = vec![0; part.class_count()];
    match task {
        Task::Classify => return class_counts(part),
        Task::Regress => {}
        Task::Detect => {
            let things = (0..part.len()).filter_map(|index| part.boxes(index)).flatten();
            things.for_each(|thing| counts[thing.class] += 1);
        }
        Task::Multilabel => {
            for values in (0..part.len()).filter_map(|index| part.values(index)) {
                counts.iter_mut().zip(values).for_each(|(count, value)| *count += usize::from(*value >= 0.5));
            }
        }
        Task::Segment => {
            let mut mask = Image::default();
            for index in 0..part.len() {
                part.mask_into(index, &mut mask)?;
                for class in mask.data.iter().filter(|class| **class != IGNORE) {
                    counts[usize::from(*class)] += 1;
                }
            }
        }
    }
    Ok(counts)
}

/// Areas of COCO's small, medium and large things, in pixels.
const SMALL: f64 = 32.0 * 32.0;
const MEDIUM: f64 = 96.0 * 96.0;

/// Boxes by class, part and size.
fn count_boxes(set: &AnnotatedSet, output: Output) {
    let present =
        || PARTS.iter().zip(&set.parts).enumerate().filter_map(|(at, (name, part))| Some((at, name, part.as_ref()?)));
    let mut sizes = [0usize; 3];
    for label in set.pictures().flat_map(|picture| &picture.labels) {
        let [w, h] = label.size();
        let area = label.area.unwrap_or(w * h);
        sizes[if area < SMALL { 0 } else { 1 + usize::from(area >= MEDIUM) }] += 1;
    }
    let (pictures, boxes) = (set.pictures().count(), sizes.iter().sum::<usize>());
    let empty = set.pictures().filter(|picture| picture.labels.is_empty()).count();
    let repairs = set.repairs();
    if output == Output::Json {
        let part = |(at, name, part): (usize, &&str, &Vec<_>)| {
            ((*name).to_owned(), json!({"pictures": part.len(), "classes": set.class_counts(at)}))
        };
        let parts: serde_json::Map<_, _> = present().map(part).collect();
        print_json(&json!({
            "kind": set.format.name(), "path": set.path, "class_names": set.class_names, "parts": parts, "boxes": boxes,
            "small": sizes[0], "medium": sizes[1], "large": sizes[2], "background": empty, "repairs": repairs,
        }));
        return;
    }
    let mut head = vec!["boxes"];
    head.extend(present().map(|(_, name, _)| *name));
    let counts: Vec<Vec<usize>> = present().map(|(at, ..)| set.class_counts(at)).collect();
    let row = |name: &str, cells: Vec<usize>| {
        std::iter::once(name.to_owned()).chain(cells.into_iter().map(|n| grouped(n as u64))).collect::<Vec<_>>()
    };
    let of_class = |(class, name): (usize, &String)| row(name, counts.iter().map(|counts| counts[class]).collect());
    let mut rows: Vec<Vec<String>> = set.class_names.iter().enumerate().map(of_class).collect();
    rows.push(row("all", counts.iter().map(|counts| counts.iter().sum()).collect()));
    rows.push(row("pictures", present().map(|(.., part)| part.len()).collect()));
    print_line(&format!("{} in {}, {} classes\n", set.format, set.path.display(), set.class_names.len()));
    print_line(&table(&head, &rows, &[0]));
    print_line(&format!(
        "\n{:.1} boxes a picture, {} pictures without; {} boxes below 32² pixels, {} below 96², {} above",
        boxes as f64 / pictures.max(1) as f64,
        grouped(empty as u64),
        grouped(sizes[0] as u64),
        grouped(sizes[1] as u64),
        grouped(sizes[2] as u64)
    ));
    repairs.iter().for_each(|repair| print_line(repair));
}

/// Runs the verb.
pub fn run(args: &DataSetArgs) -> Result<(), Failure> {
    let boxes = args.data.as_deref().map(Path::new).filter(|path| recognise_annotations(path).is_some());
    if let Some(path) = boxes {
        let set = open_annotations(path)?;
        set.notes.iter().for_each(|note| eprintln!("note: {note}"));
        count_boxes(&set, args.output.choose());
        return Ok(());
    }
    let source = open_data(args.data.as_deref(), &Wanted::default())?;
    let parts = parts(&source);
    let counts = parts.iter().map(|(_, part)| count(source.task, *part)).collect::<Result<Vec<_>, _>>()?;
    let Some((first, part)) = parts.first() else { return Err(Failure::data("the data set has no part")) };
    let stats = channel_stats(*part, source.channels, &Compose::new(), SAMPLE)?;
    let [heights, widths] = sizes(&source);
    if args.output.choose() == Output::Json {
        let of_part = |((name, part), counts): (&(&str, &dyn striate::vision::data::Dataset), &Vec<usize>)| {
            ((*name).to_owned(), json!({"pictures": part.len(), "classes": counts}))
        };
        let by_part: serde_json::Map<_, _> = parts.iter().zip(&counts).map(of_part).collect();
        print_json(&json!({
            "kind": source.kind.to_string(), "path": source.path, "class_names": source.class_names, "parts": by_part,
            "channels": source.channels, "height": heights, "width": widths,
            "mean": stats.mean, "std": stats.std, "sample": stats.pictures, "unreadable": stats.unreadable,
        }));
        return Ok(());
    }
    let mut head = vec!["class"];
    head.extend(parts.iter().map(|(name, _)| *name));
    let row = |(class, name): (usize, &String)| {
        let cells = counts.iter().map(|counts| grouped(counts.get(class).copied().unwrap_or(0) as u64));
        std::iter::once(name.clone()).chain(cells).collect::<Vec<_>>()
    };
    let mut rows: Vec<Vec<String>> = source.class_names.iter().enumerate().map(row).collect();
    let totals = parts.iter().map(|(_, part)| grouped(part.len() as u64));
    rows.push(std::iter::once("all".to_owned()).chain(totals).collect());
    let place = source.path.as_ref().map_or(String::new(), |path| format!(" in {}", path.display()));
    print_line(&format!("{}{place}, {} classes\n", source.kind, source.class_names.len()));
    print_line(&table(&head, &rows, &[0]));
    if let ([Some(h), Some(w)], n) = ([heights, widths], source.probed.len()) {
        let looked = if source.fixed_size.is_some() { String::new() } else { format!(" (of {n} looked at)") };
        print_line(&format!(
            "\nheight {} to {}, middle {}; width {} to {}, middle {}; {} channel(s){looked}",
            h[0], h[2], h[1], w[0], w[2], w[1], source.channels
        ));
    }
    print_line(&format!(
        "mean {:?}, std {:?} over {} pictures of {first}{}",
        stats.mean,
        stats.std,
        stats.pictures,
        if stats.unreadable > 0 { format!("; {} cannot be read", stats.unreadable) } else { String::new() }
    ));
    let remark = imbalance_remark(&counts[0], &source.class_names).filter(|_| source.task == Task::Classify);
    if let Some(remark) = remark {
        print_line(&remark);
    }
    Ok(())
}
