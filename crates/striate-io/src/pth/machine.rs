//! The pickle machine: opcodes to [`Value`]s, in one loop, calling nothing.
//!
//! Every opcode of the protocols 0 to 5 is known, except those that reach outside of the file (registered extensions, buffers out
//! of band, persistent ids in text). What a file can make this machine hold is bounded by [`Limits`], and no length that the file
//! declares is believed before the bytes are there.

use super::globals::{Global, find_global, is_harmful};
use super::value::{Id, Name, Pickle, Span, Value};
use std::collections::HashMap;

/// What one pickle may come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Values.
    pub values: usize,
    /// Opcodes.
    pub steps: usize,
    /// Members of all containers.
    pub items: usize,
    /// Values on the stack.
    pub stack: usize,
    /// Open marks: how deep what is being built nests.
    pub marks: usize,
}

impl Limits {
    pub(super) const DEFAULT: Limits =
        Limits { values: 1 << 19, steps: 1 << 22, items: 1 << 21, stack: 1 << 20, marks: 1 << 12 };
}

/// What is wrong with a pickle.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// It breaks the rules.
    Wrong(String),
    /// It is larger than is read: what, how many, at most.
    Limit(&'static str, u64),
    /// It names what no weights need.
    Harmful(String),
}

impl<T: Into<String>> From<T> for Fault {
    fn from(why: T) -> Fault {
        Fault::Wrong(why.into())
    }
}

type Step<T = ()> = Result<T, Fault>;

// Values that need no place of their own.
const NONE: Id = Id(0);
const TRUE: Id = Id(1);
const FALSE: Id = Id(2);
const EMPTY: Id = Id(3);
const SMALL: u32 = 4;

/// Most bytes of text that has to be decoded, as only protocol 0 asks for.
const MAX_OWNED: usize = 1 << 20;

/// Reads the pickle that begins at byte `at`, and says where it ends; where it is wrong, the byte of the opcode.
pub(super) fn read_pickle(bytes: &[u8], at: usize, limits: Limits) -> Result<(Pickle<'_>, usize), (usize, Fault)> {
    let mut values = vec![Value::None, Value::Bool(true), Value::Bool(false), Value::Tuple(Box::new([]))];
    values.extend((0..256).map(Value::Int));
    let pickle = Pickle { bytes, owned: Vec::new(), values, attributes: HashMap::new(), root: NONE };
    let mut machine = Machine { pickle, at, stack: Vec::new(), marks: Vec::new(), memo: Vec::new(), items: 0, limits };
    let mut steps = 0;
    loop {
        let begin = machine.at;
        let fault = |fault| (begin, fault);
        steps += 1;
        if steps > limits.steps {
            return Err(fault(Fault::Limit("the number of opcodes", limits.steps as u64)));
        }
        let code = machine.byte().map_err(fault)?;
        if code == b'.' {
            machine.pickle.root = machine.pop().map_err(fault)?;
            return Ok((machine.pickle, machine.at));
        }
        machine.step(code).map_err(fault)?;
    }
}

struct Machine<'a> {
    pickle: Pickle<'a>,
    at: usize,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: Vec<Option<Id>>,
    items: usize,
    limits: Limits,
}

impl<'a> Machine<'a> {
    fn step(&mut self, code: u8) -> Step {
        match code {
            b'N' | b'I' | b'J' | b'K' | b'L' | b'M' | b'F' | b'G' | 0x88..=0x8b => self.number(code),
            b'S' | b'T' | b'U' | b'V' | b'X' | b'B' | b'C' | 0x8c..=0x8e | 0x96 => self.text(code),
            b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j' => self.memo(code),
            b'c' | 0x93 | b'R' | b'i' | b'o' | 0x81 | 0x92 | b'b' | b'Q' => self.object(code),
            b'(' | b'0' | b'1' | b'2' => self.shuffle(code),
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                version => Err(format!("pickle protocol {version}, known are 0 to 5").into()),
            },
            0x95 => self.frame(),
            0x82..=0x84 => Err("an opcode of Python's extension registry, which a file of weights does not use".into()),
            0x97 | 0x98 => Err("a buffer that lies outside of the file".into()),
            b'P' => Err("a persistent id in text (protocol 0)".into()),
            _ => self.container(code),
        }
    }

    // ---- bytes ----

    fn byte(&mut self) -> Step<u8> {
        let byte = *self.pickle.bytes.get(self.at).ok_or("the pickle is cut off")?;
        self.at += 1;
        Ok(byte)
    }

    fn take(&mut self, length: u64) -> Step<Span> {
        let left = self.pickle.bytes.len() - self.at;
        let Some(length) = usize::try_from(length).ok().filter(|length| *length <= left) else {
            return Err(format!("{length} bytes are declared, {left} are left").into());
        };
        // the caller's buffer is far below 4 GiB
        let span = Span { start: self.at as u32, length: length as u32, owned: false };
        self.at += length;
        Ok(span)
    }

    fn fixed<const N: usize>(&mut self) -> Step<[u8; N]> {
        let span = self.take(N as u64)?;
        Ok(self.pickle.raw(span).try_into().expect("take gives the length asked for"))
    }

    /// Up to the end of a line, which is left out.
    fn line(&mut self) -> Step<Span> {
        let rest = &self.pickle.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n').ok_or("a line does not end")?;
        let span = self.take(length as u64)?;
        self.at += 1;
        Ok(span)
    }

    fn line_text(&mut self) -> Step<String> {
        let span = self.line()?;
        Ok(String::from_utf8(self.pickle.raw(span).to_vec()).map_err(|_| "a line is not text")?)
    }

    fn frame(&mut self) -> Step {
        let length = u64::from_le_bytes(self.fixed()?);
        let left = (self.pickle.bytes.len() - self.at) as u64;
        if length > left {
            return Err(format!("a frame of {length} bytes is declared, {left} are left").into());
        }
        Ok(())
    }

    // ---- stack ----

    fn add(&mut self, value: Value) -> Step<Id> {
        if self.pickle.values.len() >= self.limits.values {
            return Err(Fault::Limit("the number of values", self.limits.values as u64));
        }
        self.pickle.values.push(value);
        Ok(Id(self.pickle.values.len() as u32 - 1))
    }

    fn push(&mut self, id: Id) -> Step {
        if self.stack.len() >= self.limits.stack {
            return Err(Fault::Limit("the number of values on the stack", self.limits.stack as u64));
        }
        self.stack.push(id);
        Ok(())
    }

    fn push_new(&mut self, value: Value) -> Step {
        let id = self.add(value)?;
        self.push(id)
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Id> {
        if self.stack.len() <= self.floor() {
            return Err("an opcode needs a value, but the stack is empty".into());
        }
        Ok(self.stack.pop().expect("it is above the floor"))
    }

    fn top(&self) -> Step<Id> {
        let top = self.stack.last().filter(|_| self.stack.len() > self.floor());
        Ok(*top.ok_or("an opcode needs a value, but the stack is empty")?)
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("an opcode needs a mark, but there is none")?;
        Ok(self.stack.split_off(mark))
    }

    fn count_items(&mut self, count: usize) -> Step {
        self.items += count;
        if self.items > self.limits.items {
            return Err(Fault::Limit("the number of members of all containers", self.limits.items as u64));
        }
        Ok(())
    }

    fn shuffle(&mut self, code: u8) -> Step {
        match code {
            b'(' if self.marks.len() >= self.limits.marks => {
                Err(Fault::Limit("the depth of nesting", self.limits.marks as u64))
            }
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'2' => {
                let top = self.top()?;
                self.push(top)
            }
            b'1' => {
                let dropped = self.pop_to_mark()?;
                dropped.into_iter().try_for_each(|id| self.check_dropped(id))
            }
            _ if self.stack.len() == self.floor() && !self.marks.is_empty() => {
                self.marks.pop();
                Ok(())
            }
            _ => {
                let dropped = self.pop()?;
                self.check_dropped(dropped)
            }
        }
    }

    /// A result that is thrown away was wanted for what the call does.
    fn check_dropped(&self, id: Id) -> Step {
        match self.pickle.value(id) {
            Value::Opaque(name) => Err(Fault::Harmful(self.pickle.name(**name))),
            _ => Ok(()),
        }
    }

    // ---- values ----

    fn push_int(&mut self, value: i64) -> Step {
        match u8::try_from(value) {
            Ok(small) => self.push(Id(SMALL + u32::from(small))),
            Err(_) => self.push_new(Value::Int(value)),
        }
    }

    fn number(&mut self, code: u8) -> Step {
        match code {
            b'N' => self.push(NONE),
            0x88 => self.push(TRUE),
            0x89 => self.push(FALSE),
            b'J' => {
                let value = i32::from_le_bytes(self.fixed()?);
                self.push_int(value.into())
            }
            b'K' => {
                let value = self.byte()?;
                self.push_int(value.into())
            }
            b'M' => {
                let value = u16::from_le_bytes(self.fixed()?);
                self.push_int(value.into())
            }
            b'G' => {
                let value = f64::from_be_bytes(self.fixed()?);
                self.push_new(Value::Float(value))
            }
            b'F' => {
                let line = self.line_text()?;
                let value = line.trim().parse().map_err(|_| format!("`{line}` is no number"))?;
                self.push_new(Value::Float(value))
            }
            b'I' | b'L' => {
                let line = self.line_text()?;
                match (code, line.trim()) {
                    (b'I', "01") => self.push(TRUE),
                    (b'I', "00") => self.push(FALSE),
                    (_, digits) => {
                        let digits = digits.strip_suffix('L').unwrap_or(digits);
                        let value = digits.parse().map_err(|_| format!("`{digits}` is no number of 64 bits"))?;
                        self.push_int(value)
                    }
                }
            }
            _ => {
                let length = match code {
                    0x8a => u64::from(self.byte()?),
                    _ => u64::try_from(i32::from_le_bytes(self.fixed()?)).map_err(|_| "a negative length")?,
                };
                let span = self.take(length)?;
                self.push_long(span)
            }
        }
    }

    /// Two's complement, little-endian.
    fn push_long(&mut self, span: Span) -> Step {
        let raw = self.pickle.raw(span);
        if raw.len() > 8 {
            return self.push_new(Value::Long(span));
        }
        let fill = if raw.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut bytes = [fill; 8];
        bytes[..raw.len()].copy_from_slice(raw);
        self.push_int(i64::from_le_bytes(bytes))
    }

    fn text(&mut self, code: u8) -> Step {
        let length = match code {
            b'S' | b'V' => {
                let line = self.line()?;
                if line.length as usize > MAX_OWNED {
                    return Err(Fault::Limit("the text with escapes", MAX_OWNED as u64));
                }
                let decoded = match code {
                    b'S' => unquote(self.pickle.raw(line))?,
                    _ => unescape(self.pickle.raw(line), true)?,
                };
                return self.push_owned(&decoded);
            }
            b'U' | b'C' | 0x8c => u64::from(self.byte()?),
            b'T' => u64::try_from(i32::from_le_bytes(self.fixed()?)).map_err(|_| "a negative length")?,
            b'X' | b'B' => u64::from(u32::from_le_bytes(self.fixed()?)),
            _ => u64::from_le_bytes(self.fixed()?),
        };
        let span = self.take(length)?;
        match code {
            b'X' | 0x8c | 0x8d => self.push_new(Value::Text(span)),
            _ => self.push_new(Value::Bytes(span)),
        }
    }

    fn push_owned(&mut self, decoded: &[u8]) -> Step {
        if self.pickle.owned.len() + decoded.len() > MAX_OWNED {
            return Err(Fault::Limit("the text with escapes", MAX_OWNED as u64));
        }
        let span = Span { start: self.pickle.owned.len() as u32, length: decoded.len() as u32, owned: true };
        self.pickle.owned.extend(decoded);
        self.push_new(Value::Text(span))
    }

    fn memo(&mut self, code: u8) -> Step {
        let index = match code {
            0x94 => self.memo.len() as u64,
            b'q' | b'h' => u64::from(self.byte()?),
            b'r' | b'j' => u64::from(u32::from_le_bytes(self.fixed()?)),
            _ => {
                let line = self.line_text()?;
                line.trim().parse().map_err(|_| format!("`{line}` is no place of the memo"))?
            }
        };
        if index >= self.limits.values as u64 {
            return Err(Fault::Limit("a place of the memo", self.limits.values as u64));
        }
        let index = index as usize;
        if matches!(code, b'g' | b'h' | b'j') {
            let id = self.memo.get(index).copied().flatten();
            return self.push(id.ok_or_else(|| format!("place {index} of the memo is empty"))?);
        }
        let top = self.top()?;
        if self.memo.len() <= index {
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(top);
        Ok(())
    }

    // ---- containers ----

    fn container(&mut self, code: u8) -> Step {
        match code {
            b']' => self.push_new(Value::List(Vec::new())),
            b'}' => self.push_new(Value::Dict(Vec::new())),
            b')' => self.push(EMPTY),
            0x8f => self.push_new(Value::List(Vec::new())),
            b't' | b'l' | 0x91 => {
                let items = self.pop_to_mark()?;
                self.count_items(items.len())?;
                match code {
                    b't' => self.push_new(Value::Tuple(items.into())),
                    _ => self.push_new(Value::List(items)),
                }
            }
            0x85..=0x87 => {
                let count = usize::from(code - 0x84);
                let Some(begin) = self.stack.len().checked_sub(count).filter(|begin| *begin >= self.floor()) else {
                    return Err("an opcode needs a value, but the stack is empty".into());
                };
                let items = self.stack.split_off(begin);
                self.count_items(count)?;
                self.push_new(Value::Tuple(items.into()))
            }
            b'd' => {
                let items = self.pop_to_mark()?;
                let pairs = self.pairs(&items)?;
                self.push_new(Value::Dict(pairs))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(&[item], false)
            }
            b'e' | 0x90 | b'u' => {
                let items = self.pop_to_mark()?;
                self.extend(&items, code == b'u')
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend(&[key, value], true)
            }
            _ => Err(format!("0x{code:02x} is no opcode of pickles").into()),
        }
    }

    fn pairs(&mut self, items: &[Id]) -> Step<Vec<(Id, Id)>> {
        self.count_items(items.len())?;
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a dict with a key but no value".into());
        }
        Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
    }

    /// Adds to the container on top of the stack.
    fn extend(&mut self, items: &[Id], paired: bool) -> Step {
        let target = self.top()?;
        let pairs = if paired { self.pairs(items)? } else { Vec::new() };
        if !paired {
            self.count_items(items.len())?;
        }
        match &mut self.pickle.values[target.0 as usize] {
            Value::Dict(dict) if paired => dict.extend(pairs),
            Value::List(list) if !paired => list.extend(items),
            // an instance of a class that is not known: what it holds is of no use
            Value::Opaque(_) => {}
            _ => {
                let what = self.pickle.describe(target);
                return Err(format!("{} cannot be added to {what}", if paired { "keys" } else { "items" }).into());
            }
        }
        Ok(())
    }

    // ---- objects ----

    fn object(&mut self, code: u8) -> Step {
        match code {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                let id = self.global(module, name)?;
                self.push(id)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Value::Text(name), Value::Text(module)) = (self.pickle.value(name), self.pickle.value(module))
                else {
                    return Err("the name of a global is not text".into());
                };
                let (module, name) = (*module, *name);
                let id = self.global(module, name)?;
                self.push(id)
            }
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                let arguments = self.pop_to_mark()?;
                let class = self.global(module, name)?;
                self.construct(class, arguments)
            }
            b'o' => {
                let mut items = self.pop_to_mark()?;
                if items.is_empty() {
                    return Err("an object without a class".into());
                }
                let class = items.remove(0);
                self.construct(class, items)
            }
            0x92 => {
                self.pop()?;
                self.pop()?;
                let class = self.pop()?;
                self.construct(class, Vec::new())
            }
            b'R' | 0x81 => {
                let arguments = self.pop()?;
                let class = self.pop()?;
                self.call(class, arguments)
            }
            b'Q' => {
                let id = self.pop()?;
                self.push_new(Value::Persistent(id))
            }
            _ => {
                let state = self.pop()?;
                let target = self.top()?;
                if matches!(self.pickle.value(target), Value::Dict(_)) {
                    self.pickle.attributes.insert(target, state);
                }
                Ok(())
            }
        }
    }

    fn global(&mut self, module: Span, name: Span) -> Step<Id> {
        let text = |span| std::str::from_utf8(self.pickle.raw(span));
        let (Ok(of), Ok(what)) = (text(module), text(name)) else {
            return Err("the name of a global is not text".into());
        };
        if is_harmful(of, what) {
            return Err(Fault::Harmful(format!("{of}.{what}")));
        }
        match find_global(of, what) {
            Some(global) => self.add(Value::Global(global)),
            None => self.add(Value::Class(Box::new(Name { module, name }))),
        }
    }

    fn construct(&mut self, class: Id, arguments: Vec<Id>) -> Step {
        self.count_items(arguments.len())?;
        let arguments = self.add(Value::Tuple(arguments.into()))?;
        self.call(class, arguments)
    }

    /// Puts down what was to be called, and with what. Nothing is.
    fn call(&mut self, class: Id, arguments: Id) -> Step {
        let value = match self.pickle.value(class) {
            Value::Global(Global::Dict) => Value::Dict(self.dict_arguments(arguments)?),
            Value::Global(Global::Size) => {
                let size = self.pickle.tuple(arguments).and_then(|items| items.first().copied());
                return self.push(size.unwrap_or(EMPTY));
            }
            Value::Global(global) => Value::Call(*global, arguments),
            Value::Class(name) | Value::Opaque(name) => Value::Opaque(name.clone()),
            Value::Persistent(reference) if let Some(name) = self.module(*reference) => Value::Opaque(name),
            _ => {
                let what = self.pickle.describe(class);
                return Err(format!("{what} is called like a function").into());
            }
        };
        self.push_new(value)
    }

    /// The class in ("module", class, file, source), as the older layout names a module's class.
    fn module(&self, reference: Id) -> Option<Box<Name>> {
        let [tag, class, ..] = self.pickle.tuple(reference)? else { return None };
        match self.pickle.value(*class) {
            Value::Class(name) if self.pickle.text(*tag) == Some("module") => Some(name.clone()),
            _ => None,
        }
    }

    /// `OrderedDict([(key, value), …])`, `Counter({key: value})`; a factory (of `defaultdict`) adds nothing.
    fn dict_arguments(&mut self, arguments: Id) -> Step<Vec<(Id, Id)>> {
        let Some(&first) = self.pickle.tuple(arguments).and_then(|items| items.last()) else { return Ok(Vec::new()) };
        let mut pairs = Vec::new();
        match self.pickle.value(first) {
            Value::Dict(items) => pairs.clone_from(items),
            Value::List(items) => {
                for item in items {
                    let pair = match self.pickle.value(*item) {
                        Value::Tuple(pair) => &pair[..],
                        Value::List(pair) => &pair[..],
                        _ => &[],
                    };
                    let [key, value] = *pair else { return Err("an item of OrderedDict([…]) is no pair".into()) };
                    pairs.push((key, value));
                }
            }
            _ => {}
        }
        self.count_items(2 * pairs.len())?;
        Ok(pairs)
    }
}

/// The contents of a quoted string of protocol 0.
fn unquote(line: &[u8]) -> Step<Vec<u8>> {
    let line = line.trim_ascii_end();
    match line {
        [b'\'', inside @ .., b'\''] | [b'"', inside @ .., b'"'] => unescape(inside, false),
        _ => Err("a string without quotes".into()),
    }
}

/// Python's escapes: all of them for strings, only `\u` for unicode.
fn unescape(text: &[u8], unicode: bool) -> Step<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            // raw-unicode-escape is Latin-1 apart from its escapes
            match unicode {
                true => out.extend(char::from(*byte).encode_utf8(&mut [0; 4]).bytes()),
                false => out.push(*byte),
            }
            continue;
        }
        let (digits, kind) = match rest {
            [b'u', ..] if unicode => (4, 'u'),
            [b'U', ..] if unicode => (8, 'u'),
            [b'x', ..] if !unicode => (2, 'x'),
            [escaped, ..] if !unicode => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'0' => 0,
                    other => *other,
                });
                rest = &rest[1..];
                continue;
            }
            _ => {
                out.push(b'\\');
                continue;
            }
        };
        let hex = rest.get(1..=digits).and_then(|hex| std::str::from_utf8(hex).ok());
        let value = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok()).ok_or("an escape is cut off")?;
        match kind {
            'x' => out.push(value as u8),
            _ => {
                let c = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
                out.extend(c.encode_utf8(&mut [0; 4]).bytes());
            }
        }
        rest = &rest[1 + digits..];
    }
    Ok(out)
}
