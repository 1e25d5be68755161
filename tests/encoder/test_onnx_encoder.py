"""Encoder files of ONNX networks: what is read from the graph, what has to be given, what is refused."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from helpers.onnx_encoders import SIZE, Graph, small, write_small
from onnx import TensorProto, helper, numpy_helper

from ceflpipe.cache.atomic import sha256_of
from ceflpipe.cache.errors import CeflError
from ceflpipe.stages.encoder import onnx_network
from ceflpipe.stages.encoder.build_onnx import build_onnx_encoder
from ceflpipe.stages.encoder.onnx_card import OnnxOptions, read_card
from ceflpipe.stages.encoder.weights import is_encoder_file, load_encoder, read_crop_size, read_encoder_metadata
from ceflpipe.stages.extract.encoder_onnx import OnnxEncoder

UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)


def build(source, out, **options):
    card = options.pop("card", None)
    return build_onnx_encoder(source, out, out.stem, OnnxOptions(**{**UNIT, **options}), card=card)


@pytest.fixture
def crops():
    return np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3), np.uint8)


def reference(path, crops, output, *, mean=MEAN, std=STD, layout="NCHW", bgr=False, dtype=np.float32):
    """What the network computes for pixels in 0..1 that are normalized by hand."""
    images = (crops.astype(np.float64) / 255 - np.array(mean)) / np.array(std)
    images = images[..., ::-1] if bgr else images
    images = images.transpose(0, 3, 1, 2) if layout == "NCHW" else images
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    rows = [session.run([output], {"pixels": image[None].astype(dtype)})[0] for image in images]
    return np.concatenate(rows).astype(np.float64)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("color_order", ["rgb", "bgr"])
@pytest.mark.parametrize("batch", ["N", 1, 3])
def test_features_are_those_of_the_network_for_normalized_crops(tmp_path, crops, layout, color_order, batch):
    network = write_small(tmp_path / "n.onnx", layout=layout, batch=batch)
    build(network, tmp_path / "e.onnx", mean=MEAN, std=STD, color_order=color_order)
    dynamic = write_small(tmp_path / "dynamic.onnx", layout=layout)
    expected = reference(dynamic, crops, "features", layout=layout, bgr=color_order == "bgr")
    encoder = OnnxEncoder(tmp_path / "e.onnx")
    features = encoder(crops)
    assert features.shape == (5, 24)
    assert features.dtype == np.float16
    np.testing.assert_allclose(features, expected, rtol=2e-3, atol=2e-3)
    assert encoder.width == 24
    assert encoder.batch_size == (32 if batch == "N" else batch)


def test_the_card_is_inside_the_file_and_read_without_the_graph(tmp_path):
    network = write_small(tmp_path / "n.onnx")
    build(network, tmp_path / "e.onnx", mean=MEAN, std=STD, license="MIT", score="0.61 on AffectNet")
    encoder = read_encoder_metadata(tmp_path / "e.onnx")
    assert (encoder.name, encoder.width, encoder.crop_size, encoder.storage) == ("e", 24, SIZE, "fp32")
    assert (encoder.mean, encoder.std) == (MEAN, STD)
    assert encoder.normalization == "mean 0.4 0.5 0.6 std 0.2 0.3 0.4"
    assert encoder.sha256 == sha256_of(tmp_path / "e.onnx")
    assert encoder.metadata == {
        "source": "n.onnx", "source_sha256": sha256_of(network), "license": "MIT", "held_out_score": "0.61 on AffectNet"
    }  # fmt: skip
    entries = {entry.key: entry.value for entry in onnx.load(str(tmp_path / "e.onnx")).metadata_props}
    assert entries["ceflpipe.output_name"] == "features"
    assert read_crop_size(tmp_path / "e.onnx") == SIZE
    assert is_encoder_file(tmp_path / "e.onnx")
    assert not is_encoder_file(network)


def test_imagenet_s_normalization_has_its_name(tmp_path):
    options = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    build(write_small(tmp_path / "n.onnx"), tmp_path / "e.onnx", **options)
    assert read_encoder_metadata(tmp_path / "e.onnx").normalization == "imagenet"


def test_the_same_network_gives_the_same_bytes(tmp_path):
    network = write_small(tmp_path / "n.onnx")
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        build(network, tmp_path / folder / "e.onnx")
    assert (tmp_path / "one/e.onnx").read_bytes() == (tmp_path / "other/e.onnx").read_bytes()


def test_an_inner_tensor_can_be_the_output_and_what_follows_is_cut_off(tmp_path, crops):
    network = write_small(tmp_path / "n.onnx", "scores")
    report = build(network, tmp_path / "scores.onnx")
    assert "pooled (N, 24, 1, 1), features (N, 24)" in report["note"]
    for name in ("features", "pooled"):
        build(network, tmp_path / f"{name}.onnx", output_name=name)
        expected = reference(write_small(tmp_path / "f.onnx"), crops, "features", **UNIT)
        np.testing.assert_allclose(OnnxEncoder(tmp_path / f"{name}.onnx")(crops), expected, rtol=2e-3, atol=2e-3)
        kept = onnx.load(str(tmp_path / f"{name}.onnx")).graph
        assert "scores" not in {output for node in kept.node for output in node.output}
        assert len(kept.initializer) == 1
    with pytest.raises(CeflError, match="computes no tensor feature; did you mean features"):
        build(network, tmp_path / "x.onnx", output_name="feature")


def test_several_outputs_are_listed(tmp_path):
    network = write_small(tmp_path / "n.onnx", "features", "scores")
    with pytest.raises(CeflError, match=r"features \(N, 24\), scores \(N, 7\); pass --output-name"):
        build(network, tmp_path / "e.onnx")
    build(network, tmp_path / "e.onnx", output_name="features")
    assert read_card(tmp_path / "e.onnx").output_name == "features"
    assert not (tmp_path / "x.onnx").exists()


def token_network(path):
    graph = small()
    weight = graph.constant(np.random.default_rng(2).standard_normal((3, 10)).astype(np.float32))
    patches = graph.add(
        "Reshape",
        graph.add("AveragePool", "pixels", kernel_shape=[8, 8], strides=[8, 8]),
        graph.constant(np.array([0, 3, 16])),
    )
    graph.add("MatMul", graph.add("Transpose", patches, perm=[0, 2, 1]), weight, name="tokens")
    onnx.save(graph.model(("N", 3, SIZE, SIZE), "tokens"), str(path))
    return path


def test_tokens_need_to_be_pooled(tmp_path, crops):
    network = token_network(tmp_path / "n.onnx")
    with pytest.raises(CeflError, match=r"tokens \(N, 16, 10\) has features for each of 16 tokens; pass --pool cls"):
        build(network, tmp_path / "e.onnx")
    tokens = reference(network, crops, "tokens", **UNIT)
    for pool, expected in (("cls", tokens[:, 0]), ("mean", tokens.mean(axis=1))):
        build(network, tmp_path / f"{pool}.onnx", pool=pool)
        np.testing.assert_allclose(OnnxEncoder(tmp_path / f"{pool}.onnx")(crops), expected, rtol=2e-3, atol=2e-3)


def test_what_the_graph_does_not_say_has_to_be_given(tmp_path):
    network = write_small(tmp_path / "n.onnx", size="side")
    with pytest.raises(CeflError, match="takes images of any size; pass --crop-size"):
        build(network, tmp_path / "e.onnx")
    build(network, tmp_path / "e.onnx", crop_size=48)
    assert read_crop_size(tmp_path / "e.onnx") == 48
    with pytest.raises(CeflError, match="takes images of 32 pixels, not 48; leave out --crop-size"):
        build(write_small(tmp_path / "fixed.onnx"), tmp_path / "x.onnx", crop_size=48)
    with pytest.raises(CeflError, match=r"pass --std, of pixels in 0\.\.1.*ImageNet's are --mean 0.485"):
        build(network, tmp_path / "x.onnx", crop_size=48, std=None)
    assert not (tmp_path / "x.onnx").exists()


def test_a_layout_that_is_not_clear_has_to_be_given(tmp_path):
    onnx.save(small().model(("N", "C", "H", "W"), "features"), str(tmp_path / "n.onnx"))
    with pytest.raises(CeflError, match=r"pixels \(\?, \?, \?, \?\) does not say .* pass --layout NCHW"):
        build(tmp_path / "n.onnx", tmp_path / "e.onnx", crop_size=SIZE)
    build(tmp_path / "n.onnx", tmp_path / "e.onnx", crop_size=SIZE, layout="NCHW")


def test_a_card_next_to_the_network_is_read_and_options_win(tmp_path):
    network = write_small(tmp_path / "n.onnx", "features", "scores")
    (tmp_path / "n.json").write_text(json.dumps({"mean": MEAN, "std": STD, "output_name": "scores", "license": "MIT"}))
    build_onnx_encoder(network, tmp_path / "e.onnx", "e", OnnxOptions(output_name="features", mean=(0.1, 0.1, 0.1)))
    card = read_card(tmp_path / "e.onnx")
    assert (card.mean, card.std, card.output_name, card.license) == ((0.1, 0.1, 0.1), STD, "features", "MIT")
    (tmp_path / "other.json").write_text(json.dumps({"output_name": "scores"}))
    build(network, tmp_path / "e.onnx", card=tmp_path / "other.json")
    assert read_card(tmp_path / "e.onnx").width == 7
    for text, message in (
        ('{"meen": 1}', "other.json: unknown key meen; did you mean mean"),
        ('{"std": [0, 1, 1]}', r"other.json: std.0: Input should be greater than 0, found 0"),
        ("[]", "other.json: expected an object with the keys"),
        ("{", "other.json: not the card of a network"),
    ):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(CeflError, match=message):
            build(network, tmp_path / "x.onnx", card=tmp_path / "other.json")


def test_an_encoder_file_can_be_made_again_from_itself(tmp_path, crops):
    build(write_small(tmp_path / "n.onnx"), tmp_path / "e.onnx", mean=MEAN, std=STD, license="MIT")
    build_onnx_encoder(tmp_path / "e.onnx", tmp_path / "f.onnx", "f", OnnxOptions())
    assert np.array_equal(OnnxEncoder(tmp_path / "f.onnx")(crops), OnnxEncoder(tmp_path / "e.onnx")(crops))
    assert read_card(tmp_path / "f.onnx").license == "MIT"


def test_half_precision_is_recorded_and_computed(tmp_path, crops):
    network = write_small(tmp_path / "n.onnx", dtype=np.float16)
    build(network, tmp_path / "e.onnx", mean=MEAN, std=STD)
    encoder = OnnxEncoder(tmp_path / "e.onnx")
    assert encoder.precision == "fp16"
    assert read_encoder_metadata(tmp_path / "e.onnx").storage == "fp16"
    expected = reference(network, crops, "features", dtype=np.float16)
    np.testing.assert_allclose(encoder(crops), expected, rtol=0.02, atol=0.02)
    with pytest.raises(CeflError, match="precision fp32: onnxruntime computes in that of the network, fp16"):
        OnnxEncoder(tmp_path / "e.onnx", precision="fp32")


def test_it_is_no_resnet18(tmp_path):
    build(write_small(tmp_path / "n.onnx"), tmp_path / "e.onnx")
    with pytest.raises(CeflError, match="an ONNX network; this needs the weights of a ResNet-18"):
        load_encoder(tmp_path / "e.onnx")


# ---- damaged and hostile files


def refused(tmp_path, match, **options):
    """Check that making an encoder of n.onnx, and using n.onnx as if it were one, both end in one line."""
    with pytest.raises(CeflError, match=match) as caught:
        build(tmp_path / "n.onnx", tmp_path / "e.onnx", **options)
    assert "\n" not in str(caught.value)
    assert not [*tmp_path.glob("e.onnx*"), *tmp_path.glob(".e.onnx*")]


def save(model, path):
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("size", [0, 1, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(tmp_path, size):
    build(write_small(tmp_path / "n.onnx"), tmp_path / "whole.onnx")
    content = (tmp_path / "whole.onnx").read_bytes()
    count = int(size * len(content)) if isinstance(size, float) else size
    (tmp_path / "n.onnx").write_bytes(content[:count])
    refused(tmp_path, "n.onnx: not a")
    with pytest.raises(CeflError, match=r"n\.onnx: (not a|an ONNX network without)") as caught:
        read_encoder_metadata(tmp_path / "n.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", [b"nothing", b"\x00" * 4096, b"\xff" * 4096, b"PK\x03\x04" * 100, b"\x08\x08" * 99999]
)
def test_garbage_is_refused(tmp_path, content):
    (tmp_path / "n.onnx").write_bytes(content)
    refused(tmp_path, "n.onnx: not a")
    with pytest.raises(CeflError, match=r"n\.onnx: not a"):
        read_encoder_metadata(tmp_path / "n.onnx")


def test_a_file_without_a_card_is_no_encoder(tmp_path):
    write_small(tmp_path / "n.onnx")
    with pytest.raises(CeflError, match=r"without a card.*ceflpipe encoder onnx:"):
        read_encoder_metadata(tmp_path / "n.onnx")
    with pytest.raises(CeflError, match="its card is not valid"):
        OnnxEncoder(tmp_path / "n.onnx")


def test_operators_of_a_library_are_refused(tmp_path):
    graph = small()
    graph.add("Secret", "features", name="x", domain="custom")
    save(graph.model(("N", 3, SIZE, SIZE), "x"), tmp_path / "n.onnx")
    refused(tmp_path, "operator custom.Secret needs a library of custom operators, which is never loaded")


def test_loops_are_refused_wherever_they_are(tmp_path):
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]), helper.make_node("Identity", ["value"], ["next"])], "body",
        [helper.make_tensor_value_info(n, k, s) for n, k, s in (("i", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), ("value", TensorProto.FLOAT, None))],
        [helper.make_tensor_value_info(n, k, s) for n, k, s in (("again", TensorProto.BOOL, []), ("next", TensorProto.FLOAT, None))],
    )  # fmt: skip
    inner = helper.make_graph(
        [helper.make_node("Loop", ["", "", "features"], ["y"], body=body)],
        "then",
        [],
        [helper.make_empty_tensor_value_info("y")],
    )
    graph = small()
    graph.add("If", graph.constant(np.array(True)), name="x", then_branch=inner, else_branch=inner)
    save(graph.model(("N", 3, SIZE, SIZE), "x"), tmp_path / "n.onnx")
    refused(tmp_path, "operator Loop: an encoder has no loops")


def test_a_weight_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    for dims in ([1 << 40, 1 << 20], [10**6], [-1, 3, 4, 4]):
        model = small().model(("N", 3, SIZE, SIZE), "features")
        del model.graph.initializer[0].dims[:]
        model.graph.initializer[0].dims.extend(dims)
        save(model, tmp_path / "n.onnx")
        refused(tmp_path, r"tensor w0: its shape .* claims .* bytes, the file holds 4,608")


def test_a_constant_of_a_node_is_checked_too(tmp_path):
    graph = small()
    tensor = numpy_helper.from_array(np.zeros(4, np.float32))
    tensor.dims[0] = 1 << 50
    graph.add("Add", "features", graph.add("Constant", value=tensor), name="x")
    save(graph.model(("N", 3, SIZE, SIZE), "x"), tmp_path / "n.onnx")
    refused(tmp_path, "tensor of a constant: its shape")


def test_a_result_of_terabytes_is_refused_before_anything_runs(tmp_path):
    graph = small()
    shape = graph.constant(np.array([1 << 20, 1 << 20]))
    huge = graph.add("ReduceSum", graph.add("ConstantOfShape", shape), graph.constant(np.array([1])), keepdims=0)
    graph.add("Add", "features", graph.add("ReduceSum", huge), name="x")
    save(graph.model(("N", 3, SIZE, SIZE), "x"), tmp_path / "n.onnx")
    refused(tmp_path, r"would have the shape \(1048576, 1048576\) and 4,398,046,511,104 bytes")


def test_a_result_whose_size_only_running_shows_takes_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_network, "PROBE_BYTES", 1 << 29)
    for side, fits in ((64, True), (1 << 14, False)):  # 16 KiB and 1 GiB
        graph = small()
        largest = graph.add("Cast", graph.add("ReduceMax", "features", keepdims=0), to=TensorProto.INT64)
        length = graph.add(
            "Add", graph.add("Mul", largest, graph.constant(np.array(0))), graph.constant(np.array(side))
        )
        shape = graph.add("Concat", *[graph.add("Unsqueeze", length, graph.constant(np.array([0])))] * 2, axis=0)
        graph.add("Add", "features", graph.add("ReduceSum", graph.add("ConstantOfShape", shape)), name="x")
        save(graph.model(("N", 3, SIZE, SIZE), "x"), tmp_path / "n.onnx")
        if fits:
            build(tmp_path / "n.onnx", tmp_path / "fits.onnx")
        else:
            refused(tmp_path, "n.onnx: (cannot compute|ONNX Runtime cannot load|takes more than)")


def test_shapes_that_contradict_each_other_are_refused(tmp_path):
    graph = small()
    graph.add("Add", "features", graph.constant(np.zeros(25, np.float32)), name="x")
    save(graph.model(("N", 3, SIZE, SIZE), "x"), tmp_path / "n.onnx")
    refused(tmp_path, "n.onnx: (its shapes do not fit|ONNX Runtime cannot load|cannot compute)")


@pytest.mark.parametrize(
    ("shape", "kind", "match"),
    [
        (("N", 1, SIZE, SIZE), TensorProto.FLOAT, "does not say which axis is that of the three colors"),
        (("N", 3, SIZE, 2 * SIZE), TensorProto.FLOAT, "not square"),
        (("N", 3, SIZE), TensorProto.FLOAT, r"input pixels is float \(\?, 3, 32\); an encoder takes images"),
        (("N", 3, SIZE, SIZE), TensorProto.UINT8, r"input pixels is uint8"),
        ((64, 3, SIZE, SIZE), TensorProto.FLOAT, "takes batches of 64 images"),
        (("N", 3, 4096, 4096), TensorProto.FLOAT, "takes images of 4096 pixels"),
    ],
)
def test_inputs_that_are_no_crops_are_refused(tmp_path, shape, kind, match):
    save(small().model(shape, "features", kind=kind), tmp_path / "n.onnx")
    refused(tmp_path, match)


def test_a_second_input_is_refused_unless_the_output_does_not_need_it(tmp_path):
    graph = small()
    text = graph.add("Cast", "words", to=TensorProto.FLOAT)
    graph.add("MatMul", graph.add("ReduceMean", text, axes=[1]), graph.constant(np.ones((1, 24), np.float32)), name="t")
    graph.add("Add", "features", "t", name="joint")
    save(graph.model(("N", 3, SIZE, SIZE), "joint", more_inputs=("words",)), tmp_path / "n.onnx")
    refused(tmp_path, r"needs 2: pixels float \(\?, 3, 32, 32\), words int64 \(\?, 4\)")
    build(tmp_path / "n.onnx", tmp_path / "e.onnx", output_name="features")
    assert read_card(tmp_path / "e.onnx").input_name == "pixels"


@pytest.mark.parametrize(
    ("kind", "value", "match"),
    [
        ("Sqrt", None, "has NaN or Inf"),
        ("Mul", 1e9, "has numbers above 65504"),
        ("Mul", 0.0, "is the same for all images"),
    ],
)  # fmt: skip
def test_useless_numbers_are_refused(tmp_path, kind, value, match):
    graph = small()
    if value is None:
        graph.add("Sqrt", graph.add("Neg", graph.add("Add", "features", graph.constant(np.float32(1)))), name="x")
    else:
        graph.add(kind, "features", graph.constant(np.float32(value)), name="x")
    save(graph.model(("N", 3, SIZE, SIZE), "x"), tmp_path / "n.onnx")
    refused(tmp_path, match)


def test_features_that_depend_on_the_batch_are_refused(tmp_path):
    graph = small()
    graph.add("Sub", "features", graph.add("ReduceMean", "features", axes=[0]), name="x")
    save(graph.model(("N", 3, SIZE, SIZE), "x"), tmp_path / "n.onnx")
    refused(tmp_path, "depend on the other crops of its batch, or on chance; export the network in eval mode")


def test_features_that_depend_on_chance_are_refused(tmp_path):
    graph = small()
    graph.add("Mul", "features", graph.add("RandomUniformLike", "features"), name="x")
    save(graph.model(("N", 3, SIZE, SIZE), "x"), tmp_path / "n.onnx")
    refused(tmp_path, "depend on the other crops of its batch, or on chance")


# ---- external data


def external(tmp_path, location="n.data", *, offset="0", length=None, held=4608):
    """A network that keeps its first weight in another file, which has ``held`` bytes."""
    model = small().model(("N", 3, SIZE, SIZE), "features")
    weight = model.graph.initializer[0]
    content = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            weight.external_data.add(key=key, value=value)
    save(model, tmp_path / "n.onnx")
    return content[:held]


def test_external_data_of_its_own_folder_become_part_of_the_file(tmp_path, crops):
    (tmp_path / "n.data").write_bytes(b"before" + external(tmp_path, offset="6"))
    build(tmp_path / "n.onnx", tmp_path / "e.onnx", mean=MEAN, std=STD)
    (tmp_path / "n.data").unlink()
    expected = reference(write_small(tmp_path / "dynamic.onnx"), crops, "features")
    np.testing.assert_allclose(OnnxEncoder(tmp_path / "e.onnx")(crops), expected, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("location", ["../secret", "{root}/secret", "link", "sub/../../secret", "", "missing"])
def test_external_data_elsewhere_are_refused(tmp_path, location):
    folder = tmp_path / "networks"
    folder.mkdir()
    content = external(folder, location.format(root=tmp_path))
    (tmp_path / "secret").write_bytes(content)
    (folder / "link").symlink_to(tmp_path / "secret")
    refused(folder, "tensor w0: the location of its data, .*(leads out of its folder|is empty|is no file)")


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"held": 100}, "its data are bytes 0 to 4,608 of n.data, which has 100"),
        ({"offset": "1"}, "its data are bytes 1 to 4,609"),
        ({"length": "4"}, r"claims 4,608 bytes, its data are bytes 0 to 4 of"),
        ({"offset": "-4"}, "offset '-4' of its data is no number"),
        ({"offset": "9" * 30}, "is no number"),
    ],
)
def test_external_data_that_are_not_there_are_refused(tmp_path, values, match):
    (tmp_path / "n.data").write_bytes(external(tmp_path, **values))
    refused(tmp_path, match)


def test_external_data_that_claim_too_much_are_refused(tmp_path):
    (tmp_path / "n.data").write_bytes(external(tmp_path))
    model = onnx.ModelProto.FromString((tmp_path / "n.onnx").read_bytes())
    model.graph.initializer[0].dims[0] = 1 << 40
    save(model, tmp_path / "n.onnx")
    refused(tmp_path, "bytes in other files, and an encoder of one file has at most")


def test_an_encoder_file_with_external_data_is_refused(tmp_path):
    """A forged encoder file: a card inside, and a weight in another file."""
    build(write_small(tmp_path / "whole.onnx"), tmp_path / "e.onnx")
    (tmp_path / "n.data").write_bytes(external(tmp_path))
    model = onnx.ModelProto.FromString((tmp_path / "n.onnx").read_bytes())
    model.metadata_props.extend(onnx.load(str(tmp_path / "e.onnx")).metadata_props)
    save(model, tmp_path / "forged.onnx")
    with pytest.raises(CeflError, match=r"forged.onnx: refers to other files for w0"):
        OnnxEncoder(tmp_path / "forged.onnx")


def test_a_card_that_states_another_width_is_refused(tmp_path, crops):
    build(write_small(tmp_path / "n.onnx"), tmp_path / "e.onnx")
    model = onnx.load(str(tmp_path / "e.onnx"))
    next(entry for entry in model.metadata_props if entry.key == "ceflpipe.width").value = "25"
    save(model, tmp_path / "e.onnx")
    with pytest.raises(CeflError, match="has 24 numbers per crop, its card says 25"):
        OnnxEncoder(tmp_path / "e.onnx")(crops)


def test_a_folder_with_one_network_its_data_and_its_card(tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "n.data").write_bytes(external(folder))
    (folder / "n.json").write_text(json.dumps({"mean": MEAN, "std": STD}))
    for source in (folder, folder / "n.onnx"):
        build_onnx_encoder(source, tmp_path / "e.onnx", "e", OnnxOptions())
        assert read_card(tmp_path / "e.onnx").mean == MEAN
    build_onnx_encoder(folder, tmp_path / "e.onnx", "e", OnnxOptions(), alone=True)
    with pytest.raises(CeflError, match="keeps weights in other files, which DVC does not watch"):
        build_onnx_encoder(folder / "n.onnx", tmp_path / "e.onnx", "e", OnnxOptions(), alone=True)
    write_small(folder / "n.onnx")
    with pytest.raises(CeflError, match=r"n\.json beside it would be read too, and DVC does not watch it"):
        build_onnx_encoder(folder / "n.onnx", tmp_path / "e.onnx", "e", OnnxOptions(), alone=True)
    write_small(folder / "m.onnx")
    with pytest.raises(CeflError, match=r"expected one .onnx file in the folder, found m.onnx, n.onnx"):
        build_onnx_encoder(folder, tmp_path / "e.onnx", "e", OnnxOptions())


def test_a_graph_of_functions_of_its_own_is_no_custom_operator(tmp_path):
    graph = Graph()
    graph.nodes = small().nodes
    graph.weights = small().weights
    graph.add("Double", "features", name="x", domain="custom")
    model = graph.model(("N", 3, SIZE, SIZE), "x")
    double = helper.make_function(
        "custom", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    model.functions.append(double)
    save(model, tmp_path / "n.onnx")
    build(tmp_path / "n.onnx", tmp_path / "e.onnx")
    assert read_card(tmp_path / "e.onnx").width == 24
