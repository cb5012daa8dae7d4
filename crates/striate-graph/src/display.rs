//! Arrays and parameters as text, as PyTorch prints them.

use crate::{Array, Buffer, DType, Parameter};
use std::fmt;

/// How arrays are printed; the defaults are PyTorch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrintOptions {
    /// Digits behind the point (4).
    pub precision: usize,
    /// From more elements than this on, only the edges are shown (1000).
    pub threshold: usize,
    /// How many elements of each edge (3).
    pub edge_items: usize,
    /// Characters a line (80).
    pub line_width: usize,
    /// Scientific notation always or never; `None` decides by the values.
    pub sci_mode: Option<bool>,
}

impl Default for PrintOptions {
    fn default() -> Self {
        PrintOptions { precision: 4, threshold: 1000, edge_items: 3, line_width: 80, sci_mode: None }
    }
}

impl Array {
    /// The text under other than the default options.
    ///
    /// ```
    /// use striate_graph::{Array, PrintOptions};
    /// let a = Array::from_vec([2], vec![0.5f32, 2.0])?;
    /// assert_eq!(a.to_string(), "tensor([0.5000, 2.0000])");
    /// assert_eq!(a.to_text(&PrintOptions { precision: 1, ..Default::default() }), "tensor([0.5, 2.0])");
    /// # Ok::<(), striate_graph::Error>(())
    /// ```
    pub fn to_text(&self, options: &PrintOptions) -> String {
        text(self, options, false)
    }
}

impl fmt::Display for Array {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self, &PrintOptions::default(), false))
    }
}

impl fmt::Display for Parameter {
    /// The values as they are now, as PyTorch prints a parameter.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = text(&self.array(), &PrintOptions::default(), self.requires_grad());
        match self.kind() {
            crate::ParamKind::Weight => write!(f, "Parameter containing:\n{values}"),
            crate::ParamKind::Buffer => f.write_str(&values),
        }
    }
}

const PREFIX: &str = "tensor(";

fn text(array: &Array, options: &PrintOptions, requires_grad: bool) -> String {
    let mut suffixes = Vec::new();
    let dtype = array.dtype();
    let dtype_suffix = format!("dtype=torch.{dtype}");
    let values = if array.numel() == 0 {
        if array.shape().rank() != 1 {
            suffixes.push(format!("size={}", tuple(array.shape())));
        }
        // No element shows the type.
        if dtype != DType::F32 {
            suffixes.push(dtype_suffix);
        }
        "[]".to_owned()
    } else {
        if !matches!(dtype, DType::F32 | DType::I64 | DType::Bool) {
            suffixes.push(dtype_suffix);
        }
        Printer::new(array, options).block(0, 0, PREFIX.len())
    };
    if requires_grad {
        suffixes.push("requires_grad=True".to_owned());
    }
    with_suffixes(format!("{PREFIX}{values}"), &suffixes, options.line_width)
}

fn tuple(sizes: &[usize]) -> String {
    match sizes {
        [one] => format!("({one},)"),
        many => format!("({})", many.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn with_suffixes(mut text: String, suffixes: &[String], line_width: usize) -> String {
    // PyTorch counts two characters more than the line has: it leaves room for ", ".
    let mut line = text.len() + 2 - text.rfind('\n').map_or(0, |at| at + 1);
    for suffix in suffixes {
        if line + suffix.len() + 2 > line_width {
            text += &format!(",\n{}{suffix}", " ".repeat(PREFIX.len()));
            line = PREFIX.len() + suffix.len();
        } else {
            text += &format!(", {suffix}");
            line += suffix.len() + 2;
        }
    }
    text + ")"
}

/// One element of any type as text, by its place.
type Show<'a> = Box<dyn Fn(usize) -> String + 'a>;

struct Printer<'a> {
    shape: &'a [usize],
    strides: Vec<usize>,
    options: &'a PrintOptions,
    summarize: bool,
    show: Show<'a>,
    width: usize,
}

impl<'a> Printer<'a> {
    fn new(array: &'a Array, options: &'a PrintOptions) -> Printer<'a> {
        let mut printer = Printer {
            shape: array.shape(),
            strides: array.shape().strides(),
            options,
            summarize: array.numel() > options.threshold,
            show: Box::new(|_| String::new()),
            width: 1,
        };
        let mut shown = Vec::new();
        printer.shown_elements(0, 0, &mut shown);
        (printer.show, printer.width) = formatter(array, &shown, options);
        printer
    }

    /// The indices along an axis that are shown, and whether some between are left out.
    fn edges(&self, axis: usize) -> (Vec<usize>, bool) {
        let (size, edge) = (self.shape[axis], self.options.edge_items);
        if self.summarize && size > 2 * edge {
            ((0..edge).chain(size - edge..size).collect(), true)
        } else {
            ((0..size).collect(), false)
        }
    }

    fn shown_elements(&self, axis: usize, at: usize, shown: &mut Vec<usize>) {
        if axis == self.shape.len() {
            shown.push(at);
            return;
        }
        for index in self.edges(axis).0 {
            self.shown_elements(axis + 1, at + index * self.strides[axis], shown);
        }
    }

    fn element(&self, at: usize) -> String {
        format!("{:>width$}", (self.show)(at), width = self.width)
    }

    /// The text of the sub-array at `at` whose first axis is `axis`.
    fn block(&self, axis: usize, at: usize, indent: usize) -> String {
        let left = self.shape.len() - axis;
        if left == 0 {
            return (self.show)(at);
        }
        let (indices, cut) = self.edges(axis);
        let part = |index: &usize| {
            let at = at + index * self.strides[axis];
            if left == 1 { self.element(at) } else { self.block(axis + 1, at, indent + 1) }
        };
        let mut parts: Vec<String> = indices.iter().map(part).collect();
        if cut {
            parts.insert(self.options.edge_items, if left == 1 { " ..." } else { "..." }.to_owned());
        }
        let margin = " ".repeat(indent + 1);
        let joined = if left == 1 {
            let per_line = (self.options.line_width.saturating_sub(indent) / (self.width + 2)).max(1);
            let lines: Vec<String> = parts.chunks(per_line).map(|line| line.join(", ")).collect();
            lines.join(&format!(",\n{margin}"))
        } else {
            parts.join(&format!(",{}{margin}", "\n".repeat(left - 1)))
        };
        format!("[{joined}]")
    }
}

/// How each element is shown, and the width that the shown ones need.
fn formatter<'a>(array: &'a Array, shown: &[usize], options: &PrintOptions) -> (Show<'a>, usize) {
    let show: Show<'a> = match array.buffer() {
        Buffer::F32(v) => return float_formatter(move |i| f64::from(v[i]), shown, options),
        Buffer::F64(v) => return float_formatter(move |i| v[i], shown, options),
        Buffer::F16(v) => return float_formatter(move |i| v[i].to_f64(), shown, options),
        Buffer::BF16(v) => return float_formatter(move |i| v[i].to_f64(), shown, options),
        Buffer::I8(v) => Box::new(move |i| v[i].to_string()),
        Buffer::I16(v) => Box::new(move |i| v[i].to_string()),
        Buffer::I32(v) => Box::new(move |i| v[i].to_string()),
        Buffer::I64(v) => Box::new(move |i| v[i].to_string()),
        Buffer::U8(v) => Box::new(move |i| v[i].to_string()),
        Buffer::Bool(v) => Box::new(move |i| if v[i] { "True" } else { "False" }.to_owned()),
    };
    let width = shown.iter().map(|&i| show(i).len()).max().unwrap_or(1);
    (show, width)
}

#[derive(Clone, Copy)]
enum Style {
    /// All numbers are whole: `3.`
    Whole,
    Fixed,
    Scientific,
}

fn float_formatter<'a>(
    value: impl Fn(usize) -> f64 + 'a,
    shown: &[usize],
    options: &PrintOptions,
) -> (Show<'a>, usize) {
    let precision = options.precision;
    // What decides are the shown numbers that are finite and not 0.
    let deciding: Vec<f64> = shown.iter().map(|&i| value(i)).filter(|v| v.is_finite() && *v != 0.0).collect();
    let (mut least, mut most) = (f64::INFINITY, 0.0f64);
    for v in &deciding {
        (least, most) = (least.min(v.abs()), most.max(v.abs()));
    }
    let wide = most / least > 1000.0 || most > 1e8 || least < 1e-4;
    let style = match (deciding.is_empty(), options.sci_mode.unwrap_or(wide)) {
        (true, _) => Style::Whole,
        (false, true) => Style::Scientific,
        (false, false) if deciding.iter().all(|v| v.fract() == 0.0) => Style::Whole,
        _ => Style::Fixed,
    };
    let width = deciding.iter().map(|v| float_text(*v, style, precision).len()).max().unwrap_or(1);
    (Box::new(move |i| float_text(value(i), style, precision)), width)
}

fn float_text(value: f64, style: Style, precision: usize) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    match style {
        Style::Whole => format!("{value:.0}."),
        Style::Fixed => format!("{value:.precision$}"),
        Style::Scientific => {
            let text = format!("{value:.precision$e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |e| ('-', e));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pooled_map_of_a_first_lesson() {
        let a = Array::from_vec([1, 1, 2, 2], vec![6.0f32, 8.0, 14.0, 16.0]).unwrap();
        assert_eq!(a.to_string(), "tensor([[[[ 6.,  8.],\n          [14., 16.]]]])");
        let p = Parameter::new(Array::from_vec([1, 2], vec![0.5f32, -1.25]).unwrap());
        assert_eq!(p.to_string(), "Parameter containing:\ntensor([[ 0.5000, -1.2500]], requires_grad=True)");
    }

    #[test]
    fn a_large_array_shows_its_edges() {
        let a = Array::arange([1001]);
        assert_eq!(a.to_string(), "tensor([   0.,    1.,    2.,  ...,  998.,  999., 1000.])");
        assert!(Array::arange([1000, 1000]).to_string().len() < 1000);
    }
}
