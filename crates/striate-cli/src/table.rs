//! Tables and numbers for people.

/// Rows under a head, columns as wide as their widest cell; those in `left` flush left, numbers right.
pub fn table(head: &[&str], rows: &[Vec<String>], left: &[usize]) -> String {
    let wide = |cell: &str| cell.chars().count();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| wide(cell)).chain([wide(head[column])]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).enumerate().map(|(column, (cell, &width))| {
            let fill = " ".repeat(width - wide(cell));
            if left.contains(&column) { format!("{cell}{fill}") } else { format!("{fill}{cell}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.push(widths.iter().map(|&w| "-".repeat(w)).collect::<Vec<_>>().join("  "));
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines.join("\n")
}

/// `11,689,512`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1.82 G`
pub fn short(number: u64) -> String {
    let number = number as f64;
    match number {
        n if n >= 1e9 => format!("{:.2} G", n / 1e9),
        n if n >= 1e6 => format!("{:.2} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n}"),
    }
}

/// `3.06 MiB`
pub fn bytes(number: u64) -> String {
    let number = number as f64;
    match number {
        n if n >= 1024.0 * 1024.0 => format!("{:.2} MiB", n / 1024.0 / 1024.0),
        n if n >= 1024.0 => format!("{:.1} KiB", n / 1024.0),
        n => format!("{n} B"),
    }
}

/// Six significant digits: `-0.0123457`, `1.5`, `3.4e38`.
pub fn significant(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return number.to_string();
    }
    let scientific = format!("{number:.5e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let trim = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    match exponent.parse::<i32>() {
        Ok(exponent @ -5..=6) => trim(&format!("{number:.*}", (5 - exponent).max(0) as usize)),
        _ => format!("{}e{exponent}", trim(digits)),
    }
}

/// `1x64x56x56`; a scalar is `()`.
pub fn shape(sizes: &[usize]) -> String {
    if sizes.is_empty() {
        return "()".into();
    }
    sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".into(), "1,000".into()], vec!["long".into(), "2".into()]];
        assert_eq!(table(&["name", "n"], &rows, &[0]), "name      n\n----  -----\na     1,000\nlong      2");
    }

    #[test]
    fn six_digits_are_enough() {
        let cases = [
            (0.0, "0"),
            (1.5, "1.5"),
            (-0.012_345_678, "-0.0123457"),
            (123_456.7, "123457"),
            (1_234_567.0, "1234567"),
            (3.4e38, "3.4e38"),
            (1e-7, "1e-7"),
            (f64::NEG_INFINITY, "-inf"),
        ];
        for (number, text) in cases {
            assert_eq!(significant(number), text);
        }
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!((grouped(0), grouped(999), grouped(11_689_512)), ("0".into(), "999".into(), "11,689,512".into()));
        assert_eq!(
            (short(1_814_073_344), bytes(3 << 20), shape(&[])),
            ("1.81 G".into(), "3.00 MiB".into(), "()".into())
        );
    }
}
