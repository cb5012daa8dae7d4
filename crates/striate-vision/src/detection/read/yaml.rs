//! The little of YAML that `data.yaml` files are made of: keys at the margin with a text, a list or numbered texts.

use std::collections::BTreeMap;

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// One text.
    Text(String),
    /// Several, in order.
    List(Vec<String>),
    /// Texts by number.
    Numbered(BTreeMap<usize, String>),
}

impl Value {
    /// The texts of a text or a list.
    pub(super) fn texts(&self) -> Vec<&str> {
        match self {
            Value::Text(text) => vec![text],
            Value::List(texts) => texts.iter().map(String::as_str).collect(),
            Value::Numbered(texts) => texts.values().map(String::as_str).collect(),
        }
    }
}

/// Cuts a comment off: `#` at the margin or behind a space, outside quotes.
fn without_comment(line: &str) -> &str {
    let (mut quote, mut before) = (None, ' ');
    for (at, c) in line.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') if !before.is_alphanumeric() => quote = Some(c),
            (None, '#') if before.is_whitespace() => return &line[..at],
            _ => {}
        }
        before = c;
    }
    line
}

/// A scalar without its quotes.
fn scalar(text: &str) -> String {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            // In single quotes a quote is doubled; in double ones escapes are those of JSON, but for rare ones.
            return match quote {
                '\'' => inner.replace("''", "'"),
                _ => serde_json::from_str(text).unwrap_or_else(|_| inner.to_owned()),
            };
        }
    }
    text.to_owned()
}

/// The pieces between commas, quotes kept whole.
fn pieces(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') if text[start..at].trim().is_empty() || text[..at].ends_with(": ") => quote = Some(c),
            (None, ',') => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&text[start..]);
    found.retain(|piece| !piece.trim().is_empty());
    found
}

/// `3: cat`
fn numbered(text: &str) -> Option<(usize, String)> {
    let (number, name) = text.split_once(':')?;
    Some((scalar(number).parse().ok()?, scalar(name)))
}

/// The keys of a description with their values; `Err` is the line, from 1, with what is wrong in it. Nested mappings that are not
/// numbered are passed over.
pub(super) fn parse_yaml(text: &str) -> Result<BTreeMap<String, Value>, (usize, String)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, without_comment(line).trim_end()));
    let mut lines = lines.filter(|(_, line)| !line.is_empty() && !matches!(*line, "---" | "...")).peekable();
    let mut keys = BTreeMap::new();
    while let Some((number, line)) = lines.next() {
        if line.starts_with(char::is_whitespace) {
            continue;
        }
        let Some((key, rest)) = line.split_once(':') else {
            return Err((number, format!("`{line}` is no key with a value")));
        };
        let mut rest = rest.trim().to_owned();
        let closing = match rest.chars().next() {
            Some('[') => Some(']'),
            Some('{') => Some('}'),
            _ => None,
        };
        let value = if let Some(closing) = closing {
            while !rest.ends_with(closing) {
                let Some((_, more)) = lines.next() else {
                    return Err((number, format!("the list of `{key}` is not closed")));
                };
                rest.push(' ');
                rest.push_str(more.trim());
            }
            let inner = &rest[1..rest.len() - 1];
            match closing {
                ']' => Value::List(pieces(inner).into_iter().map(scalar).collect()),
                _ => Value::Numbered(pieces(inner).into_iter().filter_map(numbered).collect()),
            }
        } else if rest.is_empty() {
            let mut items = Vec::new();
            while let Some((_, item)) = lines.next_if(|(_, next)| next.starts_with([' ', '\t', '-'])) {
                items.push(item.trim());
            }
            match items.iter().map(|item| numbered(item)).collect::<Option<BTreeMap<_, _>>>() {
                Some(texts) if !texts.is_empty() => Value::Numbered(texts),
                _ => Value::List(items.iter().filter_map(|item| item.strip_prefix('-')).map(scalar).collect()),
            }
        } else {
            Value::Text(scalar(&rest))
        };
        keys.insert(scalar(key), value);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Value {
        Value::List(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn every_way_to_write_names_is_read() {
        for (text, wanted) in [
            ("names: [cat, 'dog, big', \"it's\"]  # three", list(&["cat", "dog, big", "it's"])),
            ("names:\n  - cat\n  - 'do''g'\n", list(&["cat", "do'g"])),
            ("names:\n- cat\n- dog\nnc: 2\n", list(&["cat", "dog"])),
            ("names: [\n  cat,\n  dog\n]\n", list(&["cat", "dog"])),
            ("names:\n  0: cat\n  2: dog\n", Value::Numbered([(0, "cat".into()), (2, "dog".into())].into())),
            ("names: {0: cat, 1: 'd, g'}", Value::Numbered([(0, "cat".into()), (1, "d, g".into())].into())),
            ("names: C#", Value::Text("C#".into())),
        ] {
            assert_eq!(parse_yaml(text).unwrap()["names"], wanted, "{text}");
        }
    }

    #[test]
    fn what_is_no_description_says_where() {
        assert_eq!(parse_yaml("path: x\nnonsense\n").unwrap_err().0, 2);
        assert_eq!(parse_yaml("names: [a,\nb").unwrap_err().0, 1);
        // Nested mappings of other tools are none of our business.
        assert_eq!(parse_yaml("roboflow:\n  url: x\ntrain: a\n").unwrap()["train"], Value::Text("a".into()));
        for text in ["", "\u{0}", ":", "a:", "[", "- a", "a: [", "a: {", "a: ]", "'"] {
            let _ = parse_yaml(text);
        }
    }
}
