//! Pickles that want to run something, and those that break the machine that reads them.

use super::Case;
use super::zips::pth;

pub fn text(value: &str) -> Vec<u8> {
    [&b"X"[..], &(value.len() as u32).to_le_bytes(), value.as_bytes()].concat()
}

pub fn global(module: &str, name: &str) -> Vec<u8> {
    format!("c{module}\n{name}\n").into_bytes()
}

pub fn int(value: i64) -> Vec<u8> {
    [&[0x8a, 8][..], &value.to_le_bytes()].concat()
}

pub fn tuple(items: &[Vec<u8>]) -> Vec<u8> {
    [&b"("[..], &items.concat(), b"t"].concat()
}

pub fn call(function: Vec<u8>, arguments: &[Vec<u8>]) -> Vec<u8> {
    [function, tuple(arguments), b"R".to_vec()].concat()
}

/// A dict of one entry after the other.
pub fn dict(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let items: Vec<u8> = pairs.iter().flat_map(|(key, value)| [text(key), value.clone()].concat()).collect();
    [&b"}("[..], &items, b"u"].concat()
}

/// A whole pickle.
pub fn whole(value: Vec<u8>) -> Vec<u8> {
    [&b"\x80\x02"[..], &value, b"."].concat()
}

/// The tensor of four floats.
pub fn tensor() -> Vec<u8> {
    super::tensors::tensor(&[4], &[1], 0)
}

/// A pickle that is read.
pub fn good() -> Vec<u8> {
    whole(dict(&[("w", tensor())]))
}

/// `module.name("id")`, in the ways that pickles have for it.
fn attacks() -> Vec<Case> {
    let mut cases = Vec::new();
    let names = [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("builtins", "eval"),
        ("__builtin__", "eval"),
        ("builtins", "exec"),
        ("builtins", "__import__"),
        ("builtins", "open"),
        ("subprocess", "Popen"),
        ("subprocess", "check_output"),
        ("pickle", "loads"),
        ("marshal", "loads"),
        ("types", "CodeType"),
        ("importlib", "import_module"),
        ("runpy", "_run_code"),
        ("shutil", "rmtree"),
        ("socket", "create_connection"),
        ("ctypes", "CDLL"),
        ("webbrowser", "open"),
        ("operator", "methodcaller"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.serialization", "load"),
        ("numpy", "load"),
        ("numpy.testing._private.utils", "runstring"),
        ("pip._internal", "main"),
        ("pty", "spawn"),
        ("asyncio", "run"),
    ];
    for (module, name) in names {
        let bytes = pth(&whole(call(global(module, name), &[text("id")])));
        cases.push(Case::new(
            &format!("call-{module}.{name}.pth"),
            bytes,
            &[&format!("{module}.{name}"), "a/data.pkl"],
        ));
    }
    let system = || global("os", "system");
    let stacked = |module: &str, name: &str| [text(module), text(name), b"\x93".to_vec()].concat();
    let ways: [(&str, Vec<u8>, &str); 14] = [
        ("stack-global", call(stacked("os", "system"), &[text("id")]), "os.system"),
        ("stack-global-dotted", call(stacked("builtins", "eval.__call__"), &[text("1")]), "builtins.eval"),
        ("inst", [&b"("[..], &text("id"), b"ios\nsystem\n"].concat(), "os.system"),
        ("obj", [&b"("[..], &system(), &text("id"), b"o"].concat(), "os.system"),
        ("newobj", [system(), tuple(&[text("id")]), b"\x81".to_vec()].concat(), "os.system"),
        ("newobj-ex", [system(), tuple(&[text("id")]), b"}\x92".to_vec()].concat(), "os.system"),
        ("never-called", [system(), b"0".to_vec(), dict(&[("w", tensor())])].concat(), "os.system"),
        (
            "beside-weights",
            dict(&[("state_dict", dict(&[("w", tensor())])), ("x", call(system(), &[text("id")]))]),
            "os.system",
        ),
        ("as-a-key", [dict(&[("w", tensor())]), call(system(), &[text("id")]), b"Ns".to_vec()].concat(), "os.system"),
        ("dropped-call", [call(global("evil", "f"), &[]), b"0".to_vec(), dict(&[("w", tensor())])].concat(), "evil.f"),
        (
            "dropped-to-mark",
            [b"(".to_vec(), call(global("evil", "f"), &[]), b"1".to_vec(), dict(&[("w", tensor())])].concat(),
            "evil.f",
        ),
        ("unknown-root", call(global("evil", "f"), &[text("id")]), "evil.f"),
        ("getattr", call(global("builtins", "getattr"), &[text("a"), text("b")]), "builtins.getattr"),
        ("unknown-weight", dict(&[("layer.w", call(global("evil", "tensor"), &[])), ("v", tensor())]), "layer.w"),
    ];
    for (name, value, part) in ways {
        cases.push(Case::new(&format!("way-{name}.pth"), pth(&whole(value)), &[part]));
    }
    cases
}

pub fn cases() -> Vec<Case> {
    let mut cases = attacks();
    let declared = |code: &[u8], length: &[u8]| [code, length].concat();
    let laughs = |levels: usize, width: usize| {
        let mut value = b"(NNlq\0".to_vec();
        for _ in 0..levels {
            value.extend(b"0(");
            value.extend(b"h\0".repeat(width));
            value.extend(b"lq\0");
        }
        value
    };
    let tensors_by_hundreds = {
        let mut value = [&tensor()[..], b"q\0"].concat();
        for _ in 0..6 {
            value.extend(b"0(");
            value.extend(b"h\0".repeat(20));
            value.extend(b"lq\0");
        }
        value
    };
    let same_tensor = {
        let mut value = [tensor(), b"q\x000}(".to_vec()].concat();
        (0..70_000).for_each(|index| value.extend([int(index), b"h\0".to_vec()].concat()));
        [value, b"u".to_vec()].concat()
    };
    let parameter =
        |inner: Vec<u8>| call(global("torch._utils", "_rebuild_parameter"), &[inner, vec![0x89], b"N".to_vec()]);
    let wraps = (0..12).fold(tensor(), |inner, _| parameter(inner));
    let chain = [global("evil", "f"), b")R".repeat(20_000)].concat();
    let broken: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("reduce-chain", whole(chain), &["evil.f"]),
        ("build-chain", whole([global("evil", "f"), b")R".to_vec(), b"}b".repeat(20_000)].concat()), &["evil.f"]),
        ("dict-called", whole(call(dict(&[]), &[])), &["called like a function"]),
        ("text-called", whole(call(text("os.system"), &[])), &["called like a function"]),
        ("build-on-list", whole(b"]}b".to_vec()), &["no tensor"]),
        ("extension", whole(b"\x82\x01".to_vec()), &["extension registry"]),
        ("extension-4", whole(b"\x84\x01\x01\x01\x01".to_vec()), &["extension registry"]),
        ("persistent-text", b"Pos.system\n.".to_vec(), &["persistent id"]),
        ("next-buffer", whole(b"\x97".to_vec()), &["outside"]),
        ("memo-place", whole(b"Nr\xff\xff\xff\xff".to_vec()), &["memo"]),
        ("memo-text", b"Np99999999999999999999\n.".to_vec(), &["memo"]),
        ("memo-empty", whole(b"j\x09\0\0\0".to_vec()), &["place 9 of the memo is empty"]),
        ("laughs", whole(laughs(60, 10)), &["names and sizes"]),
        ("laughs-of-tensors", whole(tensors_by_hundreds), &[]),
        ("many-tensors", whole(same_tensor), &["number of arrays"]),
        ("duplicates", whole([b"N".to_vec(), b"2".repeat(1_100_000)].concat()), &["on the stack"]),
        ("marks", whole(b"(".repeat(5_000)), &["depth of nesting"]),
        ("opcodes", whole(b"N0".repeat(2_200_000)), &["number of opcodes"]),
        ("values", whole(b"]".repeat(600_000)), &["number of"]),
        ("members", whole([b"]".to_vec(), b"(NNNNNNNNNNNNNNNNNNNNNNNNNNNNNNe".repeat(80_000)].concat()), &["members"]),
        ("deep-lists", whole([b"]".repeat(60_000), b"a".repeat(59_999)].concat()), &["no tensor"]),
        ("deep-tuples", whole([b"N".to_vec(), b"\x85".repeat(200_000)].concat()), &["no tensor"]),
        (
            "text-of-2-to-63",
            whole(declared(b"\x8d", &(1u64 << 63).to_le_bytes())),
            &["9223372036854775808 bytes are declared"],
        ),
        ("text-of-4-gib", whole(declared(b"X", &u32::MAX.to_le_bytes())), &["4294967295 bytes are declared"]),
        ("bytes-of-2-to-64", whole(declared(b"\x8e", &u64::MAX.to_le_bytes())), &["bytes are declared"]),
        ("bytearray", whole(declared(b"\x96", &u64::MAX.to_le_bytes())), &["bytes are declared"]),
        ("negative-string", whole(declared(b"T", &(-1i32).to_le_bytes())), &["negative length"]),
        ("negative-long", whole(declared(b"\x8b", &(-5i32).to_le_bytes())), &["negative length"]),
        ("long-of-2-gib", whole(declared(b"\x8b", &i32::MAX.to_le_bytes())), &["bytes are declared"]),
        ("frame", whole(declared(b"\x95", &u64::MAX.to_le_bytes())), &["a frame of"]),
        ("protocol-99", b"\x80\x63N.".to_vec(), &["protocol 99"]),
        ("global-cut", b"\x80\x02cos".to_vec(), &["a line does not end"]),
        ("global-not-text", b"\x80\x02c\xff\xfe\nx\n.".to_vec(), &["not text"]),
        ("global-of-numbers", whole(b"K\x01K\x02\x93".to_vec()), &["not text"]),
        ("number-of-text", b"I99999999999999999999999\n.".to_vec(), &["no number"]),
        ("float-of-text", b"Fone\n.".to_vec(), &["no number"]),
        ("escape", b"S'\\x4'\n.".to_vec(), &["escape"]),
        ("unquoted", b"Sabc\n.".to_vec(), &["without quotes"]),
        ("nothing", b".".to_vec(), &["stack is empty"]),
        ("empty", Vec::new(), &["cut off"]),
        ("pop-nothing", b"0.".to_vec(), &["stack is empty"]),
        ("tuple-of-nothing", b"\x87.".to_vec(), &["stack is empty"]),
        ("below-the-mark", b"N(0a.".to_vec(), &[]),
        ("no-mark", b"Nt.".to_vec(), &["mark"]),
        ("object-of-nothing", b"(o.".to_vec(), &["without a class"]),
        ("keys-on-list", whole([b"](".to_vec(), text("a"), b"Nu".to_vec()].concat()), &["cannot be added"]),
        ("items-on-number", whole(b"K\x01Na".to_vec()), &["cannot be added"]),
        ("odd-dict", whole(b"(Nd".to_vec()), &["no value"]),
        ("pairs-of-one", whole(call(global("collections", "OrderedDict"), &[b"(N\x85l".to_vec()])), &["no pair"]),
        ("no-opcode", whole(b"\xff".to_vec()), &["0xff is no opcode"]),
        ("unended", b"\x80\x02}".to_vec(), &["cut off"]),
        ("list-in-itself", whole(b"]q\0h\0a".to_vec()), &["no tensor"]),
        ("dict-in-itself", whole([b"}q\0".to_vec(), text("model"), b"h\0s".to_vec()].concat()), &["no tensor"]),
        ("parameters-in-parameters", whole(dict(&[("w", wraps)])), &["`w`", "parameter"]),
        (
            "module",
            whole(
                [tuple(&[text("module"), global("evil", "Net"), text("f.py"), text("x = 1")]), b"Q)\x81".to_vec()]
                    .concat(),
            ),
            &["evil.Net"],
        ),
        ("number", whole(int(7)), &["no tensor"]),
        ("key-of-tuple", whole([b"}".to_vec(), b")".to_vec(), tensor(), b"s".to_vec()].concat()), &["key"]),
        ("long-key", whole(dict(&[(&"k".repeat(5_000), tensor())])), &["key"]),
        (
            "line-in-key",
            whole(dict(&[("w\nerror: all is well", super::tensors::tensor(&[9], &[1], 0))])),
            &["w\\nerror"],
        ),
    ];
    let made = broken.into_iter().map(|(name, pickle, parts)| {
        let mut case = Case::new(&format!("pickle-{name}.pth"), pth(&pickle), parts);
        case.parts.retain(|part| !part.is_empty());
        case
    });
    cases.extend(made);
    cases.extend(legacy());
    cases
}

/// The layout before 1.6, whose pickles follow each other.
fn legacy() -> Vec<Case> {
    let magic = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.";
    let head = [&magic[..], b"\x80\x02M\xe9\x03.", b"\x80\x02}."].concat();
    let keys = |keys: &[&str]| {
        let items: Vec<u8> = keys.iter().flat_map(|key| text(key)).collect();
        whole([&b"]("[..], &items, b"e"].concat())
    };
    let storage = |count: u64| [&count.to_le_bytes()[..], &[0; 16]].concat();
    let file = |object: &[u8], list: Vec<u8>, data: Vec<u8>| [&head[..], object, &list, &data].concat();
    vec![
        Case::new("legacy-plain-pickle.pth", whole(call(global("collections", "OrderedDict"), &[])), &["plain pickle"]),
        Case::new("legacy-attack.pth", whole(call(global("os", "system"), &[text("id")])), &["os.system"]),
        Case::new(
            "legacy-attack-in-system.pth",
            [&magic[..], b"\x80\x02M\xe9\x03.", &whole(global("os", "system"))].concat(),
            &["os.system"],
        ),
        Case::new("legacy-protocol.pth", [&magic[..], b"\x80\x02K\x07."].concat(), &["protocol", "7"]),
        Case::new("legacy-cut.pth", head.clone(), &["the object"]),
        Case::new("legacy-no-keys.pth", file(&good(), whole(b"N".to_vec()), Vec::new()), &["None in place of a list"]),
        Case::new("legacy-other-key.pth", file(&good(), keys(&["7"]), storage(4)), &["`7`"]),
        Case::new(
            "legacy-twice.pth",
            file(&good(), keys(&["0", "0"]), [storage(4), storage(4)].concat()),
            &["`0` occurs twice"],
        ),
        Case::new("legacy-huge.pth", file(&good(), keys(&["0"]), storage(u64::MAX / 2)), &["`0` declares"]),
        Case::new("legacy-short.pth", file(&good(), keys(&["0"]), storage(4)[..12].to_vec()), &["`0` declares 4"]),
        Case::new("legacy-fewer.pth", file(&good(), keys(&["0"]), storage(2)), &["8 bytes, not 16"]),
        Case::new("legacy-none.pth", file(&good(), keys(&[]), Vec::new()), &["`w`", "not in the file"]),
        Case::new("legacy-count-cut.pth", file(&good(), keys(&["0"]), vec![4, 0, 0]), &["`0`"]),
    ]
}
