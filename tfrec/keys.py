"""Keys of users and items, the same in the transform and wherever else raw names are looked up."""

from __future__ import annotations

import tensorflow as tf

from tfrec.features import ENDS_OF_LINES


def keys_of(texts: tf.Tensor) -> tf.Tensor:
    """Texts without the space around them, with a space for ends of lines."""
    return tf.strings.regex_replace(tf.strings.strip(texts), ENDS_OF_LINES, " ")
