"""Make the files with which people are found out of MediaPipe's BlazePose (Google, Apache-2.0).

    pip install tensorflow-cpu tf2onnx ai-edge-litert
    pip download mediapipe==0.10.21 --no-deps
    python scripts/convert_blazepose.py mediapipe-0.10.21-*.whl [--out bodyreg/assets/people]

The wheel carries two TFLite networks: one that finds people and one that finds 33 landmarks of one person. They become
ONNX files that OpenCV reads: the first with its sparse weights written out (no other program reads them sparse), the
second without its outputs for segmentation, heat maps and landmarks in the world, which nothing here uses. Numbers are
untouched: on random pictures each file gives what TFLite gives, or the script fails.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

_PARTS = {
    "blazepose_detector": ("mediapipe/modules/pose_detection/pose_detection.tflite", None),
    "blazepose_landmarks": (
        "mediapipe/modules/pose_landmark/pose_landmark_full.tflite", ["Identity", "Identity_1"]
    ),
}  # fmt: skip
_TOLERANCE = 1e-4  # of the largest output


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=Path("bodyreg/assets/people"))
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, zipfile.ZipFile(args.wheel) as wheel:
        for name, (member, outputs) in _PARTS.items():
            source = Path(temporary, f"{name}.tflite")
            source.write_bytes(wheel.read(member))
            dense = Path(temporary, f"{name}_dense.tflite")
            dense.write_bytes(densified(source))
            onnx = Path(temporary, f"{name}.onnx")
            command = [sys.executable, "-m", "tf2onnx.convert", "--opset", "13"]
            subprocess.run([*command, "--tflite", str(dense), "--output", str(onnx)], check=True)
            if outputs:
                cut(onnx, outputs)
            compare(source, onnx)
            (args.out / f"{name}.onnx.gz").write_bytes(gzip.compress(onnx.read_bytes(), 9, mtime=0))
    return 0


def densified(path: Path) -> bytes:
    """A TFLite file in which sparse weights are written out and the operators that unpack them are gone."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    graph = model.subgraphs[0]
    interpreter = Interpreter(
        str(path), experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )  # fmt: skip
    interpreter.allocate_tensors()
    interpreter.invoke()
    kept = []
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) != schema.BuiltinOperator.DENSIFY:
            kept.append(operator)
            continue
        for index, buffer in ((operator.outputs[0], len(model.buffers)), (operator.inputs[0], 0)):
            graph.tensors[index].buffer, graph.tensors[index].sparsity = buffer, None
        values = np.ascontiguousarray(interpreter.get_tensor(operator.outputs[0]))
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = np.frombuffer(values.tobytes(), np.uint8)
    graph.operators = kept
    used = {tensor.buffer for tensor in graph.tensors} | {entry.buffer for entry in model.metadata or []}
    for number, buffer in enumerate(model.buffers):
        if number not in used:
            buffer.data = None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def cut(path: Path, outputs: list[str]) -> None:
    """Keep of an ONNX file what these outputs need."""
    import onnx

    inputs = [node.name for node in onnx.load(path).graph.input]
    onnx.utils.extract_model(str(path), str(path), inputs, outputs)


def compare(tflite: Path, onnx: Path) -> None:
    """Fail where OpenCV's outputs of the ONNX file are not TFLite's."""
    import cv2
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(tflite))
    interpreter.allocate_tensors()
    about = interpreter.get_input_details()[0]
    picture = np.random.default_rng(0).uniform(0, 1, about["shape"]).astype(np.float32)
    interpreter.set_tensor(about["index"], picture)
    interpreter.invoke()
    theirs = [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]
    net = cv2.dnn.readNetFromONNX(str(onnx))
    net.setInput(picture)
    for name, own in zip(names := net.getUnconnectedOutLayersNames(), net.forward(names), strict=True):
        apart = min(np.abs(own - x).max() / max(1.0, np.abs(x).max()) for x in theirs if x.shape == own.shape)
        print(f"{onnx.stem} {name} {own.shape}: {apart:.1e} of the largest value from TFLite's")
        if apart > _TOLERANCE:
            raise SystemExit(f"{onnx.stem} differs from the TFLite network. Look at the versions of the converters.")


if __name__ == "__main__":
    raise SystemExit(main())
