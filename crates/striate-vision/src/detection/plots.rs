//! Curves and the confusion of a detector as SVG pictures: no font, no script, nothing from elsewhere.

use super::coco_eval::{BoxConfusion, CocoFigures};
use std::fmt::Write;

/// Width and height of a chart without its legend.
const SIZE: [f64; 2] = [520.0, 400.0];
/// Beside the axes.
const MARGIN: f64 = 56.0;
/// Width of the legend.
const LEGEND: f64 = 240.0;
/// Most classes that have a colour and a name of their own; more are grey.
const MOST_NAMED: usize = 12;
/// Most classes whose confusion is drawn.
const MOST_CLASSES: usize = 100;
/// Characters of a name that are shown.
const NAME_LENGTH: usize = 24;

const COLOURS: [&str; MOST_NAMED] = [
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf",
    "#393b79", "#637939",
];

fn escape(text: &str) -> String {
    let short: String = text.chars().take(NAME_LENGTH).collect();
    let text = if short.len() < text.len() { format!("{short}…") } else { short };
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A line with its name; points from 0 to 1 in both directions.
struct Line {
    name: String,
    points: Vec<[f64; 2]>,
}

/// The lines of the classes, thin, and their mean, thick.
fn chart(title: &str, [x_name, y_name]: [&str; 2], classes: &[Line], mean: &Line) -> String {
    let [w, h] = SIZE;
    let at = |[x, y]: [f64; 2]| [MARGIN + x * (w - MARGIN - 20.0), h - MARGIN - y * (h - MARGIN - 40.0)];
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {h}\" width=\"{0}\" height=\"{h}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/><text x=\"{MARGIN}\" y=\"24\" font-size=\"15\">{title}</text>",
        w + LEGEND
    );
    for step in 0..=5 {
        let value = f64::from(step) / 5.0;
        let ([x, bottom], [left, y], [right, top]) = (at([value, 0.0]), at([0.0, value]), at([1.0, 1.0]));
        let _ = write!(
            svg,
            "<path d=\"M{x:.1} {bottom:.1}V{top:.1}M{left:.1} {y:.1}H{right:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            bottom + 18.0,
            left - 6.0,
            y + 4.0
        );
    }
    let [middle, bottom] = at([0.5, 0.0]);
    let _ = write!(
        svg,
        "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{x_name}</text>\
         <text transform=\"translate(16 {:.1}) rotate(-90)\" text-anchor=\"middle\">{y_name}</text>",
        bottom + 40.0,
        at([0.0, 0.5])[1]
    );
    let named = classes.len() <= MOST_NAMED;
    let styles = classes.iter().enumerate().map(|(class, line)| {
        let colour = if named { COLOURS[class] } else { "#bbb" };
        (line, colour, 1.5, named)
    });
    let mut row = 0.0;
    for (line, colour, width, in_legend) in styles.chain([(mean, "#0000cc", 3.0, true)]) {
        let points: Vec<String> =
            line.points.iter().map(|point| at(*point)).map(|[x, y]| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\" points=\"{}\"/>",
            points.join(" ")
        );
        if in_legend {
            let (x, y) = (w + 4.0, 50.0 + 20.0 * row);
            let _ = write!(
                svg,
                "<path d=\"M{x:.1} {y:.1}h24\" stroke=\"{colour}\" stroke-width=\"{width}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                x + 30.0,
                y + 4.0,
                line.name
            );
            row += 1.0;
        }
    }
    svg + "</svg>\n"
}

/// The value at the middle of each class, point by point; classes without things are left out.
fn mean_of(name: String, lines: &[Line]) -> Line {
    let length = lines.iter().map(|line| line.points.len()).max().unwrap_or(0);
    let point = |at: usize| {
        let points: Vec<[f64; 2]> = lines.iter().filter_map(|line| line.points.get(at).copied()).collect();
        let sum = points.iter().map(|point| point[1]).sum::<f64>();
        Some([points.first()?[0], sum / points.len() as f64])
    };
    Line { name, points: (0..length).filter_map(point).collect() }
}

/// Precision over recall at IoU 0.5, as the average precision takes it, of each class and of their mean. `names` are those of
/// `figures.classes`.
pub fn plot_precision_recall(figures: &CocoFigures, names: &[String]) -> String {
    let judged = figures.classes.iter().zip(names).filter(|(class, _)| !class.precision50.is_empty());
    let lines: Vec<Line> = judged
        .map(|(class, name)| Line {
            name: format!("{} {:.3}", escape(name), class.ap50.unwrap_or(0.0)),
            points: class.precision50.iter().enumerate().map(|(r, p)| [r as f64 / 100.0, *p]).collect(),
        })
        .collect();
    let mean = mean_of(format!("all classes {:.3}", figures.stats[1].max(0.0)), &lines);
    chart("Precision over recall at IoU 0.5", ["recall", "precision"], &lines, &mean)
}

/// F1 at IoU 0.5 over confidence, of each class and of their mean. `names` are those of `figures.classes`.
pub fn plot_f1(figures: &CocoFigures, names: &[String]) -> String {
    let judged = figures.classes.iter().zip(names).filter(|(class, _)| class.things > 0);
    let lines: Vec<Line> = judged
        .map(|(class, name)| Line {
            name: escape(name),
            points: (0..=200).map(|step| f64::from(step) / 200.0).map(|c| [c, class.curve.f1(c)]).collect(),
        })
        .collect();
    let (confidence, f1) = figures.best_f1();
    let mean = mean_of(format!("all classes {:.3} at {confidence:.3}", f1.max(0.0)), &lines);
    chart("F1 over confidence at IoU 0.5", ["confidence", "F1"], &lines, &mean)
}

/// What was taken for what, each row in parts of its sum; nothing for more than 100 classes. `names` are those of
/// `confusion.categories`.
pub fn plot_confusion(confusion: &BoxConfusion, names: &[String]) -> Option<String> {
    let names: Vec<String> = names.iter().map(|name| escape(name)).chain(["background".to_owned()]).collect();
    let n = names.len();
    if n > MOST_CLASSES + 1 {
        return None;
    }
    let cell = if n <= 12 { 56.0 } else { 26.0 };
    let (left, top) = (170.0, 190.0);
    let (w, h) = (left + cell * n as f64 + 20.0, top + cell * n as f64 + 20.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" font-family=\"sans-serif\" \
         font-size=\"12\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/><text x=\"10\" y=\"24\" font-size=\"15\">\
         Confusion: true classes in rows, predicted ones in columns</text>"
    );
    for (index, name) in names.iter().enumerate() {
        let along = cell * (index as f64 + 0.5) + 4.0;
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>\
             <text transform=\"translate({:.1} {:.1}) rotate(-90)\">{name}</text>",
            left - 8.0,
            top + along,
            left + along,
            top - 8.0
        );
    }
    for (t, row) in confusion.counts.iter().enumerate() {
        let total = row.iter().sum::<u64>().max(1) as f64;
        for (p, count) in row.iter().enumerate() {
            let (x, y, part) = (left + cell * p as f64, top + cell * t as f64, *count as f64 / total);
            let ink = if part > 0.5 { "#fff" } else { "#000" };
            let _ = write!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{cell}\" height=\"{cell}\" fill=\"#1f4e8c\" fill-opacity=\"{part:.3}\" \
                 stroke=\"#ddd\"/>"
            );
            if *count > 0 {
                let (x, y) = (x + cell / 2.0, y + cell / 2.0 + 4.0);
                let _ =
                    write!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" fill=\"{ink}\">{count}</text>");
            }
        }
    }
    Some(svg + "</svg>\n")
}

#[cfg(test)]
mod tests {
    use super::super::coco_eval::{Detection, GroundTruth, confusion_matrix, evaluate_coco};
    use super::*;

    #[test]
    fn pictures_are_xml_and_show_every_class() {
        let truth = |category| GroundTruth {
            image: 1,
            category,
            xywh: [0.0, 0.0, 9.0, 9.0],
            area: 81.0,
            iscrowd: false,
            id: 1,
        };
        let found = [Detection { image: 1, category: 1, xywh: [0.0, 0.0, 9.0, 9.0], score: 0.5 }];
        let things = [truth(1), truth(2)];
        let names = ["<cat> & \"dog\"".to_owned(), "bird".to_owned()];
        let figures = evaluate_coco(&[1], &[1, 2], &things, &found);
        let confusion = confusion_matrix(&[1, 2], &things, &found, (0.25, 0.5));
        let pictures = [
            plot_precision_recall(&figures, &names),
            plot_f1(&figures, &names),
            plot_confusion(&confusion, &names).unwrap(),
        ];
        for picture in pictures {
            let document = roxmltree::Document::parse(&picture).unwrap();
            let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
            for name in ["<cat> & \"dog\"", "bird"] {
                assert!(texts.iter().any(|text| text.starts_with(name)), "{name} is not in {texts:?}");
            }
            assert!(!picture.contains("NaN"), "{picture}");
        }
        assert_eq!(plot_confusion(&confusion, &vec![String::new(); 101]), None);
    }
}
