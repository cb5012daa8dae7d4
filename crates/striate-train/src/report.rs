//! `report.html`: one file, no script, nothing from elsewhere.

use crate::{EpochRecord, Figures, Metrics, split_figure};
use std::fmt::Write;

/// Width and height of a chart.
const SIZE: [f64; 2] = [460.0, 240.0];
const MARGIN: f64 = 40.0;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// One curve: its name, colour and values.
struct Curve<'a>(&'a str, &'a str, Vec<f64>);

fn chart(title: &str, curves: &[Curve<'_>]) -> String {
    let all = || curves.iter().flat_map(|c| c.2.iter().copied()).filter(|v| v.is_finite());
    let (low, high) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::NEG_INFINITY, f64::max));
    if low > high {
        return String::new();
    }
    let span = (high - low).max(1e-9);
    let [w, h] = SIZE;
    let mut svg =
        format!("<figure><figcaption>{title}</figcaption><svg viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\">");
    for part in 0..=4 {
        let y = h - MARGIN - (h - 2.0 * MARGIN) * f64::from(part) / 4.0;
        let value = low + span * f64::from(part) / 4.0;
        let _ = write!(
            svg,
            "<line x1=\"{MARGIN}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" class=\"g\"/><text x=\"2\" y=\"{:.1}\">{value:.3}</text>",
            w - 10.0,
            y + 4.0
        );
    }
    let drawn = curves.iter().filter(|curve| curve.2.iter().any(|v| v.is_finite()));
    for (index, Curve(name, colour, values)) in drawn.enumerate() {
        let steps = (values.len().max(2) - 1) as f64;
        let point = |(i, v): (usize, &f64)| {
            let x = MARGIN + (w - MARGIN - 10.0) * i as f64 / steps;
            format!("{x:.1},{:.1}", h - MARGIN - (h - 2.0 * MARGIN) * (v - low) / span)
        };
        let points: Vec<String> = values.iter().enumerate().filter(|(_, v)| v.is_finite()).map(point).collect();
        let x = MARGIN + 90.0 * index as f64;
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/><text x=\"{x}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            h - 8.0
        );
    }
    svg + "</svg></figure>"
}

fn confusion_table(classes: &[&String], confusion: &[Vec<u64>]) -> String {
    let head: String = classes.iter().map(|name| format!("<th>{}</th>", escape(name))).collect();
    let mut table = format!("<h2>Confusion</h2><table><tr><th>true \\ predicted</th>{head}</tr>");
    for (row, name) in confusion.iter().zip(classes) {
        let total = row.iter().sum::<u64>().max(1) as f64;
        let cell =
            |n: &u64| format!("<td style=\"background:rgba(31,119,180,{:.2})\">{n}</td>", 0.8 * *n as f64 / total);
        let cells: String = row.iter().map(cell).collect();
        let _ = write!(table, "<tr><th>{}</th>{cells}</tr>", escape(name));
    }
    table + "</table>"
}

/// Most classes whose confusion is shown.
const MOST_CLASSES: usize = 100;

fn confusion(metrics: &Metrics) -> String {
    let (classes, confusion): (Vec<&String>, _) = match &metrics.figures {
        Figures::Classify { classes, confusion, .. } => (classes.iter().map(|c| &c.name).collect(), confusion),
        Figures::Segment { classes, confusion, .. } => (classes.iter().map(|c| &c.name).collect(), confusion),
        // Detectors have a picture of it.
        Figures::Multilabel { .. } | Figures::Regress { .. } | Figures::Detect { .. } => return String::new(),
    };
    if classes.len() <= MOST_CLASSES { confusion_table(&classes, confusion) } else { String::new() }
}

/// A chart of the loss, and one for each figure, of training and val together where both have one of its name.
fn charts(epochs: &[EpochRecord]) -> String {
    let values = |of: &dyn Fn(&EpochRecord) -> f64| epochs.iter().map(of).collect::<Vec<f64>>();
    let colour = |part: &str| if part == "train" { "#1f77b4" } else { "#d62728" };
    let val_loss = values(&|e| e.val_loss.unwrap_or(f64::NAN));
    let mut out = chart(
        "Loss",
        &[Curve("train", colour("train"), values(&|e| e.train_loss)), Curve("val", colour("val"), val_loss)],
    );
    let all: Vec<String> =
        epochs.first().iter().flat_map(|e| e.figures.0.iter().map(|(name, _)| name.clone())).collect();
    let mut shown: Vec<&str> = Vec::new();
    for (_, name) in all.iter().map(|full| split_figure(full)) {
        if !shown.contains(&name) {
            shown.push(name);
            let of_name = all.iter().filter(|full| split_figure(full).1 == name);
            let curve = |full: &String| {
                let (part, _) = split_figure(full);
                Curve(part, colour(part), values(&|e| e.figures.get(full).unwrap_or(f64::NAN)))
            };
            out += &chart(&escape(name), &of_name.map(curve).collect::<Vec<_>>());
        }
    }
    out
}

/// The page; `pictures` are SVG.
pub(crate) fn render(
    title: &str,
    settings: &str,
    epochs: &[EpochRecord],
    (metrics, pictures): (&Metrics, &[String]),
) -> String {
    let (head, rows) = metrics.table();
    let cells = |row: &[String], tag: &str| -> String {
        row.iter().map(|cell| format!("<{tag}>{}</{tag}>", escape(cell))).collect()
    };
    let head: Vec<String> = head.into_iter().map(str::to_owned).collect();
    let body: String = rows.iter().map(|row| format!("<tr>{}</tr>", cells(row, "td"))).collect();
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>\
         body{{font:15px system-ui,sans-serif;margin:2rem;max-width:64rem}}figure{{display:inline-block;margin:0 1rem 1rem 0}}\
         svg{{background:#fafafa;font-size:11px}}.g{{stroke:#ddd}}table{{border-collapse:collapse;margin:1rem 0;font-size:13px}}\
         td,th{{padding:.2rem .5rem;text-align:right;border:1px solid #ddd}}pre{{background:#f5f5f5;padding:1rem}}</style>\
         <h1>{title}</h1><p>On {} ({} pictures): <b>{}</b>. Best epoch {} of {}.</p>{}\
         <table><tr>{}</tr>{body}</table>{}{}<h2>Settings</h2><pre>{}</pre></html>\n",
        escape(&metrics.split),
        metrics.images,
        escape(&metrics.summary()),
        metrics.best_epoch.unwrap_or(0),
        metrics.epochs.unwrap_or(0),
        charts(epochs),
        cells(&head, "th"),
        confusion(metrics),
        pictures.iter().map(|svg| format!("<figure>{svg}</figure>")).collect::<String>(),
        escape(settings),
        title = escape(title),
    )
}
