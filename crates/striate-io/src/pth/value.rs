//! What a pickle says, as plain data: an arena of values that refer to each other by number. Nothing here can nest deeper than
//! the stack, and nothing has to be dropped recursively, whatever a file does.

use super::globals::Global;
use std::collections::HashMap;

/// Place of a value in its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Id(pub u32);

/// A piece of the pickle's bytes, or of the text that had to be decoded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub start: u32,
    pub length: u32,
    pub owned: bool,
}

/// A name that a pickle gives to something of Python's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub module: Span,
    pub name: Span,
}

/// One value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    /// An integer that no i64 holds: its bytes, little-endian.
    Long(Span),
    Float(f64),
    Text(Span),
    Bytes(Span),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// One of the few things that have a meaning here.
    Global(Global),
    /// Something of Python's that has none.
    Class(Box<Name>),
    /// What Python would have made by calling that, or an instance of it. Nothing was called.
    Opaque(Box<Name>),
    /// One of the few, applied to arguments. It is looked at when somebody needs it.
    Call(Global, Id),
    /// An object outside of the pickle: a storage.
    Persistent(Id),
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub bytes: &'a [u8],
    /// Text that differs from how it stands in the bytes.
    pub owned: Vec<u8>,
    pub values: Vec<Value>,
    /// What `BUILD` set on dicts.
    pub attributes: HashMap<Id, Id>,
    pub root: Id,
}

impl Pickle<'_> {
    pub(super) fn value(&self, id: Id) -> &Value {
        &self.values[id.0 as usize]
    }

    pub(super) fn raw(&self, span: Span) -> &[u8] {
        let bytes = if span.owned { &self.owned[..] } else { self.bytes };
        &bytes[span.start as usize..][..span.length as usize]
    }

    /// The text of a value that is text. Python 2 wrote it as bytes.
    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match *self.value(id) {
            Value::Text(span) | Value::Bytes(span) => std::str::from_utf8(self.raw(span)).ok(),
            _ => None,
        }
    }

    pub(super) fn name(&self, name: Name) -> String {
        let part = |span| String::from_utf8_lossy(self.raw(span)).into_owned();
        format!("{}.{}", part(name.module), part(name.name))
    }

    pub(super) fn tuple(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Tuple(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn dict(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.value(id) {
            Value::Dict(items) => Some(items),
            _ => None,
        }
    }

    /// What a value is, for messages.
    pub(super) fn describe(&self, id: Id) -> String {
        match self.value(id) {
            Value::None => "None".into(),
            Value::Bool(value) => if *value { "True" } else { "False" }.into(),
            Value::Int(value) => format!("the number {value}"),
            Value::Long(span) => format!("a number of {} bytes", span.length),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(_) => "text".into(),
            Value::Bytes(_) => "bytes".into(),
            Value::Tuple(items) => format!("a tuple of {}", items.len()),
            Value::List(items) => format!("a list of {}", items.len()),
            Value::Dict(items) => format!("a dict of {}", items.len()),
            Value::Global(global) | Value::Call(global, _) => global.name().into(),
            Value::Class(name) | Value::Opaque(name) => self.name(**name),
            Value::Persistent(_) => "a storage".into(),
        }
    }
}
