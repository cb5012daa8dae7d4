//! `report.html`: one file, no script, nothing from elsewhere.

use crate::{EpochRecord, Metrics};
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
    for (index, Curve(name, colour, values)) in curves.iter().enumerate() {
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

fn confusion_table(metrics: &Metrics) -> String {
    let head: String = metrics.classes.iter().map(|c| format!("<th>{}</th>", escape(&c.name))).collect();
    let mut table = format!("<table><tr><th>true \\ predicted</th>{head}</tr>");
    for (row, class) in metrics.confusion.iter().zip(&metrics.classes) {
        let total = row.iter().sum::<u64>().max(1) as f64;
        let cell =
            |n: &u64| format!("<td style=\"background:rgba(31,119,180,{:.2})\">{n}</td>", 0.8 * *n as f64 / total);
        let cells: String = row.iter().map(cell).collect();
        let _ = write!(table, "<tr><th>{}</th>{cells}</tr>", escape(&class.name));
    }
    table + "</table>"
}

/// The page.
pub(crate) fn render(title: &str, settings: &str, epochs: &[EpochRecord], metrics: &Metrics) -> String {
    let values = |of: fn(&EpochRecord) -> f64| epochs.iter().map(of).collect::<Vec<f64>>();
    let loss = chart(
        "Loss",
        &[Curve("train", "#1f77b4", values(|e| e.train_loss)), Curve("val", "#d62728", values(|e| e.val_loss))],
    );
    let top1 = chart(
        "Top-1",
        &[Curve("train", "#1f77b4", values(|e| e.train_top1)), Curve("val", "#d62728", values(|e| e.val_top1))],
    );
    let class_rows: String = metrics
        .classes
        .iter()
        .map(|c| {
            format!(
                "<tr><th>{}</th><td>{:.3}</td><td>{:.3}</td><td>{:.3}</td><td>{}</td></tr>",
                escape(&c.name),
                c.precision,
                c.recall,
                c.f1,
                c.support
            )
        })
        .collect();
    let confusion = if metrics.classes.len() <= 100 { confusion_table(metrics) } else { String::new() };
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><style>\
         body{{font:15px system-ui,sans-serif;margin:2rem;max-width:64rem}}figure{{display:inline-block;margin:0 1rem 1rem 0}}\
         svg{{background:#fafafa;font-size:11px}}.g{{stroke:#ddd}}table{{border-collapse:collapse;margin:1rem 0;font-size:13px}}\
         td,th{{padding:.2rem .5rem;text-align:right;border:1px solid #ddd}}pre{{background:#f5f5f5;padding:1rem}}</style>\
         <h1>{title}</h1><p>On {} ({} pictures): top-1 <b>{:.2} %</b>, top-5 {:.2} %, loss {:.4}, macro F1 {:.4}. \
         Best epoch {} of {}.</p>{loss}{top1}<h2>Classes</h2>\
         <table><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th><th>pictures</th></tr>{class_rows}</table>\
         <h2>Confusion</h2>{confusion}<h2>Settings</h2><pre>{}</pre></html>\n",
        escape(&metrics.split),
        metrics.images,
        100.0 * metrics.top1,
        100.0 * metrics.top5,
        metrics.loss,
        metrics.macro_f1,
        metrics.best_epoch.unwrap_or(0),
        metrics.epochs.unwrap_or(0),
        escape(settings),
        title = escape(title),
    )
}
