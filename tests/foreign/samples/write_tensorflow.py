"""Write the samples of TensorFlow 2.21.0, tf_keras 2.21.0 and Keras 3 (Python 3.11), into the folder of this script.

Nothing here is run by the tests. Of the SavedModel only the folder `variables` is kept.
"""

import os
import shutil
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
import tf_keras

HERE = Path(__file__).parent
numbers = np.random.default_rng(0)


def random(*shape):
    return numbers.normal(size=shape).astype("float32")


def drawn(model):
    """The model, with every weight drawn anew, so that no two are equal."""
    for weight in model.weights:
        if "float" in str(weight.dtype):
            values = random(*weight.shape)
            weight.assign(np.abs(values) if "variance" in weight.name else values)
    return model


# ------------------------------------------------ the networks of the chapter on parameters


def mlp(library):
    layers = library.layers
    return library.Sequential(
        [library.Input((4,)), layers.Dense(8, activation="relu", name="hidden"), layers.Dense(1, name="output")]
    )


def shared_mlp(library):
    layers = library.layers
    shared = layers.Dense(8, activation="relu", name="shared")
    inputs = library.Input((4,))
    hidden = shared(shared(layers.Dense(8, activation="relu", name="hidden")(inputs)))
    return library.Model(inputs, layers.Dense(1, name="output")(hidden))


x = random(2, 4)
outputs = {"inputs": x}
for name, make in (("mlp", mlp), ("shared_mlp", shared_mlp)):
    model = drawn(make(keras))
    model.save(HERE / f"keras_{name}.keras")
    model.save_weights(HERE / f"keras_{name}.weights.h5")
    outputs[f"keras_{name}"] = np.asarray(model(x))

    model = drawn(make(tf_keras))
    model.save_weights(HERE / f"keras2_{name}.h5")
    outputs[f"keras2_{name}"] = np.asarray(model(x))

model = drawn(mlp(tf_keras))
model.compile("adam", "mse")
model.fit(x, np.ones((2, 1)), verbose=0)
model.save(HERE / "keras2_model.h5", save_format="h5")
tf.train.Checkpoint(model=model).write(str(HERE / "tensorflow_mlp"))
model.save_weights(str(HERE / "tensorflow_weights"), save_format="tf")
(HERE / "checkpoint").unlink()
model.save(HERE / "saved_model", save_format="tf")
outputs["keras2_model"] = outputs["tensorflow_mlp"] = outputs["saved_model"] = np.asarray(model(x))
kept = HERE / "tensorflow_saved_model"
shutil.rmtree(kept, ignore_errors=True)
kept.mkdir()
shutil.move(HERE / "saved_model" / "variables", kept / "variables")
shutil.rmtree(HERE / "saved_model")

# -------------------------------------------------------------------- checkpoints of all kinds

KINDS = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
)
variables = {kind: tf.Variable(tf.cast(tf.reshape(tf.range(6), (2, 3)), kind)) for kind in KINDS}
variables |= {kind: tf.Variable(tf.constant([[1 + 2j, -3j]], kind)) for kind in ("complex64", "complex128")}
variables["bool"] = tf.Variable([True, False])
variables["text"] = tf.Variable(["one", "two"])
variables["scalar"] = tf.Variable(1.5)
variables["empty"] = tf.Variable(tf.zeros((0, 3)))
tf.train.Checkpoint(**variables).write(str(HERE / "tensorflow_dtypes"))

parts = []
for at, names in enumerate((["a", "shared/b"], ["c"])):
    parts.append(str(HERE / f"part{at}"))
    values = [tf.constant(np.full((2, 2), at + 1, "float32") + place) for place in range(len(names))]
    tf.raw_ops.SaveV2(prefix=parts[-1], tensor_names=names, shape_and_slices=[""] * len(names), tensors=values)
tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(HERE / "tensorflow_shards"))

tf.raw_ops.SaveV2(
    prefix=str(HERE / "tensorflow_slices"),
    tensor_names=["whole", "split", "split"],
    shape_and_slices=["", "4 2 0,2:0,2", "4 2 2,2:0,2"],
    tensors=[tf.ones(3), tf.constant([[0.0, 1], [2, 3]]), tf.constant([[4.0, 5], [6, 7]])],
)
np.savez(HERE / "tensorflow_outputs.npz", **outputs)
