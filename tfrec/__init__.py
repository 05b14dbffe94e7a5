"""Deep recommender models on TensorFlow and tf_keras.

Importing the package is cheap: TensorFlow is imported by the modules that need it.
"""

import os
import sys

# tensorflow-recommenders and tf.Transform are Keras 2 only, so the whole project is on tf_keras.
# The variable has to stand before anything touches tf.keras, whichever import comes first.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

if os.environ["TF_USE_LEGACY_KERAS"] not in ("1", "true", "True"):
    raise ImportError("tfrec needs Keras 2: unset TF_USE_LEGACY_KERAS, or set it to 1")
if "tensorflow" in sys.modules:
    _version = getattr(getattr(sys.modules["tensorflow"], "keras", None), "__version__", "2")
    if not str(_version).startswith("2"):
        raise ImportError(
            f"tf.keras is already Keras {_version}: set TF_USE_LEGACY_KERAS=1 in the environment, "
            "or import tfrec before tf.keras is first used"
        )

__version__ = "0.1.0"
