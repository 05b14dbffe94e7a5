"""`python -m tests.serving.conformance.models DIRECTORY`: the models that the suite asks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from tests.serving.saved_models import save_everything, save_half

v1 = tf.compat.v1
METHODS = "tensorflow/serving/"
CONFIG, MONITORING = "models.config", "monitoring.config"


def make(directory: Path, seen_as: Path | None = None) -> list[str]:
    """Writes all models, and the configuration that serves them.

    Args:
        directory: new.
        seen_as: the same directory as the server sees it, such as a container's mount.

    Returns:
        Flags of a server that serves them.
    """
    save_everything(directory / "model" / "7")
    save_half_plus_two(directory / "half_plus_two" / "123")
    for version in (1, 2, 3):
        save_half(directory / "versions" / str(version), float(version))
    save_types(directory / "types" / "1")
    shutil.copytree(directory / "versions", directory / "some")
    shutil.copytree(directory / "versions" / "1", directory / "latest" / "1")
    place = seen_as or directory
    (directory / CONFIG).write_text(config(place))
    (directory / MONITORING).write_text("prometheus_config { enable: true }\n")
    return [
        f"--model_config_file={place / CONFIG}",
        f"--monitoring_config_file={place / MONITORING}",
        # Without it, TF Serving does not start with labels: no version is loaded yet.
        "--allow_version_labels_for_unavailable_models=true",
    ]


def config(place: Path) -> str:
    """Text of a ModelServerConfig."""
    policies = {
        "model": "",
        "half_plus_two": "",
        "types": "",
        "latest": "model_version_policy { latest { num_versions: 1 } }",
        "some": "model_version_policy { specific { versions: 1 versions: 3 } }",
        "versions": "model_version_policy { all {} } "
        'version_labels { key: "stable" value: 2 } version_labels { key: "canary" value: 3 }',
    }
    entries = "".join(
        f'  config {{ name: "{name}" base_path: "{place / name}" '
        f'model_platform: "tensorflow" {policy} }}\n'
        for name, policy in policies.items()
    )
    return f"model_config_list {{\n{entries}}}\n"


def save_half_plus_two(directory: Path) -> None:
    """A model of TensorFlow 1 with signatures for all methods: y = x / 2 + 2, y2 = x / 2 + 3."""
    with tf.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], "examples")
        spec = {
            "x": tf.io.FixedLenFeature([1], tf.float32),
            "x2": tf.io.FixedLenFeature([1], tf.float32, [0.0]),
        }
        parsed = tf.io.parse_example(examples, spec)
        x = tf.identity(parsed["x"], "x")
        half, two, three = (
            v1.get_variable(n, [], initializer=v1.constant_initializer(value))
            for n, value in (("half", 0.5), ("two", 2.0), ("three", 3.0))
        )
        y = half * x + two
        more = v1.placeholder(tf.float32, [None, 1], "more")
        y2, y3 = half * x + three, half * parsed["x2"] + three
        labels = tf.strings.join(["of ", tf.strings.as_string(x, precision=1)])
        session.run(v1.global_variables_initializer())
        signatures = {
            "serving_default": _signature("predict", {"x": x}, {"y": y}),
            "defaults": _signature("predict", {"x": x, "more": more}, {"y": y + more}),
            "regress_x_to_y": _signature("regress", {"inputs": examples}, {"outputs": y}),
            "regress_x_to_y2": _signature("regress", {"inputs": examples}, {"outputs": y2}),
            "regress_x2_to_y3": _signature("regress", {"inputs": examples}, {"outputs": y3}),
            "regress_flat": _signature(
                "regress", {"inputs": examples}, {"outputs": tf.reshape(y, [-1])}
            ),
            "regress_wide": _signature(
                "regress", {"inputs": examples}, {"outputs": tf.concat([y, y2], 1)}
            ),
            "regress_as_predict": _signature("predict", {"inputs": examples}, {"outputs": y}),
            "classify_as_predict": _signature("predict", {"inputs": examples}, {"scores": y}),
            "classify_x_to_y": _signature("classify", {"inputs": examples}, {"scores": y}),
            "classify_labels": _signature(
                "classify",
                {"inputs": examples},
                {
                    "classes": tf.concat([labels, labels], 1),
                    "scores": tf.concat([y, y2], 1),
                },
            ),
            "classify_only_labels": _signature(
                "classify", {"inputs": examples}, {"classes": labels}
            ),
            "classify_flat": _signature(
                "classify", {"inputs": examples}, {"scores": tf.reshape(y, [-1])}
            ),
            "classify_elsewhere": _signature("classify", {"inputs": x}, {"scores": y}),
            "classify_nothing": _signature("classify", {"inputs": examples}, {"y": y}),
        }
        default = tf.make_tensor_proto([[10.0]])
        signatures["defaults"].defaults["more"].CopyFrom(default)
        builder = v1.saved_model.Builder(str(directory))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


def _signature(method: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    infos = [
        {name: v1.saved_model.build_tensor_info(tensor) for name, tensor in tensors.items()}
        for tensors in (inputs, outputs)
    ]
    build = v1.saved_model.build_signature_def
    return build(*infos, METHODS + method)


class Types(tf.Module):
    """Gives back what it is given, by dtype."""

    def identity(self, dtype: tf.DType) -> Any:
        """A signature of one dtype and any rank."""
        spec = tf.TensorSpec(None, dtype, "x")
        return tf.function(lambda x: {"y": tf.identity(x)}, input_signature=[spec])


DTYPES = (
    tf.float32,
    tf.float64,
    tf.int8,
    tf.uint8,
    tf.int16,
    tf.int32,
    tf.int64,
    tf.uint32,
    tf.uint64,
    tf.bool,
    tf.string,
)


def save_types(directory: Path) -> None:
    """A signature for each dtype, of its name."""
    model = Types()
    signatures = {dtype.name: model.identity(dtype) for dtype in DTYPES}
    tf.saved_model.save(model, str(directory), signatures)


if __name__ == "__main__":
    target = Path(sys.argv[1]).resolve()
    as_seen = Path(sys.argv[2]) if len(sys.argv) > 2 else target
    print("tensorflow_model_server --port=8500 --rest_api_port=8501", *make(target, as_seen))
