"""The datasets as TFDS builders, prepared without TensorFlow."""
