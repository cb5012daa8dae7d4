"""A small model for each operator that is imported, as first inputs of the target `import`: fuzz/seed_onnx.py FOLDER writes
FOLDER/import/*. Needs onnx and numpy."""

import pathlib
import sys

import numpy
from onnx import AttributeProto, TensorProto, helper, numpy_helper

out = pathlib.Path(sys.argv[1]) / "import"
IMAGE = (1, 4, 4, 4)
F, I, U, B = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8, TensorProto.BOOL


def f(*shape):
    return numpy.linspace(-1, 1, int(numpy.prod(shape)), dtype=numpy.float32).reshape(shape)


def ints(*values):
    return numpy.array(values, numpy.int64)


def scalar(value, kind=numpy.float32):
    return numpy.array(value, kind)


def u8(*shape):
    return numpy.arange(numpy.prod(shape), dtype=numpy.uint8).reshape(shape)


def put(operator, *inputs, outputs=1, opset=18, kind=F, domain="", **attributes):
    """A model of one node: a shape is an input of the model, an array a value in the file, None is left out."""
    names, given, values = [], [], []
    for index, value in enumerate(inputs):
        name = "" if value is None else f"i{index}"
        names.append(name)
        if isinstance(value, tuple):
            given.append(helper.make_tensor_value_info(name, kind, value))
        elif value is not None:
            values.append(numpy_helper.from_array(value, name))
    results = [f"o{index}" for index in range(outputs)]
    node = helper.make_node(operator, names, results, name="n", domain=domain, **attributes)
    write(f"{operator}", [node], given, results, values, opset)


def write(name, nodes, given, results, values, opset, **more):
    graph = helper.make_graph(nodes, "", given, [helper.make_empty_tensor_value_info(result) for result in results], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], **more)
    model.ClearField("ir_version")
    model.ClearField("producer_name")
    out.mkdir(parents=True, exist_ok=True)
    count = len(list(out.glob(f"{name}-*")))
    (out / f"{name}-{count}").write_bytes(model.SerializeToString())


def elementwise():
    for operator in """Abs Neg Sign Exp Log Sqrt Reciprocal Sin Cos Erf Floor Ceil Round Relu Sigmoid Tanh Softsign Softplus Mish
            HardSwish LeakyRelu Elu Celu Gelu HardSigmoid Selu ThresholdedRelu Swish Tan Asin Acos Atan Sinh Cosh Asinh Acosh
            Atanh IsNaN IsInf Shrink Identity Dropout""".split():
        put(operator, IMAGE, opset=20)
    for operator, attributes in [("LeakyRelu", {"alpha": 0.2}), ("Gelu", {"approximate": "tanh"}), ("IsInf", {"detect_negative": 0}),
                                 ("IsInf", {"detect_positive": 0}), ("Shrink", {"bias": 0.1, "lambd": 0.2}), ("Celu", {"alpha": 2.0}),
                                 ("Dropout", {"seed": 1})]:  # fmt: skip
        put(operator, IMAGE, opset=20, **attributes)
    for operator in "Add Sub Mul Div Pow Equal Less LessOrEqual Greater GreaterOrEqual Min Max Sum Mean PRelu".split():
        put(operator, IMAGE, f(4, 1, 1))
        put(operator, (2, 3), (2, 3), kind=I)
    for operator in "And Or Xor".split():
        put(operator, (2, 3), (2, 3), kind=B)
    for operator in "BitwiseAnd BitwiseOr BitwiseXor".split():
        put(operator, (2, 3), (3,), kind=U)
    put("BitShift", (2, 3), (3,), kind=U, direction="LEFT")
    put("BitShift", (2, 3), (3,), kind=U, direction="RIGHT")
    put("Not", (2, 3), kind=B)
    put("BitwiseNot", (2, 3), kind=I)
    put("Mod", (2, 3), (3,), kind=I)
    put("Mod", (2, 3), (3,), fmod=1)
    put("Clip", IMAGE, scalar(-0.5), scalar(0.5))
    put("Clip", IMAGE, min=-0.5, max=0.5, opset=7)
    put("Clip", IMAGE, None, scalar(0.5))
    put("Where", (2, 3), f(2, 3), f(3), kind=B)
    put("Cast", IMAGE, to=I)
    put("CastLike", IMAGE, u8(1))
    put("Max", IMAGE, (1,), (4, 1))


def windows():
    put("Conv", IMAGE, f(8, 4, 3, 3), f(8), pads=[1, 1, 1, 1], strides=[2, 2])
    put("Conv", IMAGE, f(8, 2, 3, 3), group=2, auto_pad="SAME_UPPER", dilations=[2, 1])
    put("Conv", IMAGE, f(8, 4, 1, 1), auto_pad="VALID")
    put("Conv", (1, 4, 8), f(8, 4, 3))
    put("Conv", (1, 2, 3, 4, 5), f(2, 2, 2, 2, 2))
    put("Conv", IMAGE, (4, 4, 3, 3))
    put("ConvTranspose", IMAGE, f(4, 8, 3, 3), f(8), strides=[2, 2], output_padding=[1, 1])
    put("ConvTranspose", IMAGE, f(4, 2, 3, 3), strides=[2, 2], output_shape=[8, 8], group=2)
    put("ConvTranspose", IMAGE, f(4, 2, 3, 3), auto_pad="SAME_LOWER", strides=[2, 2])
    put("ConvTranspose", (1, 4, 8), f(4, 2, 3), pads=[1, 1])
    for operator in ("MaxPool", "AveragePool", "LpPool"):
        put(operator, IMAGE, kernel_shape=[2, 2], strides=[2, 2])
        put(operator, IMAGE, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1, opset=19)
        put(operator, IMAGE, kernel_shape=[3, 3], auto_pad="SAME_UPPER")
        put(operator, (1, 2, 8), kernel_shape=[3], dilations=[2], opset=19)
        put(operator, (1, 2, 3, 4, 5), kernel_shape=[2, 2, 2])
    put("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], outputs=2, storage_order=1)
    put("AveragePool", IMAGE, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    put("LpPool", IMAGE, kernel_shape=[2, 2], p=3)
    for operator in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"):
        put(operator, IMAGE)
    put("MaxUnpool", (1, 1, 2, 2), ints(5, 7, 13, 15).reshape(1, 1, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    put("MaxUnpool", (1, 1, 2, 2), ints(5, 7, 13, 15).reshape(1, 1, 2, 2), ints(1, 1, 5, 5), kernel_shape=[2, 2], strides=[2, 2])


def norms():
    put("BatchNormalization", IMAGE, f(4), f(4), f(4), f(4) ** 2, epsilon=0.01)
    put("BatchNormalization", IMAGE, f(4), f(4), f(4), f(4) ** 2, outputs=3, training_mode=1)
    put("BatchNormalization", IMAGE, f(4), f(4), f(4), f(4) ** 2, opset=7, momentum=0.5)
    put("InstanceNormalization", IMAGE, f(4), f(4))
    put("LayerNormalization", IMAGE, f(4), f(4))
    put("LayerNormalization", IMAGE, f(4, 4, 4), axis=1, outputs=3, stash_type=1)
    put("RMSNormalization", IMAGE, f(4), opset=23)
    put("GroupNormalization", IMAGE, f(2), f(2), num_groups=2)
    put("GroupNormalization", IMAGE, f(4), f(4), num_groups=2, opset=21)
    put("LRN", IMAGE, size=3, alpha=0.1, beta=0.5, bias=2.0)
    put("LpNormalization", IMAGE, axis=1, p=1)
    put("LpNormalization", IMAGE)
    put("MeanVarianceNormalization", IMAGE, axes=[0, 2, 3])


def reductions():
    for operator in "ReduceSum ReduceMean ReduceMax ReduceMin ReduceProd ReduceSumSquare ReduceL1 ReduceL2 ReduceLogSumExp ReduceLogSum".split():
        put(operator, IMAGE, ints(2, 3), keepdims=0)
        put(operator, IMAGE, axes=[1], opset=11)
        put(operator, IMAGE, noop_with_empty_axes=1)
    for operator in ("ArgMax", "ArgMin"):
        put(operator, IMAGE, axis=-1, keepdims=0, select_last_index=1)
    for operator in ("Softmax", "LogSoftmax", "Hardmax"):
        put(operator, IMAGE, axis=1)
        put(operator, IMAGE, axis=1, opset=11)
    put("CumSum", IMAGE, scalar(1, numpy.int64), exclusive=1, reverse=1)
    put("TopK", IMAGE, ints(2), outputs=2, axis=1, largest=0)
    put("TopK", IMAGE, outputs=2, k=2, opset=7)


def matrices():
    put("MatMul", (2, 3, 4), f(4, 5))
    put("MatMul", (4,), f(4, 5))
    put("MatMul", (2, 1, 3, 4), (5, 4, 2))
    put("Gemm", (2, 3), f(4, 3), f(4), transB=1, alpha=0.5, beta=2.0)
    put("Gemm", (3, 2), f(3, 4), transA=1)
    for equation in ("ij,jk->ik", "bij,bjk", "...ij->...ji", "ii->i", "ij->", "i,j->ij", "bhwc,hkc->bhwk"):
        shapes = [{2: (3, 3), 3: (2, 3, 3), 1: (3,), 4: (2, 3, 3, 3)}[len(t.replace("...", ""))] for t in equation.split("->")[0].split(",")]
        put("Einsum", *shapes, equation=equation)


def indices():
    put("Gather", IMAGE, ints(0, -1), axis=1)
    put("Gather", (4, 5), (2,), kind=I)
    put("GatherElements", (3, 3), ints(0, 1, 2).reshape(1, 3), axis=0)
    put("GatherND", (2, 3, 4), ints(0, 1, 1, 0).reshape(2, 2))
    put("GatherND", (2, 3, 4), ints(0, 1).reshape(2, 1), batch_dims=1)
    put("ScatterND", (4, 3), ints(0, 2).reshape(2, 1), f(2, 3), reduction="add")
    put("ScatterND", (4, 3), ints(0, 2).reshape(2, 1), (2, 3))
    put("ScatterElements", (3, 3), ints(0, 1, 2).reshape(1, 3), f(1, 3), axis=0, reduction="mul")
    put("Scatter", (3, 3), ints(0, 1, 2).reshape(1, 3), f(1, 3), opset=9)
    put("NonMaxSuppression", (1, 4, 4), f(1, 1, 4), ints(2), scalar(0.5), scalar(0.1), center_point_box=1)
    put("ReverseSequence", (4, 2, 3), ints(2, 3), time_axis=0, batch_axis=1)
    put("Compress", (3, 2), numpy.array([True, False, True]), axis=0)
    put("Compress", (3, 2), numpy.array([True, False, True]))
    put("NonZero", (2, 3))
    put("OneHot", ints(0, 2, 1), ints(4), f(2), axis=-1)
    put("OneHot", (3,), ints(4), f(2), axis=0, kind=I)


def moves():
    put("Slice", IMAGE, ints(1, 0), ints(3, 9), ints(2, 3), ints(1, 2))
    put("Slice", IMAGE, ints(-1), ints(-9), ints(1), ints(-1))
    put("Slice", IMAGE, starts=[1], ends=[3], axes=[1], opset=9)
    put("Split", IMAGE, ints(1, 3), axis=1, outputs=2)
    put("Split", IMAGE, axis=1, num_outputs=3, outputs=3)
    put("Split", IMAGE, axis=1, split=[2, 2], outputs=2, opset=11)
    put("Expand", (3, 1), ints(2, 1, 4))
    put("Tile", (2, 3), ints(2, 2))
    for mode in ("constant", "reflect", "edge", "wrap"):
        put("Pad", IMAGE, ints(0, 0, 1, 2, 0, 0, 2, 1), scalar(0.5), mode=mode, opset=19)
    put("Pad", IMAGE, ints(1, 2), None, ints(3), mode="constant")
    put("Pad", IMAGE, ints(0, 0, -1, 0, 0, 0, -1, 0))
    put("Pad", IMAGE, pads=[0, 0, 1, 1, 0, 0, 1, 1], value=1.0, mode="constant", opset=7)
    put("ConstantOfShape", ints(2, 3), value=numpy_helper.from_array(f(1)))
    put("ConstantOfShape", ints(2, 3))
    put("Range", scalar(0, numpy.int64), scalar(9, numpy.int64), scalar(2, numpy.int64))
    put("Range", scalar(1.0), scalar(-1.0), scalar(-0.5))
    put("DepthToSpace", IMAGE, blocksize=2)
    put("DepthToSpace", IMAGE, blocksize=2, mode="CRD")
    put("SpaceToDepth", IMAGE, blocksize=2)
    put("Trilu", (3, 4), scalar(1, numpy.int64), upper=0)
    put("Trilu", (3, 4))
    put("EyeLike", (3, 4), k=1, dtype=I)
    put("Concat", IMAGE, f(1, 2, 4, 4), axis=1)
    put("Transpose", IMAGE, perm=[0, 2, 3, 1])
    put("Transpose", (2, 3))
    put("Reshape", IMAGE, ints(0, -1))
    put("Reshape", IMAGE, ints(4, 16), allowzero=1)
    put("Reshape", IMAGE, shape=[0, -1], opset=1)
    put("Flatten", IMAGE, axis=2)
    put("Flatten", IMAGE, axis=-1)
    put("Squeeze", (1, 3, 1), ints(0))
    put("Squeeze", (1, 3, 1))
    put("Squeeze", (1, 3, 1), axes=[0, 2], opset=11)
    put("Unsqueeze", (3,), ints(0, -1))
    put("Unsqueeze", (3,), axes=[0], opset=11)
    put("Shape", IMAGE, start=1, end=-1)
    put("Size", IMAGE)
    put("Constant", value=numpy_helper.from_array(f(2)))
    put("Constant", value_float=1.0)
    put("Constant", value_floats=[1.0, 2.0])
    put("Constant", value_int=1)
    put("Constant", value_ints=[1, 2])


def samples():
    for operator, opset in (("Resize", 19), ("Resize", 13), ("Resize", 10), ("Upsample", 9)):
        for mode in ("nearest", "linear", "cubic"):
            scales = numpy.array([1, 1, 2, 1.5], numpy.float32)
            if operator == "Upsample" or opset == 10:
                put(operator, IMAGE, scales, mode=mode, opset=opset)
                continue
            put(operator, IMAGE, None, scales, mode=mode, opset=opset)
            put(operator, IMAGE, None, None, ints(1, 4, 7, 3), mode=mode, opset=opset, coordinate_transformation_mode="align_corners")
    put("Upsample", IMAGE, scales=[1.0, 1.0, 2.0, 2.0], mode="nearest", opset=7)
    sizes = ints(1, 4, 3, 7)
    for rule in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"):
        put("Resize", IMAGE, None, None, sizes, mode="cubic", coordinate_transformation_mode=rule, cubic_coeff_a=-0.5, exclude_outside=1, opset=19)
    for rule in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        put("Resize", IMAGE, None, None, sizes, mode="nearest", nearest_mode=rule, opset=19)
    for policy in ("stretch", "not_larger", "not_smaller"):
        put("Resize", IMAGE, None, None, ints(3, 7), axes=[2, 3], keep_aspect_ratio_policy=policy, antialias=1, mode="linear", opset=19)
    crop = numpy.array([0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9], numpy.float32)
    put("Resize", IMAGE, crop, None, sizes, coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=1.0, mode="linear", opset=19)
    for mode in ("avg", "max"):
        put("RoiAlign", IMAGE, f(2, 4), ints(0, 0), output_height=2, output_width=3, sampling_ratio=2, spatial_scale=0.5, mode=mode)
    put("RoiAlign", IMAGE, f(2, 4), ints(0, 0), coordinate_transformation_mode="output_half_pixel")
    for mode in ("bilinear", "nearest", "bicubic", "linear", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            put("GridSample", IMAGE, f(1, 2, 3, 2), mode=mode, padding_mode=padding, align_corners=1, opset=20)


def quantised():
    s, z = scalar(0.1), scalar(3, numpy.uint8)
    put("QuantizeLinear", IMAGE, s, z)
    put("QuantizeLinear", IMAGE, numpy.full(4, 0.1, numpy.float32), numpy.zeros(4, numpy.int8), axis=1)
    put("QuantizeLinear", IMAGE, s, opset=10)
    put("DequantizeLinear", IMAGE, s, z, kind=U)
    put("DequantizeLinear", (2, 6), numpy.full((2, 3), 0.1, numpy.float32), kind=U, axis=1, block_size=2, opset=21)
    put("DynamicQuantizeLinear", IMAGE, outputs=3)
    put("MatMulInteger", (2, 3), u8(3, 4), z, z, kind=U)
    put("ConvInteger", IMAGE, u8(2, 4, 3, 3), z, z, kind=U, pads=[1, 1, 1, 1])
    put("QLinearMatMul", (2, 3), s, z, u8(3, 4), s, z, s, z, kind=U)
    put("QLinearConv", IMAGE, s, z, u8(2, 4, 3, 3), s, z, s, z, numpy.zeros(2, numpy.int32), kind=U)


def chains():
    """Activations as exporters take them apart."""
    numbers = [numpy_helper.from_array(scalar(v), n) for n, v in (("half", 0.5), ("one", 1), ("root", 2**0.5), ("six", 6), ("three", 3), ("zero", 0))]

    def chain(name, *steps):
        nodes = [helper.make_node(operator, inputs.split(), [to], **more) for operator, inputs, to, more in steps]
        write(name, nodes, [info("x", IMAGE)], [steps[-1][2]], numbers, 18)

    chain("silu", ("Sigmoid", "x", "g", {}), ("Mul", "x g", "y", {}))
    chain("hardswish", ("HardSigmoid", "x", "g", {"alpha": 1 / 6, "beta": 0.5}), ("Mul", "g x", "y", {}))
    chain("hardswish", ("Add", "x three", "a", {}), ("Clip", "a zero six", "b", {}), ("Mul", "x b", "c", {}), ("Div", "c six", "y", {}))
    chain("mish", ("Softplus", "x", "a", {}), ("Tanh", "a", "g", {}), ("Mul", "x g", "y", {}))
    erf = (("Div", "x root", "a", {}), ("Erf", "a", "b", {}), ("Add", "b one", "c", {}))
    chain("gelu", *erf, ("Mul", "x c", "d", {}), ("Mul", "d half", "y", {}))
    chain("gelu", *erf, ("Mul", "x half", "d", {}), ("Mul", "c d", "y", {}))
    for operator in ("Add", "Sub", "Mul", "Div", "Pow", "Min", "Max"):
        chain("number", (operator, "x six", "y", {}))
        chain("number", (operator, "six x", "y", {}))


def info(name, shape, kind=F):
    return helper.make_tensor_value_info(name, kind, shape)


def structures():
    """What spans nodes: shape arithmetic, a condition that is known, a function, types that arrays hold otherwise."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "first"], ["u"]),
        helper.make_node("Concat", ["u", "rest"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["y"]),
    ]
    values = [numpy_helper.from_array(v, n) for v, n in ((scalar(0, numpy.int64), "zero"), (ints(0), "first"), (ints(-1), "rest"))]
    write("shape", nodes, [info("x", ("N", 4, None))], ["y"], values, 18)
    branches = [helper.make_graph([helper.make_node(op, ["x"], ["b"])], op, [], [info("b", None)]) for op in ("Relu", "Neg")]
    choice = helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1])
    write("if", [choice], [info("x", (2,))], ["y"], [numpy_helper.from_array(numpy.array(True), "c")], 18)
    body = [helper.make_node("Mul", ["a", "a"], ["b"]), helper.make_node("LeakyRelu", ["b"], ["c"])]
    slope = body[1].attribute.add()
    slope.name, slope.ref_attr_name, slope.type = "alpha", "slope", AttributeProto.FLOAT
    function = helper.make_function("local", "F", ["a"], ["c"], body, [helper.make_opsetid("", 18)], ["slope"])
    call = helper.make_node("F", ["x"], ["y"], domain="local", slope=0.3)
    write("function", [call], [info("x", (2,))], ["y"], [], 18, functions=[function])
    head = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["b"]),
        helper.make_node("Flatten", ["b"], ["c"]),
        helper.make_node("Gemm", ["c", "m", "v"], ["d"], transB=1),
        helper.make_node("Softmax", ["d"], ["y"]),
    ]
    cells = [numpy_helper.from_array(v, n) for v, n in ((f(4, 3, 3, 3), "w"), (f(5, 4), "m"), (f(5), "v"))]
    write("classifier", head, [info("x", ("N", 3, 8, 8))], ["y"], cells, 18)
    plain = [*head[:3], helper.make_node("MatMul", ["c", "k"], ["e"]), helper.make_node("Add", ["e", "v"], ["y"])]
    write("classifier", plain, [info("x", (1, 3, 8, 8))], ["y"], [cells[0], numpy_helper.from_array(f(4, 5), "k"), cells[2]], 18)
    write("classifier", head[:3], [info("x", (None, None, None, None))], ["c"], cells[:1], 18)
    for kind in ("FLOAT16", "DOUBLE", "INT8", "INT16", "INT32", "INT64", "UINT8", "BOOL", "BFLOAT16"):
        typed = helper.make_tensor("t", getattr(TensorProto, kind), [3], [0, 1, 1])
        write("typed", [helper.make_node("Cast", ["t"], ["y"], to=F)], [], ["y"], [typed], 18)


for family in (elementwise, windows, norms, reductions, matrices, indices, moves, samples, quantised, chains, structures):
    family()
