"""Writes a bundle of schema 2 as one of schema 3, to show that nothing else changed.

    python tests/bench/without_novelty.py OLD_BUNDLE NEW_BUNDLE

Schema 2 had a fourth output that nobody read: the network's own novelty. It is cut out of each graph with all that only
it needed, and its two tensors leave the weights; the encoder's key `window` becomes `max_positions`. The encoder, the
statistics, calibration, thresholds and golden samples are those of the old bundle, so this release must score with the
new one as the release before did with the old one. It is no way to upgrade: an old bundle is fitted anew.
"""

import argparse
import json
import shutil
from pathlib import Path

import onnx
from safetensors.numpy import load, save

from service.engine.session import OUTPUTS
from service.model.bundle import SCHEMA_VERSION, VARIANTS, Bundle, sha256
from service.model.scorer import Model

OLD_SCHEMA = 2
GONE = "novelty"
BUFFERS = ("normal_mean", "normal_whitening")


def cut(path: Path) -> tuple[int, int]:
    """Takes the output out of a graph, in its place; gives how many nodes and constants went with it."""
    model = onnx.load(path)
    graph = model.graph
    kept = [output for output in graph.output if output.name != GONE]
    assert [output.name for output in kept] == [name for name, _, _ in OUTPUTS], path
    assert not any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute), "a graph in a graph"
    needed = {output.name for output in kept}
    nodes = []
    for node in reversed(graph.node):  # each comes behind those that it takes from
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    constants = [constant for constant in graph.initializer if constant.name in needed]
    gone = len(graph.node) - len(nodes), len(graph.initializer) - len(constants)
    shapes = [value for value in graph.value_info if value.name in needed]
    for field, left in (("node", nodes[::-1]), ("initializer", constants), ("value_info", shapes), ("output", kept)):
        graph.ClearField(field)
        getattr(graph, field).extend(left)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return gone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    given = parser.parse_args()
    manifest = json.loads((given.old / "manifest.json").read_text())
    if manifest["schema_version"] != OLD_SCHEMA:
        parser.error(f"{given.old}: schema version {manifest['schema_version']}, this takes {OLD_SCHEMA}")
    shutil.copytree(given.old, given.new)
    for file in VARIANTS.values():
        nodes, constants = cut(given.new / file)
        print(f"{file}: {nodes} nodes and {constants} constants went with the output")
    encoder = json.loads((given.new / "encoder.json").read_text())
    encoder = {"max_positions": encoder.pop("window"), **encoder}
    (given.new / "encoder.json").write_text(json.dumps(encoder))
    for path in (given.new / "weights.safetensors", given.new / "masked.safetensors"):
        if path.exists():
            weights = load(path.read_bytes())
            left = {name: w for name, w in weights.items() if name.rpartition(".")[2] not in BUFFERS}
            path.write_bytes(save(left))
            print(f"{path.name}: {len(weights) - len(left)} of {len(weights)} tensors left out")
    (given.new / "manifest.sig").unlink(missing_ok=True)
    manifest["schema_version"] = SCHEMA_VERSION
    manifest["files"] = {name: sha256(given.new / name) for name in manifest["files"]}
    (given.new / "manifest.json").write_text(json.dumps(manifest, indent=1))
    bundle = Bundle.open(given.new)
    for precision in VARIANTS:
        engine = Model.load(bundle, precision=precision).engine
        print(f"{precision}: {[output.name for output in engine.session.get_outputs()]}, golden samples as before")


if __name__ == "__main__":
    main()
