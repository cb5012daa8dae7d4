//! The names of Python's that mean something in a file of weights, and those that mean harm.

use crate::bytes::Stored;
use striate_graph::DType;

/// How the elements of a storage lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// In a way that is read.
    Known(Stored),
    /// Complex, quantised or of eight bits: its name, and its size in bytes.
    Other(&'static str, usize),
}

impl Element {
    pub(super) fn size(self) -> usize {
        match self {
            Element::Known(stored) => stored.size(),
            Element::Other(_, size) => size,
        }
    }
}

/// All that is known. None of it is ever called: it says how the arguments are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `OrderedDict` and its like.
    Dict,
    /// `torch.Size`: its argument.
    Size,
    /// `_rebuild_tensor` and `_rebuild_tensor_v2`: (storage, offset, size, stride, …).
    Tensor,
    /// `_rebuild_tensor_v3`: (storage, offset, size, stride, …, dtype), offset and strides in elements of that dtype.
    TensorOfType,
    /// `_rebuild_parameter`: (tensor, …).
    Parameter,
    /// `_rebuild_from_type_v2`: (function, class, arguments, state).
    FromType,
    /// `torch.FloatStorage` and its like.
    Storage(Element),
    /// `torch.storage.UntypedStorage`: bytes.
    Untyped,
    /// `torch.float32` and its like.
    DType(Element),
    /// `torch.Tensor`, `torch.nn.Parameter` as classes.
    TensorClass,
}

impl Global {
    pub(super) fn name(self) -> &'static str {
        match self {
            Global::Dict => "collections.OrderedDict",
            Global::Size => "torch.Size",
            Global::Tensor => "torch._utils._rebuild_tensor_v2",
            Global::TensorOfType => "torch._utils._rebuild_tensor_v3",
            Global::Parameter => "torch._utils._rebuild_parameter",
            Global::FromType => "torch._tensor._rebuild_from_type_v2",
            Global::Storage(_) => "a class of torch storages",
            Global::Untyped => "torch.storage.UntypedStorage",
            Global::DType(_) => "a torch dtype",
            Global::TensorClass => "torch.Tensor",
        }
    }

    /// Whether a call of it gives a tensor.
    pub(super) fn makes_tensor(self) -> bool {
        matches!(self, Global::Tensor | Global::TensorOfType | Global::Parameter | Global::FromType)
    }
}

/// (Storage class without `Storage`, dtype with its other name, element)
const ELEMENTS: [(&str, &[&str], Element); 23] = [
    ("Float", &["float32", "float"], Element::Known(Stored::As(DType::F32))),
    ("Double", &["float64", "double"], Element::Known(Stored::As(DType::F64))),
    ("Half", &["float16", "half"], Element::Known(Stored::As(DType::F16))),
    ("BFloat16", &["bfloat16"], Element::Known(Stored::As(DType::BF16))),
    ("Char", &["int8"], Element::Known(Stored::As(DType::I8))),
    ("Short", &["int16", "short"], Element::Known(Stored::As(DType::I16))),
    ("Int", &["int32", "int"], Element::Known(Stored::As(DType::I32))),
    ("Long", &["int64", "long"], Element::Known(Stored::As(DType::I64))),
    ("Byte", &["uint8"], Element::Known(Stored::As(DType::U8))),
    ("Bool", &["bool"], Element::Known(Stored::As(DType::Bool))),
    ("", &["uint16"], Element::Known(Stored::U16)),
    ("", &["uint32"], Element::Known(Stored::U32)),
    ("", &["uint64"], Element::Known(Stored::U64)),
    ("ComplexFloat", &["complex64", "cfloat"], Element::Other("complex64", 8)),
    ("ComplexDouble", &["complex128", "cdouble"], Element::Other("complex128", 16)),
    ("", &["complex32", "chalf"], Element::Other("complex32", 4)),
    ("QInt8", &["qint8"], Element::Other("qint8", 1)),
    ("QUInt8", &["quint8"], Element::Other("quint8", 1)),
    ("QInt32", &["qint32"], Element::Other("qint32", 4)),
    ("", &["float8_e4m3fn"], Element::Other("float8_e4m3fn", 1)),
    ("", &["float8_e5m2"], Element::Other("float8_e5m2", 1)),
    ("", &["float8_e4m3fnuz"], Element::Other("float8_e4m3fnuz", 1)),
    ("", &["float8_e5m2fnuz"], Element::Other("float8_e5m2fnuz", 1)),
];

/// What a name means; nothing for those of unknown classes.
pub(super) fn find_global(module: &str, name: &str) -> Option<Global> {
    match (module, name) {
        ("collections", "OrderedDict" | "defaultdict" | "Counter") | ("builtins" | "__builtin__", "dict") => {
            Some(Global::Dict)
        }
        ("torch", "Size") => Some(Global::Size),
        ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Some(Global::Tensor),
        ("torch._utils", "_rebuild_tensor_v3") => Some(Global::TensorOfType),
        ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => Some(Global::Parameter),
        ("torch._tensor", "_rebuild_from_type_v2") => Some(Global::FromType),
        ("torch.storage", "UntypedStorage") | ("torch", "UntypedStorage") => Some(Global::Untyped),
        ("torch", "Tensor") | ("torch.nn.parameter", "Parameter" | "Buffer") => Some(Global::TensorClass),
        ("torch" | "torch.cuda", name) => {
            let storage = name.strip_suffix("Storage").filter(|kind| !kind.is_empty());
            let found =
                |(kind, dtypes, _): &&(&str, &[&str], Element)| storage == Some(*kind) || dtypes.contains(&name);
            let (_, _, element) = ELEMENTS.iter().find(found)?;
            Some(if storage.is_some() { Global::Storage(*element) } else { Global::DType(*element) })
        }
        _ => None,
    }
}

/// Modules of which nothing belongs into a file of weights: they run programs or code, open files or connections, or load further
/// pickles. The list protects nobody, because nothing is called anyhow; it lets a file that was made to do harm be refused by name.
const HARMFUL_MODULES: [&str; 64] = [
    "_pickle",
    "_posixsubprocess",
    "_socket",
    "_thread",
    "aiohttp",
    "antigravity",
    "asyncio",
    "atexit",
    "bdb",
    "cPickle",
    "cProfile",
    "cloudpickle",
    "codeop",
    "concurrent",
    "ctypes",
    "dill",
    "distutils",
    "doctest",
    "ensurepip",
    "fcntl",
    "fileinput",
    "ftplib",
    "http",
    "httpx",
    "idlelib",
    "imp",
    "importlib",
    "joblib",
    "lib2to3",
    "linecache",
    "marshal",
    "mmap",
    "multiprocessing",
    "nt",
    "os",
    "paramiko",
    "pdb",
    "pickle",
    "pip",
    "pkgutil",
    "popen2",
    "posix",
    "pty",
    "pydoc",
    "requests",
    "runpy",
    "setuptools",
    "shelve",
    "shutil",
    "smtplib",
    "socket",
    "socketserver",
    "sqlite3",
    "ssl",
    "subprocess",
    "sys",
    "telnetlib",
    "tempfile",
    "timeit",
    "urllib",
    "venv",
    "webbrowser",
    "xmlrpc",
    "zipimport",
];

/// Single names that do harm in modules that also have harmless ones.
const HARMFUL_NAMES: [(&str, &[&str]); 14] = [
    ("io", &["open", "open_code", "FileIO"]),
    ("_io", &["open", "open_code", "FileIO"]),
    ("code", &["InteractiveInterpreter", "InteractiveConsole", "interact"]),
    ("profile", &["run", "runctx", "Profile"]),
    (
        "builtins",
        &[
            "eval",
            "exec",
            "execfile",
            "compile",
            "open",
            "__import__",
            "breakpoint",
            "input",
            "apply",
            "globals",
            "vars",
        ],
    ),
    (
        "__builtin__",
        &["eval", "exec", "execfile", "compile", "open", "__import__", "input", "apply", "file", "globals", "vars"],
    ),
    ("types", &["CodeType", "FunctionType", "LambdaType", "MethodType", "ModuleType"]),
    ("operator", &["methodcaller"]),
    ("platform", &["popen"]),
    ("torch", &["load", "save", "compile"]),
    ("torch.hub", &["load", "load_state_dict_from_url", "download_url_to_file", "_get_torch_home"]),
    ("torch.serialization", &["load", "save"]),
    ("numpy", &["load", "fromfile", "loadtxt", "genfromtxt", "memmap", "save"]),
    ("numpy.testing._private.utils", &["runstring"]),
];

/// True for what only a file that was made to do harm names.
pub(super) fn is_harmful(module: &str, name: &str) -> bool {
    let top = module.split('.').next().unwrap_or(module);
    // a dotted name reaches through the module: (`builtins`, `eval.__call__`)
    let first = name.split('.').next().unwrap_or(name);
    // the class of os.PathLike's and Path's own sorts are data
    HARMFUL_MODULES.contains(&top)
        || HARMFUL_NAMES.iter().any(|(of, names)| *of == module && names.contains(&first))
        || module == "torch.utils.cpp_extension"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storages_and_dtypes_are_told_apart() {
        let f32s = Element::Known(Stored::As(DType::F32));
        assert_eq!(find_global("torch", "FloatStorage"), Some(Global::Storage(f32s)));
        assert_eq!(find_global("torch.cuda", "FloatStorage"), Some(Global::Storage(f32s)));
        assert_eq!(find_global("torch", "float32"), Some(Global::DType(f32s)));
        assert_eq!(find_global("torch", "uint16"), Some(Global::DType(Element::Known(Stored::U16))));
        assert_eq!(find_global("torch", "Storage"), None);
        assert_eq!(find_global("torch", ""), None);
        assert_eq!(find_global("argparse", "Namespace"), None);
    }

    #[test]
    fn what_acts_is_harmful_and_what_holds_is_not() {
        for (module, name) in [
            ("os", "system"),
            ("posix", "system"),
            ("os.path", "join"),
            ("builtins", "eval"),
            ("builtins", "exec.__call__"),
            ("subprocess", "Popen"),
            ("importlib._bootstrap", "_load"),
        ] {
            assert!(is_harmful(module, name), "{module}.{name}");
        }
        for (module, name) in [
            ("argparse", "Namespace"),
            ("pathlib", "PosixPath"),
            ("builtins", "set"),
            ("builtins", "getattr"),
            ("functools", "partial"),
            ("torch.optim.sgd", "SGD"),
            ("numpy.core.multiarray", "scalar"),
            ("ossaudio", "x"),
        ] {
            assert!(!is_harmful(module, name), "{module}.{name}");
        }
    }
}
