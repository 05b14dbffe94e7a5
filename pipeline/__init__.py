"""Raw events to training examples, with Apache Beam and tf.Transform."""
